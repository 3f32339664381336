//! What llama.cpp allocates asks the system for huge pages, before anything is written to it.
#![cfg(all(target_os = "linux", feature = "cpu", feature = "synth"))]

use std::{fs, num::NonZeroU32, path::Path};

use gguf_loader::{Model, backend::ContextOptions, gguf::synth::SyntheticModel};

/// KiB of this process's memory that huge pages were asked for: `smaps` marks it with the flag `hg`, whether or not there are any.
fn asked_for() -> u64 {
    let maps = fs::read_to_string("/proc/self/smaps").expect("the kernel lists this process's memory");
    let mut size = 0;
    let mut total = 0;
    for line in maps.lines() {
        if let Some(text) = line.strip_prefix("Size:") {
            size = text.trim().trim_end_matches(" kB").parse().expect("a size");
        } else if line.strip_prefix("VmFlags:").is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hg")) {
            total += size;
        }
    }
    total
}

#[test]
fn a_kv_cache_asks_for_huge_pages() {
    if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        println!("skipped: this kernel has no transparent huge pages");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tiny.gguf");
    SyntheticModel::tiny().write_file(&path).expect("the model is written");
    let model = Model::load(&path).expect("the model loads");
    let before = asked_for();
    let length = NonZeroU32::new(65_536).expect("above zero");
    let _context = model.context(&ContextOptions::default().with_length(length)).expect("the context opens");
    let profile = model.profile();
    let cache = profile.kv_bytes_per_token * u64::from(length.get());
    let asked = (asked_for() - before) * 1024;
    assert!(asked * 10 >= cache * 9, "{asked} bytes for a cache of {cache}");
}
