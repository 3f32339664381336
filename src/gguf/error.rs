//! What can be wrong with a model file: where it stands, and what to do about it.

use std::{io, path::PathBuf};

use super::TensorType;

/// Why a model file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// Check the path; the model was not fetched, or is elsewhere.
    #[error("there is no file {}", path.display())]
    NotFound {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// Name a `.gguf` file inside the folder.
    #[error("{} is a folder, a model is a file that ends in .gguf", path.display())]
    Directory {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// Change the permissions of the file, or run as a user who may read it.
    #[error("no permission to read {}", path.display())]
    PermissionDenied {
        /// The file.
        path: PathBuf,
    },
    /// The device failed, or the file is not an ordinary one.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A download that never began: fetch the file again.
    #[error("{} is empty; fetch it again", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Another kind of file, or a damaged one.
    #[error("{} is not a GGUF file: it starts with {found}, not with `GGUF`", path.display())]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// What it starts with, or what that looks like.
        found: String,
    },
    /// A format from before GGUF: convert the original model with a current llama.cpp.
    #[error(
        "{} is in the format {format}, which GGUF replaced in 2023; convert the original model again", path.display()
    )]
    OldFormat {
        /// The file.
        path: PathBuf,
        /// Its name: GGML, GGMF or GGJT.
        format: &'static str,
    },
    /// Written for big-endian machines: convert it with `gguf_convert_endian.py` of llama.cpp.
    #[error("{} is a big-endian GGUF file; convert it to little-endian", path.display())]
    BigEndian {
        /// The file.
        path: PathBuf,
    },
    /// A version that is too old (1) or not known yet.
    #[error("{} has GGUF version {version}, versions 2 and 3 can be read", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The file is shorter than its own header says; most often a download that broke off. Fetch it again.
    #[error(
        "{} is truncated or damaged: {what} at byte {offset} needs {needed} bytes, {available} are left; fetch it again",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What ends too early, e.g. the key or tensor.
        what: String,
        /// Where it begins.
        offset: u64,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that the file has from there on.
        available: u64,
    },
    /// More metadata than any model has; the limit keeps a hostile file from filling the memory.
    #[error("{} has over {limit} bytes of header at byte {offset}", path.display())]
    HeaderTooLarge {
        /// The file.
        path: PathBuf,
        /// Where the limit was passed.
        offset: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A key that must be there is not.
    #[error("{} has no key `{key}`", path.display())]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A key or its value is wrong.
    #[error("{}: key `{key}` at byte {offset}: {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key, with U+FFFD for what is not UTF-8.
        key: String,
        /// Where the key or the offending part of its value stands.
        offset: u64,
        /// What is wrong.
        problem: KeyProblem,
    },
    /// A tensor that this architecture cannot do without is not there: convert the original model again.
    #[error("{} has no tensor `{tensor}`", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor is described wrongly.
    #[error("{}: tensor `{tensor}` at byte {offset}: {problem}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name, with U+FFFD for what is not UTF-8.
        tensor: String,
        /// Where its description stands.
        offset: u64,
        /// What is wrong.
        problem: TensorProblem,
    },
    /// Backends read files: write the bytes to one, and open that.
    #[error("a model that was parsed from memory cannot be loaded; write it to a file")]
    InMemory,
    /// One part of a split model is missing or does not belong to the others.
    #[error("{}: {problem}", path.display())]
    Split {
        /// The part.
        path: PathBuf,
        /// What is wrong.
        problem: SplitProblem,
    },
}

/// What is wrong with a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyProblem {
    /// No name at all.
    #[error("the name is empty")]
    EmptyName,
    /// The specification allows 65535 bytes.
    #[error("the name has {0} bytes, at most 65535 are allowed")]
    LongName(u64),
    /// Names are UTF-8 without NUL.
    #[error("the name is not UTF-8 text")]
    NameNotText,
    /// The key occurs twice.
    #[error("the key occurs twice")]
    Duplicate,
    /// A value type that GGUF does not have.
    #[error("value type {0} does not exist")]
    UnknownType(u32),
    /// An array of arrays, which llama.cpp does not read either.
    #[error("an array of arrays is not supported")]
    NestedArray,
    /// More elements than llama.cpp reads.
    #[error("the array has {0} elements, at most 2^30 are allowed")]
    LongArray(u64),
    /// A longer string than llama.cpp reads.
    #[error("a string has {0} bytes, at most 2^30 are allowed")]
    LongString(u64),
    /// A boolean byte other than 0 and 1.
    #[error("a boolean is {0}, not 0 or 1")]
    Boolean(u8),
    /// A string value that is not UTF-8.
    #[error("the string is not UTF-8 text")]
    NotText,
    /// Another type than the key must have.
    #[error("is {found}, must be {expected}")]
    Type {
        /// What the key must hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// A value that no model can have, or that disagrees with another key.
    #[error("is {found}, must be {expected}")]
    Value {
        /// What it is.
        found: String,
        /// What it must be.
        expected: String,
    },
}

