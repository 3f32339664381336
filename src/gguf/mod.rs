//! GGUF in safe Rust: reader, validator, writer.
#![forbid(unsafe_code)]

mod error;
mod layout;
mod metadata;
mod partial_file;
#[cfg(feature = "synth")]
pub mod synth;
mod tensor_type;
mod value;
mod writer;

pub use error::{GgufError, KeyProblem, SplitProblem, TensorProblem};
pub use metadata::Metadata;
pub use tensor_type::TensorType;
pub use value::{Array, Strings, Value, ValueType};
pub use writer::{SplitLimit, WriteError, Writer};
