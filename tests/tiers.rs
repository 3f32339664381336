//! The tiers side by side in one process, and what is asked of the engine itself about them.
#![cfg(all(feature = "cpu", feature = "synth"))]

#[path = "../backends/cpu/tiers.rs"]
mod tiers;

use std::{num::NonZeroU32, ops::ControlFlow, path::Path, time::Duration};

use gguf_loader::{
    Context, LoadError, LoadOptions, Model,
    backend::{Batch, CancelToken, ContextOptions, LoadError as BackendLoadError, LoadRequest},
    generation::{FinishReason, GenerateError, GenerateRequest},
    gguf::{Gguf, synth::SyntheticModel},
    hardware::Hardware,
    select::{ChooseOptions, Policy, Registry},
};
use tiers::{TIERS, Tier};

const PROMPT: &str = "the quick brown fox";

fn tiny() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tiny.gguf");
    SyntheticModel::tiny().write_file(&path).expect("the model is written");
    (folder, path)
}

fn load(path: &Path, id: &str) -> Result<Model, LoadError> {
    let choose = ChooseOptions::default().with_policy(Policy::Named(id.to_owned()));
    Model::load_with(path, &LoadOptions::default().with_choose(choose), |_| ControlFlow::Continue(()))
}

fn context(model: &Model) -> Context {
    model.context(&ContextOptions::default()).expect("the context opens")
}

/// The compiled CPU tiers that this machine can run, slowest first as far as the names' order goes.
fn runnable() -> Vec<&'static str> {
    runnable_of("cpu-")
}

fn runnable_of(engine: &str) -> Vec<&'static str> {
    let hardware = Hardware::detect();
    let registry = Registry::global().expect("the registry is sound");
    let tiers = registry.iter().filter(|backend| backend.id().starts_with(engine));
    tiers.filter(|backend| backend.devices(&hardware).is_ok()).map(|backend| backend.id()).collect()
}

fn generated(context: &mut Context, tokens: u32) -> Vec<u32> {
    let request = GenerateRequest::new(PROMPT).with_max_tokens(NonZeroU32::new(tokens).expect("above zero"));
    context.complete(request.with_stop_at_end(false)).expect("the prompt fits").tokens
}

#[test]
fn every_tier_that_this_cpu_has_runs_when_it_is_forced() {
    let (_folder, path) = tiny();
    let ids = runnable();
    assert!(!ids.is_empty(), "the floor runs everywhere");
    for id in ids {
        let mut context = context(&load(&path, id).expect("the tier can run"));
        assert_eq!(generated(&mut context, 8).len(), 8, "{id}");
        assert_eq!(context.executed_by(), id, "the engine's graphs are computed by another tier");
    }
}

#[test]
fn models_on_all_tiers_live_together_and_keep_their_tier() {
    let (_folder, path) = tiny();
    let mut contexts: Vec<(&str, Context)> =
        runnable().into_iter().map(|id| (id, context(&load(&path, id).expect("the tier can run")))).collect();
    let alone: Vec<Vec<u32>> = contexts.iter_mut().map(|(_, context)| generated(context, 12)).collect();
    // The registry now holds the last tier; contexts of the first ones are still computed by their own.
    for ((id, context), alone) in contexts.iter_mut().zip(&alone).rev() {
        context.edit(gguf_loader::backend::SequenceEdit::Clear).expect("the cache can be emptied");
        assert_eq!(&generated(context, 12), alone, "{id}");
        assert_eq!(context.executed_by(), *id);
    }
}

