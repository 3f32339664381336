//! `cargo xtask`: set-up, demo, tests and comparisons of gguf-loader.
//!
//! Progress goes to stderr; stdout carries only results (a path, exports, a table). It builds nothing of llama.cpp, and of C
//! only what ring (TLS) has, with the `cc` that links any Rust program: so it starts where nothing is installed yet but git,
//! a Rust toolchain, that C compiler and a package client.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's own results and progress")]

mod agreement;
mod demo;
mod digest;
mod emulated;
mod environment;
mod fetch;
mod index;
mod model;
mod packages;
mod peers;
mod pip;
mod process;
mod program;
mod record;
mod setup;
mod skips;
mod steps;
mod synth;
mod test;
mod toolchain;
mod wheel;
mod workspace;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workspace::Workspace;

/// What a task ends with: any of the tasks' typed errors; `main` prints it with its causes.
type TaskResult<T = ()> = Result<T, Box<dyn Error>>;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, long_about = None, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

/// Set-up, demo, tests and comparisons of gguf-loader.
#[derive(Debug, Subcommand)]
enum Task {
    /// Check for a C++ compiler, make, cmake and libclang, and install what is missing.
    Setup(setup::Options),
    /// Fetch the chat model of the demo and the tests; prints its path.
    Model(model::Options),
    /// Set up, fetch the model, build, and let the model answer a prompt.
    Demo(demo::Options),
    /// Run every check: format, lints, documentation, tests; or the legs on other CPUs.
    Test(test::Options),
    /// Measure native llama.cpp and gguf-loader, interleaved, on the same files.
    BenchPeers(peers::Options),
    /// Write a model of any size with random weights.
    Synth(synth::Options),
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo                          from a fresh clone to an answering model
  cargo xtask test                          all checks that run natively
  cargo xtask test --emulated               old x86 and aarch64 CPUs under qemu
  eval \"$(cargo xtask setup --print-env)\"   so that a plain `cargo build` finds the same tools
  cargo xtask bench-peers --rounds 5        against llama.cpp built for this machine
  cargo xtask synth 2b.gguf --preset bitnet-2b   a model of BitNet 2B-4T's shapes

Environment:
  GGUF_LOADER_CACHE                 folder of fetched models; default: gguf-loader in the user's cache folder
  GGUF_LOADER_XTASK_NO_SYSTEM=1     never call the system's package manager; use the packages of pip
  PYTHON                            the interpreter whose pip fetches packages; default: python3, then python";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(arguments.task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: Task) -> TaskResult {
    let workspace = Workspace::locate()?;
    match task {
        Task::Setup(options) => setup::task(&workspace, &options),
        Task::Model(options) => model::task(&options),
        Task::Demo(options) => demo::task(&workspace, &options),
        Task::Test(options) => test::task(&workspace, &options),
        Task::BenchPeers(options) => peers::task(&workspace, &options),
        Task::Synth(options) => synth::task(&workspace, &options),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn arguments_are_consistent() {
        super::Arguments::command().debug_assert();
    }
}
