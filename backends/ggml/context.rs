//! Owner of a `llama_context`: the KV cache, its threads, and the arrays of its batches.

use std::{
    ffi::c_void,
    mem,
    num::NonZeroU32,
    ptr::{self, NonNull},
    slice,
    sync::Arc,
};

use llama_cpp_sys_2 as sys;

use super::{
    ENGINE,
    adapter::LlamaAdapter,
    ffi::{self, AbortCallback},
    forks::Forks,
    log::capture_errors,
    memory::{LENGTH_STEP, context_bytes},
    model::{LlamaModel, message},
    process::{self, Reentered},
    threadpool::{MAX_THREADS, Threadpool},
};
use crate::{
    backend::{
        AdapterEngineError, BackendAdapter, BackendContext, BackendModel, Batch, CacheType, CancelFlag, CancelToken,
        ContextError, ContextLimits, ContextOptions, DecodeError, Directions, Position, SequenceEdit, SequenceId,
    },
    hardware::Hardware,
};

/// Context length when none is asked for, unless the model was trained for less.
const DEFAULT_LENGTH: u32 = 4096;

/// Batches up to this many tokens never allocate; the arrays of larger ones grow when they come.
const LARGE_BATCH: u32 = 4096;

/// Most sequences that a context can keep (`LLAMA_MAX_SEQ`).
const MAX_SEQUENCES: u32 = 256;

/// What `llama_decode` returns where there is no memory for the graph or for logits. (Also for two states of its cache that it takes for
/// impossible, and has no other number for.)
const NO_MEMORY: i32 = -2;

/// A context on one tier. Fields are dropped in this order: the context, the threads and adapters that it used, the model.
#[derive(Debug)]
pub(super) struct LlamaContext {
    raw: RawContext,
    _threads: Threadpool,
    adapters: Vec<Arc<dyn BackendAdapter>>,
    pub(super) model: Arc<LlamaModel>,
    /// The abort callback of `raw` reads its flag.
    cancel: CancelToken,
    pub(super) limits: ContextLimits,
    /// Whether there is a KV cache. Encoders have none: each batch stands alone.
    pub(super) has_memory: bool,
    /// The position after the last token of each sequence.
    pub(super) next: Vec<Position>,
    /// What sequences have in common, where they share a cache.
    pub(super) forks: Option<Forks>,
    pub(super) arrays: BatchArrays,
}

#[derive(Debug)]
struct RawContext(NonNull<sys::llama_context>);

// SAFETY: a context may be used from any thread, by one at a time; `LlamaContext` is not `Sync`.
unsafe impl Send for RawContext {}

impl Drop for RawContext {
    fn drop(&mut self) {
        // SAFETY: the pointer came from llama.cpp and is freed once; the model outlives it.
        unsafe { sys::llama_free(self.0.as_ptr()) };
    }
}

impl LlamaContext {
    pub(super) fn new(model: Arc<LlamaModel>, options: &ContextOptions) -> Result<Self, ContextError> {
        let limits = plan(&model, options)?;
        let mut params = params(&limits, &options.cancel);
        params.type_k = options.keys.map_or(params.type_k, ggml_type);
        params.type_v = options.values.map_or(params.type_v, ggml_type);
        params.flash_attn_type = match options.flash_attention {
            None => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
            Some(true) => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
            Some(false) => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
        };
        if options.shared_cache {
            params.kv_unified = true;
            params.n_ctx = limits.context;
        }
        Self::open(model, options, limits, params)
    }

    /// A context whose decodes leave a vector for each sequence: see [`super::embedder`].
    pub(super) fn with_pooling(
        model: Arc<LlamaModel>,
        options: &ContextOptions,
        pooling: sys::llama_pooling_type,
    ) -> Result<Self, ContextError> {
        let limits = plan_embeddings(&model, options)?;
        let mut params = params(&limits, &options.cancel);
        params.embeddings = true;
        params.pooling_type = pooling;
        // One cache for all sequences: only then does a batch stay one ubatch, and a sequence is pooled within one.
        params.kv_unified = true;
        params.n_ctx = limits.batch.max(limits.context);
        Self::open(model, options, limits, params)
    }

