//! BitNet b1.58 models with random codes.
//!
//! The same description gives the same codes and scales in every ternary form, so that what one form gives can be
//! compared with another.

use std::{collections::BTreeMap, io::Write, path::Path};

use super::{SynthError, Tokenizer, quantize, random::Random, vocabulary};
use crate::gguf::{
    I2sLayout, TensorType, Writer,
    ternary::{self, blocks},
};

/// What to write.
#[derive(Debug, Clone, PartialEq)]
pub struct SyntheticBitNet {
    /// The sizes.
    pub shape: BitNetShape,
    /// `general.architecture`: `bitnet-b1.58` unless set.
    pub architecture: String,
    /// How the matrices of the blocks are stored: I2_S, TQ2_0, Q2_0, TQ1_0; or F32, with which no engine rounds
    /// activations.
    pub ternary: TensorType,
    /// Matrices that are stored in another type, by the names of their tensors: ternary, or one of floats or blocks.
    pub exceptions: BTreeMap<String, TensorType>,
    /// The order of the codes, where that is I2_S.
    pub layout: I2sLayout,
    /// How the embedding table is stored, which serves as output matrix.
    pub embedding: TensorType,
    /// The kind of tokenizer.
    pub tokenizer: Tokenizer,
    /// What the weights are drawn from.
    pub seed: u64,
}

/// The sizes of a BitNet model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitNetShape {
    /// Width of the hidden state.
    pub n_embd: u32,
    /// Number of blocks.
    pub n_layer: u32,
    /// Number of query heads.
    pub n_head: u32,
    /// Number of key and value heads: divides `n_head`.
    pub n_head_kv: u32,
    /// Width of the feed-forward network.
    pub n_ff: u32,
    /// Tokens in the vocabulary.
    pub n_vocab: u32,
    /// Context length that the file claims.
    pub n_ctx_train: u32,
}

/// Rows with the gain of 1 keep the deviation of their input; see [`super::weights`] for why others differ.
const SCORE_GAIN: f32 = 1.6;
const BLOCK_GAIN: f32 = 3.0;
const LOGIT_GAIN: f32 = 2.5;

impl SyntheticBitNet {
    /// The smallest model that every ternary form and layout fits.
    pub fn tiny() -> Self {
        Self::of_shape(BitNetShape {
            n_embd: 256,
            n_layer: 2,
            n_head: 4,
            n_head_kv: 2,
            n_ff: 512,
            n_vocab: 512,
            n_ctx_train: 2048,
        })
    }

    /// The shape of BitNet b1.58 2B-4T.
    pub fn bitnet_2b() -> Self {
        Self::of_shape(BitNetShape {
            n_embd: 2560,
            n_layer: 30,
            n_head: 20,
            n_head_kv: 5,
            n_ff: 6912,
            n_vocab: 128_256,
            n_ctx_train: 4096,
        })
    }

    /// A model of any shape: I2_S in the x86 layout, F16 embeddings, a BPE tokenizer, seed 0.
    pub fn of_shape(shape: BitNetShape) -> Self {
        Self {
            shape,
            architecture: "bitnet-b1.58".to_owned(),
            ternary: TensorType::I2_S,
            exceptions: BTreeMap::new(),
            layout: I2sLayout::X86,
            embedding: TensorType::F16,
            tokenizer: Tokenizer::BytePair,
            seed: 0,
        }
    }

    /// Sets `general.architecture`.
    pub fn with_architecture(mut self, architecture: impl Into<String>) -> Self {
        self.architecture = architecture.into();
        self
    }

    /// Sets how the matrices of the blocks are stored.
    pub fn with_ternary(mut self, ternary: TensorType) -> Self {
        self.ternary = ternary;
        self
    }

    /// Stores one matrix in another type than the others; `name` is that of its tensor, e.g. `blk.0.ffn_down.weight`.
    pub fn with_exception(mut self, name: impl Into<String>, tensor_type: TensorType) -> Self {
        self.exceptions.insert(name.into(), tensor_type);
        self
    }

    /// Stores the matrices of the blocks as I2_S in `layout`.
    pub fn with_layout(mut self, layout: I2sLayout) -> Self {
        self.ternary = TensorType::I2_S;
        self.layout = layout;
        self
    }

    /// Sets how the embedding table is stored.
    pub fn with_embedding(mut self, embedding: TensorType) -> Self {
        self.embedding = embedding;
        self
    }

