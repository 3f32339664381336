//! What can be wrong with a checkpoint, and what to do about it.

use std::{io, path::PathBuf};

use crate::gguf::{GgufError, WriteError};

/// Why a checkpoint was not converted. It is untouched, and no part of the output is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The folder, or a file that every checkpoint has. Fetch the whole repository.
    #[error("there is no {}", path.display())]
    Missing {
        /// What was looked for.
        path: PathBuf,
    },
    /// The output would replace a file of the checkpoint. Give it another name.
    #[error("{} is part of the checkpoint and cannot be written to", path.display())]
    SameFile {
        /// The file.
        path: PathBuf,
    },
    /// A file of the checkpoint cannot be read, or got shorter meanwhile.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Not JSON, or a field that is missing or of another type. Fetch the file again.
    #[error("cannot make sense of {}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser met, and where.
        #[source]
        source: serde_json::Error,
    },
    /// A model that is no BitNet, or one with parts that no engine here computes.
    #[error("{}: `{key}` {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The field.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Another kind of tokenizer than byte-level BPE, or one that GGUF has no name for.
    #[error("{}: {problem}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is not supported, or wrong.
        problem: String,
    },
    /// More tokens that end a text than a GGUF file has keys for. Leave the one that ends a text and the one that ends a
    /// turn in the list.
    #[error("{}: `eos_token_id` names {found} tokens, a GGUF file has places for {places}", path.display())]
    EndTokens {
        /// The file.
        path: PathBuf,
        /// Different tokens in the list.
        found: usize,
        /// Those that can be kept.
        places: usize,
    },
    /// A damaged safetensors file, most often a download that broke off. Fetch it again.
    #[error("{} is damaged: {problem}; fetch it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A tensor that the model needs. Fetch the whole repository.
    #[error("{} has no tensor `{tensor}`", path.display())]
    MissingTensor {
        /// The file, or the folder of a sharded checkpoint.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor that the graph has no place for: a variant of BitNet that is not supported.
    #[error("{}: the graph has no place for the tensor `{tensor}`", path.display())]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor of another element type than it can have.
    #[error("{}: tensor `{tensor}` is {found}, must be {expected}", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its element type.
        found: String,
        /// What it must be.
        expected: &'static str,
    },
    /// A tensor of another shape than the configuration gives it.
    #[error("{}: tensor `{tensor}` has the shape {found:?}, config.json makes it {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<u64>,
        /// What it must be.
        expected: Vec<u64>,
    },
    /// Blocks of 64 are the smallest that engines have.
    #[error("{}: tensor `{tensor}` has rows of {row}, which is not a multiple of 64", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The matrix.
        tensor: String,
        /// Length of a row.
        row: u64,
    },
    /// A code that no ternary weight has: the file is damaged. Fetch it again.
    #[error("{}: tensor `{tensor}` has the code 3 in row {row}, column {column}", path.display())]
    Code {
        /// The file.
        path: PathBuf,
        /// The matrix.
        tensor: String,
        /// The row, from 0.
        row: u64,
        /// The column, from 0.
        column: u64,
    },
    /// A scale that no matrix has: the file is damaged. Fetch it again.
    #[error("{}: tensor `{tensor}` is {scale}, and makes no scale above zero", path.display())]
    Scale {
        /// The file.
        path: PathBuf,
        /// The tensor with the scale.
        tensor: String,
        /// What stands there.
        scale: f32,
    },
    /// A weight that is infinite, not a number, or beyond the type in which it is to be stored.
    #[error("{}: tensor `{tensor}` has {value} in row {row}, column {column}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The row, from 0.
        row: u64,
        /// The column, from 0.
        column: u64,
        /// What stands there.
        value: f32,
    },
    /// The model is one that no GGUF reader would accept.
    #[error("{} does not make a valid model", path.display())]
    Invalid {
        /// The folder.
        path: PathBuf,
        /// What this crate's validator says of the GGUF file.
        #[source]
        source: Box<GgufError>,
    },
    /// Progress reporting broke the conversion off.
    #[error("the conversion was cancelled")]
    Cancelled,
    /// The output cannot be written: no space, no permission, no such folder.
    #[error(transparent)]
    Write(WriteError),
}

/// Tensors are read while they are written: what goes wrong then travels through the writer, and is found again by the
/// conversion below.
impl From<ConvertError> for io::Error {
    fn from(error: ConvertError) -> Self {
        io::Error::other(error)
    }
}

impl From<WriteError> for ConvertError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Io { path, source } => match source.downcast::<Self>() {
                Ok(inner) => inner,
                Err(source) => Self::Write(WriteError::Io { path, source }),
            },
            other => Self::Write(other),
        }
    }
}