    fn open(
        model: Arc<LlamaModel>,
        options: &ContextOptions,
        limits: ContextLimits,
        params: sys::llama_context_params,
    ) -> Result<Self, ContextError> {
        let cancel = options.cancel.clone();
        let cpus = Hardware::detect().topology.performance_cpus(limits.threads);
        let ((raw, threads), errors) = process::with_cpu(Some(model.registration), |registered| {
            let _list = model.lock_adapters();
            capture_errors(|| {
                // SAFETY: the model is valid, and the flag of `cancel` outlives the context.
                let raw = unsafe { ffi::gl_context_new(model.raw.as_ptr(), &params) };
                (raw, registered.and_then(|registered| Threadpool::new(registered, limits.threads, cpus.as_deref())))
            })
        })
        .map_err(|Reentered| ContextError::Refused { engine: ENGINE, message: Reentered.to_string() })?;
        let Some(raw) = NonNull::new(raw).map(RawContext) else {
            return Err(ContextError::Refused { engine: ENGINE, message: message(errors) });
        };
        let threads = threads.ok_or_else(|| ContextError::Refused {
            engine: ENGINE,
            message: format!("the system did not start {} threads", limits.threads),
        })?;
        // SAFETY: both are valid, and the pool is dropped after the context.
        unsafe { sys::llama_attach_threadpool(raw.0.as_ptr(), threads.as_ptr(), threads.as_ptr()) };
        // SAFETY: the context is valid.
        let has_memory = !unsafe { sys::llama_get_memory(raw.0.as_ptr()) }.is_null();
        // SAFETY: the context is valid.
        let is_causal = unsafe { ffi::gl_is_causal(raw.0.as_ptr()) };
        let limits = if has_memory && is_causal {
            limits
        } else {
            // llama.cpp asserts that a batch in which tokens see those after them is one ubatch.
            ContextLimits { batch: limits.ubatch.min(limits.batch), ..limits }
        };
        Ok(Self {
            raw,
            _threads: threads,
            adapters: Vec::new(),
            model,
            cancel,
            limits,
            has_memory,
            next: vec![0; limits.sequences as usize],
            forks: params.kv_unified.then(|| Forks::new(limits.sequences)),
            arrays: BatchArrays::with_capacity(limits.batch.min(LARGE_BATCH) as usize),
        })
    }

    /// The vector that the last decode left for a sequence.
    pub(super) fn pooled(&self, sequence: SequenceId, dimensions: usize) -> Option<&[f32]> {
        let id = self.check_sequence(sequence).ok()?;
        // SAFETY: the context is valid; a sequence that it does not have gives NULL.
        let row = NonNull::new(unsafe { sys::llama_get_embeddings_seq(self.as_ptr(), id) })?;
        // SAFETY: a vector has this length and stays until the next decode, which needs `&mut self`.
        Some(unsafe { slice::from_raw_parts(row.as_ptr(), dimensions) })
    }

    pub(super) fn as_ptr(&self) -> *mut sys::llama_context {
        self.raw.0.as_ptr()
    }
}

impl BackendContext for LlamaContext {
    fn limits(&self) -> &ContextLimits {
        &self.limits
    }

    fn decode(&mut self, batch: &Batch) -> Result<(), DecodeError> {
        // The last batch's logits go with it, even when this one is refused.
        self.arrays.outputs.clear();
        batch.check(self.model.shape().n_vocab, &self.limits)?;
        batch.check_positions(&self.next, &mut self.arrays.expected)?;
        if self.cancel.is_cancelled() {
            return Err(DecodeError::Cancelled);
        }
        let raw_batch = self.arrays.fill(batch);
        // SAFETY: the context is valid. The arrays hold `n_tokens` entries; tokens, sequences and positions were checked,
        // and the batch is within `n_batch`: the preconditions that llama_decode asserts.
        let (status, errors) = capture_errors(|| unsafe { ffi::gl_decode(self.as_ptr(), &raw_batch) });
        match status {
            0 => {
                if self.has_memory {
                    self.next.copy_from_slice(&self.arrays.expected);
                }
                Ok(())
            }
            failed => {
                self.arrays.outputs.clear();
                self.drop_half_computed_states(batch);
                self.reread_positions();
                Err(match failed {
                    1 => self.full(batch.len() as u32),
                    2 => DecodeError::Cancelled,
                    NO_MEMORY => DecodeError::OutOfMemory { tokens: batch.len() as u32 },
                    _ => DecodeError::Failed { engine: ENGINE, message: message(errors) },
                })
            }
        }
    }

