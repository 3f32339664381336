//! A loaded model.

use std::{num::NonZeroU32, ops::ControlFlow, sync::Arc};

use super::{context::Context, transformer::Transformer};
use crate::{
    backend::{
        BackendContext, BackendModel, CacheType, ContextError, ContextLimits, ContextOptions, Device, LoadError,
        LoadRequest, ModelShape, Vocabulary,
    },
    hardware::Hardware,
};

/// Weights, or none where the file holds only a vocabulary.
#[derive(Debug)]
pub(super) struct Model {
    shape: ModelShape,
    transformer: Option<Arc<Transformer>>,
    /// Bytes that the device could still allocate when the weights were in; `None` when not known.
    memory: Option<u64>,
}

impl Model {
    /// Reads the file. [`Mapping`](crate::backend::Mapping) makes no difference: mapping a file takes unsafe code.
    pub(super) fn load(
        device: &Device,
        request: &LoadRequest<'_>,
        progress: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<Self, LoadError> {
        let file = request.file();
        let profile = request.profile();
        let transformer = if profile.vocabulary_only {
            None
        } else {
            Some(Arc::new(Transformer::load(file, profile.n_vocab as usize, progress)?))
        };
        let shape = ModelShape {
            n_vocab: profile.n_vocab,
            n_ctx_train: profile.n_ctx_train,
            n_embd: transformer.as_ref().map_or(0, |transformer| transformer.hyperparameters.n_embd as u32),
            n_layer: profile.n_layer,
            weight_bytes: profile.weight_bytes,
            parameters: file.tensors().iter().map(|tensor| tensor.shape.iter().product::<u64>()).sum(),
        };
        let memory = device.memory.map(|memory| memory.saturating_sub(profile.weight_bytes));
        Ok(Self { shape, transformer, memory })
    }
}

impl BackendModel for Model {
    fn shape(&self) -> &ModelShape {
        &self.shape
    }

    /// This backend cannot tokenise; llama.cpp's can, and reads the same file.
    fn vocabulary(&self) -> Option<Arc<dyn Vocabulary>> {
        None
    }

    fn context(self: Arc<Self>, options: &ContextOptions) -> Result<Box<dyn BackendContext>, ContextError> {
        /// Beyond this, more threads only wait for each other.
        const THREADS: u32 = 512;
        /// Tokens of a context whose length nobody named.
        const LENGTH: u32 = 4096;
        let Some(transformer) = &self.transformer else { return Err(ContextError::VocabularyOnly) };
        if [options.keys, options.values].into_iter().flatten().any(|cache_type| cache_type != CacheType::F32) {
            return Err(ContextError::Option("KV cache in other types than F32"));
        }
        if options.flash_attention == Some(true) {
            return Err(ContextError::Option("flash attention"));
        }
        if options.shared_cache {
            return Err(ContextError::Option("cache that sequences share"));
        }
        let threads = options.threads.unwrap_or_else(|| Hardware::detect().default_threads()).get();
        if threads > THREADS {
            return Err(ContextError::Threads { requested: threads, limit: THREADS });
        }
        let limits = ContextLimits {
            context: options.length.map_or(self.shape.n_ctx_train.min(LENGTH), NonZeroU32::get),
            batch: options.batch.get(),
            ubatch: options.ubatch.min(options.batch).get(),
            sequences: options.sequences.get(),
            threads,
        };
        // The cache grows with its tokens; what counts is whether it could hold them all.
        let bytes_per_token = 2 * 4 * transformer.hyperparameters.kv_width() * transformer.hyperparameters.n_layer;
        let needed = u128::from(limits.context) * u128::from(limits.sequences) * bytes_per_token as u128;
        let needed = u64::try_from(needed).unwrap_or(u64::MAX);
        if let Some(available) = self.memory.filter(|&available| needed > available) {
            return Err(ContextError::Memory { needed, available });
        }
        Ok(Box::new(Context::new(Arc::clone(transformer), limits, options.cancel.clone())))
    }
}
