//! What can go wrong.

use std::{io, path::PathBuf};

use super::Applied;
use crate::{
    backend::{DecodeError, SequenceId},
    gguf::{Fingerprint, GgufError},
};

/// Why a state could not be saved or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A file cannot be read or written.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// It does not begin as a state does.
    #[error("this is no saved state")]
    NotAState,
    /// A later version of this program wrote it.
    #[error("the state has version {found}, and this program reads up to {supported}")]
    Version {
        /// Its version.
        found: u32,
        /// The latest that can be read.
        supported: u32,
    },
    /// Its end is missing, or bytes of it have changed: save it again.
    #[error("the saved state is damaged: its checksum does not fit")]
    Damaged,
    /// It belongs to another model, or to other weights of the same one.
    #[error("the state belongs to model {saved}, and this is model {loaded}")]
    OtherModel {
        /// The model that it was saved with.
        saved: Fingerprint,
        /// The model of the context.
        loaded: Fingerprint,
    },
    /// It was computed with other adapters or control vectors, or other scales: apply the same before.
    #[error("the state was computed with {saved}, and the context has {loaded}")]
    OtherAdapters {
        /// What the saved context had.
        saved: Applied,
        /// What this one has.
        loaded: Applied,
    },
    /// The context has no such sequence: open one with more sequences.
    #[error("the context has {limit} sequences, and no number {sequence}")]
    NoSequence {
        /// The sequence.
        sequence: SequenceId,
        /// Sequences of the context.
        limit: u32,
    },
    /// It has not exactly one sequence.
    #[error("the state has {0} sequences, and one is to be restored")]
    NotOneSequence(usize),
    /// A sequence does not fit: open a longer context.
    #[error("the state has a sequence of {tokens} tokens, and the context holds {limit}")]
    TooLong {
        /// Tokens of the sequence.
        tokens: usize,
        /// Tokens that fit.
        limit: u32,
    },
    /// The sequences do not fit into the cache together: open a longer context, or restore them one by one.
    #[error("the state takes room for {tokens} tokens, and the cache holds {limit}")]
    NoRoom {
        /// Tokens of all sequences, common beginnings counted once.
        tokens: u64,
        /// Tokens that fit.
        limit: u64,
    },
    /// The model's file cannot be read any more, to take its fingerprint.
    #[error("the model's file cannot be read again")]
    Model(#[source] GgufError),
    /// The engine could not save, or the tokens could not be computed again.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}
