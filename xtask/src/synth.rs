//! `cargo xtask synth`: models of any size with random weights, for benchmarks.

use std::ffi::OsString;

use crate::TaskResult;
use crate::process::run;
use crate::setup;
use crate::test::FEATURES;
use crate::workspace::Workspace;

/// Options of `cargo xtask synth`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask synth 2b.gguf --preset bitnet-2b                     BitNet b1.58 2B-4T's shapes, I2_S, 1.2 GB
  cargo xtask synth 2b.gguf --preset bitnet-2b --ternary tq2_0     the same codes for ggml's own kernels
  cargo xtask synth big.gguf --preset bitnet-2b --n-layer 60       twice as deep
  cargo xtask synth smol.gguf --preset smol --type q4_0            SmolLM2-135M's shapes
  cargo xtask synth --help-model                                   all options of a model

The weights are random and the same for the same seed; such a model says nothing, and runs as fast as a real one.")]
pub(crate) struct Options {
    /// The file to write, and what to write: see --help-model.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "OUT.gguf OPTIONS")]
    model: Vec<OsString>,
}

/// `cargo xtask synth`. The writer is an example of the library, so that this program is built without llama.cpp.
pub(crate) fn task(workspace: &Workspace, options: &Options) -> TaskResult {
    let environment = setup::prepare(workspace)?;
    let mut command = workspace.cargo("run");
    command.args(["--release", "--package", "gguf-loader", "--features", FEATURES, "--example", "synth_model", "--"]);
    Ok(run(environment.apply(command.args(&options.model)))?)
}
