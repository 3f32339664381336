//! `cargo xtask test`: every check, with one set of features and one profile, so that llama.cpp is compiled once.

use std::path::PathBuf;

use crate::TaskResult;
use crate::emulated;
use crate::environment::Environment;
use crate::model;
use crate::process::{capture, find_program, run};
use crate::setup;
use crate::skips::Skips;
use crate::steps::Steps;
use crate::workspace::Workspace;

/// The features of build, lints, documentation and tests.
pub(crate) const FEATURES: &str = "cpu-all,reference,synth,async";

/// Options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test               format, lints, documentation and tests, with every CPU tier
  cargo xtask test --quick       the same without llama.cpp: pure Rust, no C++ compiler needed
  cargo xtask test --emulated    old x86 CPUs and aarch64 under qemu")]
pub(crate) struct Options {
    /// Leave llama.cpp out: seconds instead of minutes.
    #[arg(long, conflicts_with = "emulated")]
    quick: bool,
    /// Run the legs on emulated CPUs instead.
    #[arg(long)]
    emulated: bool,
    #[command(flatten)]
    legs: emulated::Options,
}

/// `cargo xtask test`. Stops at the first step that fails.
pub(crate) fn task(workspace: &Workspace, options: &Options) -> TaskResult {
    if options.emulated {
        return emulated::task(workspace, &options.legs);
    }
    let (mut steps, mut skips) = (Steps::default(), Skips::default());
    let result = match options.quick {
        true => quick(workspace, &mut steps, &mut skips),
        false => full(workspace, &mut steps, &mut skips),
    };
    eprintln!("\n{}\nSteps:\n{}", skips.summary(), steps.summary());
    result
}

fn full(workspace: &Workspace, steps: &mut Steps, skips: &mut Skips) -> TaskResult {
    require_components(workspace)?;
    let environment = steps.run("set up", || Ok(setup::prepare(workspace)?))?;
    let model = steps.run("fetch the model", || Ok(model::provide(&model::Options::default())?))?;
    checks(workspace, steps, skips, &environment, &["--features", FEATURES], Some(model))?;
    steps.run("fuzz target", || {
        // A workspace of its own. Fuzzing takes a nightly compiler; that the target still compiles, any can say.
        let mut check = workspace.cargo("check");
        environment.apply(check.args(["--manifest-path", "fuzz/Cargo.toml", "--target-dir"]));
        Ok(run(check.arg(workspace.target().join("fuzz")))?)
    })
}

/// The lints and the formatter are parts of a toolchain that a minimal one lacks.
fn require_components(workspace: &Workspace) -> TaskResult {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if capture(workspace.cargo(subcommand).arg("--version")).is_err() {
            return Err(format!(
                "the Rust toolchain has no {component}; `rustup component add rustfmt clippy` brings it, or the package of \
                 your system that is called so"
            )
            .into());
        }
    }
    Ok(())
}

fn quick(workspace: &Workspace, steps: &mut Steps, skips: &mut Skips) -> TaskResult {
    require_components(workspace)?;
    let features = ["--no-default-features", "--features", "cli,reference,synth"];
    checks(workspace, steps, skips, &Environment::default(), &features, None)
}

fn checks(
    workspace: &Workspace,
    steps: &mut Steps,
    skips: &mut Skips,
    environment: &Environment,
    features: &[&str],
    model: Option<PathBuf>,
) -> TaskResult {
    let cargo = |subcommand: &str| {
        let mut command = workspace.cargo(subcommand);
        environment.apply(command.args(["--release", "--workspace"]).args(features));
        command
    };
    steps.run("format", || Ok(run(workspace.cargo("fmt").args(["--all", "--check"]))?))?;
    steps.run("lints", || Ok(run(cargo("clippy").args(["--all-targets", "--", "-D", "warnings"]))?))?;
    steps.run("documentation", || Ok(run(cargo("doc").arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings"))?))?;
    steps.run("licences and sources", || {
        if find_program("cargo-deny").is_none() {
            skips.note("licences and sources: `cargo install cargo-deny --locked` brings what checks them");
            return Ok(());
        }
        // Advisories need a database from the network: `cargo deny --workspace check` asks for them too.
        Ok(run(workspace.cargo("deny").args(["--workspace", "check", "bans", "licenses", "sources"]))?)
    })?;
    steps.run("tests", || {
        let mut tests = cargo("test");
        // As many tests as there are cores run at once; with as many threads each, they would wait for each other's.
        tests.env("GGUF_LOADER_THREADS", "1");
        if let Some(model) = &model {
            tests.env("GGUF_LOADER_TEST_MODEL", model);
        }
        Ok(skips.collect(&mut tests)?)
    })
}