    fn logits(&self, index: usize) -> Option<&[f32]> {
        // llama.cpp logs an error for a row that was not asked for.
        if !*self.arrays.outputs.get(index)? {
            return None;
        }
        // SAFETY: the model is valid.
        if !self.has_memory && !unsafe { sys::llama_model_is_diffusion(self.model.raw.as_ptr()) } {
            // An encoder computes embeddings only; llama.cpp would hand out zeros.
            return None;
        }
        // SAFETY: the context is valid and the row was computed.
        let row = unsafe { sys::llama_get_logits_ith(self.as_ptr(), i32::try_from(index).ok()?) };
        let row = NonNull::new(row)?;
        // SAFETY: a row has `n_vocab` numbers and stays until the next decode, which needs `&mut self`.
        Some(unsafe { slice::from_raw_parts(row.as_ptr(), self.model.shape().n_vocab as usize) })
    }

    fn edit(&mut self, edit: SequenceEdit) -> Result<(), DecodeError> {
        self.change(edit)
    }

    fn can_shift(&self) -> bool {
        // SAFETY: the context is valid.
        !self.has_states() && unsafe { ffi::gl_can_shift(self.as_ptr()) }
    }

    fn capacity(&self) -> u64 {
        self.capacity_in_tokens()
    }

    fn set_adapters(&mut self, adapters: &[(Arc<dyn BackendAdapter>, f32)]) -> Result<(), AdapterEngineError> {
        let own = |adapter: &Arc<dyn BackendAdapter>| {
            let adapter = adapter.as_any().downcast_ref::<LlamaAdapter>()?;
            Arc::ptr_eq(&adapter.model, &self.model).then_some(adapter.as_ptr())
        };
        let raw = adapters.iter().map(|(adapter, _)| own(adapter).ok_or(AdapterEngineError::OtherModel));
        let mut raw = raw.collect::<Result<Vec<_>, _>>()?;
        let mut scales: Vec<f32> = adapters.iter().map(|(_, scale)| *scale).collect();
        // llama.cpp has pointers to adapters that it was given: both lists are held until it is done with one.
        let before =
            mem::replace(&mut self.adapters, adapters.iter().map(|(adapter, _)| Arc::clone(adapter)).collect());
        let list = self.model.lock_adapters();
        let (done, errors) = capture_errors(|| {
            // SAFETY: the context is valid; the adapters are of its model, and held for as long as it uses them.
            unsafe { ffi::gl_set_adapters(self.as_ptr(), raw.as_mut_ptr(), raw.len(), scales.as_mut_ptr()) }
        });
        // First: an adapter that is freed takes the lock.
        drop(list);
        self.arrays.outputs.clear();
        if !done {
            self.adapters.extend(before);
            return Err(AdapterEngineError::Refused { engine: ENGINE, message: message(errors) });
        }
        Ok(())
    }

    fn set_directions(&mut self, directions: Option<&Directions>) -> Result<(), AdapterEngineError> {
        let width = self.model.shape().n_embd as i32;
        let (rows, count, first, last) = match directions {
            Some(Directions { rows, first, last }) => (rows.as_ptr(), rows.len(), *first as i32, *last as i32),
            None => (ptr::null(), 0, 0, 0),
        };
        let list = self.model.lock_adapters();
        let (done, errors) = capture_errors(|| {
            // SAFETY: the context is valid, and there are `count` numbers, which are copied.
            unsafe { ffi::gl_set_directions(self.as_ptr(), rows, count, width, first, last) }
        });
        drop(list);
        self.arrays.outputs.clear();
        if done { Ok(()) } else { Err(AdapterEngineError::Refused { engine: ENGINE, message: message(errors) }) }
    }

    fn state_format(&self) -> Option<String> {
        // What else must fit (types of the cache, layers, widths) llama.cpp checks itself when it reads.
        // SAFETY: a plain function.
        self.has_memory.then(|| format!("{ENGINE} {}", unsafe { ffi::gl_sequence_state_version() }))
    }

    fn save(&mut self, sequence: SequenceId, bytes: &mut Vec<u8>) -> Result<(), DecodeError> {
        self.save_one(sequence, bytes)
    }

    fn save_forks(&mut self, bytes: &mut Vec<u8>) -> Result<bool, DecodeError> {
        self.save_together(bytes)
    }

    fn restore_forks(&mut self, tokens: &[(SequenceId, usize)], bytes: &[u8]) -> bool {
        self.restore_together(tokens, bytes)
    }

    fn restore(&mut self, sequence: SequenceId, tokens: usize, bytes: &[u8]) -> bool {
        self.restore_one(sequence, tokens, bytes)
    }

