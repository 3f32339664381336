//! Sampling: each step against llama.cpp's own sampler, and lots against distributions that are worked out here.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the functions that the tests share are tests too")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "calls of llama.cpp that belong together")]

mod chance;
#[cfg(feature = "cpu")]
mod compare;
mod parameters;
mod vocabulary;
#[cfg(feature = "cpu")]
mod with_llama_cpp;

use std::sync::OnceLock;

use gguf_loader::{Tokenizer, gguf::synth::SyntheticModel, tokenizer::TokenizerError};

/// The vocabulary of a synthetic model. `None`, with a message, when no compiled backend reads vocabularies.
fn tokenizer() -> Option<Tokenizer> {
    static TOKENIZER: OnceLock<Option<Tokenizer>> = OnceLock::new();
    let load = || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vocabulary.gguf");
        SyntheticModel::tiny().vocabulary_only().write_file(&path).unwrap();
        match Tokenizer::load(&path) {
            Err(TokenizerError::Vocabulary(error)) => {
                println!("skipped: {error}");
                None
            }
            tokenizer => Some(tokenizer.unwrap()),
        }
    };
    TOKENIZER.get_or_init(load).clone()
}

/// Numbers that look random, the same every time.
fn noise(seed: u64) -> impl Iterator<Item = f64> {
    let mut state = seed.wrapping_add(1);
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    })
}

/// Logits with a few that stand out, as a model's do.
fn logits(count: usize, seed: u64) -> Vec<f32> {
    let mut noise = noise(seed);
    (0..count).map(|_| (noise.next().unwrap().powi(6) * 14.0 - noise.next().unwrap() * 3.0) as f32).collect()
}
