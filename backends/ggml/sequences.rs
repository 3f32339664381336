//! What the sequences of a context hold: changed, saved and read back.

use llama_cpp_sys_2 as sys;

use super::{ENGINE, context::LlamaContext, ffi, log::capture_errors, model::message};
use crate::backend::{Batch, DecodeError, Position, SequenceEdit, SequenceId};

/// Stands for all sequences where llama.cpp takes the number of one.
const ALL_SEQUENCES: sys::llama_seq_id = -1;

impl LlamaContext {
    /// Changes what the sequences hold: `edit` of the contract.
    pub(super) fn change(&mut self, edit: SequenceEdit) -> Result<(), DecodeError> {
        if !self.has_memory {
            return Ok(());
        }
        let done = match edit {
            // SAFETY: the context is valid and has a memory.
            SequenceEdit::Clear => unsafe { ffi::gl_sequences_clear(self.as_ptr()) },
            SequenceEdit::Truncate { sequence, from } => {
                let id = self.check_sequence(sequence)?;
                let end = self.next[sequence as usize];
                from >= end
                    || self.keeps_window(sequence, from, end)
                    // SAFETY: as above, and the sequence exists.
                    && unsafe { ffi::gl_sequence_truncate(self.as_ptr(), id, from as sys::llama_pos) }
            }
            SequenceEdit::Remove { sequence, from, to } => {
                self.check_sequence(sequence)?;
                let to = to.min(self.next[sequence as usize]);
                from >= to || self.keeps_window(sequence, from, to) && self.remove(sequence, from, to)?
            }
            SequenceEdit::Copy { from, to } => {
                let (source, target) = (self.check_sequence(from)?, self.check_sequence(to)?);
                // SAFETY: as above, and both sequences exist.
                source == target || unsafe { ffi::gl_sequence_copy(self.as_ptr(), source, target) }
            }
        };
        if let (true, Some(forks)) = (done, &mut self.forks) {
            match edit {
                SequenceEdit::Clear => forks.clear(),
                SequenceEdit::Truncate { sequence, from } | SequenceEdit::Remove { sequence, from, .. } => {
                    forks.cut(sequence, from);
                }
                SequenceEdit::Copy { from, to } if from == to => {}
                SequenceEdit::Copy { from, to } => forks.copy(from, to, self.next[from as usize]),
            }
        }
        self.reread_positions();
        if done {
            return Ok(());
        }
        Err(DecodeError::SequenceEdit(format!("the model's memory refused {edit:?}")))
    }

    /// Tokens that all sequences together can hold.
    pub(super) fn capacity_in_tokens(&self) -> u64 {
        // SAFETY: the model is valid.
        if unsafe { sys::llama_model_is_recurrent(self.model.raw.as_ptr()) } {
            // A state takes as much room after any number of tokens.
            return u64::from(self.limits.context) * u64::from(self.limits.sequences);
        }
        self.cells().into()
    }

    /// Appends what the cache holds of a sequence.
    pub(super) fn save_one(&mut self, sequence: SequenceId, bytes: &mut Vec<u8>) -> Result<(), DecodeError> {
        let id = self.check_sequence(sequence)?;
        self.save_cells(id, bytes)
    }

    /// Appends what the cache holds of all sequences, and what they have in common, if that is anything.
    pub(super) fn save_together(&mut self, bytes: &mut Vec<u8>) -> Result<bool, DecodeError> {
        let Some(forks) = &self.forks else { return Ok(false) };
        let pairs: Vec<_> = forks.pairs().collect();
        if pairs.is_empty() {
            return Ok(false);
        }
        bytes.extend((pairs.len() as u32).to_le_bytes());
        let numbers = pairs.iter().flat_map(|&(one, other, common)| [one, other, common]);
        bytes.extend(numbers.flat_map(u32::to_le_bytes));
        self.save_cells(ALL_SEQUENCES, bytes)?;
        Ok(true)
    }