    /// Sets what the weights are drawn from.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The file, ready to be written. Weights are drawn while they are written, so that a large model takes no memory.
    ///
    /// # Errors
    ///
    /// [`SynthError`] when the sizes do not agree or a type is not supported.
    pub fn writer(&self) -> Result<Writer, SynthError> {
        self.check()?;
        let mut writer = Writer::new();
        self.set_keys(&mut writer);
        vocabulary::set_keys(&mut writer, self.tokenizer, self.shape.n_vocab as usize);
        self.add_tensors(&mut writer)?;
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
        let BitNetShape { n_embd, n_head, n_head_kv, n_ff, n_layer, n_ctx_train, .. } = *shape;
        if [n_embd, n_head, n_head_kv, n_ff, n_layer, n_ctx_train].contains(&0) {
            return fail("every size must be above zero".to_owned());
        }
        if !n_embd.is_multiple_of(n_head) || !(n_embd / n_head).is_multiple_of(2) || !n_head.is_multiple_of(n_head_kv) {
            return fail(format!("{n_embd} has no {n_head} heads that share {n_head_kv}"));
        }
        let least = vocabulary::least_tokens(self.tokenizer);
        if (shape.n_vocab as usize) < least {
            return fail(format!("a vocabulary of {} tokens is too small, {least} are needed", shape.n_vocab));
        }
        let head_rows = n_embd / n_head * n_head_kv;
        let rows_fit =
            [n_embd, n_ff, head_rows].iter().all(|&rows| u64::from(rows).is_multiple_of(self.layout.rows_multiple()));
        let row_fits = [n_embd, n_ff].iter().all(|&row| u64::from(row).is_multiple_of(self.layout.row_multiple()));
        if self.ternary == TensorType::I2_S && !(rows_fit && row_fits) {
            return fail(format!("the matrices do not fit the layout {}", self.layout));
        }
        Ok(())
    }

    fn set_keys(&self, writer: &mut Writer) {
        let shape = &self.shape;
        let key = |name: &str| format!("{}.{name}", self.architecture);
        writer
            .set("general.architecture", self.architecture.clone())
            .set("general.name", format!("synthetic BitNet seed {}", self.seed))
            .set(key("vocab_size"), shape.n_vocab)
            .set(key("context_length"), shape.n_ctx_train)
            .set(key("embedding_length"), shape.n_embd)
            .set(key("block_count"), shape.n_layer)
            .set(key("feed_forward_length"), shape.n_ff)
            .set(key("rope.dimension_count"), shape.n_embd / shape.n_head)
            .set(key("attention.head_count"), shape.n_head)
            .set(key("attention.head_count_kv"), shape.n_head_kv)
            .set(key("attention.layer_norm_rms_epsilon"), 1e-5_f32)
            .set(key("rope.freq_base"), 500_000.0_f32)
            .set("general.file_type", self.file_type())
            .set("general.quantization_version", 2_u32);
    }

    /// `llama_ftype` of llama.h, and of bitnet.cpp's copy of it.
    fn file_type(&self) -> u32 {
        match self.ternary {
            TensorType::I2_S => 40,
            TensorType::TQ1_0 => 36,
            TensorType::F32 => 0,
            _ => 37,
        }
    }

    /// All tensors, in the order in which Microsoft's converter writes them.
    fn add_tensors(&self, writer: &mut Writer) -> Result<(), SynthError> {
        let shape = &self.shape;
        let (n_embd, n_ff) = (shape.n_embd, shape.n_ff);
        let n_embd_kv = n_embd / shape.n_head * shape.n_head_kv;
        self.embedding(writer)?;
        for layer in 0..shape.n_layer {
            let name = |part: &str| format!("blk.{layer}.{part}");
            self.norm(writer, &name("attn_norm"), n_embd)?;
            self.matrix(writer, &name("ffn_down"), n_ff, n_embd, BLOCK_GAIN)?;
            self.norm(writer, &name("ffn_sub_norm"), n_ff)?;
            self.matrix(writer, &name("ffn_gate"), n_embd, n_ff, 1.0)?;
            self.matrix(writer, &name("ffn_up"), n_embd, n_ff, 1.0)?;
            self.norm(writer, &name("ffn_norm"), n_embd)?;
            self.norm(writer, &name("attn_sub_norm"), n_embd)?;
            self.matrix(writer, &name("attn_k"), n_embd, n_embd_kv, SCORE_GAIN)?;
            self.matrix(writer, &name("attn_output"), n_embd, n_embd, BLOCK_GAIN)?;
            self.matrix(writer, &name("attn_q"), n_embd, n_embd, SCORE_GAIN)?;
            self.matrix(writer, &name("attn_v"), n_embd, n_embd_kv, 1.0)?;
        }
        self.norm(writer, "output_norm", n_embd)
    }

