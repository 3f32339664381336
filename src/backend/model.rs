//! A loaded model and its contexts, as a backend provides them.

use std::{
    fmt,
    num::NonZeroU32,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    AdapterEngineError, BackendAdapter, BackendEmbedder, Batch, ContextError, DecodeError, Directions, ModelProfile,
    Pooling, Position, SequenceId, Vocabulary,
};
use crate::gguf::{Gguf, GgufError};

/// What a backend is asked to load: a file that [`Gguf::open`] has validated.
///
/// There is no other way to make one, so that no file reaches an engine which ends the process on some defects without
/// having been checked. What the type cannot promise is that the file stays as it was: whoever may write to it may
/// still change it between the validation and the load, or while its weights are mapped.
#[derive(Debug, Clone)]
pub struct LoadRequest<'a> {
    file: &'a Gguf,
    path: &'a Path,
    profile: ModelProfile,
    mapping: Mapping,
}

impl<'a> LoadRequest<'a> {
    /// Asks for `file`, with the default [`Mapping`].
    ///
    /// # Errors
    ///
    /// [`GgufError::InMemory`] for a file that was parsed from memory, otherwise as [`Gguf::profile`].
    pub fn new(file: &'a Gguf) -> Result<Self, GgufError> {
        let path = file.path().ok_or(GgufError::InMemory)?;
        Ok(Self { file, path, profile: file.profile()?, mapping: Mapping::default() })
    }

    /// Sets how the weights reach memory.
    pub fn with_mapping(mut self, mapping: Mapping) -> Self {
        self.mapping = mapping;
        self
    }

    /// The keys, and where the tensors are.
    pub fn file(&self) -> &'a Gguf {
        self.file
    }

    /// The file, or the first part of a split one.
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// What the file holds.
    pub fn profile(&self) -> &ModelProfile {
        &self.profile
    }

    /// How the weights reach memory.
    pub fn mapping(&self) -> Mapping {
        self.mapping
    }
}

/// How weights reach memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Mapping {
    /// Map the file where the backend computes on the stored form; the page cache is shared between processes.
    #[default]
    Map,
    /// Read the file into memory of our own.
    Read,
}

/// Sizes of a loaded model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct ModelShape {
    /// Number of tokens in the vocabulary: the length of a row of logits.
    pub n_vocab: u32,
    /// Context length that the model was trained for.
    pub n_ctx_train: u32,
    /// Width of the hidden state.
    pub n_embd: u32,
    /// Number of transformer blocks.
    pub n_layer: u32,
    /// Bytes of all weights.
    pub weight_bytes: u64,
    /// Number of weights.
    pub parameters: u64,
}

/// Weights in memory. Freed when the last `Arc` of it, contexts included, is dropped.
pub trait BackendModel: fmt::Debug + Send + Sync {
    /// The model's sizes.
    fn shape(&self) -> &ModelShape;

    /// The vocabulary, if this backend can tokenise.
    fn vocabulary(&self) -> Option<Arc<dyn Vocabulary>>;

    /// Opens a context: a KV cache and the threads that compute on it.
    ///
    /// # Errors
    ///
    /// [`ContextError`], among others when the memory does not suffice.
    fn context(self: Arc<Self>, options: &ContextOptions) -> Result<Box<dyn BackendContext>, ContextError>;

    /// Loads a LoRA adapter from a file that was checked against the model.
    ///
    /// # Errors
    ///
    /// [`AdapterEngineError::Unsupported`] from backends that do not provide this.
    fn adapter(self: Arc<Self>, path: &Path) -> Result<Arc<dyn BackendAdapter>, AdapterEngineError> {
        let _ = path;
        Err(AdapterEngineError::Unsupported)
    }

    /// How the model wants the states of its tokens pooled; `None` when its file does not say.
    fn pooling(&self) -> Option<Pooling> {
        None
    }

    /// The text that a reranker wants to read, with `{query}` and `{document}` in it; `None` when its file has none.
    fn rerank_template(&self) -> Option<String> {
        None
    }

