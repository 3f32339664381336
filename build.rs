//! Builds the native parts of the compiled-in backends. Each backend's folder has its own `build.rs`; this one only
//! asks the features which of them to run.

#[path = "backends/bitnet/build.rs"]
mod bitnet;
#[path = "backends/cpu/build.rs"]
mod cpu;
#[path = "backends/ggml/build.rs"]
mod ggml;
#[path = "backends/cpu/tiers.rs"]
mod tiers;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CPU").is_none() {
        return;
    }
    let source = ggml::Source::find();
    ggml::build_shim(&source);
    cpu::build(&source);
}
