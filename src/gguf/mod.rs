//! GGUF in safe Rust: reader, validator, writer.
#![forbid(unsafe_code)]

mod tensor_type;

pub use tensor_type::TensorType;
