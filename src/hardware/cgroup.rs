//! What the control groups of the process leave it, versions 1 and 2.
//!
//! A limit may stand on any group between the process and the root, and the lowest one holds: a pod with a quota can
//! have containers without one.

use super::Snapshot;

/// Where a process stands in one hierarchy of control groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    /// The folders of the process's group and of the groups above it that are visible, innermost first.
    pub(super) folders: Vec<String>,
}

/// Version of the control group interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

pub(super) const SELF_CGROUP: &str = "/proc/self/cgroup";
pub(super) const MOUNTS: &str = "/proc/self/mountinfo";

/// The hierarchies that may limit `controller` (`cpu` or `memory`).
pub(super) fn hierarchies(snapshot: &Snapshot, controller: &str) -> Vec<Hierarchy> {
    let groups = snapshot.text(SELF_CGROUP).unwrap_or_default();
    groups.lines().filter_map(|line| hierarchy(snapshot, line, controller)).collect()
}

/// Files of a group that say something about `controller`.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "recorded on Linux only"))]
pub(super) fn files(version: Version, controller: &str) -> &'static [&'static str] {
    match (version, controller) {
        (Version::One, "cpu") => &["cpu.cfs_quota_us", "cpu.cfs_period_us"],
        (Version::Two, "cpu") => &["cpu.max"],
        (Version::One, "memory") => &["memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"],
        (Version::Two, "memory") => &["memory.max", "memory.high", "memory.current", "memory.stat"],
        _ => &[],
    }
}

/// The CPU time that the process may use, in CPUs; `None` without a limit.
pub(super) fn cpu_quota(snapshot: &Snapshot) -> Option<f64> {
    let quotas = hierarchies(snapshot, "cpu").into_iter().flat_map(|Hierarchy { version, folders }| {
        folders.into_iter().filter_map(move |folder| match version {
            Version::One => {
                let quota = snapshot.number(&format!("{folder}/cpu.cfs_quota_us"))?;
                ratio(quota, snapshot.number(&format!("{folder}/cpu.cfs_period_us"))?)
            }
            Version::Two => {
                let (quota, period) = snapshot.text(&format!("{folder}/cpu.max"))?.split_once(' ')?;
                ratio(quota.parse().ok()?, period.parse().ok()?)
            }
        })
    });
    quotas.reduce(f64::min)
}

/// A limit on memory and what is left under it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoryLimit {
    pub(super) limit: u64,
    pub(super) available: u64,
}

/// The limits of every group above the process. Version 1 writes a number beyond any memory for "no limit".
pub(super) fn memory_limits(snapshot: &Snapshot) -> Vec<MemoryLimit> {
    let mut limits = Vec::new();
    for Hierarchy { version, folders } in hierarchies(snapshot, "memory") {
        for folder in folders {
            let number = |file: &str| snapshot.number(&format!("{folder}/{file}"));
            let (limit, usage) = match version {
                Version::One => (number("memory.limit_in_bytes"), number("memory.usage_in_bytes")),
                // Above `memory.high` the kernel slows the process down to reclaim: as good as a limit.
                Version::Two => {
                    (number("memory.max").into_iter().chain(number("memory.high")).min(), number("memory.current"))
                }
            };
            if let Some(limit) = limit {
                let used = usage.unwrap_or(0).saturating_sub(page_cache(snapshot, &folder));
                limits.push(MemoryLimit { limit, available: limit.saturating_sub(used) });
            }
        }
    }
    limits
}

/// Bytes of the group's usage that are cached files: counted as used, and given back when memory is wanted. A model
/// that was mapped before would otherwise leave no room for itself.
fn page_cache(snapshot: &Snapshot, folder: &str) -> u64 {
    let statistics = snapshot.text(&format!("{folder}/memory.stat")).unwrap_or_default();
    let value = |name: &str| {
        let line = statistics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse::<u64>().ok()
    };
    // Version 1 has the group's own pages without the prefix, and those of the groups below with it.
    let pages = |name: &str| value(&format!("total_{name}")).or_else(|| value(name)).unwrap_or(0);
    pages("inactive_file").saturating_add(pages("active_file"))
}

