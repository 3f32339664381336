//! Generating text: one request, however it is run.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the functions that the tests share are tests too")]

mod ends;
mod logprobs;
mod requests;
mod sequences;
#[cfg(feature = "async")]
mod streams;
mod timings;

use std::{num::NonZeroU32, path::PathBuf, sync::OnceLock};

use gguf_loader::{
    Context, Model,
    backend::ContextOptions,
    generation::{Completion, GenerateRequest},
    gguf::synth::SyntheticModel,
};

const PROMPT: &str = "the quick brown fox";

/// A small model with random weights. `None`, with a message, when no compiled backend reads vocabularies.
fn model() -> Option<Model> {
    static MODEL: OnceLock<Option<Model>> = OnceLock::new();
    let load = || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        SyntheticModel::tiny().write_file(&path).unwrap();
        with_tokenizer(Model::load(&path).unwrap())
    };
    MODEL.get_or_init(load).clone()
}

/// SmolLM2, where the environment names it.
fn trained_model() -> Option<Model> {
    static MODEL: OnceLock<Option<Model>> = OnceLock::new();
    let load = || {
        let path = std::env::var_os("GGUF_LOADER_TEST_MODEL").map(PathBuf::from).filter(|path| path.is_file());
        if path.is_none() {
            println!("skipped: GGUF_LOADER_TEST_MODEL names no file");
        }
        with_tokenizer(Model::load(path?).unwrap())
    };
    MODEL.get_or_init(load).clone()
}

fn with_tokenizer(model: Model) -> Option<Model> {
    if let Err(error) = model.tokenizer() {
        println!("skipped: {error}");
        return None;
    }
    Some(model)
}

fn context(model: &Model) -> Context {
    model.context(&ContextOptions::default()).unwrap()
}

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

/// A request for so many tokens.
fn request(tokens: u32) -> GenerateRequest {
    GenerateRequest::new(PROMPT).with_max_tokens(count(tokens)).with_stop_at_end(false)
}

fn complete(context: &mut Context, request: &GenerateRequest) -> Completion {
    context.complete(request).unwrap()
}
