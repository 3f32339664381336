//! Attention to a KV cache, computed as a loaded model computes it.
//!
//! Tests hold kernels against numbers of their own with it, and benchmarks time them, without a model around them.

use super::{CacheType, ProductError};

/// Keys and values of some positions.
#[derive(Debug, Clone, Copy)]
pub struct Cache<'a> {
    /// What keys and values are kept in.
    pub cache_type: CacheType,
    /// Heads of keys and values.
    pub heads: usize,
    /// Length of a key. A whole number of the type's blocks.
    pub key_size: usize,
    /// Length of a value, likewise.
    pub value_size: usize,
    /// Keys: of each position the heads, one after another.
    pub keys: &'a [f32],
    /// Values, in the same order.
    pub values: &'a [f32],
}

impl Cache<'_> {
    /// How many positions there are, where keys and values are of as many and consist of whole blocks.
    pub fn positions(&self) -> Option<usize> {
        // What has fewer than 16 bits comes in blocks of 32.
        let block = if self.cache_type.bits_of_32() < 512 { 32 } else { 1 };
        let whole = |values: &[f32], size: usize| {
            let row = size.checked_mul(self.heads).filter(|&row| row > 0 && size.is_multiple_of(block))?;
            values.len().is_multiple_of(row).then_some(values.len() / row)
        };
        let positions = whole(self.keys, self.key_size)?;
        (positions > 0 && whole(self.values, self.value_size) == Some(positions)).then_some(positions)
    }
}

/// What some tokens ask of a [`Cache`].
#[derive(Debug, Clone, Copy)]
pub struct Queries<'a> {
    /// How many tokens there are.
    pub tokens: usize,
    /// Heads of queries: a multiple of the cache's.
    pub heads: usize,
    /// Queries, as long as keys: of each token the heads, one after another.
    pub values: &'a [f32],
    /// What scores are multiplied with.
    pub scale: f32,
    /// The largest slope of ALiBi, or 0: no slopes.
    pub max_bias: f32,
    /// What is added to the scores of each token, one for each position, as a 16-bit float: minus infinity hides the position.
    pub mask: &'a [f32],
}

/// A [`Cache`] on a backend, with the threads that attend to it.
pub trait Attention: Send {
    /// Writes, of each token and head, `softmax(scale * keys * query + mask) * values` into `results`. A query from which all
    /// positions are hidden has zeros.
    ///
    /// # Errors
    ///
    /// [`ProductError`].
    fn attend(&mut self, queries: Queries<'_>, results: &mut [f32]) -> Result<(), ProductError>;
}