    /// Opens what computes embeddings. [`ContextOptions::length`] is the longest sequence, [`ContextOptions::ubatch`]
    /// bounds the tokens of a batch and [`ContextOptions::sequences`] its sequences.
    ///
    /// # Errors
    ///
    /// [`ContextError::NoEmbeddings`] from backends that do not provide this, otherwise as [`context`](Self::context).
    fn embedder(
        self: Arc<Self>,
        options: &ContextOptions,
        pooling: Pooling,
    ) -> Result<Box<dyn BackendEmbedder>, ContextError> {
        let _ = (options, pooling);
        Err(ContextError::NoEmbeddings)
    }
}

/// How to open a context. [`ContextOptions::default`] suits one conversation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ContextOptions {
    /// Tokens that the KV cache holds for each sequence; `None` takes the training length, at most 4096.
    pub length: Option<NonZeroU32>,
    /// Most tokens in one decode (default 2048).
    pub batch: NonZeroU32,
    /// Most tokens in one pass over the weights (default 512).
    pub ubatch: NonZeroU32,
    /// Number of independent sequences (default 1).
    pub sequences: NonZeroU32,
    /// Compute threads; `None` takes those that the model was loaded for, and else
    /// [`Hardware::default_threads`](crate::hardware::Hardware::default_threads).
    pub threads: Option<NonZeroU32>,
    /// The type of the keys in the KV cache; `None` leaves it to the backend (default; llama.cpp takes F16).
    pub keys: Option<CacheType>,
    /// The type of the values; a quantised one needs flash attention.
    pub values: Option<CacheType>,
    /// Whether attention is computed without a matrix of scores; `None` leaves it to the backend (default; llama.cpp does so
    /// where a model allows it).
    pub flash_attention: Option<bool>,
    /// Whether all sequences share one cache of [`length`](Self::length) tokens, in which a copy of a sequence takes no room and
    /// no time until it differs (default: each has a cache of its own).
    pub shared_cache: bool,
    /// Cancels decodes of this context, also while one is running.
    pub cancel: CancelToken,
}

impl Default for ContextOptions {
    fn default() -> Self {
        const fn nonzero(value: u32) -> NonZeroU32 {
            NonZeroU32::new(value).expect("a constant above zero")
        }
        Self {
            length: None,
            batch: nonzero(2048),
            ubatch: nonzero(512),
            sequences: nonzero(1),
            threads: None,
            keys: None,
            values: None,
            flash_attention: None,
            shared_cache: false,
            cancel: CancelToken::default(),
        }
    }
}

impl ContextOptions {
    /// Sets the tokens that the KV cache holds for each sequence.
    pub fn with_length(mut self, length: NonZeroU32) -> Self {
        self.length = Some(length);
        self
    }

    /// Sets the most tokens in one decode.
    pub fn with_batch(mut self, batch: NonZeroU32) -> Self {
        self.batch = batch;
        self
    }

    /// Sets the most tokens in one pass over the weights.
    pub fn with_ubatch(mut self, ubatch: NonZeroU32) -> Self {
        self.ubatch = ubatch;
        self
    }

    /// Sets the number of independent sequences.
    pub fn with_sequences(mut self, sequences: NonZeroU32) -> Self {
        self.sequences = sequences;
        self
    }

    /// Sets the number of compute threads.
    pub fn with_threads(mut self, threads: NonZeroU32) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets the type of the keys and the values in the KV cache.
    pub fn with_cache_type(mut self, cache_type: CacheType) -> Self {
        (self.keys, self.values) = (Some(cache_type), Some(cache_type));
        self
    }

    /// Sets whether attention is computed without a matrix of scores.
    pub fn with_flash_attention(mut self, flash_attention: bool) -> Self {
        self.flash_attention = Some(flash_attention);
        self
    }

    /// Sets whether all sequences share one cache.
    pub fn with_shared_cache(mut self, shared_cache: bool) -> Self {
        self.shared_cache = shared_cache;
        self
    }

    /// Sets the token that cancels decodes.
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }
}

/// The type of the numbers in a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CacheType {
    /// 32 bits.
    F32,
    /// 16 bits.
    F16,
    /// 16 bits, with the range of 32.
    BF16,
    /// 8.5 bits.
    Q8_0,
    /// 6 bits.
    Q5_1,
    /// 5.5 bits.
    Q5_0,
    /// 5 bits.
    Q4_1,
    /// 4.5 bits.
    Q4_0,
}