    fn next_position(&self, sequence: SequenceId) -> Position {
        self.next.get(sequence as usize).copied().unwrap_or(0)
    }

    fn executed_by(&self) -> String {
        // SAFETY: the context is valid.
        let running = unsafe { ffi::gl_cpu_graph_compute(self.as_ptr()) };
        if !running.is_null() && running as usize == self.model.graph_compute {
            self.model.backend.to_owned()
        } else {
            format!("foreign code at {running:p}")
        }
    }
}

/// Turns options into what the context will have, or says what does not fit.
fn plan(model: &LlamaModel, options: &ContextOptions) -> Result<ContextLimits, ContextError> {
    let profile = &model.profile;
    if profile.vocabulary_only {
        return Err(ContextError::VocabularyOnly);
    }
    let hardware = Hardware::detect();
    let threads = options.threads.unwrap_or_else(|| hardware.default_threads()).get();
    if threads > MAX_THREADS {
        return Err(ContextError::Threads { requested: threads, limit: MAX_THREADS });
    }
    let sequences = options.sequences.get();
    if sequences > MAX_SEQUENCES {
        return Err(ContextError::Sequences { requested: sequences, limit: MAX_SEQUENCES });
    }
    let trained = profile.n_ctx_train.max(1);
    let context = options.length.map_or(trained.min(DEFAULT_LENGTH), NonZeroU32::get);
    // SAFETY: the model is valid.
    let positions = unsafe { ffi::gl_position_limit(model.raw.as_ptr()) };
    if let Some(limit) = u32::try_from(positions).ok().filter(|&limit| limit > 0 && limit < context) {
        // llama.cpp asserts that a position is in the model's table.
        return Err(ContextError::Length { requested: context, limit });
    }
    let caches = if options.shared_cache { 1 } else { sequences };
    let batch = options.batch.get().min(context.saturating_mul(caches));
    let ubatch = options.ubatch.get().min(batch);
    let needed = context_bytes(profile, context, caches, ubatch, [options.keys, options.values]);
    if let Some(available) = hardware.memory.lacks(needed) {
        return Err(ContextError::Memory { needed, available });
    }
    // llama.cpp counts the tokens of all sequences, rounded up, in 32 bits.
    let limit = (i32::MAX as u32 - LENGTH_STEP) / caches;
    if context > limit {
        return Err(ContextError::Length { requested: context, limit });
    }
    Ok(ContextLimits { context, batch, ubatch, sequences, threads })
}

/// The same for embeddings: a batch is one pass, the longest sequence fits, and the cache holds one batch.
fn plan_embeddings(model: &LlamaModel, options: &ContextOptions) -> Result<ContextLimits, ContextError> {
    let mut options = options.clone();
    let trained = model.profile.n_ctx_train.max(1);
    let length = options.length.map_or(trained.min(DEFAULT_LENGTH), NonZeroU32::get);
    let tokens = options.ubatch.get().max(length);
    options.length = NonZeroU32::new(length);
    options.ubatch = NonZeroU32::new(tokens).unwrap_or(options.ubatch);
    options.batch = options.ubatch;
    let sequences = options.sequences;
    // Planned as one sequence: the cache is shared. llama.cpp computes logits along with the vectors where a model has
    // them, and keeps those of the whole batch.
    options.sequences = NonZeroU32::MIN;
    let planned = plan(model, &options)?;
    if sequences.get() > MAX_SEQUENCES {
        return Err(ContextError::Sequences { requested: sequences.get(), limit: MAX_SEQUENCES });
    }
    let kept = u64::from(tokens) * u64::from(model.profile.n_vocab) * size_of::<f32>() as u64;
    let needed = context_bytes(&model.profile, tokens, 1, tokens, [None; 2]).saturating_add(kept);
    if let Some(available) = Hardware::detect().memory.lacks(needed) {
        return Err(ContextError::Memory { needed, available });
    }
    // llama.cpp asserts that an output of each sequence fits into a batch.
    let sequences = sequences.get().min(tokens);
    Ok(ContextLimits { batch: tokens, ubatch: tokens, sequences, ..planned })
}

