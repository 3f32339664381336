//! A context: tokens in, logits out.
#![forbid(unsafe_code)]

use crate::{
    backend::{
        BackendContext, Batch, CancelToken, ContextLimits, DecodeError, Position, SequenceEdit, SequenceId, Token,
    },
    generation::{Completion, GenerateError, GenerateRequest, Generation},
    model::Model,
    state::{Applied, Restored, SequenceState, State, StateError},
};

/// A KV cache and the threads that compute on it. Keeps its model alive; may move between threads.
#[derive(Debug)]
pub struct Context {
    inner: Box<dyn BackendContext>,
    model: Model,
    cancel: CancelToken,
    sequences: Vec<Sequence>,
    applied: Applied,
}

/// What a sequence holds.
#[derive(Debug, Clone, Default)]
struct Sequence {
    tokens: Vec<Token>,
    /// A token that was generated last and not decoded.
    undecoded: Option<Token>,
}

impl Context {
    pub(crate) fn new(model: Model, inner: Box<dyn BackendContext>, cancel: CancelToken) -> Self {
        let sequences = vec![Sequence::default(); inner.limits().sequences as usize];
        Self { inner, model, cancel, sequences, applied: Applied::default() }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What the context can hold.
    pub fn limits(&self) -> &ContextLimits {
        self.inner.limits()
    }

    /// The token that cancels what runs on this context, also within a decode, and where nothing runs, what is begun next. A
    /// generation that it has ended [resets](CancelToken::reset) it; after a [`decode`](Self::decode) that is the caller's to do.
    ///
    /// It is a [child](CancelToken::child) of the one that the context was opened with, which nothing here resets.
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
        let result = self.inner.decode(batch);
        if matches!(result, Err(DecodeError::Batch(_))) {
            return result;
        }
        for item in batch.items() {
            // A decode that was cancelled may have got a part of the way, and an encoder remembers nothing.
            if self.inner.next_position(item.sequence) <= item.position {
                continue;
            }
            if let Some(sequence) = self.sequences.get_mut(item.sequence as usize) {
                if sequence.tokens.is_empty() {
                    // At once, so that no token's decode has to.
                    sequence.tokens.reserve(self.inner.limits().context.min(LONG) as usize);
                }
                sequence.tokens.push(item.token);
                sequence.undecoded = None;
            }
        }
        if result.is_err() {
            self.reconcile();
        }
        result
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
        let result = self.inner.edit(edit);
        if result.is_ok() {
            match edit {
                SequenceEdit::Clear => self.sequences.iter_mut().for_each(|sequence| sequence.truncate(0)),
                SequenceEdit::Truncate { sequence, from } => {
                    if let Some(sequence) = self.sequences.get_mut(sequence as usize) {
                        sequence.truncate(from as usize);
                    }
                }
                SequenceEdit::Remove { sequence, from, to } => {
                    if let Some(Sequence { tokens, .. }) = self.sequences.get_mut(sequence as usize) {
                        let to = tokens.len().min(to as usize);
                        tokens.drain(to.min(from as usize)..to);
                    }
                }
                SequenceEdit::Copy { from, to } => {
                    let copy = self.sequences.get(from as usize).cloned();
                    if let (Some(copy), Some(sequence)) = (copy, self.sequences.get_mut(to as usize)) {
                        *sequence = copy;
                    }
                }
            }
        }
        self.reconcile();
        result
    }

    /// The tokens that `sequence` holds; none for a sequence that there is not.
    pub fn tokens(&self, sequence: SequenceId) -> &[Token] {
        self.sequences.get(sequence as usize).map_or(&[], |sequence| &sequence.tokens)
    }

    /// The position after the last token of `sequence`: 0 when it is empty.
    pub fn next_position(&self, sequence: SequenceId) -> Position {
        self.inner.next_position(sequence)
    }

    /// The id of the backend whose code computes this context, asked of the running engine itself.
    pub fn executed_by(&self) -> String {
        self.inner.executed_by()
    }

