//! What can go wrong.

use std::path::PathBuf;

use crate::{
    backend::{AdapterEngineError, DecodeError},
    gguf::GgufError,
};

/// Why an adapter could not be loaded or applied. The context is then what it was, except after
/// [`AdapterEngineError::Refused`]: then it is empty, and has no adapters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// The file is no GGUF that can be read safely.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// It is a GGUF of something else: convert the adapter with llama.cpp's `convert_lora_to_gguf.py`.
    #[error("{} is no {expected}: {problem}", path.display())]
    NotAnAdapter {
        /// The file.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
        /// What it lacks.
        problem: String,
    },
    /// It was made for a model of another architecture.
    #[error("the adapter is for the architecture `{adapter}`, and the model has `{model}`")]
    Architecture {
        /// The adapter's.
        adapter: String,
        /// The model's.
        model: String,
    },
    /// A tensor does not fit the model: it was made for another one.
    #[error("`{tensor}` does not fit this model: {problem}")]
    Tensor {
        /// The adapter's tensor.
        tensor: String,
        /// What does not fit.
        problem: String,
    },
    /// A scale that is no finite number.
    #[error("{0} is no scale for an adapter")]
    Scale(f32),
    /// Blocks that the model does not have.
    #[error("the model has blocks 1 to {last} for a control vector, not {from} to {to}")]
    Blocks {
        /// The first one given.
        from: u32,
        /// The last one given.
        to: u32,
        /// The model's last one.
        last: u32,
    },
    /// The backend could not take it.
    #[error(transparent)]
    Engine(#[from] AdapterEngineError),
    /// What the context held could not be forgotten.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}
