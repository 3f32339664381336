//! Grammars over a vocabulary: which tokens may come next.

use std::fmt;

use super::Token;

/// Holds a model to a grammar, token by token. Made by [`Vocabulary::grammar`](super::Vocabulary::grammar).
pub trait GrammarMatcher: fmt::Debug + Send {
    /// Whether `token` may come next. Of a grammar that waits for a trigger this may say yes where [`accept`](Self::accept) finds
    /// out that the token is one and does not fit.
    fn allows(&mut self, token: Token) -> bool;

    /// Sets the logits of the tokens that may not come next to minus infinity, and returns how many may.
    ///
    /// Logits that are infinite before count as ruled out. There is one for each token of the vocabulary; of a slice of
    /// another length nothing is allowed.
    fn mask(&mut self, logits: &mut [f32]) -> usize;

    /// Goes on behind `token`.
    ///
    /// # Errors
    ///
    /// [`GrammarMismatch`] when it may not come next; then nothing changed.
    fn accept(&mut self, token: Token) -> Result<(), GrammarMismatch>;

    /// Why the engine does not go on, and therefore allows nothing any more: not the text's fault, but a limit of its own.
    fn failure(&self) -> Option<GrammarEngineError> {
        None
    }
}

/// A token came that the grammar does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the grammar does not allow token {0} here")]
pub struct GrammarMismatch(pub Token);

/// Why an engine could not take a grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarEngineError {
    /// The backend that reads the vocabulary holds no model to a grammar.
    #[error("the backend knows no grammars; build with a cpu feature")]
    Unsupported,
    /// The engine refused it; its own words.
    #[error("{engine} refused the grammar: {message}")]
    Refused {
        /// Which engine, e.g. `llama.cpp`.
        engine: &'static str,
        /// What it said.
        message: String,
    },
    /// The engine took it and cannot go on with it; its own words.
    #[error("{engine} gave up in the middle of the text, the grammar asks too much of it: {message}")]
    GaveUp {
        /// Which engine, e.g. `llguidance`.
        engine: &'static str,
        /// What it said.
        message: String,
    },
}