pub(super) fn ggml_type(cache_type: CacheType) -> sys::ggml_type {
    match cache_type {
        CacheType::F32 => sys::GGML_TYPE_F32,
        CacheType::F16 => sys::GGML_TYPE_F16,
        CacheType::BF16 => sys::GGML_TYPE_BF16,
        CacheType::Q8_0 => sys::GGML_TYPE_Q8_0,
        CacheType::Q5_1 => sys::GGML_TYPE_Q5_1,
        CacheType::Q5_0 => sys::GGML_TYPE_Q5_0,
        CacheType::Q4_1 => sys::GGML_TYPE_Q4_1,
        CacheType::Q4_0 => sys::GGML_TYPE_Q4_0,
    }
}

fn params(limits: &ContextLimits, cancel: &CancelToken) -> sys::llama_context_params {
    // SAFETY: a plain function.
    let mut params = unsafe { sys::llama_context_default_params() };
    // Each sequence has a cache of its own (not unified), so that one cannot take another's room.
    // For those that share one, the caller sets less: their product need not fit.
    params.n_ctx = limits.context.saturating_mul(limits.sequences);
    params.kv_unified = false;
    // llama.cpp asserts that an output of each sequence fits.
    params.n_batch = limits.batch.max(limits.sequences);
    params.n_ubatch = limits.ubatch;
    params.n_seq_max = limits.sequences;
    params.n_threads = limits.threads as i32;
    params.n_threads_batch = limits.threads as i32;
    params.no_perf = true;
    params.abort_callback = Some(is_cancelled as AbortCallback);
    params.abort_callback_data = Arc::as_ptr(cancel.flag()).cast_mut().cast::<c_void>();
    params
}

/// Called by ggml between the nodes of a graph.
unsafe extern "C" fn is_cancelled(flag: *mut c_void) -> bool {
    // SAFETY: the context was created with a pointer to the flag of a token that it holds.
    let flag = unsafe { &*flag.cast::<CancelFlag>() };
    flag.is_set()
}

/// The arrays that `llama_batch` points to, allocated once.
#[derive(Debug)]
pub(super) struct BatchArrays {
    tokens: Vec<sys::llama_token>,
    positions: Vec<sys::llama_pos>,
    sequence_counts: Vec<i32>,
    sequences: Vec<sys::llama_seq_id>,
    sequence_pointers: Pointers,
    logits: Vec<i8>,
    /// For each token of the last batch: whether it has logits.
    pub(super) outputs: Vec<bool>,
    /// Where the sequences stand after the batch.
    expected: Vec<Position>,
}

#[derive(Debug)]
struct Pointers(Vec<*mut sys::llama_seq_id>);

// SAFETY: the pointers go into a vector that is owned beside them and are rewritten before each use.
unsafe impl Send for Pointers {}

impl BatchArrays {
    fn with_capacity(capacity: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(capacity),
            positions: Vec::with_capacity(capacity),
            sequence_counts: Vec::with_capacity(capacity),
            sequences: Vec::with_capacity(capacity),
            sequence_pointers: Pointers(Vec::with_capacity(capacity)),
            logits: Vec::with_capacity(capacity),
            outputs: Vec::with_capacity(capacity),
            expected: Vec::new(),
        }
    }

    fn fill(&mut self, batch: &Batch) -> sys::llama_batch {
        let items = batch.items();
        self.tokens.clear();
        self.tokens.extend(items.iter().map(|item| item.token as sys::llama_token));
        self.positions.clear();
        self.positions.extend(items.iter().map(|item| item.position as sys::llama_pos));
        self.sequence_counts.clear();
        self.sequence_counts.resize(items.len(), 1);
        self.sequences.clear();
        self.sequences.extend(items.iter().map(|item| item.sequence as sys::llama_seq_id));
        self.sequence_pointers.0.clear();
        self.sequence_pointers.0.extend(self.sequences.iter_mut().map(ptr::from_mut));
        self.logits.clear();
        self.logits.extend(items.iter().map(|item| i8::from(item.logits)));
        self.outputs.clear();
        self.outputs.extend(items.iter().map(|item| item.logits));
        sys::llama_batch {
            n_tokens: items.len() as i32,
            token: self.tokens.as_mut_ptr(),
            embd: ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.sequence_counts.as_mut_ptr(),
            seq_id: self.sequence_pointers.0.as_mut_ptr(),
            logits: self.logits.as_mut_ptr(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_context_of_most_sequences_does_not_wrap_around() {
        let longest = i32::MAX as u32 - LENGTH_STEP;
        let limits = ContextLimits { context: longest, batch: 512, ubatch: 512, sequences: MAX_SEQUENCES, threads: 1 };
        assert_eq!(params(&limits, &CancelToken::new()).n_ctx, u32::MAX);
    }
}
