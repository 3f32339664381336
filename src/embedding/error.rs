//! What can go wrong with embeddings.

use crate::backend::{ContextError, DecodeError, VocabularyError};

/// Why there are no embeddings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// The file does not say how to pool: choose with [`EmbedOptions::with_pooling`](super::EmbedOptions::with_pooling),
    /// or take a model that was made for embeddings.
    #[error("the model names no pooling: choose one, or take a model that was made for embeddings")]
    NoPooling,
    /// The model ranks: use [`Model::reranker`](crate::Model::reranker).
    #[error("the model ranks documents, its scores are no embeddings: open it as a reranker")]
    IsRanking,
    /// The model has no tokenizer, or no compiled backend reads it.
    #[error(
        "the model has no tokenizer that this build reads: build with a cpu feature, or take a model with a tokenizer"
    )]
    NoTokenizer,
    /// A text without tokens has no vector: leave it out.
    #[error("text {index} is empty: leave it out")]
    Empty {
        /// Which text, from 0.
        index: usize,
    },
    /// Raise [`EmbedOptions::length`](super::EmbedOptions::length), split the text, or let it be cut:
    /// [`Overflow::Truncate`](super::Overflow::Truncate).
    #[error("text {index} has {tokens} tokens, the limit is {limit}: raise it, split the text, or let it be cut")]
    TooLong {
        /// Which text, from 0.
        index: usize,
        /// Its tokens, special ones included.
        tokens: usize,
        /// Most that are taken.
        limit: usize,
    },
    /// The model's weights are broken, or its arithmetic overflowed.
    #[error("the vector of text {index} has entries that are not finite numbers: the file may be damaged")]
    NotANumber {
        /// Which text, from 0.
        index: usize,
    },
    /// The backend broke its contract.
    #[error("the backend gave no vector for a text that it computed")]
    Missing,
    /// The embedder could not be opened.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The text could not be tokenised.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// The computation failed or was cancelled.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}
