//! What can go wrong.

use crate::{
    backend::{DecodeError, GrammarEngineError, VocabularyError},
    grammar::ConstraintError,
    sampling::{SampleError, SamplingError},
};

/// Why a generation could not start or go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// There is nothing to continue.
    #[error("the prompt is empty: give something to continue")]
    EmptyPrompt,
    /// The prompt does not fit: shorten it, or open a longer context.
    #[error(
        "the prompt has {tokens} tokens; the context holds {limit}, of which {used} are in use: shorten it, or open a longer context"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that the sequence holds and keeps.
        used: u32,
        /// Tokens that fit.
        limit: u32,
    },
    /// Every text has an empty stop in it: leave it out.
    #[error("a stop text is empty: leave it out, every text would end at once")]
    EmptyStop,
    /// The chat template's prompt has a grammar of its own, for the calls of tools: give one of the two.
    #[error("a grammar and tools cannot be combined: give one of the two")]
    GrammarWithTools,
    /// There is nothing to shift, because the tokens to keep fill the context: keep fewer.
    #[error("cannot keep {keep} tokens and shift the others: the context holds {limit}; keep {} at most", limit.saturating_sub(2))]
    NothingToShift {
        /// Tokens to keep.
        keep: u32,
        /// Tokens that fit.
        limit: u32,
    },
    /// The model's memory cannot lose the middle of a text: choose [`WhenFull::Stop`](super::WhenFull::Stop).
    #[error(
        "the model's memory cannot be shifted when the context is full: let the text end there, or open a longer context"
    )]
    CannotShift,
    /// The model has no tokenizer that a compiled backend can read.
    #[error(
        "the model has no tokenizer that this program can read: build with a cpu feature, or take a model with a tokenizer"
    )]
    NoTokenizer,
    /// The model computes embeddings, not logits.
    #[error("the model gives no logits: it is not made to generate text; it may be made for embeddings")]
    NoLogits,
    /// The model remembers nothing from one batch to the next: an encoder.
    #[error("the model has no memory of what it read: it is not made to generate text; it may be made for embeddings")]
    NoMemory,
    /// The operating system started no thread for a stream.
    #[error("no thread could be started: {0}")]
    Thread(String),
    /// A step of the program's own panicked, and the context is lost with the thread.
    #[error("the thread that generates panicked")]
    Panicked,
    /// The sampling makes no sense.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The logits give no choice.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The engine does not take the grammar.
    #[error(transparent)]
    Grammar(#[from] GrammarEngineError),
    /// No token fits the grammar.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// The text could not be tokenised.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// A decode failed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}
