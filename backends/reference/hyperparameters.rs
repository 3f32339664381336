//! The sizes and constants of a model, from the keys that begin with its architecture.

use super::{architecture::Architecture, refused};
use crate::{
    backend::LoadError,
    gguf::{GgufError, Metadata},
};

/// What the metadata say about the graph.
#[derive(Debug, Clone)]
pub(super) struct Hyperparameters {
    /// Which graph.
    pub(super) architecture: Architecture,
    /// Width of the hidden state.
    pub(super) n_embd: usize,
    /// Number of blocks.
    pub(super) n_layer: usize,
    /// Number of query heads.
    pub(super) n_head: usize,
    /// Number of key and value heads; each serves `n_head / n_head_kv` query heads.
    pub(super) n_head_kv: usize,
    /// Width of a head.
    pub(super) head_dim: usize,
    /// Width of the feed-forward network.
    pub(super) n_ff: usize,
    /// Added to the mean square in RMSNorm.
    pub(super) norm_epsilon: f32,
    /// Factor on the scores of attention.
    pub(super) attention_scale: f32,
    /// Elements at the start of a head that RoPE rotates.
    pub(super) rope_dimensions: usize,
    /// Base of RoPE's frequencies.
    pub(super) rope_base: f64,
    /// Factor on RoPE's positions: below 1 where linear scaling stretches the context.
    pub(super) rope_scale: f64,
}

impl Hyperparameters {
    /// Reads and checks the keys.
    ///
    /// # Errors
    ///
    /// [`LoadError::Refused`] for a key that is missing, of another type, or of a value that the graph cannot have.
    pub(super) fn read(metadata: &Metadata) -> Result<Self, LoadError> {
        let name = metadata.str("general.architecture").map_err(refused)?;
        let architecture = Architecture::from_name(name)
            .ok_or_else(|| refused(format!("the architecture `{name}` is not supported")))?;
        let keys = Keys { metadata, architecture: name };
        if keys.integer("expert_count")?.is_some_and(|experts| experts > 0) {
            return Err(refused("mixtures of experts are not supported"));
        }
        let n_embd = keys.size("embedding_length")?;
        let n_head = keys.size("attention.head_count")?;
        let n_head_kv = keys.integer("attention.head_count_kv")?.unwrap_or(n_head);
        let head_dim = keys.integer("attention.key_length")?.unwrap_or(n_embd / n_head);
        let rope_dimensions = keys.integer("rope.dimension_count")?.unwrap_or(head_dim);
        if n_head_kv == 0 || !n_head.is_multiple_of(n_head_kv) {
            return Err(refused(format!("{n_head} heads cannot share {n_head_kv} key and value heads")));
        }
        if keys.integer("attention.value_length")?.is_some_and(|length| length != head_dim) {
            return Err(refused("keys and values of different length are not supported"));
        }
        if head_dim == 0 || rope_dimensions > head_dim || !rope_dimensions.is_multiple_of(2) {
            return Err(refused(format!("cannot rotate {rope_dimensions} elements of heads of {head_dim}")));
        }
        if n_head.checked_mul(head_dim).is_none() {
            return Err(refused(format!("{n_head} heads of {head_dim} are too many")));
        }
        let attention_scale = match keys.float("attention.scale")? {
            Some(scale) if scale != 0.0 => scale as f32,
            _ => 1.0 / (head_dim as f32).sqrt(),
        };
        let epsilon = metadata.f64(&keys.key("attention.layer_norm_rms_epsilon")).map_err(refused)?;
        Ok(Self {
            architecture,
            n_embd,
            n_layer: keys.size("block_count")?,
            n_head,
            n_head_kv,
            head_dim,
            n_ff: keys.size("feed_forward_length")?,
            norm_epsilon: epsilon as f32,
            attention_scale,
            rope_dimensions,
            rope_base: keys.float("rope.freq_base")?.unwrap_or(10_000.0),
            rope_scale: rope_scale(&keys)?,
        })
    }

    /// Width of the queries of all heads.
    pub(super) fn query_width(&self) -> usize {
        self.n_head * self.head_dim
    }

    /// Width of the keys, and of the values, of all heads.
    pub(super) fn kv_width(&self) -> usize {
        self.n_head_kv * self.head_dim
    }
}

/// Linear scaling divides positions by a factor; a file that names a factor and no kind means linear.
fn rope_scale(keys: &Keys<'_>) -> Result<f64, LoadError> {
    let kind = keys.metadata.get(&keys.key("rope.scaling.type")).and_then(|kind| kind.as_str()).unwrap_or("linear");
    let factor = match keys.float("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.float("rope.scale_linear")?,
    };
    match (kind, factor) {
        ("none", _) | ("linear", None) => Ok(1.0),
        ("linear", Some(factor)) => Ok(if factor == 0.0 { 1.0 } else { 1.0 / factor }),
        (other, _) => Err(refused(format!("RoPE scaling `{other}` is not supported"))),
    }
}

/// The keys of one architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// A size that must be there and above zero.
    fn size(&self, name: &str) -> Result<usize, LoadError> {
        let key = self.key(name);
        match self.metadata.u64(&key).map_err(refused)? {
            0 => Err(refused(format!("`{key}` is zero"))),
            size => usize::try_from(size).map_err(refused),
        }
    }

    fn integer(&self, name: &str) -> Result<Option<usize>, LoadError> {
        let value = self.optional(name, Metadata::u64)?;
        value.map(|value| usize::try_from(value).map_err(refused)).transpose()
    }

    fn float(&self, name: &str) -> Result<Option<f64>, LoadError> {
        self.optional(name, Metadata::f64)
    }

    fn optional<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Metadata, &str) -> Result<T, GgufError>,
    ) -> Result<Option<T>, LoadError> {
        let key = self.key(name);
        self.metadata.get(&key).map(|_| read(self.metadata, &key)).transpose().map_err(refused)
    }
}
