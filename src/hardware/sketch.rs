//! Machines that are known by a few facts only.

use super::{Architecture, Cpu, CpuFeatures, Hardware, Memory, Topology};

impl Hardware {
    /// A machine of which no more is known than what it can execute, its cores (without SMT) and its bytes of memory,
    /// all of them free: for tests of choices, and for asking what another machine would do.
    pub fn sketch(architecture: Architecture, features: CpuFeatures, cores: u32, memory: u64) -> Self {
        Self {
            cpu: Cpu {
                architecture,
                vendor: "unknown".to_owned(),
                brand: "unknown".to_owned(),
                family: 0,
                model: 0,
                stepping: 0,
                microarchitecture: None,
                features,
            },
            topology: Topology { physical_cores: cores, logical_cpus: cores },
            memory: Memory { total: memory, available: memory },
        }
    }
}
