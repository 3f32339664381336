//! One suite for every backend: what `gguf_loader::backend` promises, checked on each device of each registered backend
//! that this machine can use. A check is listed as `<backend>::<device>::<check>`:
//!
//! ```text
//! cargo test --release --features reference,synth --test conformance -- reference
//! ```
//!
//! A backend that cannot be used here appears as one ignored test, with the reason on stdout.
//!
//! The tiers of an engine differ in what was compiled for them: kernels. Whatever those have a part in is checked on every
//! tier, down to a trained model and the proof of which tier ran. What the engine does above them, in code that the program
//! has once, is checked on two: the fastest tier and the slowest, by their own predictions. On the others these checks are
//! listed as ignored; `-- --ignored cpu-haswell` runs them on one.
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

use std::{collections::BTreeMap, process::ExitCode, sync::Arc};

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

/// What every backend must do, checked on each.
const CHECKS: &[&[Check]] = &[identity::CHECKS, loading::CHECKS, contexts::CHECKS, decoding::CHECKS, recorded::CHECKS];

/// What every backend must do, in code that all tiers of its engine share: bookkeeping of the KV cache, checks of batches,
/// cancelling, locks. Checked on those that [`speak`](speakers) for their engine.
const SHARED_CHECKS: &[&[Check]] = &[sequences::CHECKS, refusals::CHECKS, cancelling::CHECKS, concurrency::CHECKS];

/// What is checked again where BitNet b1.58 has a graph of its own: nodes that read several matrices at once, into whose results
/// the keys and values of all sequences are views.
const FUSED_CHECKS: &[&[Check]] = &[sequences::CHECKS, concurrency::CHECKS];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // A list is read by programs, which know nothing of reasons.
    let skipped = |reason: &str| {
        if !arguments.list {
            skipped(reason);
        }
    };
    let hardware = Arc::new(Hardware::detect());
    // Lives until all trials have ended, and takes its folder with it.
    let models = Arc::new(Models::write());
    let mut trials = vec![Trial::test("no_two_backends_share_an_id", || {
        identity::no_two_backends_share_an_id();
        Ok(())
    })];
    let mut subjects = Vec::new();
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
            subjects.push(Arc::new(Subject::new(backend, device, Arc::clone(&hardware), Arc::clone(&models))));
        }
    }
    let speakers = speakers(&subjects);
    for subject in &subjects {
        trials.extend(CHECKS.iter().copied().flatten().map(|check| trial(subject, "", check, None)));
        let speaks = speakers.contains(&subject.backend.id());
        let shared = (!speaks).then_some("other tiers speak for the code that all share");
        let fused = fused(subject);
        let of_fused = fused.iter().flat_map(|fused| FUSED_CHECKS.iter().map(move |&checks| (fused, "b158::", checks)));
        let of_all = SHARED_CHECKS.iter().map(|&checks| (subject, "", checks));
        let unconditional = of_all.chain(of_fused).map(|checks| (checks, shared));
        let conditional = conditional(subject, shared).map(|(checks, missing)| ((subject, "", checks), missing));
        let mut left_out = BTreeMap::<&str, usize>::new();
        for ((subject, prefix, checks), missing) in unconditional.chain(conditional) {
            if let Some(missing) = missing {
                *left_out.entry(missing).or_default() += checks.len();
            }
            trials.extend(checks.iter().map(|check| trial(subject, prefix, check, missing)));
        }
        for (missing, checks) in left_out {
            skipped(&format!("{checks} checks of {}: {missing}", subject.backend.id()));
        }
    }
    trials.sort_by(|left, right| left.name().cmp(right.name()));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The fastest and the slowest backend of each engine, by the prompts that they say they read in a second. An engine is what
/// stands before the tier in a backend's id.
fn speakers(subjects: &[Arc<Subject>]) -> Vec<&'static str> {
    let mut engines = BTreeMap::<&str, Vec<(f64, &'static str)>>::new();
    for subject in subjects {
        let id = subject.backend.id();
        let engine = id.split('-').next().unwrap_or(id);
        engines.entry(engine).or_default().push((subject.prompt_speed(), id));
    }
    let ends = |mut tiers: Vec<(f64, &'static str)>| {
        tiers.sort_by(|left, right| left.0.total_cmp(&right.0));
        [tiers.first().copied(), tiers.last().copied()]
    };
    engines.into_values().flat_map(ends).flatten().map(|(_, id)| id).collect()
}

/// Checks that need something, and what is missing of it; `shared` is why checks of shared code are left to others.
fn conditional(subject: &Subject, shared: Option<&'static str>) -> [(&'static [Check], Option<&'static str>); 9] {
    let file = open_file(&subject.models.path(Model::BytePairVocabulary));
    let tokenises = subject.backend.vocabulary(&request(&file)).is_some();
    let vocabulary = (!tokenises).then_some("it cannot tokenise").or(shared);
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
    let float = subject.can_run(models::USUAL).then_some("other checks run such matrices on it");
    let real_model = match real_model::path() {
        None => Some("GGUF_LOADER_TEST_MODEL names no file"),
        Some(path) => (!subject.is_for(&path)).then_some("it is for ternary models"),
    };
    [
        (bitnet::CHECKS, bitnet),
        (bitnet::b158::CHECKS, bitnet.or(b158)),
        (bitnet::agreement::CHECKS, b158.or(reference)),
        (trained::CHECKS, b158),
        (trained::output_matrix::CHECKS, b158.or(float)),
        (trained::tokens::CHECKS, vocabulary),
        (vocabulary::CHECKS, vocabulary),
        (agreement::CHECKS, reference),
        (real_model::CHECKS, real_model),
    ]
}

/// The subject with BitNet b1.58 as its usual model, where that takes another way than others: on the ternary kernels.
fn fused(subject: &Subject) -> Option<Arc<Subject>> {
    let model = Model::BitNetB158(TensorType::TQ2_0);
    let takes_another_way = !subject.can_run(models::USUAL) && subject.runs(model);
    takes_another_way.then(|| Arc::new(subject.with_usual(model)))
}

fn trial(subject: &Arc<Subject>, prefix: &str, &(name, check): &Check, missing: Option<&str>) -> Trial {
    let name = format!("{}::{}::{prefix}{name}", subject.backend.id(), subject.device.id);
    let subject = Arc::clone(subject);
    let run = move || {
        check(&subject);
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(missing.is_some())
}
