//! Cores, hardware threads, caches and NUMA nodes, and what of them this process may use.

use std::collections::BTreeSet;

use super::cache::{self, Cache};
use super::{Snapshot, cgroup, x86};

/// Cores, threads and caches.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Topology {
    /// Physical cores of the machine.
    pub physical_cores: u32,
    /// Hardware threads of the machine.
    pub logical_cpus: u32,
    /// The cores, by package and then by their first CPU.
    pub cores: Vec<Core>,
    /// The caches that one core sees, the first performance core where cores differ.
    pub caches: Vec<Cache>,
    /// The NUMA nodes that have CPUs; empty when the operating system does not say.
    pub numa_nodes: Vec<NumaNode>,
    /// The CPUs that the process may run on.
    pub allowed_cpus: Vec<u32>,
    /// The CPU time that the process's control groups allow, in CPUs; `None` without a limit.
    pub cpu_quota: Option<f64>,
}

/// A physical core.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Core {
    /// Its hardware threads, as the operating system numbers CPUs.
    pub cpus: Vec<u32>,
    /// Which kind, on machines with two.
    pub kind: CoreKind,
    /// The processor package (socket) that it is in.
    pub package: u32,
}

/// Kind of core. Where all cores are alike, all are [`Performance`](Self::Performance).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CoreKind {
    /// Built for speed.
    Performance,
    /// Built for efficiency: at most six tenths as fast.
    Efficiency,
}

/// Memory and the CPUs that are next to it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct NumaNode {
    /// The operating system's number.
    pub id: u32,
    /// CPUs of the node.
    pub cpus: Vec<u32>,
}

pub(super) const ONLINE: &str = "/sys/devices/system/cpu/online";
pub(super) const NODES: &str = "/sys/devices/system/node/online";
/// The CPUs of a hybrid Intel processor's efficiency cores: the performance counters of the two kinds differ.
pub(super) const ATOM: &str = "/sys/devices/cpu_atom/cpus";

/// A file about one CPU.
pub(super) fn cpu_path(cpu: u32, file: &str) -> String {
    format!("/sys/devices/system/cpu/cpu{cpu}/{file}")
}

/// A file about one NUMA node.
pub(super) fn node_path(node: u32) -> String {
    format!("/sys/devices/system/node/node{node}/cpulist")
}

/// The files that name the threads of a CPU's core, the newer first.
pub(super) const SIBLINGS: [&str; 2] = ["topology/core_cpus_list", "topology/thread_siblings_list"];
pub(super) const PACKAGE: &str = "topology/physical_package_id";
pub(super) const CAPACITY: &str = "cpu_capacity";

/// How fast a CPU is, where 1024 is the fastest of the machine; 0 when not known.
pub(super) fn capacity(snapshot: &Snapshot, cpu: u32) -> u64 {
    snapshot.number(&cpu_path(cpu, CAPACITY)).unwrap_or(0)
}

impl Topology {
    pub(super) fn decode(snapshot: &Snapshot) -> Self {
        let (online, mut cores) = match macos(snapshot) {
            Some(cores) => (cores.iter().flat_map(|core| core.cpus.clone()).collect(), cores),
            None => {
                let online = online(snapshot);
                let cores = cores(snapshot, &online);
                (online, cores)
            }
        };
        // A machine of efficiency cores only is a machine of one kind.
        if cores.iter().all(|core| core.kind == CoreKind::Efficiency) {
            cores.iter_mut().for_each(|core| core.kind = CoreKind::Performance);
        }
        cores.sort_by_key(|core| (core.package, core.cpus.first().copied()));
        let mut topology = Self {
            physical_cores: cores.len() as u32,
            logical_cpus: online.len() as u32,
            cores,
            caches: Vec::new(),
            numa_nodes: numa_nodes(snapshot),
            allowed_cpus: allowed(snapshot, &online),
            cpu_quota: cgroup::cpu_quota(snapshot),
        };
        topology.caches = cache::decode(snapshot, topology.fastest_cpu());
        topology
    }

    /// Cores of one kind.
    pub fn cores_of(&self, kind: CoreKind) -> impl Iterator<Item = &Core> {
        self.cores.iter().filter(move |core| core.kind == kind)
    }

    /// The CPUs that `threads` threads should keep to: those of the performance cores, where the process may use others too
    /// and these suffice. `None` where the system's scheduler needs no help.
    pub fn performance_cpus(&self, threads: u32) -> Option<Vec<u32>> {
        let usable = |kind| self.cores_of(kind).filter(|core| self.first_allowed(core).is_some());
        if usable(CoreKind::Efficiency).next().is_none() || usable(CoreKind::Performance).count() < threads as usize {
            return None;
        }
        let allowed = |cpu: &u32| self.allowed_cpus.binary_search(cpu).is_ok();
        let cpus: Vec<u32> =
            usable(CoreKind::Performance).flat_map(|core| core.cpus.iter().copied()).filter(allowed).collect();
        (!cpus.is_empty()).then_some(cpus)
    }

