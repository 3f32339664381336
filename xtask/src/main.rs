//! `cargo xtask`: set-up, demo and tests of gguf-loader.
fn main() {}