    fn embedding(&self, writer: &mut Writer) -> Result<(), SynthError> {
        let encode = quantize::encoder(self.embedding).ok_or(SynthError::TensorType(self.embedding))?;
        let name = "token_embd.weight";
        let random = Random::new(self.seed, name);
        let BitNetShape { n_embd, n_vocab, .. } = self.shape;
        let deviation = LOGIT_GAIN / (n_embd as f32).sqrt();
        let shape = [u64::from(n_embd), u64::from(n_vocab)];
        Ok(writer.add_tensor_with(name, &shape, self.embedding, move |output: &mut dyn Write| {
            let mut random = random.clone();
            let mut row = vec![0.0; n_embd as usize];
            let mut bytes = Vec::new();
            for _ in 0..n_vocab {
                row.fill_with(|| deviation * random.normal());
                bytes.clear();
                encode(&row, &mut bytes);
                output.write_all(&bytes)?;
            }
            Ok(())
        })?)
    }

    /// A ternary matrix whose rows multiply a normed input by `gain`.
    fn matrix(&self, writer: &mut Writer, name: &str, columns: u32, rows: u32, gain: f32) -> Result<(), SynthError> {
        // Half of the codes are not zero: the deviation of a weight is the root of a half, times the scale.
        let scale = gain / (0.5 * columns as f32).sqrt();
        let weight = format!("{name}.weight");
        let random = Random::new(self.seed, &weight);
        let shape = [u64::from(columns), u64::from(rows)];
        let (columns, layout) = (columns as usize, self.layout);
        let tensor_type = self.exceptions.get(&weight).copied().unwrap_or(self.ternary);
        if tensor_type == TensorType::I2_S {
            return Ok(writer.add_tensor_with(weight, &shape, tensor_type, move |output: &mut dyn Write| {
                write_codes(&random, columns, rows, output, |codes, bytes| layout.pack(codes, columns, bytes))?;
                output.write_all(&ternary::i2s_trailer(scale))
            })?);
        }
        let encode = quantize::encoder(tensor_type);
        let pack = blocks::packer(tensor_type);
        if pack.is_none() && encode.is_none() {
            return Err(SynthError::TensorType(tensor_type));
        }
        writer.add_tensor_with(weight, &shape, tensor_type, move |output: &mut dyn Write| {
            write_codes(&random, columns, rows, output, |codes, bytes| match (pack, encode) {
                (Some(pack), _) => pack(codes, bytes),
                (None, Some(encode)) => codes.chunks(columns).for_each(|row| encode(&weights_of(row), bytes)),
                (None, None) => {}
            })
        })?;
        Ok(writer.add_tensor(format!("{name}.scale"), &[1], TensorType::F32, scale.to_le_bytes().to_vec())?)
    }

    /// Around one, so that a norm that is left out shows.
    fn norm(&self, writer: &mut Writer, name: &str, length: u32) -> Result<(), SynthError> {
        let name = format!("{name}.weight");
        let mut random = Random::new(self.seed, &name);
        let bytes = (0..length).flat_map(|_| (1.0 + 0.1 * random.normal()).to_le_bytes()).collect();
        Ok(writer.add_tensor(name, &[u64::from(length)], TensorType::F32, bytes)?)
    }
}

/// The weights of codes as they are without their scale: -1, 0 and 1.
fn weights_of(codes: &[u8]) -> Vec<f32> {
    codes.iter().map(|&code| f32::from(code) - 1.0).collect()
}

/// Draws the codes of `rows` rows: a quarter each of 0 and 2, a half of 1.
fn write_codes(
    random: &Random,
    columns: usize,
    rows: u32,
    output: &mut dyn Write,
    pack: impl Fn(&[u8], &mut Vec<u8>),
) -> std::io::Result<()> {
    /// What one layout packs at once.
    const ROWS: u32 = 4;
    let mut random = random.clone();
    let mut bytes = Vec::new();
    for first in (0..rows).step_by(ROWS as usize) {
        let mut codes = vec![0; ROWS.min(rows - first) as usize * columns];
        for codes in codes.chunks_mut(32) {
            let bits = random.next();
            for (at, code) in codes.iter_mut().enumerate() {
                *code = [0, 1, 1, 2][(bits >> (2 * at) & 3) as usize];
            }
        }
        bytes.clear();
        pack(&codes, &mut bytes);
        output.write_all(&bytes)?;
    }
    Ok(())
}
