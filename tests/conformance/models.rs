//! The models of the suite: synthetic, written once into a folder of their own.

use std::path::PathBuf;

use gguf_loader::gguf::{
    TensorType,
    synth::{OptionalTensors, Output, SyntheticModel, Tokenizer},
};
use tempfile::TempDir;

/// The element types in which results are compared. All are written from the same random numbers.
pub(crate) const TYPES: &[TensorType] = &[
    TensorType::F32,
    TensorType::F16,
    TensorType::BF16,
    TensorType::Q8_0,
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q4_K,
    TensorType::Q5_K,
    TensorType::Q6_K,
];

/// A model of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    /// The tiny model in one element type.
    Tiny(TensorType),
    /// With every tensor that a llama model may have: biases, RoPE factors, a separate output matrix.
    Full,
    /// More layers and width, so that a long prompt takes a while everywhere.
    Slow,
    /// Keys only, with a SentencePiece tokenizer.
    SentencePieceVocabulary,
    /// Keys only, with a BPE tokenizer.
    BytePairVocabulary,
}

/// What most checks run: quantised, as models are.
pub(crate) const USUAL: Model = Model::Tiny(TensorType::Q8_0);

impl Model {
    /// The description; the same as that of the recorded logits.
    pub(crate) fn describe(self) -> SyntheticModel {
        let tiny = SyntheticModel::tiny().with_seed(1);
        match self {
            Model::Tiny(tensor_type) => tiny.with_type(tensor_type),
            Model::Full => {
                let mut model = tiny.with_type(TensorType::F32);
                model.shape.output = Output::Separate;
                model.shape.optional = OptionalTensors::Present;
                model
            }
            Model::Slow => {
                let mut model = tiny.with_type(TensorType::Q8_0);
                model.shape.n_layer = 12;
                model.shape.n_ff = 1024;
                model
            }
            Model::SentencePieceVocabulary => tiny.vocabulary_only(),
            Model::BytePairVocabulary => tiny.with_tokenizer(Tokenizer::BytePair).vocabulary_only(),
        }
    }

    fn file_name(self) -> String {
        format!("{self:?}.gguf")
    }
}

/// The folder with all models; removed when dropped.
#[derive(Debug)]
pub(crate) struct Models(TempDir);

impl Models {
    pub(crate) fn write() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let others = [Model::Full, Model::Slow, Model::SentencePieceVocabulary, Model::BytePairVocabulary];
        for model in TYPES.iter().map(|&tensor_type| Model::Tiny(tensor_type)).chain(others) {
            model.describe().write_file(folder.path().join(model.file_name())).expect("a model of the suite");
        }
        Self(folder)
    }

    pub(crate) fn path(&self, model: Model) -> PathBuf {
        self.0.path().join(model.file_name())
    }

    /// A copy that nobody else has opened.
    pub(crate) fn copy(&self, model: Model, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::copy(self.path(model), &path).expect("room for a copy");
        path
    }
}
