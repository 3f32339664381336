//! Old x86 CPUs: the release program as it is, on machines without AVX2.

use std::path::{Path, PathBuf};

use crate::program::Program;

use super::legs::Legs;
use super::machine::Machine;
use super::qemu;

const MACHINES: &[Machine] = &[
    Machine { cpu: "Nehalem", tier: "cpu-sse42", runs: &["cpu-x64", "cpu-sse42"] },
    Machine { cpu: "SandyBridge", tier: "cpu-sandybridge", runs: &["cpu-x64", "cpu-sse42", "cpu-sandybridge"] },
    Machine {
        cpu: "Haswell",
        tier: "cpu-haswell",
        runs: &["cpu-x64", "cpu-sse42", "cpu-sandybridge", "cpu-ivybridge", "cpu-piledriver", "cpu-haswell"],
    },
];

/// Runs the legs; the same tier, forced on this machine's CPU, gives the text to compare with.
pub(crate) fn run(legs: &mut Legs, program: PathBuf, model: &Path) {
    let qemu = qemu("x86_64");
    for machine in MACHINES {
        let name = format!("x86-64 {}", machine.cpu);
        match &qemu {
            _ if !cfg!(target_arch = "x86_64") => legs.skip(&name, "this machine builds no x86-64 program"),
            Err(why) => legs.skip(&name, why),
            Ok(qemu) => legs.run(&name, || {
                let emulated = Program::under(machine.emulator(qemu, &[]), program.clone());
                machine.check(&emulated, &Program::native(program.clone()), model)
            }),
        }
    }
}
