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

use std::{io::Write as _, path::Path};

pub use applied::Applied;
pub(crate) use applied::AppliedAdapter;
pub use error::StateError;

use crate::{
    backend::{SequenceId, Token},
    gguf::{Fingerprint, partial_file::PartialFile},
};

/// What sequences of a context hold. Made by [`Context::save`](crate::Context::save).
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub(crate) model: Fingerprint,
    pub(crate) applied: Applied,
    /// Who can read the caches.
    pub(crate) format: String,
    pub(crate) sequences: Vec<SequenceState>,
    /// What was computed of all sequences together, where they had something in common; each one's own is then empty.
    pub(crate) forks: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SequenceState {
    pub(crate) id: SequenceId,
    pub(crate) tokens: Vec<Token>,
    /// A token that was generated last and not decoded.
    pub(crate) undecoded: Option<Token>,
    /// What was computed of it.
    pub(crate) cache: Vec<u8>,
}

impl SequenceState {
    /// How many tokens both begin with.
    pub(crate) fn common(&self, other: &Self) -> usize {
        self.tokens.iter().zip(&other.tokens).take_while(|(one, other)| one == other).count()
    }
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

    /// Tokens that it takes room for, each sequence by itself, and with common beginnings once.
    pub(crate) fn room(&self) -> (u64, u64) {
        let apart = self.sequences.iter().map(|sequence| sequence.tokens.len() as u64).sum();
        let saved = self.sequences.iter().enumerate().map(|(index, sequence)| {
            let before = self.sequences[..index].iter().map(|other| sequence.common(other));
            before.max().unwrap_or(0) as u64
        });
        (apart, apart - saved.sum::<u64>())
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
        let write = || {
            let partial = PartialFile::create(path)?;
            partial.file().write_all(&self.to_bytes())?;
            partial.finish()
        };
        write().map_err(|source| StateError::Io { path: path.to_owned(), source })
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
    /// Tokens that a sequence, computed again, has in common with one that was computed before it: copied from there.
    pub copied_tokens: usize,
}
