//! A context: tokens in, logits out.
#![forbid(unsafe_code)]

use crate::{
    backend::{
        BackendContext, Batch, CancelToken, ContextLimits, DecodeError, Position, SequenceEdit, SequenceId, Token,
        TokenizeOptions,
    },
    generation::{GenerateError, GenerateOptions, Generation},
    model::Model,
};

/// A KV cache and the threads that compute on it. Keeps its model alive; may move between threads.
#[derive(Debug)]
pub struct Context {
    inner: Box<dyn BackendContext>,
    model: Model,
    cancel: CancelToken,
}

impl Context {
    pub(crate) fn new(model: Model, inner: Box<dyn BackendContext>, cancel: CancelToken) -> Self {
        Self { inner, model, cancel }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What the context can hold.
    pub fn limits(&self) -> &ContextLimits {
        self.inner.limits()
    }

    /// The token that cancels work on this context, also while a decode is running.
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// Feeds a batch, and computes the logits that it asks for.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; the sequences then hold what they held before, except after [`DecodeError::Cancelled`], where
    /// passes that were finished stay.
    pub fn decode(&mut self, batch: &Batch) -> Result<(), DecodeError> {
        self.inner.decode(batch)
    }

    /// The logits after token `index` of the last batch: one number for each token of the vocabulary.
    /// `None` when the batch did not ask for them there.
    pub fn logits(&self, index: usize) -> Option<&[f32]> {
        self.inner.logits(index)
    }

    /// Changes what the sequences hold.
    ///
    /// # Errors
    ///
    /// [`DecodeError::SequenceEdit`] when the model's memory cannot do it.
    pub fn edit(&mut self, edit: SequenceEdit) -> Result<(), DecodeError> {
        self.inner.edit(edit)
    }

    /// The position after the last token of `sequence`: 0 when it is empty.
    pub fn next_position(&self, sequence: SequenceId) -> Position {
        self.inner.next_position(sequence)
    }

    /// The id of the backend whose code computes this context, asked of the running engine itself.
    pub fn executed_by(&self) -> String {
        self.inner.executed_by()
    }

    /// Continues `prompt` on sequence 0 with the likeliest tokens, one an iteration.
    ///
    /// The prompt follows on what the sequence holds; BOS is added only to an empty one.
    ///
    /// # Errors
    ///
    /// [`GenerateError`] when the prompt cannot be tokenised, or does not fit. The iterator's items are errors when a
    /// decode fails or is cancelled.
    pub fn generate(&mut self, prompt: &str, options: &GenerateOptions) -> Result<Generation<'_>, GenerateError> {
        let tokenizer = self.model.tokenizer().map_err(|_| GenerateError::NoTokenizer)?.clone();
        let add_special = self.next_position(0) == 0;
        let tokens = tokenizer.tokenize(prompt, TokenizeOptions { add_special, ..TokenizeOptions::default() })?;
        Generation::new(self, tokenizer, tokens, options)
    }

    /// Like [`generate`](Self::generate), from tokens.
    ///
    /// # Errors
    ///
    /// [`GenerateError`].
    pub fn generate_from_tokens(
        &mut self,
        prompt: &[Token],
        options: &GenerateOptions,
    ) -> Result<Generation<'_>, GenerateError> {
        let tokenizer = self.model.tokenizer().map_err(|_| GenerateError::NoTokenizer)?.clone();
        Generation::new(self, tokenizer, prompt.to_vec(), options)
    }
}
