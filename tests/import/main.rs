//! Import and export of BitNet models, from outside: files in, files or typed errors out.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a helper of a test may panic and print like the test")]

mod bad_input;
mod cache;
#[cfg(target_os = "linux")]
#[path = "../disk/full.rs"]
mod full_disk;
mod program;
mod round_trip;

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use gguf_loader::{
    gguf::{Gguf, TensorType, synth::SyntheticBitNet},
    import::{self, ImportError, ImportOptions, Layout, OutputMatrix, Report},
};
use tempfile::TempDir;

/// A folder that goes when it is dropped.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A model of this description.
    fn write(&self, name: &str, model: &SyntheticBitNet) -> PathBuf {
        let path = self.at(name);
        model.write_file(&path).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        names(self.0.path())
    }
}

/// What lies in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn tiny() -> SyntheticBitNet {
    SyntheticBitNet::tiny().with_seed(1)
}

fn go_on(_: f32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn import_as(input: &Path, output: &Path, layout: Layout) -> Result<Report, ImportError> {
    import::import(input, output, &ImportOptions::default().with_layout(layout), go_on)
}

fn with_output(input: &Path, output: &Path, output_matrix: OutputMatrix) -> Result<Report, ImportError> {
    import::import(input, output, &ImportOptions::default().with_output_matrix(output_matrix), go_on)
}

/// Name, shape, type and data of every tensor.
fn tensors(path: &Path) -> Vec<(String, Vec<u64>, TensorType, Vec<u8>)> {
    let gguf = Gguf::open(path).unwrap();
    let read = |tensor: &gguf_loader::gguf::TensorInfo| gguf.read_tensor(tensor).unwrap();
    gguf.tensors()
        .iter()
        .map(|tensor| (tensor.name.clone(), tensor.shape.clone(), tensor.tensor_type, read(tensor)))
        .collect()
}

/// Overwrites bytes of a tensor.
fn patch(path: &Path, tensor: &str, at: u64, bytes: &[u8]) {
    let offset = Gguf::open(path).unwrap().tensor(tensor).unwrap().offset + at;
    let mut file = fs::read(path).unwrap();
    file[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    fs::write(path, file).unwrap();
}