    /// Reads what [`save_together`](Self::save_together) wrote. `false`, with empty sequences, when the bytes are not for this context.
    pub(super) fn restore_together(&mut self, tokens: &[(SequenceId, usize)], bytes: &[u8]) -> bool {
        let Some((pairs, cells)) = read_pairs(bytes) else { return false };
        let in_range = |&[one, other, common]: &[u32; 3]| {
            one != other
                && [one, other].into_iter().all(|sequence| {
                    tokens.iter().any(|&(held, tokens)| held == sequence && common as usize <= tokens)
                        && sequence < self.limits.sequences
                })
        };
        if self.forks.is_none() || !pairs.iter().all(in_range) {
            return false;
        }
        let read = self.restore_cells(ALL_SEQUENCES, cells);
        let holds = |(sequence, &next): (SequenceId, &Position)| {
            tokens.iter().find(|&&(held, _)| held == sequence).map_or(0, |&(_, tokens)| tokens) == next as usize
        };
        if !read || !(0..).zip(&self.next).all(holds) {
            // SAFETY: the context is valid and has a memory.
            unsafe { ffi::gl_sequences_clear(self.as_ptr()) };
            self.reread_positions();
            return false;
        }
        if let Some(forks) = &mut self.forks {
            pairs.iter().for_each(|&[one, other, common]| forks.set(one, other, common));
        }
        true
    }

    /// Reads what [`save_one`](Self::save_one) wrote. `false`, with an empty sequence, when the bytes are not for this context.
    pub(super) fn restore_one(&mut self, sequence: SequenceId, tokens: usize, bytes: &[u8]) -> bool {
        let Ok(id) = self.check_sequence(sequence) else { return false };
        if self.restore_cells(id, bytes) && self.next[sequence as usize] as usize == tokens {
            return true;
        }
        if self.has_memory {
            // SAFETY: the context is valid and has the sequence. Removing a whole sequence always succeeds.
            unsafe { ffi::gl_sequence_truncate(self.as_ptr(), id, 0) };
        }
        self.reread_positions();
        false
    }

    /// After a decode that did not finish, llama.cpp's memory knows what stayed.
    pub(super) fn reread_positions(&mut self) {
        if !self.has_memory {
            return;
        }
        // SAFETY: the context is valid.
        let memory = unsafe { sys::llama_get_memory(self.as_ptr()) };
        for (sequence, next) in self.next.iter_mut().enumerate() {
            // SAFETY: the sequence is below the number that the context was created with.
            let last = unsafe { sys::llama_memory_seq_pos_max(memory, sequence as sys::llama_seq_id) };
            *next = Position::try_from(last + 1).unwrap_or(0);
        }
        if let Some(forks) = &mut self.forks {
            // What is gone is shared by nobody.
            (0..).zip(&self.next).for_each(|(sequence, &next)| forks.cut(sequence, next));
        }
    }

    /// Tokens that the cache, or all caches together, can hold.
    fn cells(&self) -> u32 {
        // SAFETY: the context is valid.
        unsafe { sys::llama_n_ctx(self.as_ptr()) }
    }

    /// Those of them that are in use.
    fn used(&self) -> u32 {
        self.forks.as_ref().map_or_else(|| self.next.iter().sum(), |forks| forks.used(&self.next))
    }

    /// That there is no room for so many tokens more.
    pub(super) fn full(&self, requested: u32) -> DecodeError {
        DecodeError::ContextFull { used: self.used(), limit: self.cells(), requested }
    }

    /// Layers with a sliding window look at the last tokens only, and of a sequence that was restored the cache has no others.
    /// Whether it has all that the next token looks at, once the tokens `from` to before `to` are gone.
    fn keeps_window(&self, sequence: SequenceId, from: Position, to: Position) -> bool {
        // SAFETY: the model is valid.
        let window = unsafe { sys::llama_model_n_swa(self.model.raw.as_ptr()) }.unsigned_abs();
        // SAFETY: the context is valid and has a memory.
        let memory = unsafe { sys::llama_get_memory(self.as_ptr()) };
        // SAFETY: the sequence was checked.
        let first = unsafe { sys::llama_memory_seq_pos_min(memory, sequence as sys::llama_seq_id) }.max(0) as Position;
        let end = self.next[sequence as usize] - (to - from);
        let first = if first < from { first } else { first.max(to) - (to - from) };
        window == 0 || end == 0 || first <= (end + 1).saturating_sub(window)
    }

