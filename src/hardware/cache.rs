//! The caches that a core sees.

use super::{Snapshot, topology::cpu_path, x86};

/// A cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Cache {
    /// 1 is nearest to the core.
    pub level: u8,
    /// What it holds.
    pub kind: CacheKind,
    /// Its size.
    pub bytes: u64,
    /// Number of hardware threads that share it.
    pub shared_by: u32,
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CacheKind {
    /// Data.
    Data,
    /// Instructions.
    Instruction,
    /// Both.
    Unified,
}

/// No processor has had more.
pub(super) const MOST_CACHES: u32 = 8;

/// The file about one property of a CPU's cache number `index`.
pub(super) fn path(cpu: u32, index: u32, property: &str) -> String {
    cpu_path(cpu, &format!("cache/index{index}/{property}"))
}

#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "recorded on Linux only"))]
pub(super) const PROPERTIES: [&str; 4] = ["level", "type", "size", "shared_cpu_list"];

/// The caches of one CPU, nearest first.
pub(super) fn decode(snapshot: &Snapshot, cpu: u32) -> Vec<Cache> {
    let mut caches: Vec<Cache> = (0..MOST_CACHES).filter_map(|index| linux(snapshot, cpu, index)).collect();
    if caches.is_empty() {
        caches = cpuid(snapshot);
    }
    if caches.is_empty() {
        caches = macos(snapshot);
    }
    caches.sort_by_key(|cache| cache.level);
    caches
}

fn linux(snapshot: &Snapshot, cpu: u32, index: u32) -> Option<Cache> {
    let property = |name: &str| path(cpu, index, name);
    let kind = match snapshot.text(&property("type"))? {
        "Data" => CacheKind::Data,
        "Instruction" => CacheKind::Instruction,
        "Unified" => CacheKind::Unified,
        _ => return None,
    };
    let size = snapshot.text(&property("size"))?;
    let (digits, unit) = match size.split_at_checked(size.len().checked_sub(1)?)? {
        (digits, "K") => (digits, 1 << 10),
        (digits, "M") => (digits, 1 << 20),
        _ => (size, 1),
    };
    Some(Cache {
        level: u8::try_from(snapshot.number(&property("level"))?).ok()?,
        kind,
        bytes: digits.parse::<u64>().ok()?.checked_mul(unit)?,
        shared_by: snapshot.cpus(&property("shared_cpu_list")).map_or(1, |cpus| cpus.len() as u32),
    })
}

/// From CPUID, on operating systems without the files; `shared_by` is then what the processor was designed for.
fn cpuid(snapshot: &Snapshot) -> Vec<Cache> {
    let Some(registers) = &snapshot.x86 else { return Vec::new() };
    let Some(parameters) = x86::cpuid(registers).get_cache_parameters() else { return Vec::new() };
    let cache = |cache: raw_cpuid::CacheParameter| {
        let factors =
            [cache.sets(), cache.associativity(), cache.physical_line_partitions(), cache.coherency_line_size()];
        Some(Cache {
            level: cache.level(),
            kind: match cache.cache_type() {
                raw_cpuid::CacheType::Data => CacheKind::Data,
                raw_cpuid::CacheType::Instruction => CacheKind::Instruction,
                raw_cpuid::CacheType::Unified => CacheKind::Unified,
                _ => return None,
            },
            bytes: factors.into_iter().try_fold(1_u64, |bytes, factor| bytes.checked_mul(factor as u64))?,
            shared_by: cache.max_cores_for_cache() as u32,
        })
    };
    parameters.take(MOST_CACHES as usize).filter_map(cache).collect()
}

/// Names of `sysctl` for the fastest cores and for machines with one kind, and the cache that they size.
pub(super) const SYSCTL: [([&str; 2], u8, CacheKind); 3] = [
    (["hw.perflevel0.l1dcachesize", "hw.l1dcachesize"], 1, CacheKind::Data),
    (["hw.perflevel0.l1icachesize", "hw.l1icachesize"], 1, CacheKind::Instruction),
    (["hw.perflevel0.l2cachesize", "hw.l2cachesize"], 2, CacheKind::Unified),
];

fn macos(snapshot: &Snapshot) -> Vec<Cache> {
    let cluster = snapshot.sysctl_number("hw.perflevel0.cpusperl2").and_then(|cpus| u32::try_from(cpus).ok());
    let cache = |(names, level, kind): ([&str; 2], u8, CacheKind)| {
        let bytes = names.into_iter().find_map(|name| snapshot.sysctl_number(name))?;
        Some(Cache { level, kind, bytes, shared_by: cluster.filter(|_| level > 1).unwrap_or(1) })
    };
    SYSCTL.into_iter().filter_map(cache).collect()
}
