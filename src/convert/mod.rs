//! BitNet checkpoints as Hugging Face stores them, made into GGUF files that run here.
//!
//! A checkpoint is a folder: `config.json`, `tokenizer.json`, weights in `model.safetensors` or in shards with an index,
//! and, where they exist, `tokenizer_config.json`, `generation_config.json` and `chat_template.jinja`. Its ternary
//! matrices come in one of two forms, and both end as the same codes that the model computes with when it runs in
//! transformers:
//!
//! * packed: four codes a byte and a scale, as `microsoft/bitnet-b1.58-2B-4T` is published;
//! * master weights: the floats that training rounds to codes in every step, as in the `-bf16` repository.
//!
//! The file keeps each matrix as TQ2_0 (or Q2_0 where a row does not fit blocks of 256) with block scales of 1, and its
//! scale as an F32 tensor of one element beside it:
//!
//! ```text
//! model.layers.3.self_attn.q_proj.weight        ->  blk.3.attn_q.weight  TQ2_0
//! model.layers.3.self_attn.q_proj.weight_scale  ->  blk.3.attn_q.scale   F32, one element
//! ```
//!
//! Rows of queries and keys stay in their order: the checkpoint turns halves of a head against each other, and so does
//! this architecture (Microsoft's `convert-hf-to-gguf-bitnet.py` does not permute them either).
#![forbid(unsafe_code)]

mod checkpoint;
mod config;
mod error;
mod floats;
mod json;
mod matrix;
mod plan;
mod pre_tokenizer;
mod tokenizer;
mod watch;

use std::{fmt, ops::ControlFlow, path::Path, str::FromStr};

use crate::gguf::TensorType;

pub use error::ConvertError;

/// How to convert.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConvertOptions {
    /// How the embedding is stored, and the output matrix where there is one beside it.
    pub embedding: Embedding,
}

impl ConvertOptions {
    /// Sets how the embedding is stored.
    pub fn with_embedding(mut self, embedding: Embedding) -> Self {
        self.embedding = embedding;
        self
    }
}

/// How the embedding is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Embedding {
    /// As in the files that Microsoft publishes; checkpoints in BF16 lose what lies below 6e-8.
    #[default]
    F16,
    /// What checkpoints hold; slower where the CPU has no instructions for it.
    Bf16,
    /// Twice the bytes.
    F32,
}

impl Embedding {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::F16, Self::Bf16, Self::F32];

    /// The lower-case name, e.g. `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }

    fn tensor_type(self) -> TensorType {
        match self {
            Self::F16 => TensorType::F16,
            Self::Bf16 => TensorType::BF16,
            Self::F32 => TensorType::F32,
        }
    }
}

impl fmt::Display for Embedding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Embedding {
    type Err = UnknownEmbedding;

    fn from_str(name: &str) -> Result<Self, UnknownEmbedding> {
        Self::ALL.into_iter().find(|embedding| embedding.name() == name).ok_or(UnknownEmbedding)
    }
}

/// A name that is none of [`Embedding`]'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be f16, bf16 or f32")]
pub struct UnknownEmbedding;

/// What a conversion did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Report {
    /// `general.architecture` of the file.
    pub architecture: String,
    /// The form in which the ternary matrices were found.
    pub weights: Weights,
    /// Ternary matrices.
    pub matrices: u64,
    /// All tensors of the file, scales included.
    pub tensors: u64,
    /// Tokens in the vocabulary.
    pub tokens: u64,
    /// The pre-tokenizer that was recognised, `tokenizer.ggml.pre` of the file.
    pub pre_tokenizer: String,
    /// Whether the file has a chat template.
    pub chat_template: bool,
    /// Bytes of the file's tensors.
    pub bytes: u64,
}

/// The form of a checkpoint's ternary matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Weights {
    /// Codes, four a byte.
    Packed,
    /// Floats that were rounded here.
    Master,
}

/// Writes the checkpoint in `folder` to the GGUF file `output`. Streams: memory holds the vocabulary and one packed
/// matrix at a time, whatever the model's size.
///
/// `progress` gets the fraction done, from 0 to 1; when it breaks, the conversion ends with
/// [`ConvertError::Cancelled`]. `output` appears when it is complete.
///
/// # Errors
///
/// [`ConvertError`]; then the checkpoint is untouched, `output` is what it was before, and nothing else is left.
pub fn convert(
    folder: impl AsRef<Path>,
    output: impl AsRef<Path>,
    options: &ConvertOptions,
    mut progress: impl FnMut(f32) -> ControlFlow<()>,
) -> Result<Report, ConvertError> {
    let (folder, output) = (folder.as_ref(), output.as_ref());
    if is_part_of(folder, output) {
        return Err(ConvertError::SameFile { path: output.into() });
    }
    plan::Plan::new(folder, options)?.write_file(output, &mut progress)
}

/// Whether a file lies in a checkpoint's folder already and is no GGUF file, of an earlier conversion for example.
fn is_part_of(folder: &Path, file: &Path) -> bool {
    let (Ok(folder), Ok(file)) = (folder.canonicalize(), file.canonicalize()) else { return false };
    file.parent() == Some(&folder) && file.extension().is_none_or(|extension| extension != "gguf")
}
