//! What can go wrong behind the contract: one enum an operation.

use std::path::PathBuf;

use super::{BatchError, Token};

/// Why a backend has no usable device on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unavailable {
    /// The CPU lacks instructions, or the operating system does not save their registers.
    #[error("the CPU lacks {}", .0.join(", "))]
    MissingCpuFeatures(Vec<String>),
    /// The CPU's scalable vectors have a length for which the engine has no code.
    #[error("the CPU's SVE registers have {}, the engine is written for 128, 256 and 512", bits(*.0))]
    VectorLength(
        /// Bytes of a register, when known.
        Option<u32>,
    ),
    /// No device, driver or library of the kind that the backend needs.
    #[error("{0}")]
    NoDevice(String),
}

/// A number of bits for people, of a number of bytes.
fn bits(bytes: Option<u32>) -> String {
    bytes.map_or_else(|| "an unknown length".to_owned(), |bytes| format!("{} bits", bytes.saturating_mul(8)))
}

/// Why a device cannot serve a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ineligible {
    /// The backend cannot be used on this machine at all.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The backend does not know the model's architecture.
    #[error("does not run the architecture `{0}`")]
    Architecture(String),
    /// The backend does not know an element type of the model.
    #[error("does not read tensors of type {0}")]
    TensorType(String),
    /// The backend is for models with tensors of certain types, and this one has none.
    #[error("is for tensors of type {0}, and the model has none")]
    NoTensorOfType(&'static str),
    /// The weights do not fit.
    #[error("needs {needed} bytes, the device has {available}")]
    Memory {
        /// Bytes that the weights take.
        needed: u64,
        /// Bytes that the device has.
        available: u64,
    },
    /// The backend's prediction is not a speed: a defect of the backend, or rates that make no sense.
    #[error("the prediction is no speed: {0}")]
    Prediction(String),
    /// Ruled out by the user's policy.
    #[error("{0}")]
    Policy(String),
}

/// Why weights could not be loaded by a backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Progress reporting broke the load off.
    #[error("loading was cancelled")]
    Cancelled,
    /// The device is not one of this machine.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The file vanished or changed after it was validated, or cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The engine refused the model; its own words.
    #[error("{engine} refused the model: {message}")]
    Refused {
        /// Which engine, e.g. `llama.cpp`.
        engine: &'static str,
        /// Its last error lines.
        message: String,
    },
    /// Not enough memory for the weights.
    #[error("not enough memory for the weights: {needed} bytes needed, {available} available")]
    Memory {
        /// Bytes needed.
        needed: u64,
        /// Bytes available.
        available: u64,
    },
}

/// Why a context could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// The file holds a vocabulary and no weights.
    #[error("the file holds only a vocabulary: there are no weights to run")]
    VocabularyOnly,
    /// The backend computes no embeddings: choose one of llama.cpp's.
    #[error("this backend computes no embeddings")]
    NoEmbeddings,
    /// [`Pooling::Rank`](super::Pooling::Rank) of a model without a classification head: it is no reranker.
    #[error("the model has no classification head: it is not made to rank")]
    NoRanking,
    /// The backend does not have what was asked for: choose one of llama.cpp's, or leave it out.
    #[error("this backend has no {0}")]
    Option(&'static str),
    /// More threads than the engine can run.
    #[error("{requested} threads requested, the limit is {limit}")]
    Threads {
        /// Asked for.
        requested: u32,
        /// Most that the engine takes.
        limit: u32,
    },
    /// Longer than the engine, or the model's table of positions, can count.
    #[error("a context of {requested} tokens requested, the limit is {limit}")]
    Length {
        /// Asked for, for each sequence.
        requested: u32,
        /// Most that is possible.
        limit: u32,
    },
    /// More sequences than the engine can keep.
    #[error("{requested} sequences requested, the limit is {limit}")]
    Sequences {
        /// Asked for.
        requested: u32,
        /// Most that the engine takes.
        limit: u32,
    },
    /// Not enough memory: ask for a shorter context or fewer sequences.
    #[error("not enough memory for the context: {needed} bytes needed, {available} available")]
    Memory {
        /// Bytes needed.
        needed: u64,
        /// Bytes available.
        available: u64,
    },
    /// The engine refused; its own words.
    #[error("{engine} refused the context: {message}")]
    Refused {
        /// Which engine, e.g. `llama.cpp`.
        engine: &'static str,
        /// Its last error lines.
        message: String,
    },
}

/// Why a decode failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The batch is not valid for this context.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The KV cache has no room for the batch: remove tokens, or open a longer context.
    #[error("the context is full: {used} of {limit} tokens are in use and {requested} more were given")]
    ContextFull {
        /// Tokens in use.
        used: u32,
        /// Tokens that fit.
        limit: u32,
        /// Tokens of the batch.
        requested: u32,
    },
    /// A [`CancelToken`](super::CancelToken) stopped it.
    #[error("decoding was cancelled")]
    Cancelled,
    /// The sequence cannot be changed like this.
    #[error("the sequences cannot be changed: {0}")]
    SequenceEdit(String),
    /// There was no memory to compute the batch in; the context stays usable. A smaller batch, or a shorter context, takes less.
    #[error(
        "no memory to compute {tokens} tokens in: close other programs, or use a smaller batch or a shorter context"
    )]
    OutOfMemory {
        /// Tokens of the batch.
        tokens: u32,
    },
    /// The engine failed; its own words.
    #[error("{engine} failed: {message}")]
    Failed {
        /// Which engine, e.g. `llama.cpp`.
        engine: &'static str,
        /// Its last error lines.
        message: String,
    },
}

/// Why text could not be turned into tokens or back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VocabularyError {
    /// The vocabulary does not have the token.
    #[error("token {token} is not in the vocabulary of {n_tokens}")]
    Token {
        /// The offending id.
        token: Token,
        /// Size of the vocabulary.
        n_tokens: u32,
    },
    /// The model has no tokenizer.
    #[error("the model has no tokenizer")]
    NoTokenizer,
    /// No compiled backend can read the vocabulary: build with a `cpu-*` feature.
    #[error("no compiled backend reads vocabularies; build with a cpu feature")]
    Unsupported,
    /// The text is too long for one call.
    #[error("the text of {0} bytes is too long to tokenise in one call")]
    TooLong(usize),
    /// The engine failed; its own words.
    #[error("{engine} failed: {message}")]
    Failed {
        /// Which engine, e.g. `llama.cpp`.
        engine: &'static str,
        /// Its last error lines.
        message: String,
    },
}
