//! What running the model costs: matrices a token multiplies with, KV cache, memory.

use std::collections::BTreeMap;

use super::{Gguf, GgufError, TensorInfo, TensorType, ternary::blocks, validate::Keys};
use crate::backend::{ModelProfile, WeightGroup};

/// Bytes of an F16 entry of the KV cache.
const KV_ENTRY_BYTES: u64 = 2;

/// Memory that a model needs, in bytes. An estimate: allocators round, and backends repack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct MemoryEstimate {
    /// All tensors as stored.
    pub weights: u64,
    /// KV cache with F16 entries, for all sequences. Layers with a sliding window count in full: an upper bound.
    pub kv_cache: u64,
    /// Activations and logits of one pass of 512 tokens.
    pub compute: u64,
}

impl MemoryEstimate {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.kv_cache).saturating_add(self.compute)
    }
}

impl Gguf {
    /// What the selector needs to know.
    ///
    /// # Errors
    ///
    /// [`GgufError`] when a file with tensors lacks a key that every model has: it is an adapter or a projector.
    pub fn profile(&self) -> Result<ModelProfile, GgufError> {
        let keys = Keys::new(self)?;
        let vocabulary_only = self.tensors().is_empty();
        let number = |name: &str| match keys.integer(name)? {
            Some(value) => Ok(value),
            None if vocabulary_only => Ok(0),
            None => keys.required(name),
        };
        let context = number("context_length")?;
        number("embedding_length")?;
        let layers = number("block_count")?;
        Ok(ModelProfile {
            architecture: keys.architecture().to_owned(),
            weight_bytes: self.weight_bytes(),
            groups: self.weight_groups(&keys, layers)?,
            kv_bytes_per_token: self.kv_bytes_per_token(&keys, layers)?,
            // Both were checked to fit: `validate` limits the context to 2^31 - 1 and the blocks to 512.
            n_ctx_train: u32::try_from(context).unwrap_or(u32::MAX),
            n_layer: u32::try_from(layers).unwrap_or(u32::MAX),
            n_vocab: u32::try_from(self.vocabulary_size(&keys)?).unwrap_or(u32::MAX),
            vocabulary_only,
        })
    }

    /// What it takes to run `sequences` conversations of `context` tokens each.
    ///
    /// A file that is not a model has weights only.
    pub fn memory(&self, context: u32, sequences: u32) -> MemoryEstimate {
        let Ok(profile) = self.profile() else {
            return MemoryEstimate { weights: self.weight_bytes(), kv_cache: 0, compute: 0 };
        };
        let tokens = u64::from(context) * u64::from(sequences);
        MemoryEstimate {
            weights: profile.weight_bytes,
            kv_cache: tokens.saturating_mul(profile.kv_bytes_per_token),
            compute: self.compute_bytes(&profile, tokens),
        }
    }

