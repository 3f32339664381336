//! Decodes CPUID and XCR0.
//!
//! A feature counts only when the operating system saves the registers that its instructions use: CPUID says what
//! the silicon has, and an AVX instruction under a kernel that does not save YMM is still an illegal instruction.
//! Intel SDM volume 1, chapter 14.3 (AVX), 15.2 (AVX-512), 18.3 (AMX).

use raw_cpuid::{CpuId, CpuIdReader, CpuIdResult};

use super::{Architecture, Cpu, CpuFeature, CpuFeatures, Snapshot, X86Registers, microarchitecture};

pub(super) fn decode(snapshot: &Snapshot) -> Cpu {
    let mut cpu = Cpu::unknown(Architecture::X86_64);
    let Some(registers) = &snapshot.x86 else { return cpu };
    let cpuid = cpuid(registers);
    if let Some(vendor) = cpuid.get_vendor_info() {
        vendor.as_str().clone_into(&mut cpu.vendor);
    }
    if let Some(brand) = cpuid.get_processor_brand_string() {
        // Some are padded in front, and some have runs of blanks inside.
        cpu.brand = brand.as_str().split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(info) = cpuid.get_feature_info() {
        cpu.family = info.family_id().into();
        cpu.model = info.model_id().into();
        cpu.stepping = info.stepping_id().into();
        cpu.hypervisor = info.has_hypervisor();
    }
    cpu.microarchitecture =
        microarchitecture::of_x86(&cpu.vendor, cpu.family, cpu.model, cpu.stepping).map(str::to_owned);
    cpu.max_frequency_mhz = cpuid
        .get_processor_frequency_info()
        .map(|frequency| u32::from(frequency.processor_max_frequency()))
        .filter(|&mhz| mhz > 0);
    cpu.features = features(registers, SavedState::new(snapshot, registers));
    cpu
}

/// Threads of a core, where no file of the operating system says it: leaf 0xB (Intel, and AMD from Zen 2), else
/// 0x8000_001E (AMD).
pub(super) fn threads_per_core(registers: &X86Registers) -> Option<u32> {
    let [_, threads, level, _] = answer(registers, 0xb, 0);
    if level >> 8 & 0xff == 1 && threads & 0xffff > 0 {
        return Some(threads & 0xffff);
    }
    let [_, unit, _, _] = answer(registers, 0x8000_001e, 0);
    (unit != 0).then(|| (unit >> 8 & 0xff) + 1)
}

/// CPUID as it was recorded, behind the decoder.
pub(super) fn cpuid(registers: &X86Registers) -> CpuId<impl CpuIdReader> {
    CpuId::with_cpuid_reader(|leaf, subleaf| {
        let [eax, ebx, ecx, edx] = answer(registers, leaf, subleaf);
        CpuIdResult { eax, ebx, ecx, edx }
    })
}

/// What CPUID answered. Leaves that were not recorded are zero, as on a processor that does not have them.
fn answer(registers: &X86Registers, leaf: u32, subleaf: u32) -> [u32; 4] {
    let recorded = registers.cpuid.iter().find(|entry| entry.leaf == leaf && entry.subleaf == subleaf);
    recorded.map_or([0; 4], |entry| entry.registers)
}

/// Which registers survive a switch to another program.
#[derive(Debug, Clone, Copy)]
struct SavedState {
    ymm: bool,
    zmm: bool,
    tiles: bool,
}

impl SavedState {
    fn new(snapshot: &Snapshot, registers: &X86Registers) -> Self {
        const YMM: u64 = 1 << 1 | 1 << 2;
        const ZMM: u64 = YMM | 1 << 5 | 1 << 6 | 1 << 7;
        const TILES: u64 = 1 << 17 | 1 << 18;
        let xcr0 = registers.xcr0.unwrap_or(0);
        let saves = |state: u64| xcr0 & state == state;
        Self {
            ymm: saves(YMM),
            // macOS sets the bits when a thread first uses AVX-512, and always does so then.
            zmm: saves(ZMM) || saves(YMM) && snapshot.os == "macos",
            // Linux wants to be asked on top of it: a thread's first tile without permission is a SIGILL.
            tiles: saves(TILES) && registers.amx_permitted,
        }
    }
}

fn features(registers: &X86Registers, saved: SavedState) -> CpuFeatures {
    use CpuFeature::*;

    let cpuid = cpuid(registers);
    let mut features = CpuFeatures::from_iter([Sse2]);
    let mut add = |feature: CpuFeature, present: bool| {
        if present {
            features.insert(feature);
        }
    };
    // Without OSXSAVE the recorded XCR0 is not the operating system's word, whatever it says.
    let Some(info) = cpuid.get_feature_info() else { return features };
    let ymm = saved.ymm && info.has_oxsave();
    let zmm = saved.zmm && info.has_oxsave();
    let tiles = saved.tiles && info.has_oxsave();

    add(Sse3, info.has_sse3());
    add(Ssse3, info.has_ssse3());
    add(Sse41, info.has_sse41());
    add(Sse42, info.has_sse42());
    add(Popcnt, info.has_popcnt());
    let avx = ymm && info.has_avx();
    add(Avx, avx);
    add(F16c, avx && info.has_f16c());
    add(Fma, avx && info.has_fma());
    let extended = cpuid.get_extended_processor_and_feature_identifiers();
    add(Lzcnt, extended.is_some_and(|extended| extended.has_lzcnt()));

    let Some(info) = cpuid.get_extended_feature_info() else { return features };
    add(Bmi1, info.has_bmi1());
    add(Bmi2, info.has_bmi2());
    let avx2 = avx && info.has_avx2();
    add(Avx2, avx2);
    add(AvxVnni, avx2 && info.has_avx_vnni());

    // A processor with AVX10 at 512 bits executes all of these, whether it lists them or not.
    let avx10 = zmm && avx2 && info.has_avx10() && avx10_at_512_bits(registers);
    let avx512 = avx10 || zmm && avx2 && info.has_avx512f();
    add(Avx512f, avx512);
    add(Avx512cd, avx512 && (avx10 || info.has_avx512cd()));
    add(Avx512vl, avx512 && (avx10 || info.has_avx512vl()));
    add(Avx512dq, avx512 && (avx10 || info.has_avx512dq()));
    add(Avx512bw, avx512 && (avx10 || info.has_avx512bw()));
    add(Avx512vbmi, avx512 && (avx10 || info.has_avx512vbmi()));
    add(Avx512vnni, avx512 && (avx10 || info.has_avx512vnni()));
    add(Avx512bf16, avx512 && (avx10 || info.has_avx512_bf16()));

    let tile = tiles && info.has_amx_tile();
    add(AmxTile, tile);
    add(AmxInt8, tile && info.has_amx_int8());
    add(AmxBf16, tile && info.has_amx_bf16());
    features
}

/// Leaf 0x24 of the AVX10 specification: EBX has the version in its low byte, and bit 18 for 512-bit vectors.
fn avx10_at_512_bits(registers: &X86Registers) -> bool {
    let [_, ebx, _, _] = answer(registers, 0x24, 0);
    ebx & 0xff >= 1 && ebx & 1 << 18 != 0
}