    /// Generates what a request asks for, one token an iteration. A text alone is a request:
    /// `context.generate("Once upon a time")`.
    ///
    /// # Errors
    ///
    /// [`GenerateError`] when the request makes no sense or does not fit; the sequences are then what they were. The
    /// iterator's items are errors when a decode fails.
    pub fn generate(&mut self, request: impl Into<GenerateRequest>) -> Result<Generation<'_>, GenerateError> {
        Generation::new(self, &request.into())
    }

    /// Generates what a request asks for, and returns it whole.
    ///
    /// # Errors
    ///
    /// [`GenerateError`].
    pub fn complete(&mut self, request: impl Into<GenerateRequest>) -> Result<Completion, GenerateError> {
        self.generate(request)?.complete()
    }

    /// Generates what a request asks for on a thread of its own; the stream hands the context back in the end.
    #[cfg(feature = "async")]
    pub fn into_stream(self, request: impl Into<GenerateRequest>) -> crate::generation::GenerationStream {
        crate::generation::GenerationStream::new(self, request.into())
    }

    /// Everything that the sequences hold. Adapters and control vectors are named in it, and no part of it: apply the same
    /// before [`restore`](Self::restore).
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn save(&mut self) -> Result<State, StateError> {
        let ids: Vec<SequenceId> = (0..self.limits().sequences).filter(|&id| !self.tokens(id).is_empty()).collect();
        self.save_all(&ids)
    }

    /// What one sequence holds.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn save_sequence(&mut self, sequence: SequenceId) -> Result<State, StateError> {
        self.check_sequence(sequence)?;
        self.save_all(&[sequence])
    }

    fn save_all(&mut self, ids: &[SequenceId]) -> Result<State, StateError> {
        let model = self.model.fingerprint().map_err(StateError::Model)?.clone();
        let format = self.inner.state_format();
        let mut forks = Vec::new();
        let together = ids.len() > 1 && format.is_some() && self.inner.save_forks(&mut forks)?;
        let mut sequences = Vec::new();
        for &id in ids {
            let Sequence { tokens, undecoded } = self.sequences[id as usize].clone();
            let mut cache = Vec::new();
            if format.is_some() && !tokens.is_empty() && !together {
                self.inner.save(id, &mut cache)?;
            }
            sequences.push(SequenceState { id, tokens, undecoded, cache });
        }
        Ok(State { model, applied: self.applied.clone(), format: format.unwrap_or_default(), sequences, forks })
    }

    /// Makes the sequences hold what they held when `state` was saved, and nothing else.
    ///
    /// # Errors
    ///
    /// [`StateError`] when the state belongs to another model or to other adapters, or does not fit; the sequences are then what
    /// they were. After
    /// [`StateError::Decode`] some may be empty.
    pub fn restore(&mut self, state: &State) -> Result<Restored, StateError> {
        self.check_state(state)?;
        state.sequences.iter().try_for_each(|sequence| self.check_sequence(sequence.id))?;
        let (apart, shared) = state.room();
        let limit = self.inner.capacity();
        if shared > limit {
            return Err(StateError::NoRoom { tokens: shared, limit });
        }
        self.edit(SequenceEdit::Clear)?;
        let mut restored = Restored::default();
        if self.restore_forks(state) {
            restored.kept_tokens = apart as usize;
            return Ok(restored);
        }
        // Read one by one, sequences have nothing in common.
        let reads = apart <= limit;
        let mut computed: Vec<&SequenceState> = Vec::new();
        for sequence in &state.sequences {
            if !(reads && self.read(state, sequence, sequence.id, &mut restored)) {
                self.copy_common(sequence, &computed, &mut restored)?;
                self.compute(sequence, sequence.id, &mut restored)?;
                computed.push(sequence);
            }
            self.sequences[sequence.id as usize].undecoded = sequence.undecoded;
        }
        Ok(restored)
    }

    /// Makes one sequence hold what the only one of `state` held; the others stay.
    ///
    /// # Errors
    ///
    /// As [`restore`](Self::restore), and [`StateError::NotOneSequence`].
    pub fn restore_sequence(&mut self, state: &State, to: SequenceId) -> Result<Restored, StateError> {
        self.check_state(state)?;
        self.check_sequence(to)?;
        let [sequence] = state.sequences.as_slice() else {
            return Err(StateError::NotOneSequence(state.sequences.len()));
        };
        self.edit(SequenceEdit::Truncate { sequence: to, from: 0 })?;
        let mut restored = Restored::default();
        if !self.read(state, sequence, to, &mut restored) {
            self.compute(sequence, to, &mut restored)?;
        }
        self.sequences[to as usize].undecoded = sequence.undecoded;
        Ok(restored)
    }

    fn check_state(&self, state: &State) -> Result<(), StateError> {
        let loaded = self.model.fingerprint().map_err(StateError::Model)?;
        if *loaded != state.model {
            return Err(StateError::OtherModel { saved: state.model.clone(), loaded: loaded.clone() });
        }
        if self.applied != state.applied {
            return Err(StateError::OtherAdapters { saved: state.applied.clone(), loaded: self.applied.clone() });
        }
        let limit = self.limits().context;
        match state.sequences.iter().map(|sequence| sequence.tokens.len()).find(|&tokens| tokens > limit as usize) {
            Some(tokens) => Err(StateError::TooLong { tokens, limit }),
            None => Ok(()),
        }
    }

    fn check_sequence(&self, sequence: SequenceId) -> Result<(), StateError> {
        let limit = self.limits().sequences;
        if sequence < limit { Ok(()) } else { Err(StateError::NoSequence { sequence, limit }) }
    }

    /// Reads all sequences, which are empty, from a form in which what they have in common is written once.
    fn restore_forks(&mut self, state: &State) -> bool {
        let tokens: Vec<_> = state.sequences().map(|(id, tokens)| (id, tokens.len())).collect();
        let reads = !state.forks.is_empty() && self.inner.state_format().as_ref() == Some(&state.format);
        if !reads || !self.inner.restore_forks(&tokens, &state.forks) {
            return false;
        }
        for SequenceState { id, tokens, undecoded, .. } in &state.sequences {
            self.sequences[*id as usize] = Sequence { tokens: tokens.clone(), undecoded: *undecoded };
        }
        true
    }

    /// Reads what was computed of a sequence into `to`, which is empty; `false` when the engine cannot.
    fn read(&mut self, state: &State, sequence: &SequenceState, to: SequenceId, restored: &mut Restored) -> bool {
        let reads = self.inner.state_format().as_ref() == Some(&state.format)
            && self.inner.restore(to, sequence.tokens.len(), &sequence.cache);
        if reads {
            self.sequences[to as usize].tokens.clone_from(&sequence.tokens);
            restored.kept_tokens += sequence.tokens.len();
        }
        reads
    }

    /// Gives `sequence` what it has in common with one of those that were computed before.
    fn copy_common(
        &mut self,
        sequence: &SequenceState,
        computed: &[&SequenceState],
        restored: &mut Restored,
    ) -> Result<(), StateError> {
        let nearest = computed.iter().map(|other| (other.id, sequence.common(other))).max_by_key(|&(_, common)| common);
        let Some((from, common)) = nearest.filter(|&(_, common)| common > 0) else { return Ok(()) };
        let to = sequence.id;
        self.edit(SequenceEdit::Copy { from, to })?;
        if self.edit(SequenceEdit::Truncate { sequence: to, from: common as Position }).is_ok() {
            restored.copied_tokens += common;
        } else {
            // A recurrent model cannot forget the end alone.
            self.edit(SequenceEdit::Truncate { sequence: to, from: 0 })?;
        }
        Ok(())
    }

    /// Decodes what `to` does not hold yet of a sequence's tokens.
    fn compute(&mut self, sequence: &SequenceState, to: SequenceId, restored: &mut Restored) -> Result<(), StateError> {
        let rest = &sequence.tokens[self.next_position(to) as usize..];
        let mut batch = Batch::new();
        for chunk in rest.chunks(self.limits().batch as usize) {
            batch.clear();
            batch.extend(chunk, self.next_position(to), to);
            self.decode(&batch)?;
        }
        restored.computed_tokens += rest.len();
        Ok(())
    }

    /// What changes the model in this context.
    pub(crate) fn applied_mut(&mut self) -> &mut Applied {
        &mut self.applied
    }

    pub(crate) fn backend_mut(&mut self) -> &mut dyn BackendContext {
        &mut *self.inner
    }

    /// Whether a full sequence can be made shorter at its middle.
    pub(crate) fn can_shift(&self) -> bool {
        self.inner.can_shift()
    }

    /// The token that was generated last on `sequence`, if the sequence does not hold it: nothing asked for what follows it.
    pub(crate) fn undecoded(&self, sequence: SequenceId) -> Option<Token> {
        self.sequences.get(sequence as usize)?.undecoded
    }

    pub(crate) fn set_undecoded(&mut self, sequence: SequenceId, token: Token) {
        if let Some(sequence) = self.sequences.get_mut(sequence as usize) {
            sequence.undecoded = Some(token);
        }
    }

    /// After a failure a sequence may hold less than before: a recurrent model forgets all.
    fn reconcile(&mut self) {
        for (id, sequence) in (0..).zip(&mut self.sequences) {
            let held = self.inner.next_position(id) as usize;
            if held < sequence.tokens.len() {
                sequence.truncate(held);
            }
        }
    }
}

/// Tokens for which there is room from the beginning.
const LONG: u32 = 1 << 16;

impl Sequence {
    fn truncate(&mut self, length: usize) {
        self.tokens.truncate(length);
        self.undecoded = None;
    }
}
