//! How many threads to compute with, and on which CPUs.

use std::num::NonZeroU32;

use super::topology::{Core, CoreKind, Topology};

/// Where to compute, and why there.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ThreadPlan {
    /// Threads.
    pub threads: NonZeroU32,
    /// One CPU for each thread, for whoever wants to pin them. Contexts only keep to performance cores:
    /// [`Topology::performance_cpus`].
    pub cpus: Vec<u32>,
    /// How it came to this number, for people.
    pub reason: String,
}

impl ThreadPlan {
    /// One thread for each performance core that the process may use, within its quota rounded down.
    ///
    /// * A core counts once: its second thread shares the vector units that the first one already fills.
    /// * Efficiency cores are left out where there are performance cores to use: all threads meet at a barrier after
    ///   every matrix, so that the slowest core sets the pace of all (llama.cpp#842, llama.cpp#27033).
    /// * A quota is never rounded up: the thread too many is stopped for the rest of every period, at the same
    ///   barriers (ollama#17916: 0.27 instead of 12 tokens a second).
    pub(super) fn new(topology: &Topology) -> Self {
        let usable: Vec<(&Core, u32)> =
            topology.cores.iter().filter_map(|core| Some((core, topology.first_allowed(core)?))).collect();
        let fast: Vec<_> = usable.iter().filter(|(core, _)| core.kind == CoreKind::Performance).collect();
        let chosen: Vec<u32> = if fast.is_empty() {
            usable.iter().map(|&(_, cpu)| cpu).collect()
        } else {
            fast.iter().map(|&&(_, cpu)| cpu).collect()
        };
        let mut reason = describe(topology, usable.len(), fast.len());
        let mut threads = chosen.len().max(1);
        if let Some(quota) = topology.cpu_quota {
            // `as` saturates, so that an absurd quota is no limit.
            let within = (quota.floor() as usize).max(1);
            if within < threads {
                threads = within;
                reason.push_str(&format!("; a quota of {quota:.2} CPUs leaves {threads}"));
            }
        }
        let cpus: Vec<u32> = chosen.into_iter().take(threads).collect();
        let threads = u32::try_from(threads).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        Self { threads, cpus, reason }
    }
}

fn describe(topology: &Topology, usable: usize, fast: usize) -> String {
    let mut reason = match (fast, usable - fast) {
        (0, 0) => return "no core is known".to_owned(),
        (0, slow) => count(slow, "efficiency core"),
        (fast, 0) => count(fast, "core"),
        (fast, slow) => {
            format!("{} ({} left out)", count(fast, "performance core"), count(slow, "efficiency core"))
        }
    };
    let forbidden = topology.cores.len() - usable;
    if forbidden > 0 {
        reason.push_str(&format!("; the process may not use {forbidden} more"));
    }
    reason
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
