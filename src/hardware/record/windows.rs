//! Memory.

use crate::hardware::{MemoryStatus, Snapshot};

/// `MEMORYSTATUSEX` of sysinfoapi.h.
#[repr(C)]
#[derive(Default)]
struct MemoryStatusEx {
    length: u32,
    load: u32,
    total_physical: u64,
    available_physical: u64,
    total_page_file: u64,
    available_page_file: u64,
    total_virtual: u64,
    available_virtual: u64,
    available_extended_virtual: u64,
}

#[link(name = "kernel32")]
unsafe extern "system" {
    fn GlobalMemoryStatusEx(status: *mut MemoryStatusEx) -> i32;
}

pub(super) fn record(snapshot: &mut Snapshot) {
    let mut status = MemoryStatusEx { length: size_of::<MemoryStatusEx>() as u32, ..Default::default() };
    // SAFETY: the function fills the structure, whose layout is that of sysinfoapi.h and whose `length` says its size.
    if unsafe { GlobalMemoryStatusEx(&raw mut status) } != 0 {
        snapshot.memory = Some(MemoryStatus { total: status.total_physical, available: status.available_physical });
    }
}
