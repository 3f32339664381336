//! Values of `sysctl`.

use std::ffi::CString;

use crate::hardware::{Snapshot, arm, cache};

const NAMES: [&str; 12] = [
    "machdep.cpu.brand_string",
    "kern.hv_vmm_present",
    "hw.physicalcpu",
    "hw.logicalcpu",
    "hw.perflevel0.physicalcpu",
    "hw.perflevel0.cpusperl2",
    "hw.memsize",
    "hw.pagesize",
    "vm.page_free_count",
    "vm.page_pageable_external_count",
    "vm.page_purgeable_count",
    "hw.cpufrequency_max",
];

pub(super) fn record(snapshot: &mut Snapshot) {
    let features = arm::SYSCTL.iter().map(|&(name, _)| name);
    let caches = cache::SYSCTL.into_iter().flat_map(|(names, ..)| names);
    for name in NAMES.into_iter().chain(features).chain(caches) {
        if let Some(value) = sysctl(name) {
            snapshot.sysctl.insert(name.to_owned(), value);
        }
    }
}

/// A value as text: numbers of four and eight bytes in decimal, anything else as the string that it is.
fn sysctl(name: &str) -> Option<String> {
    let c_name = CString::new(name).ok()?;
    let mut buffer = [0_u8; 256];
    let mut length = buffer.len();
    // SAFETY: the name ends in NUL, the kernel writes at most `length` bytes, which is the size of `buffer`, and
    // stores how many it wrote; no new value is given.
    let result = unsafe {
        libc::sysctlbyname(c_name.as_ptr(), buffer.as_mut_ptr().cast(), &raw mut length, std::ptr::null_mut(), 0)
    };
    let value = buffer.get(..length).filter(|_| result == 0)?;
    if name.ends_with("_string") {
        return Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
    }
    match *value {
        [a, b, c, d] => Some(u32::from_ne_bytes([a, b, c, d]).to_string()),
        [a, b, c, d, e, f, g, h] => Some(u64::from_ne_bytes([a, b, c, d, e, f, g, h]).to_string()),
        _ => None,
    }
}