fn ratio(quota: u64, period: u64) -> Option<f64> {
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

/// Reads one line of `/proc/self/cgroup`, `ID:CONTROLLERS:PATH`.
fn hierarchy(snapshot: &Snapshot, line: &str, controller: &str) -> Option<Hierarchy> {
    let mut fields = line.splitn(3, ':');
    let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let version = match (id, controllers) {
        ("0", "") => Version::Two,
        (_, names) if names.split(',').any(|name| name == controller) => Version::One,
        _ => return None,
    };
    let Mount { root, point } = mount(snapshot, version, controller)?;
    // Inside a container without a namespace of its own, the path is the host's and the mount shows part of it. A
    // path outside of what the mount shows leaves the mount point, which limits at least as much.
    let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or("");
    let inside = !below.split('/').any(|name| name == "..") && (below.is_empty() || below.starts_with('/'));
    let mut folder = format!("{point}{}", if inside { below.trim_end_matches('/') } else { "" });
    let mut folders = vec![folder.clone()];
    while folder.len() > point.len() {
        folder.truncate(folder.rfind('/')?);
        folders.push(folder.clone());
    }
    Some(Hierarchy { version, folders })
}

/// A file system of control groups: `root` is the group that `point` shows.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
}

/// Finds it in `/proc/self/mountinfo`: `ID PARENT DEVICE ROOT POINT OPTIONS... - TYPE SOURCE SUPER_OPTIONS`.
fn mount<'a>(snapshot: &'a Snapshot, version: Version, controller: &str) -> Option<Mount<'a>> {
    snapshot.text(MOUNTS)?.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut filesystem = filesystem.split(' ');
        let (kind, options) = (filesystem.next()?, filesystem.nth(1)?);
        let matches = match version {
            Version::One => kind == "cgroup" && options.split(',').any(|option| option == controller),
            Version::Two => kind == "cgroup2",
        };
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        matches.then_some(Mount { root, point: point.trim_end_matches('/') })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::Architecture;

    fn machine(files: &[(&str, &str)]) -> Snapshot {
        let mut snapshot = Snapshot::new(Architecture::X86_64, "linux");
        snapshot.files = files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect();
        snapshot
    }

    const V2: (&str, &str) = (MOUNTS, "29 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");

    #[test]
    fn the_lowest_quota_of_the_groups_above_holds() {
        let snapshot = machine(&[
            V2,
            (SELF_CGROUP, "0::/pod/container\n"),
            ("/sys/fs/cgroup/pod/container/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/pod/cpu.max", "250000 100000\n"),
            ("/sys/fs/cgroup/cpu.max", "800000 100000\n"),
        ]);
        assert_eq!(cpu_quota(&snapshot), Some(2.5));
    }

    #[test]
    fn a_group_without_a_quota_has_none() {
        let snapshot = machine(&[V2, (SELF_CGROUP, "0::/\n"), ("/sys/fs/cgroup/cpu.max", "max 100000\n")]);
        assert_eq!(cpu_quota(&snapshot), None);
    }

    #[test]
    fn version_1_in_a_container_that_sees_the_hosts_path() {
        let snapshot = machine(&[
            (MOUNTS, "40 30 0:30 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"),
            (SELF_CGROUP, "4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(cpu_quota(&snapshot), Some(1.5));
    }

    #[test]
    fn a_quota_of_minus_one_is_none() {
        let snapshot = machine(&[
            (MOUNTS, "40 30 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"),
            (SELF_CGROUP, "4:cpu:/\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(cpu_quota(&snapshot), None);
    }

    #[test]
    fn a_path_with_the_same_beginning_is_not_below_the_mounts_root() {
        let snapshot = machine(&[
            (MOUNTS, "40 30 0:30 /docker/abc /cg rw - cgroup cgroup rw,cpu\n"),
            (SELF_CGROUP, "4:cpu:/docker/abcdef\n"),
        ]);
        assert_eq!(hierarchies(&snapshot, "cpu")[0].folders, ["/cg"]);
    }

    #[test]
    fn a_path_outside_of_the_namespace_leaves_the_mount_point() {
        let snapshot = machine(&[V2, (SELF_CGROUP, "0::/../../other\n")]);
        assert_eq!(hierarchies(&snapshot, "cpu")[0].folders, ["/sys/fs/cgroup"]);
    }

    #[test]
    fn cached_files_do_not_count_as_used() {
        let snapshot = machine(&[
            V2,
            (SELF_CGROUP, "0::/a\n"),
            ("/sys/fs/cgroup/a/memory.max", "1000\n"),
            ("/sys/fs/cgroup/a/memory.high", "max\n"),
            ("/sys/fs/cgroup/a/memory.current", "900\n"),
            ("/sys/fs/cgroup/a/memory.stat", "anon 100\nfile 800\ninactive_file 500\nactive_file 300\n"),
        ]);
        assert_eq!(memory_limits(&snapshot), [MemoryLimit { limit: 1000, available: 900 }]);
    }

    #[test]
    fn the_mark_for_slowing_down_is_a_limit() {
        let snapshot = machine(&[
            V2,
            (SELF_CGROUP, "0::/a\n"),
            ("/sys/fs/cgroup/a/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.high", "700\n"),
        ]);
        assert_eq!(memory_limits(&snapshot), [MemoryLimit { limit: 700, available: 700 }]);
    }
}
