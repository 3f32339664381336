//! Whether there is memory for what llama.cpp is about to allocate.
//!
//! On Linux an allocation that is too large succeeds, and the process is killed when it touches the pages. So the bytes
//! are counted before.

use crate::{
    backend::{CacheType, LoadError, LoadRequest, Mapping, ModelProfile},
    gguf::TensorInfo,
    hardware::Memory,
};

/// Checks that the weights of `request` fit into `memory`. `repacked` says of a matrix how many bytes it takes in a form
/// that the engine makes of it, and `None` of one that stays as it is.
///
/// Weights that are mapped need not fit: the system reads them as they are used, and gives them up again. What is repacked,
/// and all of a file that is read, lies in memory of the process's own.
pub(crate) fn require_for_weights(
    request: &LoadRequest<'_>,
    memory: &Memory,
    repacked: impl Fn(&TensorInfo) -> Option<u64>,
) -> Result<(), LoadError> {
    let file = request.file();
    let packed = file.matrices().filter_map(|tensor| Some((tensor, repacked(tensor)?)));
    let (tensors, packed_bytes): (Vec<_>, Vec<_>) = packed.unzip();
    let packed_bytes = packed_bytes.into_iter().fold(0, u64::saturating_add);
    let kept_bytes = match request.mapping() {
        Mapping::Map => 0,
        Mapping::Read => {
            // An embedding table that is repacked as the output matrix is looked up as it was.
            let replaced = tensors.iter().filter(|tensor| tensor.name != EMBEDDINGS).map(|tensor| tensor.bytes);
            request.profile().weight_bytes.saturating_sub(replaced.sum())
        }
    };
    let needed = packed_bytes.saturating_add(kept_bytes);
    match memory.lacks(needed) {
        Some(available) => Err(LoadError::Memory { needed, available }),
        None => Ok(()),
    }
}

/// The embedding table.
const EMBEDDINGS: &str = "token_embd.weight";

/// ggml pads the length of the KV cache to this many tokens.
pub(super) const LENGTH_STEP: u32 = 256;

/// Bytes that a context takes at least: its KV cache, and the logits of a whole ubatch, which are the widest tensor of a
/// graph with flash attention. llama.cpp's other buffers are small beside these.
///
/// `types` are those of keys and values, which take as many numbers each.
pub(super) fn context_bytes(
    profile: &ModelProfile,
    length: u32,
    sequences: u32,
    ubatch: u32,
    types: [Option<CacheType>; 2],
) -> u64 {
    let tokens = u64::from(length).next_multiple_of(u64::from(LENGTH_STEP)).saturating_mul(u64::from(sequences));
    let bits: u32 = types.map(|cache_type| cache_type.unwrap_or(CacheType::F16).bits_of_32()).iter().sum();
    let as_f16 = 2 * CacheType::F16.bits_of_32();
    let cache = tokens.saturating_mul(profile.kv_bytes_per_token).saturating_mul(bits.into()) / u64::from(as_f16);
    let compute = u64::from(ubatch).saturating_mul(u64::from(profile.n_vocab)).saturating_mul(size_of::<f32>() as u64);
    cache.saturating_add(compute)
}
