//! Old x86 CPUs: the release program as it is, on machines from the first x86-64 to the first with AVX2.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TaskResult;
use crate::process::run as run_command;
use crate::program::Program;
use crate::steps::Steps;

use super::legs::{Legs, Verdict};
use super::machine::Machine;
use super::{RANDOM_CASES, Setting, native_cargo, qemu};

const MACHINES: &[Machine] = &[
    // What the first Opteron (2003) had: no SSE3, no CMPXCHG16B.
    Machine { cpu: "qemu64,-sse3,-cx16", tier: "x64", runs: &["x64"] },
    Machine { cpu: "Nehalem", tier: "sse42", runs: &["x64", "sse42"] },
    Machine { cpu: "SandyBridge", tier: "sandybridge", runs: &["x64", "sse42", "sandybridge"] },
    Machine {
        cpu: "Haswell",
        tier: "haswell",
        runs: &["x64", "sse42", "sandybridge", "ivybridge", "piledriver", "haswell"],
    },
];

/// Runs the legs; the same tier, forced on this machine's CPU, gives the text to compare with. A program that was built
/// elsewhere brings no tests of its kernels.
pub(crate) fn run(legs: &mut Legs, steps: &mut Steps, setting: &Setting<'_>, built: Option<&Path>) {
    let names = MACHINES.iter().flat_map(|machine| [program_leg(machine), ternary_leg(machine), kernels_leg(machine)]);
    if !cfg!(target_arch = "x86_64") {
        return names.for_each(|name| legs.skip(&name, "this machine builds no x86-64 program"));
    }
    let qemu = match qemu("x86_64") {
        Ok(qemu) => qemu,
        Err(why) => return names.for_each(|name| legs.skip(&name, &why)),
    };
    let program = match built {
        Some(program) => program.to_owned(),
        None => match steps.run("build", || build(setting)) {
            Ok(program) => program,
            Err(error) => return legs.run("x86-64 build", || Err(error)),
        },
    };
    for machine in MACHINES {
        let emulated = Program::under(machine.emulator(&qemu, &[]), program.clone());
        let native = Program::native(program.clone());
        legs.run(&program_leg(machine), || machine.check(&emulated, &native, &setting.model));
        legs.run(&ternary_leg(machine), || machine.check_ternary(&emulated, &setting.trained));
        match built {
            Some(_) => legs.skip(&kernels_leg(machine), "a program from elsewhere brings no tests"),
            None => legs.run(&kernels_leg(machine), || test_kernels(setting, machine, &qemu)),
        }
    }
}

fn program_leg(machine: &Machine) -> String {
    format!("x86-64 {}", machine.cpu)
}

fn ternary_leg(machine: &Machine) -> String {
    format!("x86-64 {} ternary", machine.cpu)
}

fn kernels_leg(machine: &Machine) -> String {
    format!("x86-64 {} kernels", machine.cpu)
}

/// The tests of the kernels, and with them the program: cargo builds it for integration tests, and for `cargo xtask test` did.
fn build(setting: &Setting<'_>) -> TaskResult<PathBuf> {
    run_command(cargo(setting, "test").args(["--no-run", "--test", "attention", "--test", "kernels"]))?;
    Ok(setting.workspace.program())
}

fn cargo(setting: &Setting<'_>, subcommand: &str) -> Command {
    native_cargo(setting.workspace, &setting.environment, subcommand)
}

/// Attention and the ternary kernels of every tier that the emulated CPU has.
fn test_kernels(setting: &Setting<'_>, machine: &Machine, qemu: &Path) -> TaskResult<Verdict> {
    let words = machine.emulator(qemu, &[]);
    let words: Vec<_> = words.iter().map(|word| format!("{:?}", word.to_string_lossy())).collect();
    let mut command = cargo(setting, "test");
    command.arg("--config").arg(format!("target.'cfg(all())'.runner = [{}]", words.join(", ")));
    command.args(["--test", "attention", "--test", "kernels"]).env("PROPTEST_CASES", RANDOM_CASES);
    command.env("GGUF_LOADER_TEST_EMULATED", machine.cpu);
    run_command(&mut command)?;
    Ok(Verdict::Passed(format!("right in every tier up to {}", machine.tier)))
}
