//! Adapters: small weights that change what a model's own do.

use std::{any::Any, fmt};

/// A LoRA adapter that a backend has loaded for one of its models.
pub trait BackendAdapter: fmt::Debug + Send + Sync {
    /// What the backend recognises its own by.
    fn as_any(&self) -> &dyn Any;
}

/// Directions that are added to the hidden state after blocks: a control vector, in the form that backends take.
#[derive(Debug, Clone, PartialEq)]
pub struct Directions {
    /// A row as wide as the hidden state for each block but the first, from block 1 on.
    pub rows: Vec<f32>,
    /// The first block that it applies to; at least 1.
    pub first: u32,
    /// The last one.
    pub last: u32,
}

/// Why a backend could not take an adapter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterEngineError {
    /// The backend has no adapters: choose one of llama.cpp's.
    #[error("this backend takes no adapters")]
    Unsupported,
    /// It was loaded for another model.
    #[error("the adapter was loaded for another model")]
    OtherModel,
    /// The engine refused; its own words.
    #[error("{engine} refused the adapter: {message}")]
    Refused {
        /// Which engine, e.g. `llama.cpp`.
        engine: &'static str,
        /// Its last error lines.
        message: String,
    },
}
