//! Machines that are known by a few facts only.

use super::{Architecture, Core, CoreKind, Cpu, CpuFeatures, Hardware, Memory, Topology};

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
                hypervisor: false,
                max_frequency_mhz: None,
                sve_vector_bytes: None,
                features,
            },
            topology: Topology {
                physical_cores: cores,
                logical_cpus: cores,
                cores: (0..cores)
                    .map(|cpu| Core { cpus: vec![cpu], kind: CoreKind::Performance, package: 0 })
                    .collect(),
                caches: Vec::new(),
                numa_nodes: Vec::new(),
                allowed_cpus: (0..cores).collect(),
                cpu_quota: None,
            },
            memory: Memory { total: Some(memory), available: Some(memory), limit: None },
        }
    }
}
