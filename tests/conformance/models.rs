//! The models of the suite: synthetic, written once into a folder of their own.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use gguf_loader::{
    gguf::{
        Gguf, TensorType, Writer,
        synth::{OptionalTensors, Output, SynthError, SyntheticBitNet, SyntheticModel, Tokenizer},
    },
    import::{ImportOptions, Layout, OutputMatrix, import},
};
use half::f16;
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
    /// The same in TQ2_0, under the architecture's first name, with keys that nobody knows, of every type.
    BitNet25,
    /// The same in TQ2_0, with the scale of the first matrix in its blocks, where the others have theirs beside them.
    BitNetScaleInBlocks,
    /// Heads of 32 and one of keys and values, less than the rows that kernels multiply at once.
    BitNetNarrow,
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
            Model::BitNet(_)
            | Model::BitNetB158(_)
            | Model::BitNet25
            | Model::BitNetScaleInBlocks
            | Model::BitNetNarrow
            | Model::BitNetMixed
            | Model::BitNetOneLayer => unreachable!("described by `bitnet`"),
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
            Model::BitNet25 => {
                let mut writer = bitnet(TensorType::TQ2_0).with_architecture("bitnet-25").writer()?;
                set_unknown_keys(&mut writer, "bitnet-25");
                Ok(writer.write_file(path)?)
            }
            Model::BitNetScaleInBlocks => {
                bitnet(TensorType::TQ2_0).write_file(path)?;
                Ok(with_scale_in_blocks(path, "blk.0.attn_q").write_file(path)?)
            }
            Model::BitNetNarrow => {
                let mut model = bitnet(TensorType::TQ2_0);
                (model.shape.n_head, model.shape.n_head_kv) = (8, 1);
                model.write_file(path)
            }
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

fn set_unknown_keys(writer: &mut Writer, architecture: &str) {
    let key = |name: &str| format!("{architecture}.test.{name}");
    writer.set(key("u8"), 1_u8).set(key("i8"), -1_i8).set(key("u16"), 2_u16).set(key("i16"), -2_i16);
    writer.set(key("u32"), 3_u32).set(key("i32"), -3_i32).set(key("u64"), 4_u64).set(key("i64"), -4_i64);
    writer.set(key("f32"), 0.5_f32).set(key("f64"), 0.25_f64).set(key("bool"), true).set(key("str"), "text");
    writer.set(key("arr.u8"), vec![1_u8, 2]).set(key("arr.f64"), vec![0.5_f64]).set(key("arr.bool"), vec![true]);
    writer.set(key("arr.str"), vec!["one", "two"]).set(key("arr.none"), Vec::<u32>::new());
}

/// The model at `path` with the scale of one matrix, TQ2_0 with blocks of scale 1, in each of its blocks.
fn with_scale_in_blocks(path: &Path, matrix: &str) -> Writer {
    /// Codes, and the scale.
    const BLOCK: usize = 64 + 2;
    let gguf = Gguf::open(path).expect("a model of the suite");
    let read = |name: &str| gguf.read_tensor(gguf.tensor(name).expect(name)).expect("readable");
    let (weight, beside) = (format!("{matrix}.weight"), format!("{matrix}.scale"));
    let scale = f32::from_le_bytes(read(&beside).try_into().expect("one number"));
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter() {
        writer.set(key, value.clone());
    }
    for tensor in gguf.tensors().iter().filter(|tensor| tensor.name != beside) {
        let mut data = read(&tensor.name);
        if tensor.name == weight {
            for block in data.chunks_exact_mut(BLOCK) {
                block[BLOCK - 2..].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
            }
        }
        writer.add_tensor(&tensor.name, &tensor.shape, tensor.tensor_type, data).expect("a tensor of the model");
    }
    writer
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
            Model::BitNetScaleInBlocks,
            Model::BitNetNarrow,
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
