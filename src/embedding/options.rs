//! How to compute embeddings.

use std::num::NonZeroU32;

use crate::backend::{CancelToken, ContextOptions, Pooling};

/// How to compute embeddings. The default does what the model's file says, and refuses what does not fit.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EmbedOptions {
    /// How the states of a text's tokens become its vector; `None` asks the model's file.
    pub pooling: Option<Pooling>,
    /// Whether vectors get the length 1.
    pub normalisation: Normalisation,
    /// What happens to a text that is too long.
    pub overflow: Overflow,
    /// Longest text in tokens; `None` takes the training length, at most 512. Memory grows with it.
    pub length: Option<NonZeroU32>,
    /// Tokens that are computed together (default 512); never fewer than `length`.
    pub batch: Option<NonZeroU32>,
    /// Compute threads; `None` takes those that the model was loaded for.
    pub threads: Option<NonZeroU32>,
    /// Cancels the work, also while it computes.
    pub cancel: CancelToken,
}

/// The length of the vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Normalisation {
    /// Length 1: the dot product of two is their cosine.
    #[default]
    Unit,
    /// As the model gives them.
    None,
}

/// What happens to a text of more tokens than [`EmbedOptions::length`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// It is an error: nothing is left out in silence.
    #[default]
    Refuse,
    /// Its end is left out; [`Embedding::truncated`](super::Embedding::truncated) says so.
    Truncate,
}

impl EmbedOptions {
    /// Sets how the states of a text's tokens become its vector, whatever the model's file says.
    pub fn with_pooling(mut self, pooling: Pooling) -> Self {
        self.pooling = Some(pooling);
        self
    }

    /// Sets whether vectors get the length 1.
    pub fn with_normalisation(mut self, normalisation: Normalisation) -> Self {
        self.normalisation = normalisation;
        self
    }

    /// Sets what happens to a text that is too long.
    pub fn with_overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Sets the longest text in tokens.
    pub fn with_length(mut self, length: NonZeroU32) -> Self {
        self.length = Some(length);
        self
    }

    /// Sets the tokens that are computed together.
    pub fn with_batch(mut self, batch: NonZeroU32) -> Self {
        self.batch = Some(batch);
        self
    }

    /// Sets the number of compute threads.
    pub fn with_threads(mut self, threads: NonZeroU32) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets the token that cancels the work.
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// The same, as backends read it.
    pub(super) fn context(&self, trained: u32) -> ContextOptions {
        /// Longest text when nobody named it: what encoders are trained for.
        const LENGTH: u32 = 512;
        /// More texts than that in a batch bring nothing.
        const TEXTS: NonZeroU32 = NonZeroU32::new(64).expect("a constant above zero");
        let mut options = ContextOptions::default().with_sequences(TEXTS).with_cancel(self.cancel.clone());
        options.length = self.length.or(NonZeroU32::new(trained.min(LENGTH)));
        options.ubatch = self.batch.unwrap_or(options.ubatch);
        options.threads = self.threads;
        options
    }
}
