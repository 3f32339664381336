//! Memory that this process can use.

use super::cgroup::{self, MemoryLimit};
use super::{MemoryStatus, Snapshot};

/// Memory that this process can use.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Memory {
    /// Bytes of RAM, or the lowest limit of the process's control groups where that is lower; `None` when not known.
    pub total: Option<u64>,
    /// Bytes that can be allocated without swapping, within those limits; `None` when not known.
    pub available: Option<u64>,
    /// The lowest limit of the process's control groups, when it is below the RAM.
    pub limit: Option<u64>,
}

pub(super) const MEMINFO: &str = "/proc/meminfo";

impl Memory {
    pub(super) fn decode(snapshot: &Snapshot) -> Self {
        let Some(status) = snapshot.text(MEMINFO).and_then(meminfo).or(snapshot.memory).or_else(|| macos(snapshot))
        else {
            return Self::UNKNOWN;
        };
        let limits = cgroup::memory_limits(snapshot);
        let limit = limits.iter().map(|limit| limit.limit).filter(|&limit| limit < status.total).min();
        let within = |available: u64, limit: &MemoryLimit| available.min(limit.available);
        Self {
            total: Some(limit.unwrap_or(status.total)),
            available: Some(limits.iter().fold(status.available, within).min(status.total)),
            limit,
        }
    }

    /// A machine that says nothing of its memory. Nobody may take that for a machine without any.
    const UNKNOWN: Self = Self { total: None, available: None, limit: None };

    /// The bytes that can be had, when these are more. What is not known is no reason to refuse.
    #[cfg(any(feature = "cpu", test))]
    pub(crate) fn lacks(&self, needed: u64) -> Option<u64> {
        self.available.filter(|&available| needed > available)
    }
}

/// Reads `/proc/meminfo`. Kernels before 3.14 have no `MemAvailable`: then what is free or cached.
fn meminfo(text: &str) -> Option<MemoryStatus> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let free = || {
        let parts = ["MemFree", "Buffers", "Cached"];
        parts.into_iter().filter_map(bytes).reduce(u64::saturating_add)
    };
    Some(MemoryStatus { total: bytes("MemTotal")?, available: bytes("MemAvailable").or_else(free)? })
}

/// Free pages and those that macOS gives up without writing them out.
fn macos(snapshot: &Snapshot) -> Option<MemoryStatus> {
    let total = snapshot.sysctl_number("hw.memsize")?;
    let pages = ["vm.page_free_count", "vm.page_pageable_external_count", "vm.page_purgeable_count"]
        .into_iter()
        .filter_map(|name| snapshot.sysctl_number(name))
        .reduce(u64::saturating_add)?;
    let page = snapshot.sysctl_number("hw.pagesize")?;
    Some(MemoryStatus { total, available: pages.saturating_mul(page).min(total) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_memavailable_counts_what_is_free_or_cached() {
        let status = meminfo("MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 20 kB\nCached: 300 kB\n").unwrap();
        assert_eq!(status, MemoryStatus { total: 1000 * 1024, available: 420 * 1024 });
    }

    #[test]
    fn only_what_is_known_can_be_too_little() {
        let memory = |available| Memory { available, ..Memory::UNKNOWN };
        assert_eq!(memory(Some(9)).lacks(10), Some(9));
        assert_eq!(memory(Some(10)).lacks(10), None);
        assert_eq!(memory(Some(0)).lacks(1), Some(0));
        assert_eq!(memory(None).lacks(u64::MAX), None);
    }

    #[test]
    fn a_number_too_large_for_bytes_is_not_known() {
        assert_eq!(meminfo("MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB\n"), None);
    }
}
