//! Embeddings, as a backend provides them: whole sequences in, one vector for each out.

use std::fmt;

use super::{Batch, ContextLimits, DecodeError, SequenceId};

/// How the hidden states of a sequence's tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Pooling {
    /// The mean of all tokens.
    Mean,
    /// The first token: `[CLS]` of BERT.
    Cls,
    /// The last token: what models that read from left to right are trained with.
    Last,
    /// The model's classification head: scores, not a direction. For reranking.
    Rank,
}

/// Computes vectors; keeps nothing from one batch to the next.
pub trait BackendEmbedder: fmt::Debug + Send {
    /// What a batch can hold: [`ContextLimits::context`] tokens a sequence, and [`ContextLimits::batch`] in all.
    fn limits(&self) -> &ContextLimits;

    /// Length of a vector: the model's width, or the number of scores with [`Pooling::Rank`].
    fn dimensions(&self) -> usize;

    /// Checks a batch, and computes one vector for each of its sequences. Each is whole and begins at position 0.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; there are no vectors then.
    fn embed(&mut self, batch: &Batch) -> Result<(), DecodeError>;

    /// The vector of a sequence of the last batch, as the model gives it: not normalised.
    /// `None` when the batch did not have the sequence, or was not computed.
    fn embedding(&self, sequence: SequenceId) -> Option<&[f32]>;

    /// The id of the backend whose code computes the vectors, asked of the running engine itself.
    fn executed_by(&self) -> String;
}
