//! Sequences of tokens, and the logits of the last batch.

use std::sync::Arc;

use super::{ID, cache::Sequence, pass, transformer::Transformer};
use crate::backend::{
    BackendContext, Batch, CancelToken, ContextLimits, DecodeError, Position, SequenceEdit, SequenceId,
};

/// A KV cache. Threads live only as long as a product takes.
#[derive(Debug)]
pub(super) struct Context {
    transformer: Arc<Transformer>,
    limits: ContextLimits,
    cancel: CancelToken,
    sequences: Vec<Sequence>,
    logits: Logits,
}

/// The rows of logits that the last batch asked for.
#[derive(Debug, Default)]
struct Logits {
    values: Vec<f32>,
    /// For each token of the batch the number of its row.
    rows: Vec<Option<usize>>,
}

impl Context {
    pub(super) fn new(transformer: Arc<Transformer>, limits: ContextLimits, cancel: CancelToken) -> Self {
        let hyperparameters = &transformer.hyperparameters;
        let empty = Sequence::new(hyperparameters.n_layer, hyperparameters.kv_width());
        let sequences = vec![empty; limits.sequences as usize];
        Self { transformer, limits, cancel, sequences, logits: Logits::default() }
    }

    fn sequence(&mut self, sequence: SequenceId) -> Result<&mut Sequence, DecodeError> {
        let count = self.sequences.len();
        let missing = || DecodeError::SequenceEdit(format!("there is no sequence {sequence}, the context has {count}"));
        self.sequences.get_mut(sequence as usize).ok_or_else(missing)
    }
}

impl BackendContext for Context {
    fn limits(&self) -> &ContextLimits {
        &self.limits
    }

    fn decode(&mut self, batch: &Batch) -> Result<(), DecodeError> {
        self.logits = Logits::default();
        batch.check(self.transformer.n_vocab(), &self.limits)?;
        let next: Vec<Position> = self.sequences.iter().map(|sequence| sequence.length() as Position).collect();
        batch.check_positions(&next, &mut Vec::new())?;
        let threads = self.limits.threads as usize;
        let mut logits = Logits::default();
        for items in batch.items().chunks(self.limits.ubatch as usize) {
            let computed = pass::run(&self.transformer, &mut self.sequences, items, threads, &self.cancel);
            logits.values.extend(computed.map_err(|pass::Cancelled| DecodeError::Cancelled)?);
        }
        let mut rows = 0..;
        logits.rows = batch.items().iter().map(|item| if item.logits { rows.next() } else { None }).collect();
        self.logits = logits;
        Ok(())
    }

    fn logits(&self, index: usize) -> Option<&[f32]> {
        let row = (*self.logits.rows.get(index)?)?;
        self.logits.values.chunks_exact(self.transformer.n_vocab() as usize).nth(row)
    }

    fn edit(&mut self, edit: SequenceEdit) -> Result<(), DecodeError> {
        match edit {
            SequenceEdit::Clear => self.sequences.iter_mut().for_each(|sequence| sequence.truncate(0)),
            SequenceEdit::Truncate { sequence, from } => self.sequence(sequence)?.truncate(from as usize),
            SequenceEdit::Remove { sequence, from, to } => {
                let transformer = Arc::clone(&self.transformer);
                let sequence = self.sequence(sequence)?;
                let to = sequence.length().min(to as usize);
                let from = to.min(from as usize);
                sequence.remove(from, to, |keys| pass::turn_back(&transformer, keys, to - from));
            }
            SequenceEdit::Copy { from, to } => {
                let copy = self.sequence(from)?.clone();
                *self.sequence(to)? = copy;
            }
        }
        Ok(())
    }

    fn next_position(&self, sequence: SequenceId) -> Position {
        self.sequences.get(sequence as usize).map_or(0, |sequence| sequence.length() as Position)
    }

    fn executed_by(&self) -> String {
        ID.to_owned()
    }
}