impl CacheType {
    /// All of them, the largest first.
    pub const ALL: [Self; 8] =
        [Self::F32, Self::F16, Self::BF16, Self::Q8_0, Self::Q5_1, Self::Q5_0, Self::Q4_1, Self::Q4_0];

    /// Bits that 32 numbers take.
    pub fn bits_of_32(self) -> u32 {
        match self {
            Self::F32 => 1024,
            Self::F16 | Self::BF16 => 512,
            Self::Q8_0 => 272,
            Self::Q5_1 => 192,
            Self::Q5_0 => 176,
            Self::Q4_1 => 160,
            Self::Q4_0 => 144,
        }
    }
}

/// What a context was opened with, after defaults and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct ContextLimits {
    /// Tokens that each sequence can hold.
    pub context: u32,
    /// Most tokens in one decode.
    pub batch: u32,
    /// Most tokens in one pass over the weights.
    pub ubatch: u32,
    /// Number of independent sequences.
    pub sequences: u32,
    /// Compute threads.
    pub threads: u32,
}

/// A KV cache and the threads that compute on it.
pub trait BackendContext: fmt::Debug + Send {
    /// What the context can hold.
    fn limits(&self) -> &ContextLimits;

    /// Checks a batch, feeds it, and computes the logits that it asks for.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; afterwards the sequences hold what they held before, except after
    /// [`DecodeError::Cancelled`], where passes that were finished stay, and for recurrent models, whose sequences of the
    /// batch are emptied: [`next_position`](Self::next_position) tells.
    fn decode(&mut self, batch: &Batch) -> Result<(), DecodeError>;

    /// The logits after token `index` of the last batch: one number a vocabulary entry.
    /// `None` when the batch did not ask for them there, or was not decoded.
    fn logits(&self, index: usize) -> Option<&[f32]>;

    /// Changes what the sequences hold.
    ///
    /// # Errors
    ///
    /// [`DecodeError::SequenceEdit`] when there is no such sequence, or the model's memory cannot do it (a recurrent
    /// state cannot lose its middle).
    fn edit(&mut self, edit: SequenceEdit) -> Result<(), DecodeError>;

    /// Whether the model's memory can lose the middle of a sequence, which moves up what comes after it.
    fn can_shift(&self) -> bool {
        true
    }

    /// Tokens that all sequences together can hold; what they have in common by [`SequenceEdit::Copy`] counts once where they
    /// share a cache.
    fn capacity(&self) -> u64 {
        u64::from(self.limits().context) * u64::from(self.limits().sequences)
    }

    /// The position after the last token of `sequence`: 0 when it is empty.
    fn next_position(&self, sequence: SequenceId) -> Position;

    /// The id of the backend whose code computes this context, asked of the running engine itself.
    fn executed_by(&self) -> String;

    /// Applies these adapters with their scales, and no others. What sequences hold is the caller's to empty.
    ///
    /// # Errors
    ///
    /// [`AdapterEngineError`]; those that were applied before then stay, but after [`AdapterEngineError::Refused`] there are none.
    fn set_adapters(&mut self, adapters: &[(Arc<dyn BackendAdapter>, f32)]) -> Result<(), AdapterEngineError> {
        if adapters.is_empty() { Ok(()) } else { Err(AdapterEngineError::Unsupported) }
    }

    /// Adds these directions to the hidden state, or none.
    ///
    /// # Errors
    ///
    /// [`AdapterEngineError`]; those that were added before then stay, but after [`AdapterEngineError::Refused`] there are none.
    fn set_directions(&mut self, directions: Option<&Directions>) -> Result<(), AdapterEngineError> {
        if directions.is_none() { Ok(()) } else { Err(AdapterEngineError::Unsupported) }
    }

    /// Names the form of what [`save`](Self::save) writes; `None` when this backend saves nothing, and tokens are computed again.
    fn state_format(&self) -> Option<String> {
        None
    }

