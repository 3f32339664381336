//! Embeddings: a context that pools, emptied before each batch.

use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::{context::LlamaContext, ffi, model::LlamaModel};
use crate::backend::{
    BackendContext, BackendEmbedder, Batch, ContextError, ContextLimits, ContextOptions, DecodeError, Pooling,
    SequenceEdit, SequenceId,
};

/// A context whose decodes leave a vector for each sequence.
#[derive(Debug)]
pub(super) struct LlamaEmbedder {
    context: LlamaContext,
    dimensions: usize,
    /// The last batch, with every token marked as an output: llama.cpp wants it so.
    marked: Batch,
    /// Whether that batch was computed.
    is_computed: bool,
}

impl LlamaEmbedder {
    pub(super) fn new(
        model: Arc<LlamaModel>,
        options: &ContextOptions,
        pooling: Pooling,
    ) -> Result<Self, ContextError> {
        let dimensions = match pooling {
            // SAFETY: the model is valid.
            Pooling::Rank => match unsafe { ffi::gl_rank_scores(model.raw.as_ptr()) } {
                ..=0 => return Err(ContextError::NoRanking),
                scores => scores,
            },
            // SAFETY: the model is valid.
            _ => unsafe { sys::llama_model_n_embd_out(model.raw.as_ptr()) },
        };
        let dimensions = usize::try_from(dimensions).unwrap_or(0);
        let context = LlamaContext::with_pooling(model, options, raw_pooling(pooling))?;
        Ok(Self { context, dimensions, marked: Batch::new(), is_computed: false })
    }
}

impl BackendEmbedder for LlamaEmbedder {
    fn limits(&self) -> &ContextLimits {
        self.context.limits()
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn embed(&mut self, batch: &Batch) -> Result<(), DecodeError> {
        self.is_computed = false;
        self.marked.clear();
        for item in batch.items() {
            self.marked.push(item.token, item.position, item.sequence, true);
        }
        self.context.edit(SequenceEdit::Clear)?;
        self.context.decode(&self.marked)?;
        self.is_computed = true;
        Ok(())
    }

    fn embedding(&self, sequence: SequenceId) -> Option<&[f32]> {
        // After a batch that was refused, llama.cpp still has the vectors of the one before.
        if !self.is_computed {
            return None;
        }
        self.context.pooled(sequence, self.dimensions)
    }

    fn executed_by(&self) -> String {
        self.context.executed_by()
    }
}

fn raw_pooling(pooling: Pooling) -> sys::llama_pooling_type {
    match pooling {
        Pooling::Mean => sys::LLAMA_POOLING_TYPE_MEAN,
        Pooling::Cls => sys::LLAMA_POOLING_TYPE_CLS,
        Pooling::Last => sys::LLAMA_POOLING_TYPE_LAST,
        Pooling::Rank => sys::LLAMA_POOLING_TYPE_RANK,
    }
}

/// The pooling that a file names, if it names one.
pub(super) fn pooling_of(raw: sys::llama_pooling_type) -> Option<Pooling> {
    [Pooling::Mean, Pooling::Cls, Pooling::Last, Pooling::Rank].into_iter().find(|&pooling| raw_pooling(pooling) == raw)
}
