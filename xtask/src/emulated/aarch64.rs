//! aarch64: a cross build whose program and tests run under qemu, on four CPUs from ARMv8.0 to SVE2.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TaskResult;
use crate::process::{self, capture_text, find_program, run_on_stderr};
use crate::program::Program;
use crate::setup;
use crate::steps::Steps;
use crate::workspace::Workspace;

use super::legs::{Legs, Verdict};
use super::machine::Machine;
use super::{RANDOM_CASES, Setting, install, qemu};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const FEATURES: &str = "reference,synth";
/// Where Debian's cross packages keep the C library.
const SYSROOT: &str = "/usr/aarch64-linux-gnu";
/// Where the C library of Debian's own arm64 packages has its dynamic loader.
const LOADER: &str = "/lib/ld-linux-aarch64.so.1";

/// The tests that run on every CPU, beside the unit tests.
const TESTS: &[&str] = &["attention", "kernels", "tiers"];
/// And those that run on the newest only: an emulator takes its time.
const MORE_TESTS: &[&str] = &["allocations", "calibration", "gguf", "hardware", "link_audit", "selection", "selector"];

const UP_TO_FP16: &[&str] = &["armv8", "armv8-dotprod", "armv8-fp16"];

const MACHINES: &[Machine] = &[
    Machine { cpu: "cortex-a53", tier: "armv8", runs: &["armv8"] },
    Machine { cpu: "cortex-a76", tier: "armv8-fp16", runs: UP_TO_FP16 },
    Machine { cpu: "neoverse-n1", tier: "armv8-fp16", runs: UP_TO_FP16 },
    NEWEST,
];

/// Everything that qemu emulates; gives the texts that the others are compared with.
const NEWEST: Machine = Machine {
    cpu: "max",
    tier: "armv9-sve2",
    runs: &["armv8", "armv8-dotprod", "armv8-fp16", "armv8-i8mm", "armv8-sve", "armv9-sve2", "armv9-sme"],
};

/// Builds for aarch64 and runs the legs: program, trained model and tests on each CPU.
pub(crate) fn run(legs: &mut Legs, steps: &mut Steps, setting: &Setting<'_>) {
    let names = MACHINES.iter().flat_map(|machine| [program_leg(machine), ternary_leg(machine), tests_leg(machine)]);
    let cross = match steps.run("aarch64: set up", || Ok(Cross::prepare(setting.workspace))) {
        Ok(Ok(cross)) => cross,
        Ok(Err(why)) => return names.for_each(|name| legs.skip(&name, &why)),
        Err(error) => return legs.run("aarch64 set-up", || Err(error)),
    };
    let build = steps.run("aarch64: build", || {
        process::run(&mut cross.cargo(setting, "build"))?;
        let mut tests = cross.cargo(setting, "test");
        tests.args(["--no-run", "--lib"]).args(selection(&[TESTS, MORE_TESTS, &["conformance"]].concat()));
        Ok(process::run(&mut tests)?)
    });
    if let Err(error) = build {
        return legs.run("aarch64 build", || Err(error));
    }
    let program = cross.folder.join(TARGET).join("release/gguf-loader");
    let on = |machine: &Machine| Program::under(machine.emulator(&cross.qemu, library_root()), program.clone());
    for machine in MACHINES {
        legs.run(&program_leg(machine), || machine.check(&on(machine), &on(&NEWEST), &setting.model));
        legs.run(&ternary_leg(machine), || machine.check_ternary(&on(machine), &setting.trained));
        legs.run(&tests_leg(machine), || cross.test(setting, machine));
    }
}

fn program_leg(machine: &Machine) -> String {
    format!("aarch64 {}", machine.cpu)
}

fn ternary_leg(machine: &Machine) -> String {
    format!("aarch64 {} ternary", machine.cpu)
}

fn tests_leg(machine: &Machine) -> String {
    format!("aarch64 {} tests", machine.cpu)
}

/// What a cross build needs.
struct Cross {
    qemu: PathBuf,
    /// Another compiler than cargo's own, where that one lacks the target's standard library.
    rustc: Option<PathBuf>,
    /// A target folder of its own: two compilers would overwrite each other's outputs.
    folder: PathBuf,
}

impl Cross {
    /// Installs what is missing; the error says why this machine cannot cross-compile.
    fn prepare(workspace: &Workspace) -> Result<Self, String> {
        let qemu = qemu("aarch64")?;
        if find_program("aarch64-linux-gnu-g++").is_none() {
            install("g++-aarch64-linux-gnu")?;
        }
        Ok(Self { qemu, rustc: rustc_with_target()?, folder: workspace.target().join("emulated-aarch64") })
    }

