//! What can go wrong.

use std::path::PathBuf;

use crate::{
    adapter::AdapterError,
    gguf::{GgufError, TensorType, WriteError},
};

/// Why nothing was merged. Nothing is left of the output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// A file is no GGUF model that can be read safely.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// An adapter does not fit the model.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A tensor in a type that cannot be changed, such as a ternary one: merge into a model in F16, and quantise that.
    #[error("`{tensor}` is in {tensor_type}, which cannot be changed")]
    Type {
        /// The tensor.
        tensor: String,
        /// Its type.
        tensor_type: TensorType,
    },
    /// The two models differ in a tensor, or in a key that says what the weights mean.
    #[error("the models are not alike: {0}")]
    Different(String),
    /// A scale or a ratio that is no finite number.
    #[error("{0} is no scale or ratio")]
    Ratio(f32),
    /// The output would replace what it is made of.
    #[error("{} is read and cannot be written to", path.display())]
    SameFile {
        /// The file.
        path: PathBuf,
    },
    /// The progress report broke off.
    #[error("merging was cancelled")]
    Cancelled,
    /// The output cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}
