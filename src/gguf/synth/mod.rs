//! Models with random weights, for tests, benchmarks and examples.
//!
//! A synthetic model is complete: llama.cpp loads it, its tokenizer included, and greedy text from it varies instead of
//! repeating one token. The same description gives the same bytes on every machine.
//!
//! ```no_run
//! use gguf_loader::gguf::{TensorType, synth::SyntheticModel};
//!
//! SyntheticModel::tiny().with_type(TensorType::Q4_0).with_seed(7).write_file("tiny.gguf")?;
//! # Ok::<(), gguf_loader::gguf::synth::SynthError>(())
//! ```

mod bitnet;
pub(crate) mod quantize;
mod random;
mod vocabulary;
mod weights;

use std::path::Path;

pub use bitnet::{BitNetShape, SyntheticBitNet};
pub use vocabulary::Tokenizer;

use super::{TensorType, WriteError, Writer};

/// What to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntheticModel {
    /// The sizes.
    pub shape: Shape,
    /// How the weights are stored.
    pub types: WeightTypes,
    /// The kind of tokenizer.
    pub tokenizer: Tokenizer,
    /// What the weights are drawn from.
    pub seed: u64,
    /// Whether the file has keys only and no tensors.
    pub vocabulary_only: bool,
}

/// The sizes of a model of the llama architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Width of the hidden state.
    pub n_embd: u32,
    /// Number of blocks.
    pub n_layer: u32,
    /// Number of query heads: divides `n_embd` into heads of an even width.
    pub n_head: u32,
    /// Number of key and value heads: divides `n_head`.
    pub n_head_kv: u32,
    /// Width of the feed-forward network.
    pub n_ff: u32,
    /// Tokens in the vocabulary.
    pub n_vocab: u32,
    /// Context length that the file claims.
    pub n_ctx_train: u32,
    /// The output matrix.
    pub output: Output,
    /// Tensors that a llama model may have or not.
    pub optional: OptionalTensors,
}

/// The output matrix of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// The embedding table serves as output matrix.
    Tied,
    /// The output matrix has weights of its own.
    Separate,
}

/// Tensors that a llama model may have or not: a bias behind each matrix of a block, and RoPE's frequency factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionalTensors {
    /// None of them.
    Absent,
    /// All of them.
    Present,
}

/// The element types of the matrices. Norms, biases and factors are F32, as everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightTypes {
    /// The embedding table.
    pub embedding: TensorType,
    /// The four matrices of attention.
    pub attention: TensorType,
    /// The three matrices of the feed-forward network.
    pub feed_forward: TensorType,
    /// The output matrix, where it is separate.
    pub output: TensorType,
}

impl From<TensorType> for WeightTypes {
    fn from(tensor_type: TensorType) -> Self {
        Self { embedding: tensor_type, attention: tensor_type, feed_forward: tensor_type, output: tensor_type }
    }
}