    /// The first CPU of the first performance core: the one that stands for all where one is looked at.
    pub(super) fn fastest_cpu(&self) -> u32 {
        self.cores_of(CoreKind::Performance).find_map(|core| core.cpus.first().copied()).unwrap_or(0)
    }

    /// The first of a core's CPUs that the process may run on.
    pub(super) fn first_allowed(&self, core: &Core) -> Option<u32> {
        core.cpus.iter().copied().find(|cpu| self.allowed_cpus.binary_search(cpu).is_ok())
    }
}

/// The CPUs that are switched on.
fn online(snapshot: &Snapshot) -> Vec<u32> {
    let counted = || snapshot.logical_cpus.map(|count| (0..count.min(super::cpu_list::MOST_CPUS)).collect());
    snapshot
        .cpus(ONLINE)
        .or_else(counted)
        .or_else(|| snapshot.affinity.clone())
        .filter(|cpus| !cpus.is_empty())
        .unwrap_or_else(|| vec![0])
}

fn allowed(snapshot: &Snapshot, online: &[u32]) -> Vec<u32> {
    let Some(affinity) = &snapshot.affinity else { return online.to_vec() };
    let allowed: Vec<u32> = online.iter().copied().filter(|cpu| affinity.contains(cpu)).collect();
    if allowed.is_empty() { online.to_vec() } else { allowed }
}

fn cores(snapshot: &Snapshot, online: &[u32]) -> Vec<Core> {
    // Without files, threads of a core are taken to be neighbours.
    let threads = snapshot.x86.as_ref().and_then(x86::threads_per_core).unwrap_or(1);
    let atoms = atoms(snapshot, online);
    let mut seen: BTreeSet<u32> = BTreeSet::new();
    let mut cores = Vec::new();
    for &cpu in online {
        if seen.contains(&cpu) {
            continue;
        }
        let listed = SIBLINGS.iter().find_map(|file| snapshot.cpus(&cpu_path(cpu, file)));
        let siblings = listed.unwrap_or_else(|| {
            let first = cpu - cpu % threads;
            (first..first.saturating_add(threads)).collect()
        });
        let mut cpus: Vec<u32> = siblings
            .into_iter()
            .filter(|sibling| online.binary_search(sibling).is_ok() && !seen.contains(sibling))
            .collect();
        if !cpus.contains(&cpu) {
            cpus = vec![cpu];
        }
        seen.extend(&cpus);
        let kind = if atoms.contains(&cpu) { CoreKind::Efficiency } else { CoreKind::Performance };
        let package = snapshot.number(&cpu_path(cpu, PACKAGE)).and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
        cores.push(Core { cpus, kind, package });
    }
    cores
}

/// The CPUs of efficiency cores: as the kernel sorts them, else as CPUID does, else by their capacity.
///
/// Cores that differ in little but their clock (the dense ones of Zen 5, the middle ones of a phone) run at two thirds
/// of the fastest and more, and count as performance cores; the small ones run at half or less.
fn atoms(snapshot: &Snapshot, online: &[u32]) -> BTreeSet<u32> {
    const ATOM_TYPE: u32 = 0x20;
    if let Some(atoms) = snapshot.cpus(ATOM) {
        return atoms.into_iter().collect();
    }
    let types = snapshot.x86.as_ref().map(|registers| &registers.core_types);
    if let Some(types) = types.filter(|types| !types.is_empty()) {
        return types.iter().filter(|&(_, eax)| eax >> 24 == ATOM_TYPE).map(|(&cpu, _)| cpu).collect();
    }
    let capacities: Vec<(u32, u64)> = online.iter().map(|&cpu| (cpu, capacity(snapshot, cpu))).collect();
    let most = capacities.iter().map(|&(_, capacity)| capacity).max().unwrap_or(0);
    let slow = |capacity: u64| capacity > 0 && capacity.saturating_mul(10) < most.saturating_mul(6);
    capacities.into_iter().filter(|&(_, capacity)| slow(capacity)).map(|(cpu, _)| cpu).collect()
}

/// macOS counts cores by level of performance, the fastest first, and has no numbers for CPUs: they are numbered here.
fn macos(snapshot: &Snapshot) -> Option<Vec<Core>> {
    let count = |name: &str| {
        let count = snapshot.sysctl_number(name)?.min(super::cpu_list::MOST_CPUS.into());
        u32::try_from(count).ok()
    };
    let physical = count("hw.physicalcpu")?;
    let threads = (count("hw.logicalcpu").unwrap_or(physical) / physical.max(1)).max(1);
    let fast = count("hw.perflevel0.physicalcpu").unwrap_or(physical);
    let core = |index: u32| Core {
        cpus: (index * threads..(index + 1) * threads).collect(),
        kind: if index < fast { CoreKind::Performance } else { CoreKind::Efficiency },
        package: 0,
    };
    Some((0..physical).map(core).collect())
}

fn numa_nodes(snapshot: &Snapshot) -> Vec<NumaNode> {
    let nodes = snapshot.cpus(NODES).unwrap_or_default();
    nodes.into_iter().filter_map(|id| Some(NumaNode { id, cpus: snapshot.cpus(&node_path(id))? })).collect()
}