/// What is wrong with a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorProblem {
    /// No name at all.
    #[error("the name is empty")]
    EmptyName,
    /// ggml stores 63 bytes and a NUL.
    #[error("the name has {0} bytes, at most 63 are allowed")]
    LongName(u64),
    /// Names are UTF-8 without NUL.
    #[error("the name is not UTF-8 text")]
    NameNotText,
    /// The name occurs twice, in one part or in two.
    #[error("the tensor occurs twice")]
    Duplicate,
    /// Number of dimensions outside of 1 to 4.
    #[error("has {0} dimensions, 1 to 4 are allowed")]
    Dimensions(u32),
    /// A dimension of 0, or sizes whose product is beyond 2^63.
    #[error("has the impossible shape {0:?}")]
    Shape(Vec<u64>),
    /// A row is not a whole number of blocks.
    #[error("has rows of {row} elements, {tensor_type} needs a multiple of {}", tensor_type.block_elements())]
    Row {
        /// Elements of a row.
        row: u64,
        /// Element type.
        tensor_type: TensorType,
    },
    /// An element type that this version does not have.
    #[error("has element type {id}, {origin}")]
    UnknownType {
        /// The id in the file.
        id: u32,
        /// Where the id is known from.
        origin: &'static str,
    },
    /// The data does not begin where the tensor before it ends.
    #[error("has data offset {found}, the data of the tensors before it ends at {expected}")]
    Offset {
        /// Offset in the file's data section.
        found: u64,
        /// The offset that ggml requires.
        expected: u64,
    },
    /// Data that does not stand on a multiple of 32 bytes in the file, which ggml asserts for a mapped file.
    #[error("has its data at byte {0} of the file, which is not a multiple of 32")]
    Misaligned(u64),
    /// An element type that no kernel of ggml computes with in this place.
    #[error("has element type {tensor_type}, {expected}")]
    Type {
        /// Its element type.
        tensor_type: TensorType,
        /// What it must be.
        expected: &'static str,
    },
    /// The scale of a BitNet matrix is NaN, infinite, zero or below: the file is damaged. Fetch or convert it again.
    #[error("is {found}, a scale must be a number above zero")]
    Scale {
        /// What stands there.
        found: String,
    },
    /// Padding that goes beyond 2^63.
    #[error("ends beyond any file")]
    Overflow,
}

/// What is wrong with a part of a split model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitProblem {
    /// Load the first part; the others are found from it.
    #[error("this is part {number} of {count}; load the first part, {}", first.display())]
    NotFirst {
        /// This part, from 1.
        number: u16,
        /// Number of parts.
        count: u16,
        /// The first part, if it has the usual name.
        first: PathBuf,
    },
    /// Fetch the part and put it beside the first.
    #[error("part {number} of {count} is missing; put it beside {}", first.display())]
    Missing {
        /// The missing part, from 1.
        number: u16,
        /// Number of parts.
        count: u16,
        /// The first part.
        first: PathBuf,
    },
    /// Parts are found by their names; rename the file back.
    #[error("a model in {count} parts must be named like model-00001-of-{count:05}.gguf")]
    Name {
        /// Number of parts.
        count: u16,
    },
    /// A part says that it is another one: parts of different models, or renamed.
    #[error("says that it is part {found}, its name says {expected}")]
    Number {
        /// What `split.no` says, plus 1.
        found: u64,
        /// What the name says.
        expected: u16,
    },
    /// Parts of different models, or one of them is damaged.
    #[error("the parts hold {found} tensors, `split.tensors.count` says {expected}")]
    Tensors {
        /// Tensors in all parts.
        found: u64,
        /// What the first part says.
        expected: u64,
    },
}
