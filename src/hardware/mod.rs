//! What this machine is: CPU features with operating-system support, topology, memory with cgroup limits.
//!
//! [`Hardware::detect`] reads the machine; every part can also be built from recorded data, so that the choices for
//! other machines are tests.

mod feature;
mod sketch;

pub use feature::{CpuFeature, CpuFeatures};

/// A machine, as far as it matters for choosing how to run a model.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Hardware {
    /// The processor.
    pub cpu: Cpu,
    /// Cores, threads, caches and what this process may use of them.
    pub topology: Topology,
    /// Memory, with cgroup limits.
    pub memory: Memory,
}

/// A processor model and what it can execute.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Cpu {
    /// The instruction set family that this program was built for.
    pub architecture: Architecture,
    /// Vendor, e.g. `AuthenticAMD`, `GenuineIntel`, `ARM`, `Apple`.
    pub vendor: String,
    /// Marketing name, e.g. `AMD EPYC 9R14`.
    pub brand: String,
    /// Family, model and stepping (x86), or implementer, part and revision (aarch64).
    pub family: u32,
    /// See `family`.
    pub model: u32,
    /// See `family`.
    pub stepping: u32,
    /// The microarchitecture's name, e.g. `Zen 4`, when known.
    pub microarchitecture: Option<String>,
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

/// Cores, threads and caches.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Topology {
    /// Physical cores of the machine.
    pub physical_cores: u32,
    /// Hardware threads of the machine.
    pub logical_cpus: u32,
}

/// Memory that this process can use.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Memory {
    /// Bytes of RAM, or the cgroup's limit where that is lower.
    pub total: u64,
    /// Bytes that can be allocated without swapping, within the cgroup's limit.
    pub available: u64,
}
