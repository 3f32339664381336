//! `cargo xtask test --emulated`: CPUs that this machine is not, under qemu's user-mode emulation.

mod aarch64;
mod legs;
mod machine;
mod trained;
mod x86;

use std::path::PathBuf;
use std::process::Command;

use crate::TaskResult;
use crate::environment::Environment;
use crate::process::{find_program, run};
use crate::setup;
use crate::steps::Steps;
use crate::test::FEATURES;
use crate::workspace::Workspace;

use legs::Legs;
use trained::Trained;

/// Random matrices that the kernels are tested with, beside those of fixed shapes: an emulator takes its time.
const RANDOM_CASES: &str = "8";

/// Options of `cargo xtask test --emulated`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only the legs of this architecture.
    #[arg(long, value_enum, requires = "emulated")]
    only: Option<Architecture>,
    /// The model of the legs; without it a small one with random weights is made.
    #[arg(long, value_name = "GGUF", requires = "emulated")]
    small_model: Option<PathBuf>,
    /// The x86-64 program of the legs; without it the release build is made and taken, and its kernels are tested.
    #[arg(long, value_name = "PATH", requires = "emulated")]
    program: Option<PathBuf>,
    /// Fail when a leg cannot run here, as where all that they need can be installed.
    #[arg(long, requires = "emulated")]
    no_skips: bool,
}

/// An architecture with legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Architecture {
    X86,
    Aarch64,
}

/// What the legs of all architectures have in common.
#[derive(Debug)]
struct Setting<'a> {
    workspace: &'a Workspace,
    environment: Environment,
    /// The small model of the legs.
    model: PathBuf,
    trained: Trained,
}

/// `cargo xtask test --emulated`. Every leg runs, whatever became of the ones before.
pub(crate) fn task(workspace: &Workspace, options: &Options) -> TaskResult {
    let mut legs = Legs::default();
    let wanted = |architecture| options.only.is_none_or(|only| only == architecture);
    let mut steps = Steps::default();
    let environment = steps.run("set up", || Ok(setup::prepare(workspace)?))?;
    let model = match &options.small_model {
        Some(model) => model.clone(),
        None => steps.run("make a small model", || {
            let model = workspace.target().join("xtask-small.gguf");
            run(native_cargo(workspace, &environment, "build").args(["--example", "synth_model"]))?;
            run(Command::new(workspace.example("synth_model")).arg(&model))?;
            Ok(model)
        })?,
    };
    let setting = Setting { workspace, environment, model, trained: Trained::read(workspace)? };
    if wanted(Architecture::X86) {
        x86::run(&mut legs, &mut steps, &setting, options.program.as_deref());
    }
    if wanted(Architecture::Aarch64) {
        aarch64::run(&mut legs, &mut steps, &setting);
    }
    eprintln!("\nSteps:\n{}", steps.summary());
    legs.conclude(options.no_skips)
}

/// Cargo for this machine's architecture, asked as `cargo xtask test` asks it: with fewer packages, features of dependencies
/// are others, and what was built before is built again.
fn native_cargo(workspace: &Workspace, environment: &Environment, subcommand: &str) -> Command {
    let mut command = workspace.cargo(subcommand);
    environment.apply(command.args(["--release", "--workspace", "--features", FEATURES]));
    command
}

/// qemu for an architecture, installed when missing. The error says why there is none.
fn qemu(architecture: &str) -> Result<PathBuf, String> {
    let names = [format!("qemu-{architecture}-static"), format!("qemu-{architecture}")];
    let find = || names.iter().find_map(|name| find_program(name));
    if find().is_none() {
        install("qemu-user-static")?;
    }
    find().ok_or_else(|| format!("no {}; install qemu-user-static", names[0]))
}

/// Installs a package of Debian and its kin.
fn install(package: &str) -> Result<(), String> {
    let manager = setup::usable_manager()
        .filter(|manager| manager.program == "apt-get")
        .ok_or_else(|| format!("{package} is not installed, and apt-get with root is not at hand"))?;
    setup::install_packages(manager, &[package]).map_err(|error| format!("cannot install {package}: {error}"))
}
