//! What makes llama.cpp abort, refused before it sees the file.
//!
//! llama.cpp answers most defects with an exception, which becomes an error of ours. Some reach a `GGML_ASSERT`, a
//! division by zero or a null kernel instead, and end the process. These rules are the latter, found by reading
//! `gguf.cpp`, `llama-model.cpp`, `llama-vocab.cpp`, the graphs under `src/models` and ggml's CPU operators. Each names
//! the place. A rule accepts every file that llama.cpp runs; what llama.cpp itself refuses politely is not repeated.
//!
//! Keys are checked where they exist: adapters, projectors and vocabulary files lack most of them, and llama.cpp
//! refuses a model without the ones that it needs.

mod architecture;
mod hyperparameters;
mod keys;
mod scales;
mod vocabulary;
mod weights;

use super::{Gguf, GgufError};
pub(super) use keys::Keys;

/// Checks a parsed file against everything that could make llama.cpp abort.
pub(super) fn model(gguf: &Gguf) -> Result<(), GgufError> {
    vocabulary::check(gguf.metadata())?;
    if gguf.metadata().get("general.architecture").is_some() {
        let keys = Keys::new(gguf)?;
        hyperparameters::check(gguf, &keys)?;
        architecture::check(gguf, &keys)?;
    }
    weights::check(gguf)?;
    scales::check(gguf)
}
