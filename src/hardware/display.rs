//! The summary of a machine for people: one line each for the processor, its features, the cores and the memory.

use std::fmt::{self, Display, Formatter};

use super::{Architecture, Cache, CacheKind, CoreKind, Cpu, Hardware, Memory, Topology};

impl Display for Hardware {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.cpu)?;
        let features: Vec<&str> = self.cpu.features.iter().map(|feature| feature.name()).collect();
        writeln!(formatter, "features: {}", features.join(" "))?;
        writeln!(formatter, "{}", self.topology)?;
        let plan = self.thread_plan();
        writeln!(formatter, "threads by default: {} ({})", plan.threads, plan.reason)?;
        write!(formatter, "{}", self.memory)
    }
}

impl Display for Cpu {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let name = [&self.brand, &self.vendor].into_iter().find(|name| !name.is_empty());
        formatter.write_str(name.map_or("unknown processor", |name| name))?;
        let microarchitecture = self.microarchitecture.as_deref().filter(|&known| !self.brand.contains(known));
        let numbers = match self.architecture {
            Architecture::X86_64 if self.family > 0 => {
                Some(format!("family {:#x} model {:#x} stepping {}", self.family, self.model, self.stepping))
            }
            Architecture::Aarch64 if self.model > 0 => {
                Some(format!("implementer {:#x} part {:#x}", self.family, self.model))
            }
            _ => None,
        };
        let vectors = self.sve_vector_bytes.map(|bytes| format!("SVE of {} bits", bytes.saturating_mul(8)));
        let clock = self.max_frequency_mhz.map(|mhz| format!("up to {mhz} MHz"));
        let virtual_machine = self.hypervisor.then(|| "virtual machine".to_owned());
        let details = [microarchitecture.map(str::to_owned), numbers, vectors, clock, virtual_machine];
        for detail in details.into_iter().flatten() {
            write!(formatter, ", {detail}")?;
        }
        Ok(())
    }
}

impl Display for Topology {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let efficient = self.cores_of(CoreKind::Efficiency).count();
        if efficient > 0 {
            let fast = self.cores_of(CoreKind::Performance).count();
            write!(formatter, "{fast} performance and {efficient} efficiency cores")?;
        } else {
            write!(formatter, "{} cores", self.physical_cores)?;
        }
        write!(formatter, ", {} hardware threads", self.logical_cpus)?;
        if self.numa_nodes.len() > 1 {
            write!(formatter, ", {} NUMA nodes", self.numa_nodes.len())?;
        }
        for cache in self.caches.iter().filter(|cache| cache.kind != CacheKind::Instruction) {
            write!(formatter, ", {cache}")?;
        }
        if self.allowed_cpus.len() < self.logical_cpus as usize {
            write!(formatter, "; {} allowed", self.allowed_cpus.len())?;
        }
        match self.cpu_quota {
            Some(quota) => write!(formatter, "; quota of {quota:.2} CPUs"),
            None => Ok(()),
        }
    }
}

impl Display for Cache {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            CacheKind::Data => "d",
            CacheKind::Instruction => "i",
            CacheKind::Unified => "",
        };
        write!(formatter, "L{}{kind} {}", self.level, Bytes(self.bytes))
    }
}

impl Display for Memory {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match (self.available, self.total) {
            (Some(available), Some(total)) => {
                write!(formatter, "memory: {} available of {}", Bytes(available), Bytes(total))?;
            }
            _ => formatter.write_str("memory: not known")?,
        }
        match self.limit {
            Some(_) => formatter.write_str(", limited by the control group"),
            None => Ok(()),
        }
    }
}

/// A number of bytes in the largest binary unit that leaves at least one.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match UNITS.into_iter().find(|&(shift, _)| self.0 >> shift > 0) {
            Some((shift, unit)) => {
                let tenths = (u128::from(self.0) * 10) >> shift;
                match tenths % 10 {
                    0 => write!(formatter, "{} {unit}", tenths / 10),
                    tenth => write!(formatter, "{}.{tenth} {unit}", tenths / 10),
                }
            }
            None => write!(formatter, "{} bytes", self.0),
        }
    }
}