    /// Appends to `bytes` what the cache holds of `sequence`, which there is.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Failed`].
    fn save(&mut self, sequence: SequenceId, bytes: &mut Vec<u8>) -> Result<(), DecodeError> {
        let _ = (sequence, bytes);
        Ok(())
    }

    /// Appends to `bytes` what the cache holds of all sequences, with what they have in common written once. `false`, and nothing
    /// is written, where they have nothing in common: [`save`](Self::save) does then.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Failed`].
    fn save_forks(&mut self, bytes: &mut Vec<u8>) -> Result<bool, DecodeError> {
        let _ = bytes;
        Ok(false)
    }

    /// Makes the sequences hold what [`save_forks`](Self::save_forks) wrote in the same form, so many tokens each, and the others
    /// nothing. `false`, with nothing but empty sequences, when the bytes are not for this context.
    fn restore_forks(&mut self, tokens: &[(SequenceId, usize)], bytes: &[u8]) -> bool {
        let _ = (tokens, bytes);
        false
    }

    /// Makes `sequence`, which there is, hold what [`save`](Self::save) wrote in the same form: `tokens` of them. `false`, with
    /// an empty sequence, when the bytes are not for this context.
    fn restore(&mut self, sequence: SequenceId, tokens: usize, bytes: &[u8]) -> bool {
        let _ = (sequence, tokens, bytes);
        false
    }
}

/// A change of what sequences hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SequenceEdit {
    /// Empties all sequences.
    Clear,
    /// Removes the tokens of `sequence` from position `from` to its end.
    Truncate {
        /// The sequence.
        sequence: SequenceId,
        /// The first position that goes.
        from: Position,
    },
    /// Removes the tokens of `sequence` from position `from` to before `to`; those after them move up. What they know of the
    /// removed ones stays in them.
    Remove {
        /// The sequence.
        sequence: SequenceId,
        /// The first position that goes.
        from: Position,
        /// The first position that stays.
        to: Position,
    },
    /// Makes `to` hold what `from` holds, and nothing else.
    Copy {
        /// The sequence to read.
        from: SequenceId,
        /// The sequence to replace.
        to: SequenceId,
    },
}

/// Cancels work from anywhere: clone it, keep one half, hand over the other.
///
/// It stays cancelled until somebody calls [`reset`](Self::reset), so that nothing is missed that comes a moment before the
/// work. One token may stop many things; each of them may have a [`child`](Self::child) that stops it alone.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<CancelFlag>);

/// What the clones of a token share, in a place that does not move: engines read it from C.
#[derive(Debug, Default)]
pub(crate) struct CancelFlag {
    cancelled: AtomicBool,
    parent: Option<CancelToken>,
}

impl CancelFlag {
    pub(crate) fn is_set(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.parent.as_ref().is_some_and(CancelToken::is_cancelled)
    }
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// A token that is cancelled with this one, and can be cancelled without it.
    pub fn child(&self) -> Self {
        Self(Arc::new(CancelFlag { cancelled: AtomicBool::new(false), parent: Some(self.clone()) }))
    }

    /// Asks the work to stop. Safe to call from a signal handler's thread; takes effect inside a decode.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    /// Makes the token usable again. One that it is a child of has to be reset itself.
    pub fn reset(&self) {
        self.0.cancelled.store(false, Ordering::Relaxed);
    }

    /// What the token's clones share.
    #[cfg(feature = "cpu")]
    pub(crate) fn flag(&self) -> &Arc<CancelFlag> {
        &self.0
    }

    /// Whether it, or one that it is a child of, was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_set()
    }
}

#[cfg(test)]
mod tests {
    use super::CancelToken;

    #[test]
    fn a_child_is_cancelled_with_its_parent_and_without_it() {
        let parent = CancelToken::new();
        let (one, other) = (parent.child(), parent.child().child());
        one.cancel();
        assert!(one.is_cancelled() && !parent.is_cancelled() && !other.is_cancelled());
        one.reset();
        parent.cancel();
        assert!(one.is_cancelled() && other.is_cancelled());
        one.reset();
        assert!(one.is_cancelled(), "the parent is still cancelled");
        parent.reset();
        assert!(!one.is_cancelled() && !other.is_cancelled());
    }
}