#[cfg(feature = "bitnet")]
#[test]
fn ternary_weights_are_packed_as_tightly_as_the_tier_can() {
    use gguf_loader::gguf::{TensorType, synth::SyntheticBitNet};

    // Where bytes can be permuted, and products of bytes added up: five weights in a byte.
    const DENSE: [&str; 3] = ["bitnet-icelake", "bitnet-zen4", "bitnet-sapphirerapids"];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("bitnet.gguf");
    SyntheticBitNet::tiny().with_ternary(TensorType::TQ2_0).write_file(&path).expect("the model is written");
    for id in runnable_of("bitnet-") {
        let model = load(&path, id).expect("the model loads");
        let dense = if DENSE.contains(&id) { 14 } else { 0 };
        let expected = format!("TernaryUse {{ two_bits: {}, dense: {dense}, fused: true }}", 14 - dense);
        assert!(format!("{model:?}").contains(&expected), "{id}: {model:?}");
        // Afterwards the same tier without these kernels is what it was.
        let stock = load(&path, &id.replace("bitnet-", "cpu-")).expect("the model loads");
        let none = "TernaryUse { two_bits: 0, dense: 0, fused: false }";
        assert!(format!("{stock:?}").contains(none), "{id}: {stock:?}");
    }
}

#[test]
fn the_fastest_tier_is_taken_when_nothing_is_forced() {
    let (_folder, path) = tiny();
    let choose = LoadOptions::default().with_choose(ChooseOptions::default());
    let model = Model::load_with(&path, &choose, |_| ControlFlow::Continue(())).expect("the model loads");
    let hardware = Hardware::detect();
    let has = |tier: &&Tier| hardware.cpu.features.missing(tier.requires).is_empty();
    let has_length =
        |tier: &&Tier| !tier.requires.contains(&"sve") || matches!(hardware.cpu.sve_vector_bytes, Some(16 | 32 | 64));
    // The rows stand from slowest to fastest.
    let fastest = built().into_iter().filter(has).rfind(has_length).expect("the floor runs everywhere");
    assert_eq!(model.backend(), format!("cpu-{}", fastest.id));
    assert_eq!(context(&model).executed_by(), model.backend());
}

/// The rows of the table that are in this build.
fn built() -> Vec<&'static Tier> {
    let registry = Registry::global().expect("the registry is sound");
    let is_built = |tier: &&Tier| registry.find(&format!("cpu-{}", tier.id)).is_ok();
    TIERS.iter().filter(is_built).collect()
}

#[test]
fn a_forced_tier_that_the_cpu_lacks_is_an_error_that_names_what_is_missing() {
    let (_folder, path) = tiny();
    let hardware = Hardware::detect();
    let registry = Registry::global().expect("the registry is sound");
    let lacking = registry.iter().find(|backend| backend.devices(&hardware).is_err());
    let Some(backend) = lacking else {
        eprintln!("skipped: this CPU runs every tier that was built");
        return;
    };
    let missing = backend.devices(&hardware).expect_err("it cannot run").to_string();
    let error = load(&path, backend.id()).expect_err("it cannot run");
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(source) = cause {
        text += &format!(": {source}");
        cause = source.source();
    }
    assert!(text.contains(backend.id()) && text.contains(&missing), "{text}");
}

