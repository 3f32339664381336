//! Decodes what operating systems say of an ARM processor.
//!
//! Linux: the auxiliary vector (Documentation/arch/arm64/elf_hwcaps.rst). macOS: `sysctl hw.optional.arm`. Elsewhere
//! the standard library asks. `/proc/cpuinfo` gives names only, never features: under an emulator it is the host's.

use super::{Architecture, ArmRegisters, Cpu, CpuFeature, CpuFeatures, Snapshot, microarchitecture};

/// Where Linux keeps the identity of a CPU; one file for each.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "recorded on Linux only"))]
pub(super) fn midr_path(cpu: u32) -> String {
    format!("/sys/devices/system/cpu/cpu{cpu}/regs/identification/midr_el1")
}

pub(super) const CPUINFO: &str = "/proc/cpuinfo";

pub(super) fn decode(snapshot: &Snapshot) -> Cpu {
    let mut cpu = Cpu::unknown(Architecture::Aarch64);
    if snapshot.os == "macos" {
        apple(snapshot, &mut cpu);
        return cpu;
    }
    if let Some(registers) = &snapshot.arm {
        cpu.features = cpu.features.iter().chain(features(registers).iter()).collect();
        cpu.sve_vector_bytes = registers.sve_vector_bytes.filter(|_| cpu.features.contains(CpuFeature::Sve));
    }
    if let Some(identity) = identity(snapshot) {
        identity.vendor().clone_into(&mut cpu.vendor);
        cpu.family = identity.implementer;
        cpu.model = identity.part;
        cpu.stepping = identity.revision;
        cpu.microarchitecture = microarchitecture::of_arm(identity.implementer, identity.part).map(str::to_owned);
        cpu.brand = [&cpu.vendor, cpu.microarchitecture.as_deref().unwrap_or_default()].join(" ").trim().to_owned();
    }
    cpu
}

/// Bits of `AT_HWCAP` and what they promise.
const HWCAP: &[(u64, CpuFeature)] = &[
    (1 << 7, CpuFeature::Crc),
    (1 << 8, CpuFeature::Lse),
    // FPHP and ASIMDHP: compilers emit both kinds under `+fp16`.
    (1 << 9 | 1 << 10, CpuFeature::Fp16),
    (1 << 12, CpuFeature::Rdm),
    (1 << 14, CpuFeature::Fcma),
    (1 << 20, CpuFeature::DotProd),
    (1 << 22, CpuFeature::Sve),
];

/// Bits of `AT_HWCAP2` and what they promise.
const HWCAP2: &[(u64, CpuFeature)] =
    &[(1 << 1, CpuFeature::Sve2), (1 << 13, CpuFeature::I8mm), (1 << 14, CpuFeature::Bf16), (1 << 23, CpuFeature::Sme)];

fn features(registers: &ArmRegisters) -> CpuFeatures {
    let of = |word: u64, bits: &'static [(u64, CpuFeature)]| {
        bits.iter().filter(move |(mask, _)| word & mask == *mask).map(|&(_, feature)| feature)
    };
    let named = registers.detected.iter().filter_map(|name| CpuFeature::from_name(name));
    of(registers.hwcap, HWCAP).chain(of(registers.hwcap2, HWCAP2)).chain(named).collect()
}

/// Names of `sysctl` and what they promise.
pub(super) const SYSCTL: &[(&str, CpuFeature)] = &[
    ("hw.optional.arm.FEAT_BF16", CpuFeature::Bf16),
    ("hw.optional.arm.FEAT_I8MM", CpuFeature::I8mm),
    ("hw.optional.arm.FEAT_SME", CpuFeature::Sme),
];

fn apple(snapshot: &Snapshot, cpu: &mut Cpu) {
    // What M1 has, every Mac with an ARM processor has, and Rust's own target for them assumes; older versions of
    // macOS lack the names to ask for it.
    let m1 =
        [CpuFeature::Lse, CpuFeature::Rdm, CpuFeature::Crc, CpuFeature::Fcma, CpuFeature::DotProd, CpuFeature::Fp16];
    let newer = SYSCTL.iter().filter(|(name, _)| snapshot.sysctl_number(name) == Some(1)).map(|&(_, feature)| feature);
    cpu.features = cpu.features.iter().chain(m1).chain(newer).collect();
    "Apple".clone_into(&mut cpu.vendor);
    if let Some(brand) = snapshot.sysctl.get("machdep.cpu.brand_string") {
        brand.trim().clone_into(&mut cpu.brand);
        cpu.microarchitecture = microarchitecture::of_apple(&cpu.brand).map(str::to_owned);
    }
    cpu.hypervisor = snapshot.sysctl_number("kern.hv_vmm_present") == Some(1);
    cpu.family = 0x61;
}

/// Implementer, part and revision of a processor: the fields of MIDR_EL1.
#[derive(Debug, Clone, Copy)]
struct Identity {
    implementer: u32,
    part: u32,
    revision: u32,
}

impl Identity {
    fn from_midr(midr: u64) -> Self {
        let field = |shift: u32, bits: u32| (midr >> shift & ((1 << bits) - 1)) as u32;
        Self { implementer: field(24, 8), part: field(4, 12), revision: field(20, 4) << 4 | field(0, 4) }
    }

    fn vendor(self) -> &'static str {
        microarchitecture::arm_implementer(self.implementer).unwrap_or_default()
    }
}

/// Of the fastest kind of core, when there are several: threads run there.
fn identity(snapshot: &Snapshot) -> Option<Identity> {
    let recorded = snapshot.files.iter().filter_map(|(path, text)| {
        let cpu = path.strip_prefix("/sys/devices/system/cpu/cpu")?.strip_suffix("/regs/identification/midr_el1")?;
        let midr = u64::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()?;
        let capacity = super::topology::capacity(snapshot, cpu.parse().ok()?);
        Some((capacity, midr))
    });
    recorded.max_by_key(|&(capacity, _)| capacity).map(|(_, midr)| Identity::from_midr(midr)).or_else(|| {
        let cpuinfo = snapshot.text(CPUINFO)?;
        let field = |name: &str| {
            let line = cpuinfo.lines().find_map(|line| line.strip_prefix(name))?;
            let value = line.trim_start().strip_prefix(':')?.trim();
            match value.strip_prefix("0x") {
                Some(digits) => u32::from_str_radix(digits, 16).ok(),
                None => value.parse().ok(),
            }
        };
        let (variant, revision) = (field("CPU variant").unwrap_or(0), field("CPU revision").unwrap_or(0));
        Some(Identity {
            implementer: field("CPU implementer")?,
            part: field("CPU part")?,
            revision: (variant & 0xf) << 4 | revision & 0xf,
        })
    })
}
