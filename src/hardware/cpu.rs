//! The processor model and what it can execute.

use super::{CpuFeature, CpuFeatures, Snapshot, arm, topology, x86};

/// A processor model and what it can execute.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Cpu {
    /// The instruction set family that this program was built for.
    pub architecture: Architecture,
    /// Vendor, e.g. `AuthenticAMD`, `GenuineIntel`, `ARM`, `Apple`. Empty when not known.
    pub vendor: String,
    /// Marketing name, e.g. `AMD EPYC 9R14`. Empty when not known.
    pub brand: String,
    /// Family, model and stepping (x86), or implementer, part and revision (aarch64).
    pub family: u32,
    /// See `family`.
    pub model: u32,
    /// See `family`.
    pub stepping: u32,
    /// The microarchitecture's name, e.g. `Zen 4`, when known.
    pub microarchitecture: Option<String>,
    /// Whether a hypervisor says that it is there: the machine is virtual, and features may be hidden.
    pub hypervisor: bool,
    /// Highest clock rate in MHz, when the processor or the operating system says it.
    pub max_frequency_mhz: Option<u32>,
    /// Bytes of an SVE register, where there is SVE.
    pub sve_vector_bytes: Option<u32>,
    /// What it can execute, with the operating system's support taken into account.
    pub features: CpuFeatures,
}

/// Instruction set family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
    /// Anything else: no tiers, pure Rust only.
    Other,
}

/// Where Linux keeps the highest clock rate of a CPU, in kHz.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "recorded on Linux only"))]
pub(super) fn frequency_path(cpu: u32) -> String {
    topology::cpu_path(cpu, "cpufreq/cpuinfo_max_freq")
}

fn max_frequency_mhz(snapshot: &Snapshot) -> Option<u32> {
    let recorded = |path: &String| path.ends_with("/cpufreq/cpuinfo_max_freq");
    let linux = snapshot.files.keys().filter(|path| recorded(path)).filter_map(|path| snapshot.number(path)).max();
    let hertz = linux.map(|khz| khz.saturating_mul(1000)).or_else(|| snapshot.sysctl_number("hw.cpufrequency_max"));
    u32::try_from(hertz? / 1_000_000).ok().filter(|&mhz| mhz > 0)
}

impl Architecture {
    /// The one that this program was built for.
    pub const HERE: Self = if cfg!(target_arch = "x86_64") {
        Self::X86_64
    } else if cfg!(target_arch = "aarch64") {
        Self::Aarch64
    } else {
        Self::Other
    };

    /// The name in `cfg(target_arch)`; `None` for [`Other`](Self::Other).
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::X86_64 => Some("x86_64"),
            Self::Aarch64 => Some("aarch64"),
            Self::Other => None,
        }
    }
}

impl Cpu {
    pub(super) fn decode(snapshot: &Snapshot) -> Self {
        let mut cpu = match snapshot.architecture {
            Architecture::X86_64 => x86::decode(snapshot),
            Architecture::Aarch64 => arm::decode(snapshot),
            Architecture::Other => Self::unknown(Architecture::Other),
        };
        cpu.max_frequency_mhz = max_frequency_mhz(snapshot).or(cpu.max_frequency_mhz);
        cpu
    }

    /// Nothing but what the architecture guarantees.
    pub(super) fn unknown(architecture: Architecture) -> Self {
        let baseline = match architecture {
            Architecture::X86_64 => Some(CpuFeature::Sse2),
            Architecture::Aarch64 => Some(CpuFeature::Neon),
            Architecture::Other => None,
        };
        Self {
            architecture,
            vendor: String::new(),
            brand: String::new(),
            family: 0,
            model: 0,
            stepping: 0,
            microarchitecture: None,
            hypervisor: false,
            max_frequency_mhz: None,
            sve_vector_bytes: None,
            features: baseline.into_iter().collect(),
        }
    }
}