#[test]
fn generation_stops_where_the_context_ends_and_says_so() {
    let (_folder, path) = tiny();
    let model = load(&path, runnable()[0]).expect("the floor can run");
    let options = ContextOptions::default().with_length(NonZeroU32::new(32).expect("above zero"));
    let mut context = model.context(&options).expect("the context opens");
    let request = GenerateRequest::new(PROMPT).with_stop_at_end(false);
    let completion = context.complete(request).expect("the prompt fits");
    assert_eq!(completion.finish, FinishReason::ContextFull);
    // The last token is chosen from the logits of a full context.
    assert_eq!(completion.usage.prompt_tokens + completion.tokens.len(), 33);
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_before_anything_is_decoded() {
    let (_folder, path) = tiny();
    let model = load(&path, runnable()[0]).expect("the floor can run");
    let options = ContextOptions::default().with_length(NonZeroU32::new(16).expect("above zero"));
    let mut context = model.context(&options).expect("the context opens");
    let error = context.generate(PROMPT.repeat(20)).expect_err("it is too long");
    assert!(matches!(error, GenerateError::PromptTooLong { limit: 16, used: 0, .. }), "{error}");
    assert_eq!(context.next_position(0), 0);
}

#[test]
fn a_cancelled_generation_ends_and_says_so_and_the_context_stays_usable() {
    let (_folder, path) = tiny();
    let model = load(&path, runnable()[0]).expect("the floor can run");
    let cancel = CancelToken::new();
    let mut context = model.context(&ContextOptions::default().with_cancel(cancel.clone())).expect("it opens");
    let request = GenerateRequest::new(PROMPT).with_stop_at_end(false);
    let mut generation = context.generate(request).expect("the prompt fits");
    assert!(generation.next().is_some_and(|piece| piece.is_ok()));
    cancel.cancel();
    assert!(generation.next().is_none(), "nothing comes after it was cancelled");
    assert_eq!(generation.finish_reason(), Some(FinishReason::Cancelled));
    cancel.reset();
    assert_eq!(generated(&mut context, 4).len(), 4);
}

#[test]
fn every_tier_that_this_cpu_has_can_measure_itself_and_a_wider_one_multiplies_faster() {
    let hardware = Hardware::detect();
    let registry = Registry::global().expect("the registry is sound");
    let mut quantized = std::collections::BTreeMap::new();
    for id in runnable() {
        let backend = registry.find(id).expect("it is registered");
        let device = &backend.devices(&hardware).expect("it can run")[0];
        let rates = backend.measure(device, Duration::from_millis(20)).expect("a tier can measure itself");
        assert!(rates.is_valid(), "{id}: {rates:?}");
        quantized.insert(id, rates.quantized);
    }
    // Far apart, so that a busy machine does not turn them round.
    if let (Some(floor), Some(avx2)) = (quantized.get("cpu-x64"), quantized.get("cpu-haswell")) {
        assert!(avx2 > floor, "AVX2 multiplies slower than SSE2: {quantized:?}");
    }
}

#[test]
fn a_tier_refuses_to_load_on_a_cpu_that_lacks_it_whatever_device_it_is_given() {
    let (_folder, path) = tiny();
    let hardware = Hardware::detect();
    let registry = Registry::global().expect("the registry is sound");
    let Some(backend) = registry.iter().find(|backend| backend.devices(&hardware).is_err()) else {
        eprintln!("skipped: this CPU runs every tier that was built");
        return;
    };
    let own = registry.find(runnable()[0]).expect("it is registered");
    let device = own.devices(&hardware).expect("it can run").remove(0);
    let file = Gguf::open(&path).expect("a valid file");
    let request = LoadRequest::new(&file).expect("a model");
    let error = backend.load(&device, &request, &mut |_| ControlFlow::Continue(())).expect_err("it must not run");
    assert!(matches!(error, BackendLoadError::Unavailable(_)), "{error}");
}

#[test]
fn a_load_from_within_a_progress_report_is_an_error_and_not_a_deadlock() {
    let (_folder, path) = tiny();
    let mut inner = None;
    let options = LoadOptions::default().with_choose(ChooseOptions::default());
    let outer = Model::load_with(&path, &options, |_| {
        inner.get_or_insert_with(|| Model::load_with(&path, &options, |_| ControlFlow::Continue(())));
        ControlFlow::Continue(())
    });
    outer.expect("the outer load goes on");
    let error = inner.expect("progress is reported").expect_err("the inner one cannot wait for the outer one");
    assert!(error.to_string().contains("from within"), "{error}");
}

#[test]
fn a_context_may_have_more_sequences_than_a_batch_has_tokens() {
    let (_folder, path) = tiny();
    let model = load(&path, runnable()[0]).expect("the floor can run");
    let number = |value| NonZeroU32::new(value).expect("above zero");
    let options = ContextOptions::default().with_sequences(number(4)).with_batch(number(2)).with_length(number(64));
    let mut context = model.context(&options).expect("the context opens");
    assert_eq!((context.limits().batch, context.limits().sequences), (2, 4));
    let mut batch = Batch::new();
    batch.push(3, 0, 3, true);
    context.decode(&batch).expect("a valid batch");
    assert!(context.logits(0).is_some());
}