    /// Removes the tokens `from` to before `to`, and moves up what comes after them, but not that of other sequences.
    fn remove(&mut self, sequence: SequenceId, from: Position, to: Position) -> Result<bool, DecodeError> {
        let id = self.check_sequence(sequence)?;
        let (first, end) = (from as sys::llama_pos, to as sys::llama_pos);
        let nearest = self.forks.as_ref().and_then(|forks| forks.nearest(sequence));
        let Some((other, common)) = nearest.filter(|&(_, common)| common > to) else {
            // SAFETY: the context is valid and has a memory, and the sequence exists.
            return Ok(unsafe { ffi::gl_sequence_remove(self.as_ptr(), id, first, end) });
        };
        let copied = common - to;
        if copied > self.cells().saturating_sub(self.used()) {
            return Err(self.full(copied));
        }
        let (done, _) = capture_errors(|| {
            // SAFETY: as above; both sequences exist, and have the cells before `common` in common.
            unsafe { ffi::gl_sequence_remove_apart(self.as_ptr(), id, first, end, other as sys::llama_seq_id) }
        });
        Ok(done)
    }

    /// Whether layers are recurrent, and have a state in place of what they know of each token.
    pub(super) fn has_states(&self) -> bool {
        let model = self.model.raw.as_ptr();
        // SAFETY: the model is valid.
        let recurrent = unsafe { sys::llama_model_is_recurrent(model) };
        // SAFETY: the model is valid.
        recurrent || unsafe { sys::llama_model_is_hybrid(model) }
    }

    /// A recurrent state cannot go back: after a decode that broke off, it is half computed. Its sequence is emptied.
    pub(super) fn drop_half_computed_states(&mut self, batch: &Batch) {
        if !self.has_states() {
            return;
        }
        for item in batch.items() {
            // SAFETY: the context is valid and the batch was checked. Removing a whole sequence always succeeds.
            unsafe { ffi::gl_sequence_truncate(self.as_ptr(), item.sequence as sys::llama_seq_id, 0) };
        }
    }

    /// Appends what the cache holds of a sequence, or of all of them.
    fn save_cells(&self, id: sys::llama_seq_id, bytes: &mut Vec<u8>) -> Result<(), DecodeError> {
        let begin = bytes.len();
        let (saved, errors) = capture_errors(|| {
            // SAFETY: the context is valid and has the sequence.
            let size = unsafe { ffi::gl_sequence_state_size(self.as_ptr(), id) };
            bytes.resize(begin + size, 0);
            // SAFETY: as above, and there are `size` bytes from `begin` on.
            size > 0
                && unsafe { ffi::gl_sequence_state_save(self.as_ptr(), id, bytes[begin..].as_mut_ptr(), size) } == size
        });
        if saved {
            return Ok(());
        }
        bytes.truncate(begin);
        Err(DecodeError::Failed { engine: ENGINE, message: message(errors) })
    }

    /// Reads what [`save_cells`](Self::save_cells) wrote. `false` when the bytes are not for this context.
    fn restore_cells(&mut self, id: sys::llama_seq_id, bytes: &[u8]) -> bool {
        if !self.has_memory || bytes.is_empty() {
            return false;
        }
        let (read, _) = capture_errors(|| {
            // SAFETY: the context is valid and has the sequence; the bytes outlive the call, and llama.cpp checks their lengths.
            unsafe { ffi::gl_sequence_state_restore(self.as_ptr(), id, bytes.as_ptr(), bytes.len()) }
        });
        self.arrays.outputs.clear();
        if let Some(forks) = &mut self.forks {
            match SequenceId::try_from(id) {
                Ok(sequence) => forks.cut(sequence, 0),
                Err(_) => forks.clear(),
            }
        }
        self.reread_positions();
        read == bytes.len()
    }

    /// The sequence as llama.cpp names it, if there is one.
    pub(super) fn check_sequence(&self, sequence: SequenceId) -> Result<sys::llama_seq_id, DecodeError> {
        if sequence >= self.limits.sequences {
            let limit = self.limits.sequences;
            return Err(DecodeError::SequenceEdit(format!("there is no sequence {sequence}, the context has {limit}")));
        }
        Ok(sequence as sys::llama_seq_id)
    }
}

/// The pairs of sequences that begin alike, each with the number of cells that it has in common, and what comes after them.
fn read_pairs(bytes: &[u8]) -> Option<(Vec<[u32; 3]>, &[u8])> {
    let (count, rest) = bytes.split_first_chunk()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let (pairs, cells) = rest.split_at_checked(count.checked_mul(size_of::<[u32; 3]>())?)?;
    let (numbers, _) = pairs.as_chunks();
    let numbers: Vec<u32> = numbers.iter().map(|number| u32::from_le_bytes(*number)).collect();
    let (pairs, _) = numbers.as_chunks();
    Some((pairs.to_vec(), cells))
}
