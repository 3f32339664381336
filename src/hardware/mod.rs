//! What this machine is: CPU features with operating-system support, topology, memory with cgroup limits.
//!
//! [`Hardware::detect`] is two steps: [`Snapshot::record`] reads the raw facts, and [`Hardware::from_snapshot`]
//! decodes them. Decoding is pure, so that the choices for other machines are tests; only recording has unsafe code.
//!
//! What cannot be read is absent and never an error: a program that is told less about its machine must still run.

mod arm;
mod cache;
mod cgroup;
mod cpu;
mod cpu_list;
mod display;
mod feature;
mod memory;
mod microarchitecture;
mod record;
mod sketch;
mod snapshot;
mod threads;
mod topology;
mod x86;

pub use cache::{Cache, CacheKind};
pub use cpu::{Architecture, Cpu};
pub use feature::{CpuFeature, CpuFeatures};
pub use memory::Memory;
pub use snapshot::{ArmRegisters, CpuidLeaf, CpuidLeafError, MemoryStatus, Snapshot, X86Registers};
pub use threads::ThreadPlan;
pub use topology::{Core, CoreKind, NumaNode, Topology};

/// A machine, as far as it matters for choosing how to run a model.
///
/// ```
/// let hardware = gguf_loader::hardware::Hardware::detect();
/// println!("{hardware}");
/// assert!(hardware.default_threads().get() <= hardware.topology.physical_cores);
/// ```
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

impl Hardware {
    /// Looks at this machine; takes about a millisecond.
    ///
    /// Where the processor has AMX, this asks Linux for the process's permission to use it.
    pub fn detect() -> Self {
        Self::from_snapshot(&Snapshot::record())
    }

    /// Decodes recorded facts. Pure: the same snapshot gives the same machine anywhere.
    pub fn from_snapshot(snapshot: &Snapshot) -> Self {
        Self { cpu: Cpu::decode(snapshot), topology: Topology::decode(snapshot), memory: Memory::decode(snapshot) }
    }

    /// How many threads to compute with when nobody says otherwise; see [`thread_plan`](Self::thread_plan).
    pub fn default_threads(&self) -> std::num::NonZeroU32 {
        self.thread_plan().threads
    }

    /// Threads, their CPUs, and the reasons: one thread for each performance core that the process may use, within
    /// its quota rounded down, at least one.
    pub fn thread_plan(&self) -> ThreadPlan {
        ThreadPlan::new(&self.topology)
    }
}