    /// The tensors that tokens multiply with; the embedding table is one where it is also the output matrix.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &TensorInfo> {
        let tied = self.tensor("output.weight").is_none();
        self.tensors().iter().filter(move |tensor| is_multiplied(tensor, tied))
    }

    /// Bytes of all tensors.
    pub(super) fn weight_bytes(&self) -> u64 {
        self.tensors().iter().map(|tensor| tensor.bytes).sum()
    }

    fn vocabulary_size(&self, keys: &Keys<'_>) -> Result<u64, GgufError> {
        if let Ok(tokens) = self.metadata().array("tokenizer.ggml.tokens") {
            return Ok(tokens.len() as u64);
        }
        if let Some(size) = keys.integer("vocab_size")? {
            return Ok(size);
        }
        Ok(self.tensor("token_embd.weight").and_then(|embedding| embedding.shape.get(1).copied()).unwrap_or(0))
    }

    fn weight_groups(&self, keys: &Keys<'_>, layers: u64) -> Result<Vec<WeightGroup>, GgufError> {
        // Blocks that predict further tokens (MTP) do not take part in ordinary decoding.
        let decoded = layers.saturating_sub(keys.integer("nextn_predict_layers")?.unwrap_or(0));
        let used = keys.per_layer("expert_used_count", layers)?;
        let mut groups = BTreeMap::new();
        for tensor in self.matrices() {
            let block = tensor.block().map(u64::from);
            if block.is_some_and(|block| block >= decoded) {
                continue;
            }
            // Of the experts, which are stacked along the last dimension, a token uses some.
            let (numerator, denominator) = match (&used, block) {
                (Some(used), Some(block)) if tensor.stem().ends_with("_exps") => {
                    let experts = tensor.shape.last().copied().unwrap_or(1);
                    (used.get(block as usize).copied().unwrap_or(experts).min(experts), experts)
                }
                _ => (1, 1),
            };
            let share = |whole: u64| (u128::from(whole) * u128::from(numerator) / u128::from(denominator)) as u64;
            // What the import makes of I2_S is what runs, in as many bytes but for the scales.
            let tensor_type = match (tensor.tensor_type, tensor.shape.first()) {
                (TensorType::I2_S, Some(&row)) => blocks::type_for_row(row).unwrap_or(TensorType::I2_S),
                (other, _) => other,
            };
            let group = groups.entry((tensor_type, tensor.is_stacked())).or_insert((0_u64, 0_u64));
            group.0 += share(tensor.elements());
            group.1 += share(tensor.bytes);
        }
        let group = |((tensor_type, stacked), (elements, bytes))| WeightGroup { tensor_type, stacked, elements, bytes };
        Ok(groups.into_iter().map(group).collect())
    }

    fn kv_bytes_per_token(&self, keys: &Keys<'_>, layers: u64) -> Result<u64, GgufError> {
        let heads = keys.per_layer("attention.head_count", layers)?;
        let Some(kv_heads) = keys.per_layer("attention.head_count_kv", layers)?.or_else(|| heads.clone()) else {
            return Ok(0);
        };
        let default = match (keys.integer("embedding_length")?, heads.as_ref().and_then(|heads| heads.first())) {
            (Some(width), Some(&heads)) if heads > 0 => width / heads,
            _ => 0,
        };
        let key = keys.integer("attention.key_length")?.unwrap_or(default);
        // Multi-head latent attention reads the values out of the cached keys.
        let value = match keys.integer("attention.key_length_mla")? {
            Some(latent) if latent > 0 => 0,
            _ => keys.integer("attention.value_length")?.unwrap_or(default),
        };
        let cached = kv_heads.iter().enumerate().filter(|&(layer, _)| self.caches(layer)).map(|(_, &heads)| heads);
        let entries = cached.fold(0_u64, |sum, heads| sum.saturating_add(heads.saturating_mul(key + value)));
        Ok(entries.saturating_mul(KV_ENTRY_BYTES))
    }

    /// Whether a block attends to cached tokens; one that is recurrent keeps a state of fixed size instead.
    fn caches(&self, layer: usize) -> bool {
        let has = |name: &str| self.tensor(&format!("blk.{layer}.{name}.weight")).is_some();
        let recurrent = has("ssm_out") || has("ssm_conv1d") || has("time_mix_key");
        has("attn_k") || has("attn_kv_a_mqa") || !recurrent
    }

    /// A pass of 512 tokens holds the hidden state a few times over, the widest layer twice, logits for the tokens
    /// that ask, and the attention mask.
    fn compute_bytes(&self, profile: &ModelProfile, context: u64) -> u64 {
        const TOKENS: u64 = 512;
        const F32_BYTES: u64 = 4;
        const HIDDEN_COPIES: u64 = 6;
        let rows = |stem: &str| {
            let of_stem = self.tensors().iter().filter(|tensor| tensor.stem() == stem);
            of_stem.filter_map(|tensor| tensor.shape.get(1).copied()).max().unwrap_or(0)
        };
        let hidden = self.tensor("token_embd.weight").and_then(|tensor| tensor.shape.first().copied()).unwrap_or(0);
        let widest = rows("ffn_up").max(rows("ffn_up_exps")).max(rows("attn_qkv"));
        let activations = hidden.saturating_mul(HIDDEN_COPIES).saturating_add(widest.saturating_mul(2));
        let per_token = activations.max(u64::from(profile.n_vocab)).saturating_add(context / 2);
        per_token.saturating_mul(TOKENS * F32_BYTES)
    }
}

/// Whether every token multiplies with the tensor; lookups and vectors cost next to nothing.
fn is_multiplied(tensor: &TensorInfo, tied: bool) -> bool {
    let is_matrix = tensor.shape.iter().skip(1).any(|&size| size > 1) && tensor.name.ends_with(".weight");
    is_matrix
        && match tensor.stem() {
            "token_embd" => tied,
            "position_embd" | "token_types" | "per_layer_token_embd" | "rope_freqs" => false,
            stem => !stem.ends_with("_norm") && !stem.ends_with("tid2eid"),
        }
}
