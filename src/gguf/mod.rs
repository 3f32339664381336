//! GGUF in safe Rust: reader, validator, writer.
//!
//! [`Gguf::open`] reads the header of a model file and checks it so strictly that llama.cpp, which ends the process on
//! some defects, can be given the file afterwards. [`Writer`] writes such files.
//!
//! # The format
//!
//! All numbers are little-endian; a string is a `u64` length and bytes, without NUL.
//!
//! ```text
//! "GGUF"   u32 version (2 or 3)   u64 tensors   u64 keys
//! keys:    string name, u32 type, value; an array is u32 element type, u64 count, elements
//! tensors: string name, u32 dimensions, u64 sizes (row length first), u32 element type, u64 offset
//! padding to `general.alignment` (32 unless the key says otherwise)
//! data:    each tensor padded to the alignment, in the order of the list; offsets count from here
//! ```
//!
//! A model may lie in several files, `name-00001-of-00003.gguf` and so on. Each is a GGUF file; the first has all keys,
//! and each has `split.no`, `split.count` and `split.tensors.count`.
//!
//! The specification: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>
//!
//! # What is checked
//!
//! * The frame: magic, version, counts, lengths and shapes, each against what the file can still hold before memory
//!   is allocated for it; names, duplicates, offsets, overlaps, alignment.
//! * The meaning: the hyperparameters, tokenizer and element types that llama.cpp takes on trust (`validate`).
//!
//! Names and string values must be UTF-8. The elements of string arrays need not be: byte-level vocabularies may cut a
//! character in two, see [`Strings`].
#![forbid(unsafe_code)]

pub(crate) mod dequantize;
mod encode;
mod error;
mod file;
mod fingerprint;
pub(crate) mod fork;
mod header;
mod layout;
mod metadata;
pub(crate) mod partial_file;
mod profile;
mod quantization;
pub(crate) mod quantize;
mod reader;
#[cfg(feature = "synth")]
pub mod synth;
mod tensor;
mod tensor_type;
pub(crate) mod ternary;
mod validate;
mod value;
mod writer;

pub use error::{GgufError, KeyProblem, SplitProblem, TensorProblem};
pub use file::{Gguf, Part};
pub use fingerprint::Fingerprint;
pub use metadata::Metadata;
pub use profile::MemoryEstimate;
pub use quantization::{GroupStorage, LayerStorage, Quantization, TensorGroup, TypeStorage};
pub use tensor::TensorInfo;
pub use tensor_type::TensorType;
pub use ternary::I2sLayout;
pub use value::{Array, Strings, Value, ValueType};
pub use writer::{SplitLimit, WriteError, Writer};
