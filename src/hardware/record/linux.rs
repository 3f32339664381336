//! Files of `/proc` and `/sys`, the affinity mask, and the auxiliary vector.

use std::collections::BTreeSet;
use std::fs;

use crate::hardware::topology::{self, Topology};
use crate::hardware::{Architecture, Snapshot, arm, cache, cgroup, cpu, memory};

pub(super) fn record(snapshot: &mut Snapshot) {
    snapshot.affinity = affinity();
    read(snapshot, memory::MEMINFO);
    cores(snapshot);
    let fastest = Topology::decode(snapshot).fastest_cpu();
    for index in 0..cache::MOST_CACHES {
        // The numbers have no gaps.
        if !cache::PROPERTIES.iter().all(|property| read(snapshot, &cache::path(fastest, index, property))) {
            break;
        }
    }
    read(snapshot, &cpu::frequency_path(fastest));
    if read(snapshot, topology::NODES) {
        for node in snapshot.cpus(topology::NODES).unwrap_or_default() {
            read(snapshot, &topology::node_path(node));
        }
    }
    cgroups(snapshot);
    // Reading it is slow on x86, where CPUID says more.
    if snapshot.architecture == Architecture::Aarch64 && !read(snapshot, &arm::midr_path(fastest)) {
        read(snapshot, arm::CPUINFO);
    }
    #[cfg(target_arch = "aarch64")]
    {
        snapshot.arm = Some(auxiliary_vector());
    }
}

/// Takes a file into the snapshot. Says whether it could be read.
fn read(snapshot: &mut Snapshot, path: &str) -> bool {
    let Ok(text) = fs::read_to_string(path) else { return false };
    snapshot.files.insert(path.to_owned(), text);
    true
}

/// The files of every core; those of one of its CPUs are enough.
fn cores(snapshot: &mut Snapshot) {
    read(snapshot, topology::ONLINE);
    read(snapshot, topology::ATOM);
    let mut seen = BTreeSet::new();
    for cpu in snapshot.cpus(topology::ONLINE).unwrap_or_default() {
        if seen.contains(&cpu) {
            continue;
        }
        let siblings = topology::SIBLINGS.map(|file| topology::cpu_path(cpu, file));
        if let Some(path) = siblings.iter().find(|path| read(snapshot, path)) {
            seen.extend(snapshot.cpus(path).unwrap_or_default());
        }
        read(snapshot, &topology::cpu_path(cpu, topology::PACKAGE));
        read(snapshot, &topology::cpu_path(cpu, topology::CAPACITY));
    }
}

/// The files of every group above the process that may limit it.
fn cgroups(snapshot: &mut Snapshot) {
    let Ok(mounts) = fs::read_to_string(cgroup::MOUNTS) else { return };
    // Only these, so that a snapshot in an issue does not tell of its user's disks.
    let lines = mounts.lines().filter(|line| line.contains(" - cgroup")).map(|line| format!("{line}\n"));
    snapshot.files.insert(cgroup::MOUNTS.to_owned(), lines.collect());
    if !read(snapshot, cgroup::SELF_CGROUP) {
        return;
    }
    for controller in ["cpu", "memory"] {
        for cgroup::Hierarchy { version, folders } in cgroup::hierarchies(snapshot, controller) {
            for folder in folders {
                for file in cgroup::files(version, controller) {
                    read(snapshot, &format!("{folder}/{file}"));
                }
            }
        }
    }
}

/// The CPUs that the process may run on.
fn affinity() -> Option<Vec<u32>> {
    // Eight times the size of `cpu_set_t`: the kernel refuses a mask with less room than it has CPUs configured.
    let mut mask = [0_u64; 128];
    // SAFETY: the kernel writes at most the given number of bytes, which is the size of `mask`; any bits are a u64.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr().cast()) };
    let bits = |(word, bits): (usize, &u64)| {
        let bits = *bits;
        (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word as u32 * 64 + bit)
    };
    (result == 0).then(|| mask.iter().enumerate().flat_map(bits).collect())
}

#[cfg(target_arch = "aarch64")]
fn auxiliary_vector() -> crate::hardware::ArmRegisters {
    // SAFETY: getauxval takes any number and returns 0 for those it does not know.
    let hwcap = unsafe { libc::getauxval(libc::AT_HWCAP) };
    // SAFETY: as above.
    let hwcap2 = unsafe { libc::getauxval(libc::AT_HWCAP2) };
    const PR_SVE_GET_VL: libc::c_int = 51;
    const VECTOR_LENGTH: libc::c_int = 0xffff;
    // SAFETY: this request takes no arguments and reads only; a kernel or CPU without SVE returns -1.
    let length = unsafe { libc::prctl(PR_SVE_GET_VL) };
    crate::hardware::ArmRegisters {
        hwcap,
        hwcap2,
        sve_vector_bytes: u32::try_from(length).ok().map(|length| length & VECTOR_LENGTH as u32),
        detected: Vec::new(),
    }
}
