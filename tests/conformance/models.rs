//! The models of the suite: synthetic, written once into a folder of their own.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use gguf_loader::{
    gguf::{
        TensorType,
        synth::{OptionalTensors, Output, SynthError, SyntheticBitNet, SyntheticModel, Tokenizer},
    },
    import::{ImportOptions, Layout, OutputMatrix, import},
};
use tempfile::TempDir;

use crate::trained::fixture;

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

/// The ternary types.
pub(crate) const TERNARY_TYPES: &[TensorType] = &[TensorType::TQ1_0, TensorType::TQ2_0, TensorType::Q2_0];

/// A model of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    /// The tiny model in one element type.
    Tiny(TensorType),
    /// The tiny model with its blocks in a ternary type: a scale for each block of weights, embedding in F16.
    Ternary(TensorType),
    /// BitNet with SiLU, its blocks in this type and a scale for each matrix; in F32 the embedding is too.
    BitNet(TensorType),
    /// The same weights in the graph of 2B-4T, with the squared ReLU.
    BitNetB158(TensorType),
    /// The same in TQ2_0, under the architecture's first name.
    BitNet25,
    /// The same with other types for some matrices.
    BitNetMixed,
    /// The same in TQ2_0, of one layer.
    BitNetOneLayer,
    /// With every tensor that a llama model may have: biases, RoPE factors, a separate output matrix.
    Full,
    /// One layer, whose keys and values know nothing of the tokens before.
    OneLayer,
    /// More layers and width, so that a long prompt takes a while everywhere.
    Slow,
    /// The same with ternary blocks.
    SlowTernary,
    /// Keys only, with a SentencePiece tokenizer.
    SentencePieceVocabulary,
    /// Keys only, with a BPE tokenizer.
    BytePairVocabulary,
}

/// What most checks run: quantised, as models are.
pub(crate) const USUAL: Model = Model::Tiny(TensorType::Q8_0);

impl Model {
    /// The description of a llama model; the same as that of the recorded logits.
    pub(crate) fn describe(self) -> SyntheticModel {
        let tiny = SyntheticModel::tiny().with_seed(1);
        match self {
            Model::Tiny(tensor_type) => tiny.with_type(tensor_type),
            Model::Ternary(tensor_type) => tiny.with_type(TensorType::F16).with_block_type(tensor_type),
            Model::BitNet(_) | Model::BitNetB158(_) | Model::BitNet25 | Model::BitNetMixed | Model::BitNetOneLayer => {
                unreachable!("described by `bitnet`")
            }
            Model::Full => {
                let mut model = tiny.with_type(TensorType::F32);
                model.shape.output = Output::Separate;
                model.shape.optional = OptionalTensors::Present;
                model
            }
            Model::OneLayer => {
                let mut model = Model::Full.describe();
                model.shape.n_layer = 1;
                model
            }
            Model::Slow | Model::SlowTernary => {
                let mut model = match self {
                    Model::Slow => tiny.with_type(TensorType::Q8_0),
                    _ => tiny.with_type(TensorType::F16).with_block_type(TensorType::TQ2_0),
                };
                model.shape.n_layer = 12;
                model.shape.n_ff = 1024;
                model
            }
            Model::SentencePieceVocabulary => tiny.vocabulary_only(),
            Model::BytePairVocabulary => tiny.with_tokenizer(Tokenizer::BytePair).vocabulary_only(),
        }
    }

    fn write(self, path: &Path) -> Result<(), SynthError> {
        match self {
            Model::BitNet(tensor_type) => bitnet(tensor_type).with_architecture("bitnet").write_file(path),
            Model::BitNetB158(tensor_type) => bitnet(tensor_type).write_file(path),
            Model::BitNet25 => bitnet(TensorType::TQ2_0).with_architecture("bitnet-25").write_file(path),
            Model::BitNetMixed => mixed().write_file(path),
            Model::BitNetOneLayer => {
                let mut model = bitnet(TensorType::TQ2_0);
                model.shape.n_layer = 1;
                model.write_file(path)
            }
            other => other.describe().write_file(path),
        }
    }

    fn file_name(self) -> String {
        format!("{self:?}.gguf")
    }
}

fn bitnet(tensor_type: TensorType) -> SyntheticBitNet {
    let bitnet = SyntheticBitNet::tiny().with_seed(1).with_ternary(tensor_type);
    if tensor_type == TensorType::F32 { bitnet.with_embedding(tensor_type) } else { bitnet }
}

/// Types within the groups of matrices that share an input, as a quantiser that is told a type for each tensor makes them.
fn mixed() -> SyntheticBitNet {
    bitnet(TensorType::TQ2_0)
        .with_exception("blk.0.attn_k.weight", TensorType::TQ1_0)
        .with_exception("blk.0.attn_output.weight", TensorType::Q6_K)
        .with_exception("blk.0.ffn_up.weight", TensorType::Q2_0)
        .with_exception("blk.1.attn_q.weight", TensorType::Q6_K)
        .with_exception("blk.1.attn_v.weight", TensorType::Q8_0)
        .with_exception("blk.1.ffn_gate.weight", TensorType::Q6_K)
        .with_exception("blk.1.ffn_down.weight", TensorType::Q6_K)
}

/// The folder with all models; removed when dropped.
#[derive(Debug)]
pub(crate) struct Models(TempDir);

impl Models {
    pub(crate) fn write() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let others = [
            Model::Full,
            Model::OneLayer,
            Model::Slow,
            Model::SlowTernary,
            Model::BitNet25,
            Model::BitNetMixed,
            Model::BitNetOneLayer,
            Model::SentencePieceVocabulary,
            Model::BytePairVocabulary,
        ];
        let of_types = |model: fn(TensorType) -> Model, types: &'static [TensorType]| {
            types.iter().map(move |&tensor_type| model(tensor_type))
        };
        let models = of_types(Model::Tiny, TYPES)
            .chain(of_types(Model::Ternary, TERNARY_TYPES))
            .chain(of_types(Model::BitNet, &[TensorType::F32, TensorType::TQ2_0]))
            .chain(of_types(Model::BitNetB158, TERNARY_TYPES))
            .chain(others);
        for model in models {
            model.write(&folder.path().join(model.file_name())).expect("a model of the suite");
        }
        let (models, trained) = (Self(folder), fixture("scribe.gguf"));
        for output in OutputMatrix::ALL {
            let options = ImportOptions::default().with_layout(Layout::X86).with_output_matrix(output);
            import(&trained, models.trained(output), &options, |_| ControlFlow::Continue(()))
                .unwrap_or_else(|error| panic!("{} was not imported: {error}", trained.display()));
        }
        models
    }

    pub(crate) fn path(&self, model: Model) -> PathBuf {
        self.0.path().join(model.file_name())
    }

    /// The trained ternary model, in a form that backends load, with its output matrix in this type.
    pub(crate) fn trained(&self, output: OutputMatrix) -> PathBuf {
        self.0.path().join(format!("trained-{output}.gguf"))
    }

    /// A copy that nobody else has opened.
    pub(crate) fn copy(&self, model: Model, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::copy(self.path(model), &path).expect("room for a copy");
        path
    }
}
