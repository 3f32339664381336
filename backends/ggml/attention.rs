//! Attention to a KV cache on a tier.

use std::{num::NonZeroU32, ptr::NonNull};

use super::{context::ggml_type, ffi, model, process::CpuRegistration, product::on_tier, threadpool::Threadpool};
use crate::backend::{Attention, Cache, ProductError, Queries};

/// Owner of a `gl_attention`.
pub(crate) struct LlamaAttention {
    raw: NonNull<ffi::Attention>,
    heads: usize,
    positions: usize,
    key_size: usize,
    value_size: usize,
    /// Its threads: dropped after `raw`.
    _pool: Threadpool,
}

// SAFETY: one owner, and ggml computes a graph from whatever thread asks.
unsafe impl Send for LlamaAttention {}

impl LlamaAttention {
    /// Puts `cache` where a context's would lie on the tier of `registration`, which the CPU can execute.
    pub(crate) fn new(
        registration: CpuRegistration,
        cache: Cache<'_>,
        threads: NonZeroU32,
    ) -> Result<Self, ProductError> {
        let positions = cache.positions().ok_or(ProductError::Shape)?;
        let (raw, pool) = on_tier(registration, threads, |registered, pool, threads| {
            // SAFETY: the registration is one of ggml's CPU backends, the pool was made by it for this number of threads, and
            // keys and values have the lengths that the sizes ask for, of whole blocks.
            unsafe {
                ffi::gl_attention_new(
                    registered.as_ptr(),
                    pool.as_ptr(),
                    threads,
                    ggml_type(cache.cache_type),
                    cache.heads as i64,
                    positions as i64,
                    cache.key_size as i64,
                    cache.value_size as i64,
                    cache.keys.as_ptr(),
                    cache.values.as_ptr(),
                )
            }
        })?;
        let Cache { heads, key_size, value_size, .. } = cache;
        Ok(Self { raw, heads, positions, key_size, value_size, _pool: pool })
    }
}

impl Attention for LlamaAttention {
    fn attend(&mut self, queries: Queries<'_>, results: &mut [f32]) -> Result<(), ProductError> {
        let Queries { tokens, heads, values, scale, max_bias, mask } = queries;
        let fits = tokens > 0
            && heads > 0
            && heads.is_multiple_of(self.heads)
            && tokens.checked_mul(heads).is_some_and(|rows| {
                rows.checked_mul(self.key_size) == Some(values.len())
                    && rows.checked_mul(self.value_size) == Some(results.len())
            })
            && tokens.checked_mul(self.positions) == Some(mask.len());
        if !fits {
            return Err(ProductError::Shape);
        }
        // SAFETY: the arrays have the lengths that the sizes ask for, and the object is valid.
        let done = unsafe {
            ffi::gl_attention_attend(
                self.raw.as_ptr(),
                tokens as i64,
                heads as i64,
                values.as_ptr(),
                scale,
                max_bias,
                mask.as_ptr(),
                results.as_mut_ptr(),
            )
        };
        if done { Ok(()) } else { Err(ProductError::Failed(model::message(String::new()))) }
    }
}

impl Drop for LlamaAttention {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `gl_attention_new`, and its threads are still there.
        unsafe { ffi::gl_attention_free(self.raw.as_ptr()) };
    }
}
