//! Checkpoints of Hugging Face to GGUF, from outside: folders in, files or typed errors out.
//!
//! The folders are written by the safetensors library itself, and what they must become is derived by hand: nothing is
//! checked against the code that it tests.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a helper of a test may panic and print like the test")]

mod bad_input;
mod checkpoint;
#[cfg(feature = "cli")]
mod cli;
#[cfg(all(feature = "cli", target_os = "linux"))]
#[path = "../disk/full.rs"]
mod full_disk;
mod matrices;
mod tokenizer;
mod trained;
mod whole;

use std::{ops::ControlFlow, path::Path};

use checkpoint::Checkpoint;
use gguf_loader::{
    convert::{ConvertError, ConvertOptions, Report, convert},
    gguf::Gguf,
};

/// Converts without options and without looking at the progress.
fn convert_to(checkpoint: &Checkpoint, output: &Path) -> Result<Report, ConvertError> {
    let folder = checkpoint.write();
    convert(folder.path(), output, &ConvertOptions::default(), |_| ControlFlow::Continue(()))
}

/// The file that a checkpoint becomes, in memory.
#[track_caller]
fn converted(checkpoint: &Checkpoint) -> Gguf {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.gguf");
    convert_to(checkpoint, &output).unwrap();
    Gguf::parse(&std::fs::read(output).unwrap()).unwrap()
}

/// The error of a checkpoint that cannot be converted, and that nothing is left of the attempt.
#[track_caller]
fn refused(checkpoint: &Checkpoint) -> ConvertError {
    let folder = tempfile::tempdir().unwrap();
    let error = convert_to(checkpoint, &folder.path().join("model.gguf")).unwrap_err();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{error}");
    error
}

/// The bytes of a tensor.
fn data(gguf: &Gguf, name: &str) -> Vec<u8> {
    gguf.read_tensor(gguf.tensor(name).unwrap()).unwrap()
}

/// The floats of an F32 tensor.
fn floats(gguf: &Gguf, name: &str) -> Vec<f32> {
    data(gguf, name).as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}