    fn cargo(&self, setting: &Setting<'_>, subcommand: &str) -> Command {
        let mut command = setting.workspace.cargo(subcommand);
        setting.environment.apply(&mut command);
        command.args(["--release", "--package", "gguf-loader", "--features", FEATURES, "--target", TARGET]);
        command.arg("--target-dir").arg(&self.folder);
        command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
        if let Some(rustc) = &self.rustc {
            command.env("RUSTC", rustc);
        }
        command
    }

    /// The unit tests and a few more on every CPU; on the newest all others, and the conformance of its tier, with llama.cpp's
    /// kernels and with the ternary ones.
    fn test(&self, setting: &Setting<'_>, machine: &Machine) -> TaskResult<Verdict> {
        let run = |arguments: &[&str]| self.run_tests(setting, machine, arguments);
        run(&[&["--lib"], &selection(TESTS)[..]].concat())?;
        let mut passed = vec!["unit tests".to_owned()];
        passed.extend(TESTS.iter().map(ToString::to_string));
        if machine.cpu == NEWEST.cpu {
            run(&selection(MORE_TESTS))?;
            passed.extend(MORE_TESTS.iter().map(ToString::to_string));
            // With the colons: `armv8` is the beginning of other tiers' names.
            run(&["--test", "conformance", "--", &format!("{}::", machine.tier)])?;
            passed.push(format!("conformance of {}", machine.tier));
        }
        Ok(Verdict::Passed(passed.join(", ")))
    }

    fn run_tests(
        &self,
        setting: &Setting<'_>,
        machine: &Machine,
        arguments: &[&str],
    ) -> Result<(), process::ProcessError> {
        let runner: Vec<OsString> = machine.emulator(&self.qemu, library_root());
        let mut command = self.cargo(setting, "test");
        command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner.join(" ".as_ref()));
        command.env("GGUF_LOADER_TEST_EMULATED", machine.cpu).env_remove("GGUF_LOADER_TEST_MODEL");
        command.env("PROPTEST_CASES", RANDOM_CASES);
        process::run(command.args(arguments))
    }
}

/// `--test NAME` for each.
fn selection<'a>(tests: &[&'a str]) -> Vec<&'a str> {
    tests.iter().flat_map(|&test| ["--test", test]).collect()
}

/// Arguments that tell qemu where the libraries are. With arm64 packages on the system they are where the dynamic loader
/// looks anyway; naming the cross packages' folder then would pair the loader of one C library with the other library, and
/// two that differ in a patch level hang in `pthread_create`.
fn library_root() -> &'static [&'static str] {
    if Path::new(LOADER).exists() { &[] } else { &["-L", SYSROOT] }
}

/// `None`: cargo's own compiler has the target.
fn rustc_with_target() -> Result<Option<PathBuf>, String> {
    const DEBIAN: &str = "/usr/bin/rustc";
    if has_target("rustc".as_ref()) {
        return Ok(None);
    }
    if !has_target(DEBIAN.as_ref()) {
        install_rustc()?;
    }
    if has_target("rustc".as_ref()) {
        return Ok(None);
    }
    if has_target(DEBIAN.as_ref()) {
        return Ok(Some(PathBuf::from(DEBIAN)));
    }
    Err(format!("no Rust standard library for {TARGET}; try `rustup target add {TARGET}`"))
}

fn has_target(rustc: &Path) -> bool {
    let answer = capture_text(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]));
    let Ok(folder) = answer.map(PathBuf::from) else { return false };
    folder.read_dir().into_iter().flatten().flatten().any(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with("libstd-")
    })
}

/// Debian's compiler with arm64's standard library beside it; elsewhere rustup's target.
fn install_rustc() -> Result<(), String> {
    let Some(manager) = setup::usable_manager().filter(|manager| manager.program == "apt-get") else {
        let mut rustup = Command::new("rustup");
        return run_on_stderr(rustup.args(["target", "add", TARGET]))
            .map_err(|error| format!("no Rust standard library for {TARGET}, and {error}"));
    };
    let failed = |error: process::ProcessError| format!("cannot install a Rust compiler for {TARGET}: {error}");
    run_on_stderr(setup::command_as_root("dpkg", true).args(["--add-architecture", "arm64"])).map_err(failed)?;
    run_on_stderr(setup::as_root(manager).arg("update")).map_err(failed)?;
    // Debian stable keeps a recent compiler under this name for its web browsers.
    setup::install_packages(manager, &["rustc-web", "libstd-rust-web-dev:arm64"])
        .or_else(|_| setup::install_packages(manager, &["rustc", "libstd-rust-dev:arm64"]))
        .map_err(failed)
}
