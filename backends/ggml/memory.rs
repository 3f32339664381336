//! Whether there is memory for what llama.cpp is about to allocate.
//!
//! On Linux an allocation that is too large succeeds, and the process is killed when it touches the pages. So the bytes
//! are counted before.

use crate::backend::ModelProfile;

/// ggml pads the length of the KV cache to this many tokens.
pub(super) const LENGTH_STEP: u32 = 256;

/// Bytes that a context takes at least: its KV cache, and the logits of a whole ubatch, which are the widest tensor of a
/// graph with flash attention. llama.cpp's other buffers are small beside these.
pub(super) fn context_bytes(profile: &ModelProfile, length: u32, sequences: u32, ubatch: u32) -> u64 {
    let tokens = u64::from(length).next_multiple_of(u64::from(LENGTH_STEP)).saturating_mul(u64::from(sequences));
    let cache = tokens.saturating_mul(profile.kv_bytes_per_token);
    let compute = u64::from(ubatch).saturating_mul(u64::from(profile.n_vocab)).saturating_mul(size_of::<f32>() as u64);
    cache.saturating_add(compute)
}
