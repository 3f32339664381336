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
mod bitnet;
mod cancelling;
mod concurrency;
mod contexts;
mod decoding;
mod identity;
mod loading;
mod models;
mod real_model;
mod recorded;
mod refusals;
mod sequences;
mod subject;
mod trained;
mod vocabulary;

use std::{process::ExitCode, sync::Arc};

use gguf_loader::{backend::registered, gguf::TensorType, hardware::Hardware};
use libtest_mimic::{Arguments, Trial};
use models::{Model, Models};
use subject::{Subject, open_file, request, skipped};

/// A behaviour, and the function that panics when a backend does not have it.
type Check = (&'static str, fn(&Subject));

/// Names each check after its function.
macro_rules! checks {
    ($($check:ident,)*) => {
        pub(crate) const CHECKS: &[$crate::Check] = &[$((stringify!($check), $check),)*];
    };
}
use checks;

/// What every backend must do.
const CHECKS: &[&[Check]] = &[
    identity::CHECKS,
    loading::CHECKS,
    contexts::CHECKS,
    decoding::CHECKS,
    sequences::CHECKS,
    refusals::CHECKS,
    cancelling::CHECKS,
    concurrency::CHECKS,
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
            trials.extend(CHECKS.iter().copied().flatten().map(|check| trial(&subject, check, None)));
            for (checks, missing) in conditional(&subject) {
                if let Some(missing) = missing {
                    skipped(&format!("{} checks of {}: {missing}", checks.len(), backend.id()));
                }
                trials.extend(checks.iter().map(|check| trial(&subject, check, missing)));
            }
        }
    }
    trials.sort_by(|left, right| left.name().cmp(right.name()));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Checks that need something, and what is missing of it.
fn conditional(subject: &Subject) -> [(&'static [Check], Option<&'static str>); 8] {
    let file = open_file(&subject.models.path(Model::BytePairVocabulary));
    let tokenises = subject.backend.vocabulary(&request(&file)).is_some();
    // That the reference agrees with itself would say nothing; `recorded` is what it is held against.
    let reference = if subject.backend.id() == "reference" {
        Some("it is the reference itself")
    } else {
        let compiled = registered().any(|backend| backend.id() == "reference");
        (!compiled).then_some("the reference backend is not compiled in")
    };
    let unknown = |model| (!subject.runs(model)).then_some("it does not run the architecture");
    let bitnet = unknown(Model::BitNet(TensorType::TQ2_0));
    let b158 = unknown(Model::BitNetB158(TensorType::TQ2_0));
    let real_model = match real_model::path() {
        None => Some("GGUF_LOADER_TEST_MODEL names no file"),
        Some(path) => (!subject.is_for(&path)).then_some("it is for ternary models"),
    };
    [
        (bitnet::CHECKS, bitnet),
        (bitnet::b158::CHECKS, bitnet.or(b158)),
        (bitnet::agreement::CHECKS, b158.or(reference)),
        (trained::CHECKS, b158),
        (trained::tokens::CHECKS, (!tokenises).then_some("it cannot tokenise")),
        (vocabulary::CHECKS, (!tokenises).then_some("it cannot tokenise")),
        (agreement::CHECKS, reference),
        (real_model::CHECKS, real_model),
    ]
}

fn trial(subject: &Arc<Subject>, &(name, check): &Check, missing: Option<&str>) -> Trial {
    let name = format!("{}::{}::{name}", subject.backend.id(), subject.device.id);
    let subject = Arc::clone(subject);
    let run = move || {
        check(&subject);
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(missing.is_some())
}
