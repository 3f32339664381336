//! What the selector needs to know of a model.

use crate::gguf::TensorType;

/// What a GGUF file holds, as far as it matters for choosing how to run it.
///
/// Built by [`gguf`](crate::gguf) from a validated file; plain data, so that tests can make their own.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ModelProfile {
    /// `general.architecture`.
    pub architecture: String,
    /// Bytes of all tensors.
    pub weight_bytes: u64,
    /// The matrices that one token multiplies with, by element type, stacked ones apart. The embedding table counts where it is also the
    /// output matrix; of a mixture of experts only the share of the experts that a token uses.
    pub groups: Vec<WeightGroup>,
    /// Bytes of KV cache for one token of context, with F16 entries.
    pub kv_bytes_per_token: u64,
    /// Context length that the model was trained for.
    pub n_ctx_train: u32,
    /// Number of transformer blocks.
    pub n_layer: u32,
    /// Size of the vocabulary.
    pub n_vocab: u32,
    /// Whether the file holds a vocabulary and no weights.
    pub vocabulary_only: bool,
}

/// Weights of one element type that a token multiplies with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct WeightGroup {
    /// Element type.
    pub tensor_type: TensorType,
    /// Whether many matrices are stacked in one tensor, as those of a mixture's experts are. Engines multiply with these in another way.
    pub stacked: bool,
    /// Number of weights.
    pub elements: u64,
    /// Bytes that they take.
    pub bytes: u64,
}

impl ModelProfile {
    /// Bytes that one generated token reads.
    pub fn bytes_per_token(&self) -> u64 {
        self.groups.iter().map(|group| group.bytes).fold(0, u64::saturating_add)
    }

    /// Multiply-adds of one token, attention not counted.
    pub fn multiply_adds_per_token(&self) -> u64 {
        self.groups.iter().map(|group| group.elements).fold(0, u64::saturating_add)
    }
}
