//! One suite for every backend: what `gguf_loader::backend` promises, checked on each device of each registered backend
//! that this machine can use. A check is listed as `<backend>::<device>::<check>`:
//!
//! ```text
//! cargo test --release --features reference,synth --test conformance -- reference
//! ```
//!
//! A backend that cannot be used here appears as one ignored test, with the reason on stderr.
#![forbid(unsafe_code)]

mod agreement;
mod cancelling;
mod concurrency;
mod contexts;
mod decoding;
mod identity;
mod loading;
mod models;
mod recorded;
mod refusals;
mod sequences;
mod subject;
mod vocabulary;

use std::{process::ExitCode, sync::Arc};

use gguf_loader::{backend::registered, hardware::Hardware};
use libtest_mimic::{Arguments, Trial};
use models::Models;
use subject::{Subject, skipped};

/// A behaviour, and the function that panics when a backend does not have it.
type Check = (&'static str, fn(&Subject));

/// Names each check after its function.
macro_rules! checks {
    ($($check:ident,)*) => {
        pub(crate) const CHECKS: &[$crate::Check] = &[$((stringify!($check), $check),)*];
    };
}
use checks;

const CHECKS: &[&[Check]] = &[
    identity::CHECKS,
    loading::CHECKS,
    contexts::CHECKS,
    decoding::CHECKS,
    sequences::CHECKS,
    refusals::CHECKS,
    cancelling::CHECKS,
    concurrency::CHECKS,
    vocabulary::CHECKS,
    recorded::CHECKS,
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let hardware = Arc::new(Hardware::detect());
    // Lives until all trials have ended, and takes its folder with it.
    let models = Arc::new(Models::write());
    let mut trials = vec![Trial::test("no_two_backends_share_an_id", || {
        identity::no_two_backends_share_an_id();
        Ok(())
    })];
    for backend in registered() {
        let devices = match backend.devices(&hardware) {
            Ok(devices) => devices,
            Err(reason) => {
                skipped(&format!("{} cannot be used here: {reason}", backend.id()));
                let name = format!("{}::unavailable", backend.id());
                trials.push(Trial::test(name, || Ok(())).with_ignored_flag(true));
                continue;
            }
        };
        for device in devices {
            let subject = Arc::new(Subject::new(backend, device, Arc::clone(&hardware), Arc::clone(&models)));
            // That the reference agrees with itself would say nothing; `recorded` is what it is held against.
            let against_reference = if backend.id() == "reference" { &[] } else { agreement::CHECKS };
            for &(name, check) in CHECKS.iter().copied().flatten().chain(against_reference) {
                let subject = Arc::clone(&subject);
                let name = format!("{}::{}::{name}", backend.id(), subject.device.id);
                trials.push(Trial::test(name, move || {
                    check(&subject);
                    Ok(())
                }));
            }
        }
    }
    trials.sort_by(|left, right| left.name().cmp(right.name()));
    libtest_mimic::run(&arguments, trials).exit_code()
}
