//! What a context holds, as bytes or a file, and back.
//!
//! A [`State`] has the tokens of one sequence or of all, and what the engine has computed of them. It belongs to a model and
//! its adapters, which fingerprints name, and to no machine: a tier, a number of threads and a backend other than those that made it continue it
//! too. Where the engine is another one, or its cache has other types, the tokens are computed again; [`Restored`] says so.
//!
//! ```no_run
//! use gguf_loader::{Model, backend::ContextOptions, generation::{GenerateRequest, Start}, state::State};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::load("model.gguf")?;
//! let mut context = model.context(&ContextOptions::default())?;
//! context.complete(GenerateRequest::new("A long text to begin with").with_max_tokens(64.try_into()?))?;
//! context.save()?.write("text.state")?;
//!
//! let mut later = model.context(&ContextOptions::default())?;
//! later.restore(&State::read("text.state")?)?;
//! let more = later.complete(GenerateRequest::new(" And then").with_start(Start::Continue))?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod applied;
mod error;
mod file;

use std::path::Path;

pub use applied::Applied;
pub(crate) use applied::AppliedAdapter;
pub use error::StateError;

use crate::{
    backend::{SequenceId, Token},
    gguf::Fingerprint,
};

/// What sequences of a context hold. Made by [`Context::save`](crate::Context::save).
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub(crate) model: Fingerprint,
    pub(crate) applied: Applied,
    pub(crate) sequences: Vec<SequenceState>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SequenceState {
    pub(crate) id: SequenceId,
    pub(crate) tokens: Vec<Token>,
    /// A token that was generated last and not decoded.
    pub(crate) undecoded: Option<Token>,
    /// Who can read `cache`.
    pub(crate) format: String,
    pub(crate) cache: Vec<u8>,
}

impl State {
    /// The model that it belongs to.
    pub fn model(&self) -> &Fingerprint {
        &self.model
    }

    /// The adapters and control vectors that it was computed with.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    /// The sequences, each with its tokens.
    pub fn sequences(&self) -> impl Iterator<Item = (SequenceId, &[Token])> {
        self.sequences.iter().map(|sequence| (sequence.id, sequence.tokens.as_slice()))
    }

    /// The bytes of a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        file::write(self)
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    ///
    /// [`StateError`] when they are no state, or not whole, or have changed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        file::read(bytes)
    }

    /// Writes a file. One that was there is whole until the new one is.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), StateError> {
        let path = path.as_ref();
        let mut beside = path.as_os_str().to_owned();
        beside.push(".part");
        let written = std::fs::write(&beside, self.to_bytes()).and_then(|()| std::fs::rename(&beside, path));
        written.map_err(|source| {
            let _ = std::fs::remove_file(&beside);
            StateError::Io { path: path.to_owned(), source }
        })
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`StateError`] when it cannot be read, is no state, or not whole, or has changed.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, StateError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| StateError::Io { path: path.to_owned(), source })?;
        Self::from_bytes(&bytes)
    }
}

/// How a state was restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// Tokens whose computed state was taken over.
    pub kept_tokens: usize,
    /// Tokens that were computed again, because the state comes from another engine or a cache of other types.
    pub computed_tokens: usize,
}
