//! What can go wrong when tokens are chosen.

use crate::backend::{Token, VocabularyError};

/// Why a [`Sampling`](super::Sampling) makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplingError {
    /// A parameter is out of its range.
    #[error("{parameter} is {value}; it must be {range}")]
    OutOfRange {
        /// The parameter.
        parameter: &'static str,
        /// What it is.
        value: f32,
        /// What it may be.
        range: &'static str,
    },
    /// A parameter does nothing without another one, which is not set.
    #[error("{parameter} does nothing without {needs}")]
    Alone {
        /// The parameter.
        parameter: &'static str,
        /// What it belongs to.
        needs: &'static str,
    },
    /// Two parameters that each choose the token.
    #[error("{0} and {1} cannot be combined: each chooses the token by itself")]
    Together(&'static str, &'static str),
    /// The vocabulary does not have a token that was named.
    #[error("there is no token {token} to give a bias: the vocabulary ends at {n_tokens}")]
    Token {
        /// The token.
        token: Token,
        /// Tokens of the vocabulary.
        n_tokens: u32,
    },
    /// A text at which no repetition could ever break off: leave it out.
    #[error("a DRY breaker is empty: leave it out")]
    EmptyBreaker,
    /// [`SamplerStep::Infill`](super::SamplerStep::Infill) with a model that cannot end its answer.
    #[error("infill needs a token that ends the answer, and the model has none")]
    NoEnd,
    /// The texts of the tokens cannot be had.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
}

/// Why no token could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// The model's weights are broken, or its arithmetic overflowed.
    #[error("the model's logits are not numbers: the file may be damaged")]
    NotANumber,
    /// All candidates were ruled out, e.g. by biases of minus infinity.
    #[error("no token is left to choose: the sampling rules out all of them; let some be kept")]
    NothingLeft,
    /// A [`LogitProcessor`](super::LogitProcessor) left a logit that is NaN or plus infinity.
    #[error("a logit processor left a logit that is not a finite number")]
    Processor,
}
