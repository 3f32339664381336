//! Files to run the program on.

use std::{
    fs,
    path::{Path, PathBuf},
};

use gguf_loader::{
    backend::VocabularyError,
    gguf::{TensorType, Writer, synth::SyntheticModel},
    tokenizer::{Tokenizer, TokenizerError},
};
use tempfile::TempDir;

/// A folder that goes when it is dropped.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A file of these bytes.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn model(&self) -> PathBuf {
        self.write(&tiny())
    }

    pub(crate) fn vocabulary(&self) -> PathBuf {
        self.write(&tiny().vocabulary_only())
    }

    pub(crate) fn write(&self, model: &SyntheticModel) -> PathBuf {
        let path = self.path().join("model.gguf");
        model.write_file(&path).unwrap();
        path
    }
}

pub(crate) fn tiny() -> SyntheticModel {
    SyntheticModel::tiny().with_type(TensorType::Q8_0).with_seed(1)
}

/// The bytes of the tiny model.
pub(crate) fn tiny_bytes() -> Vec<u8> {
    bytes(&tiny().writer().unwrap())
}

pub(crate) fn bytes(writer: &Writer) -> Vec<u8> {
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    bytes
}

/// Whether a compiled backend reads vocabularies; says so when none does.
pub(crate) fn can_tokenize(model: &Path) -> bool {
    match Tokenizer::load(model) {
        Ok(_) => true,
        Err(TokenizerError::Vocabulary(VocabularyError::Unsupported)) => {
            crate::skip("no compiled backend reads vocabularies");
            false
        }
        Err(error) => panic!("{error}"),
    }
}