/// Why a synthetic model cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
    /// Sizes that do not agree: see [`Shape`].
    #[error("{0}")]
    Shape(String),
    /// Use F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K, TQ1_0, TQ2_0 or Q2_0.
    #[error("random weights cannot be stored as {0}")]
    TensorType(TensorType),
    /// A row that is no whole number of blocks, or a file that cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl SyntheticModel {
    /// The smallest model that every element type fits: below 1 MB when quantised.
    pub fn tiny() -> Self {
        Self::of_shape(Shape {
            n_embd: 256,
            n_layer: 2,
            n_head: 4,
            n_head_kv: 2,
            n_ff: 256,
            n_vocab: 512,
            n_ctx_train: 2048,
            output: Output::Tied,
            optional: OptionalTensors::Absent,
        })
    }

    /// The shape of SmolLM2-135M. Its width is no multiple of 256: no K-quants.
    pub fn smol() -> Self {
        Self::of_shape(Shape {
            n_embd: 576,
            n_layer: 30,
            n_head: 9,
            n_head_kv: 3,
            n_ff: 1536,
            n_vocab: 49152,
            n_ctx_train: 8192,
            output: Output::Tied,
            optional: OptionalTensors::Absent,
        })
    }

    /// The shape of Llama 3.2 1B, with a smaller vocabulary.
    pub fn large() -> Self {
        Self::of_shape(Shape {
            n_embd: 2048,
            n_layer: 16,
            n_head: 32,
            n_head_kv: 8,
            n_ff: 8192,
            n_vocab: 32000,
            n_ctx_train: 8192,
            output: Output::Tied,
            optional: OptionalTensors::Absent,
        })
    }

    /// A model of any shape: F16, a SentencePiece tokenizer, seed 0.
    pub fn of_shape(shape: Shape) -> Self {
        Self {
            shape,
            types: TensorType::F16.into(),
            tokenizer: Tokenizer::SentencePiece,
            seed: 0,
            vocabulary_only: false,
        }
    }

    /// Stores all matrices as `tensor_type`.
    pub fn with_type(mut self, tensor_type: TensorType) -> Self {
        self.types = tensor_type.into();
        self
    }

    /// Stores the matrices of the blocks as `tensor_type`; embedding and output keep their types.
    pub fn with_block_type(mut self, tensor_type: TensorType) -> Self {
        self.types = WeightTypes { embedding: self.types.embedding, output: self.types.output, ..tensor_type.into() };
        self
    }

    /// Sets the kind of tokenizer.
    pub fn with_tokenizer(mut self, tokenizer: Tokenizer) -> Self {
        self.tokenizer = tokenizer;
        self
    }

    /// Sets what the weights are drawn from.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Leaves the tensors out.
    pub fn vocabulary_only(mut self) -> Self {
        self.vocabulary_only = true;
        self
    }

    /// The file, ready to be written. Weights are drawn while they are written, so that a large model takes no memory.
    ///
    /// # Errors
    ///
    /// [`SynthError`] when the sizes do not agree or an element type is not supported.
    pub fn writer(&self) -> Result<Writer, SynthError> {
        self.check()?;
        let mut writer = Writer::new();
        self.set_keys(&mut writer);
        vocabulary::set_keys(&mut writer, self.tokenizer, self.shape.n_vocab as usize);
        if !self.vocabulary_only {
            weights::add_tensors(&mut writer, self)?;
        }
        Ok(writer)
    }

    /// Writes the file; a file that is there already is replaced.
    ///
    /// # Errors
    ///
    /// [`SynthError`]; then nothing is left behind.
    pub fn write_file(&self, path: impl AsRef<Path>) -> Result<(), SynthError> {
        Ok(self.writer()?.write_file(path)?)
    }

    fn check(&self) -> Result<(), SynthError> {
        let shape = &self.shape;
        let fail = |message: String| Err(SynthError::Shape(message));
        if [shape.n_embd, shape.n_layer, shape.n_head, shape.n_head_kv, shape.n_ff, shape.n_ctx_train].contains(&0) {
            return fail("every size must be above zero".to_owned());
        }
        if !shape.n_embd.is_multiple_of(shape.n_head) || !(shape.n_embd / shape.n_head).is_multiple_of(2) {
            return fail(format!("{} heads do not divide {} into even widths", shape.n_head, shape.n_embd));
        }
        if !shape.n_head.is_multiple_of(shape.n_head_kv) {
            return fail(format!("{} heads cannot share {} key and value heads", shape.n_head, shape.n_head_kv));
        }
        let least = vocabulary::least_tokens(self.tokenizer);
        if (shape.n_vocab as usize) < least {
            return fail(format!("a vocabulary of {} tokens is too small, {least} are needed", shape.n_vocab));
        }
        Ok(())
    }

    fn set_keys(&self, writer: &mut Writer) {
        let shape = &self.shape;
        writer
            .set("general.architecture", "llama")
            .set("general.type", "model")
            .set("general.name", format!("synthetic {:?} seed {}", self.tokenizer, self.seed))
            .set("general.file_type", file_type(self.types.feed_forward))
            .set("general.quantization_version", 2_u32)
            .set("llama.vocab_size", shape.n_vocab)
            .set("llama.context_length", shape.n_ctx_train)
            .set("llama.embedding_length", shape.n_embd)
            .set("llama.block_count", shape.n_layer)
            .set("llama.feed_forward_length", shape.n_ff)
            .set("llama.attention.head_count", shape.n_head)
            .set("llama.attention.head_count_kv", shape.n_head_kv)
            .set("llama.attention.layer_norm_rms_epsilon", 1e-5_f32)
            .set("llama.rope.dimension_count", shape.n_embd / shape.n_head)
            .set("llama.rope.freq_base", 10_000.0_f32);
    }
}

/// The number that `general.file_type` has for a model of mostly this type: `llama_ftype` of llama.h.
fn file_type(tensor_type: TensorType) -> u32 {
    match tensor_type {
        TensorType::F16 => 1,
        TensorType::Q4_0 => 2,
        TensorType::Q4_1 => 3,
        TensorType::Q8_0 => 7,
        TensorType::Q5_0 => 8,
        TensorType::Q5_1 => 9,
        TensorType::Q4_K => 14,
        TensorType::Q5_K => 16,
        TensorType::Q6_K => 18,
        TensorType::BF16 => 32,
        TensorType::TQ1_0 => 36,
        TensorType::TQ2_0 => 37,
        _ => 0,
    }
}
