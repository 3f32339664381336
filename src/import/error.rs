//! What can go wrong with an import, and what to do about it.

use std::{io, path::PathBuf};

use crate::gguf::{GgufError, I2sLayout, TensorType, WriteError};

/// Why a model was not imported or exported. The input is untouched, and no part of the output is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file is not a GGUF model that can be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// Only BitNet models have matrices that are ternary throughout; load others as they are.
    #[error("{} is of the architecture `{architecture}`, not a BitNet model", path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// Its architecture.
        architecture: String,
    },
    /// The file runs as it is, or is I2_S already.
    #[error("{} has nothing to transcode", path.display())]
    NotNeeded {
        /// The file.
        path: PathBuf,
    },
    /// Part of the file is I2_S already, in an order of codes that an export does not know: import it, and export that.
    #[error("{} has matrices in I2_S beside others that could be", path.display())]
    Mixed {
        /// The file.
        path: PathBuf,
    },
    /// Give the output another name.
    #[error("{} is input and output at once", path.display())]
    SameFile {
        /// The file.
        path: PathBuf,
    },
    /// The matrix cannot have this order of codes: force the one that the file was written with.
    #[error(
        "{}: tensor `{tensor}` has {rows} rows of {row}, the layout {layout} takes multiples of {} and {}",
        path.display(), layout.rows_multiple(), layout.row_multiple()
    )]
    Layout {
        /// The file.
        path: PathBuf,
        /// The matrix.
        tensor: String,
        /// Number of rows.
        rows: u64,
        /// Length of a row.
        row: u64,
        /// The layout that was asked for or assumed.
        layout: I2sLayout,
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
        /// The row, from 0; as the layout reads it.
        row: u64,
        /// The column, from 0.
        column: u64,
    },
    /// A scale that no matrix has: the file is damaged, or not what it says. Fetch it again.
    #[error("{}: tensor `{tensor}` has the scale {scale}, not a number between 1e-10 and 1e6", path.display())]
    Scale {
        /// The file.
        path: PathBuf,
        /// The matrix.
        tensor: String,
        /// What stands there.
        scale: f32,
    },
    /// A scale in the matrix and another beside it, of which no single one can be made without rounding. Divide the weights
    /// by theirs, so that they are -1, 0 and 1, and multiply the one beside the matrix with it.
    #[error(
        "{}: tensor `{tensor}` has the scale {step} and one of {beside} beside it, whose product F32 does not hold",
        path.display()
    )]
    TwoScales {
        /// The file.
        path: PathBuf,
        /// The matrix.
        tensor: String,
        /// The scale within the matrix.
        step: f32,
        /// The scale in the tensor beside it.
        beside: f32,
    },
    /// The tensor beside a matrix is not one number: convert the original model again.
    #[error(
        "{}: tensor `{tensor}` is {tensor_type} of the shape {shape:?}, the scale of a matrix is one F32",
        path.display()
    )]
    ScaleTensor {
        /// The file.
        path: PathBuf,
        /// The tensor with the scale.
        tensor: String,
        /// Its element type.
        tensor_type: TensorType,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// A float matrix with more than three values: master weights, which a converter of checkpoints quantises.
    #[error("{}: tensor `{tensor}` is not ternary: {found} in row {row}, beside {scale}", path.display())]
    NotTernary {
        /// The file.
        path: PathBuf,
        /// The matrix.
        tensor: String,
        /// The row, from 0.
        row: u64,
        /// The weight that is none of zero, the scale, and the scale negated.
        found: f32,
        /// The largest weight.
        scale: f32,
    },
    /// A ternary matrix whose blocks have scales of their own: quantised by llama.cpp, and not to be had as I2_S.
    #[error("{}: tensor `{tensor}` has block scales in row {row} that are not 1.0", path.display())]
    BlockScale {
        /// The file.
        path: PathBuf,
        /// The matrix.
        tensor: String,
        /// The first of the rows among which it is, from 0.
        row: u64,
    },
    /// The output matrix cannot be had in this type: keep it.
    #[error("{}: tensor `{tensor}` is {from} with rows of {row}, and cannot be stored as {to}", path.display())]
    OutputMatrix {
        /// The file.
        path: PathBuf,
        /// The matrix.
        tensor: String,
        /// How it is stored.
        from: TensorType,
        /// Length of a row.
        row: u64,
        /// What was asked for.
        to: TensorType,
    },
    /// The file was written to during the import: import again.
    #[error("{} changed during the import", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Progress reporting broke the import off.
    #[error("the import was cancelled")]
    Cancelled,
    /// No space, or a quota or limit was met: make room, or import to another disk.
    #[error("no room for {}: {needed} bytes needed", path.display())]
    Full {
        /// The file that was to be written.
        path: PathBuf,
        /// Bytes of the whole file, about.
        needed: u64,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The input cannot be read any more.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The output cannot be written: check the folder and its rights.
    #[error(transparent)]
    Write(WriteError),
    /// The cache of imported models cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// Why the cache of imported models cannot be used. Importing by hand needs none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Set `GGUF_LOADER_CACHE` to a folder.
    #[error("there is no folder for imported models: no home folder, and GGUF_LOADER_CACHE is not set")]
    NoFolder,
    /// Raise `GGUF_LOADER_IMPORT_BUDGET`, or import by hand.
    #[error("the import takes {needed} bytes, GGUF_LOADER_IMPORT_BUDGET allows {budget}")]
    Budget {
        /// Bytes of the imported model.
        needed: u64,
        /// Bytes that all imported models together may take.
        budget: u64,
    },
    /// Check the rights of the folder, or set `GGUF_LOADER_CACHE` to another one.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl ImportError {
    /// What is known of a failed write: our own error, where a stream had one, or what the disk said.
    pub(super) fn of_write(error: WriteError, needed: u64) -> Self {
        let WriteError::Io { path, source } = error else { return Self::Write(error) };
        match source.downcast::<Self>() {
            Ok(ours) => ours,
            Err(source) if is_full(source.kind()) => Self::Full { path, needed, source },
            Err(source) => Self::Write(WriteError::Io { path, source }),
        }
    }
}

/// Whether a write failed for want of room.
pub(super) fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
