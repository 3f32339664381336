//! Saved states, forks, kept prefixes and types of the cache: the same text goes on.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the functions that the tests share are tests too")]

mod files;
mod forks;
mod tiers;

use std::{
    num::NonZeroU32,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use gguf_loader::{
    Context, LoadOptions, Model,
    backend::{ContextOptions, Token},
    generation::{GenerateRequest, Start},
    gguf::{TensorType, synth::SyntheticModel},
    hardware::Hardware,
    import::{ImportOptions, Layout, import},
    select::{ChooseOptions, Policy, Registry},
};

const STORY: &str = "Once upon a time, in a village at the foot of a mountain, there lived an old clockmaker who";

/// Written once: a small model with random weights.
fn random_model() -> &'static Path {
    static PATH: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    &PATH.get_or_init(|| write_random(TensorType::F16)).1
}

/// The same in a type whose products are rounded alike for one token and for the seven of a pass here; those in F16 are not.
fn random_model_in_q4_1() -> &'static Path {
    static PATH: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    &PATH.get_or_init(|| write_random(TensorType::Q4_1)).1
}

fn write_random(tensor_type: TensorType) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    SyntheticModel::tiny().with_type(tensor_type).write_file(&path).unwrap();
    (folder, path)
}

/// Imported once: a small BitNet b1.58 that was trained.
fn trained_bitnet() -> &'static Path {
    static PATH: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let write = || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bitnet.gguf");
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bitnet/scribe.gguf");
        let options = ImportOptions::default().with_layout(Layout::X86);
        import(fixture, &path, &options, |_| ControlFlow::Continue(())).unwrap();
        (folder, path)
    };
    &PATH.get_or_init(write).1
}

/// SmolLM2 where the environment names it, else a model with random weights.
fn path() -> PathBuf {
    let named = std::env::var_os("GGUF_LOADER_TEST_MODEL").map(PathBuf::from).filter(|path| path.is_file());
    named.unwrap_or_else(|| random_model().to_owned())
}

/// `None`, with a message, when no compiled backend reads vocabularies.
fn load(path: &Path, backend: Option<&str>) -> Option<Model> {
    let policy = backend.map_or(Policy::Automatic, |id| Policy::Named(id.to_owned()));
    let options = LoadOptions::default().with_choose(ChooseOptions::default().with_policy(policy));
    let model = Model::load_with(path, &options, |_| ControlFlow::Continue(())).unwrap();
    if let Err(error) = model.tokenizer() {
        println!("skipped: {error}");
        return None;
    }
    Some(model)
}

/// The tiers of llama.cpp that run here: the fastest first.
fn tiers() -> Vec<&'static str> {
    those_that_run(["cpu-zen4", "cpu-haswell", "cpu-sse42", "cpu-x64", "cpu-armv8"])
}

/// The same with ternary kernels.
fn ternary_tiers() -> Vec<&'static str> {
    those_that_run(["bitnet-zen4", "bitnet-haswell", "bitnet-sse42", "bitnet-x64", "bitnet-armv8"])
}

fn those_that_run<const COUNT: usize>(ids: [&'static str; COUNT]) -> Vec<&'static str> {
    let hardware = Hardware::detect();
    let registry = Registry::global().unwrap();
    let runs = registry.iter().filter(|backend| backend.devices(&hardware).is_ok()).map(|backend| backend.id());
    let all: Vec<_> = runs.collect();
    ids.into_iter().filter(|id| all.contains(id)).collect()
}

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

/// Passes of fewer than 8 tokens, which are rounded alike however a prompt is cut.
fn options() -> ContextOptions {
    ContextOptions::default().with_length(count(512)).with_ubatch(count(7))
}

/// The prompt, and what the model makes of it.
fn begin(context: &mut Context, sequence: u32) -> Vec<Token> {
    let request = GenerateRequest::new(STORY).with_sequence(sequence).with_stop_at_end(false);
    context.complete(request.with_max_tokens(count(16))).unwrap().tokens
}

/// 64 tokens more, of nothing but what the sequence holds.
fn go_on(context: &mut Context, sequence: u32) -> Vec<Token> {
    let request = GenerateRequest::new(Vec::<Token>::new()).with_start(Start::Continue).with_sequence(sequence);
    context.complete(request.with_stop_at_end(false).with_max_tokens(count(64))).unwrap().tokens
}
