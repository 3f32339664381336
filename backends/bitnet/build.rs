//! What the ternary kernels add to the build: a source file that `backends/cpu/build.rs` compiles with each tier, so that it is
//! compiled for the same instructions and renamed with the tier's symbols.

use std::{env, path::PathBuf};

/// The functions of the tier that Rust calls: the one that turns the kernels on, and one that measures their instructions.
pub(crate) const ENTRIES: [&str; 2] = ["gguf_loader_ternary", "gguf_loader_multiply_adds"];

pub(crate) const KERNELS: &str = "backends/bitnet/kernels";

/// Whether the cargo feature is on.
pub(crate) fn is_on() -> bool {
    env::var_os("CARGO_FEATURE_BITNET").is_some()
}

/// The files to compile with a tier.
pub(crate) fn sources() -> Vec<PathBuf> {
    if is_on() { ["buffer.cpp", "peak.cpp"].map(|file| PathBuf::from(KERNELS).join(file)).to_vec() } else { Vec::new() }
}
