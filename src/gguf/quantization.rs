//! How the weights are stored: bits per weight, by group, type and layer.

use std::collections::BTreeMap;

use super::{Gguf, TensorInfo, TensorType};

/// How the weights of a model are stored.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Quantization {
    /// Number of weights.
    pub parameters: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Bits of storage for one weight, over the whole file; 0 for a file without tensors.
    pub bits_per_weight: f64,
    /// By what the tensors do; groups without tensors are left out.
    pub groups: Vec<GroupStorage>,
    /// By transformer block, ascending.
    pub layers: Vec<LayerStorage>,
}

/// What a tensor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TensorGroup {
    /// Token, position and type embeddings.
    Embedding,
    /// Attention, state-space and time-mix layers.
    Attention,
    /// Feed-forward layers and experts.
    Ffn,
    /// Norms.
    Norm,
    /// The output matrix.
    Output,
    /// Everything else.
    Other,
}

/// The tensors of one group.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct GroupStorage {
    /// The group.
    pub group: TensorGroup,
    /// Bits of storage for one weight.
    pub bits_per_weight: f64,
    /// By element type, ascending by id.
    pub types: Vec<TypeStorage>,
}

/// The tensors of one element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct TypeStorage {
    /// The type.
    pub tensor_type: TensorType,
    /// Number of tensors.
    pub tensors: u64,
    /// Number of weights.
    pub elements: u64,
    /// Bytes that they take.
    pub bytes: u64,
}

/// The tensors of one transformer block.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct LayerStorage {
    /// The block, from 0.
    pub layer: u32,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// Bits of storage for one weight.
    pub bits_per_weight: f64,
}

impl Gguf {
    /// How the weights are stored.
    pub fn quantization(&self) -> Quantization {
        let mut groups: BTreeMap<TensorGroup, BTreeMap<TensorType, TypeStorage>> = BTreeMap::new();
        let mut layers: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for tensor in self.tensors() {
            let tensor_type = tensor.tensor_type;
            let types = groups.entry(group(tensor)).or_default();
            let storage =
                types.entry(tensor_type).or_insert(TypeStorage { tensor_type, tensors: 0, elements: 0, bytes: 0 });
            storage.tensors += 1;
            storage.elements += tensor.elements();
            storage.bytes += tensor.bytes;
            if let Some(layer) = tensor.block() {
                let (elements, bytes) = layers.entry(layer).or_default();
                *elements += tensor.elements();
                *bytes += tensor.bytes;
            }
        }
        let parameters = self.tensors().iter().map(TensorInfo::elements).sum();
        let bytes = self.weight_bytes();
        Quantization {
            parameters,
            bytes,
            bits_per_weight: bits(bytes, parameters),
            groups: groups.into_iter().map(|(group, types)| group_storage(group, types)).collect(),
            layers: layers
                .into_iter()
                .map(|(layer, (elements, bytes))| LayerStorage { layer, bytes, bits_per_weight: bits(bytes, elements) })
                .collect(),
        }
    }
}

fn group_storage(group: TensorGroup, types: BTreeMap<TensorType, TypeStorage>) -> GroupStorage {
    let types: Vec<TypeStorage> = types.into_values().collect();
    let bytes = types.iter().map(|storage| storage.bytes).sum();
    let elements = types.iter().map(|storage| storage.elements).sum();
    GroupStorage { group, bits_per_weight: bits(bytes, elements), types }
}

fn bits(bytes: u64, elements: u64) -> f64 {
    if elements == 0 { 0.0 } else { bytes as f64 * 8.0 / elements as f64 }
}

fn group(tensor: &TensorInfo) -> TensorGroup {
    let stem = tensor.stem();
    if stem.ends_with("norm") || stem.ends_with("norm_2") {
        return TensorGroup::Norm;
    }
    match stem {
        "output" => TensorGroup::Output,
        "token_embd" | "position_embd" | "token_types" | "per_layer_token_embd" => TensorGroup::Embedding,
        _ if tensor.block().is_none() => TensorGroup::Other,
        _ if stem.starts_with("ffn_") || stem.starts_with("channel_mix_") => TensorGroup::Ffn,
        _ if ["attn_", "ssm_", "time_mix_", "shortconv"].iter().any(|start| stem.starts_with(start)) => {
            TensorGroup::Attention
        }
        _ => TensorGroup::Other,
    }
}
