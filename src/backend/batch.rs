//! What goes into a decode.

use super::ContextLimits;

/// A token id of the model's vocabulary: `0..n_vocab`.
pub type Token = u32;

/// A token's place in its sequence, from 0.
pub type Position = u32;

/// A sequence of a context: `0..n_sequences`.
pub type SequenceId = u32;

/// One token of a [`Batch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchItem {
    /// The token.
    pub token: Token,
    /// Its position in the sequence.
    pub position: Position,
    /// The sequence that it continues.
    pub sequence: SequenceId,
    /// Whether the decode computes logits after this token.
    pub logits: bool,
}

/// Tokens to decode together. Reuse one: [`clear`](Self::clear) keeps the allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    items: Vec<BatchItem>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `capacity` tokens.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { items: Vec::with_capacity(capacity) }
    }

    /// Appends one token.
    pub fn push(&mut self, token: Token, position: Position, sequence: SequenceId, logits: bool) {
        self.items.push(BatchItem { token, position, sequence, logits });
    }

    /// Appends `tokens` to `sequence` at `first` and the following positions; logits after the last one only.
    pub fn extend(&mut self, tokens: &[Token], first: Position, sequence: SequenceId) {
        let last = tokens.len().wrapping_sub(1);
        for (offset, &token) in tokens.iter().enumerate() {
            self.push(token, first.saturating_add(offset as Position), sequence, offset == last);
        }
    }

    /// Asks for the logits after the last token.
    pub fn ask_for_last_logits(&mut self) {
        if let Some(last) = self.items.last_mut() {
            last.logits = true;
        }
    }

    /// Removes all tokens.
    pub fn clear(&mut self) {
        self.items.clear();
    }

    /// The tokens in order.
    pub fn items(&self) -> &[BatchItem] {
        &self.items
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Checks everything that can be checked without knowing what the sequences already hold.
    ///
    /// # Errors
    ///
    /// The first offence, with the index of the token.
    pub fn check(&self, n_vocab: u32, limits: &ContextLimits) -> Result<(), BatchError> {
        if self.items.is_empty() {
            return Err(BatchError::Empty);
        }
        if self.items.len() > limits.batch as usize {
            return Err(BatchError::TooLong { tokens: self.items.len(), limit: limits.batch });
        }
        for (index, item) in self.items.iter().enumerate() {
            if item.token >= n_vocab {
                return Err(BatchError::Token { index, token: item.token, n_vocab });
            }
            if item.sequence >= limits.sequences {
                return Err(BatchError::Sequence { index, sequence: item.sequence, limit: limits.sequences });
            }
            if item.position >= limits.context {
                return Err(BatchError::Position { index, position: item.position, limit: limits.context });
            }
        }
        Ok(())
    }

    /// Checks that the positions continue sequences whose next positions are `next`, and writes to `after` where they
    /// stand once the batch is decoded. The sequences were checked by [`check`](Self::check).
    ///
    /// # Errors
    ///
    /// [`BatchError::Gap`] for the first token that leaves a gap or goes back.
    pub fn check_positions(&self, next: &[Position], after: &mut Vec<Position>) -> Result<(), BatchError> {
        after.clear();
        after.extend_from_slice(next);
        for (index, item) in self.items.iter().enumerate() {
            let expected = &mut after[item.sequence as usize];
            if item.position != *expected {
                let (sequence, position) = (item.sequence, item.position);
                return Err(BatchError::Gap { index, sequence, position, expected: *expected });
            }
            *expected += 1;
        }
        Ok(())
    }
}

/// Why a [`Batch`] cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// There is nothing to decode.
    #[error("the batch is empty")]
    Empty,
    /// More tokens than one decode takes: split it, or raise [`ContextOptions::batch`](super::ContextOptions).
    #[error("the batch has {tokens} tokens, the context takes {limit} at once")]
    TooLong {
        /// Tokens in the batch.
        tokens: usize,
        /// The context's limit.
        limit: u32,
    },
    /// A token that the vocabulary does not have.
    #[error("token {index} of the batch has id {token}, the vocabulary ends at {n_vocab}")]
    Token {
        /// Index in the batch.
        index: usize,
        /// The offending id.
        token: Token,
        /// Size of the vocabulary.
        n_vocab: u32,
    },
    /// A sequence that the context does not have: raise [`ContextOptions::sequences`](super::ContextOptions).
    #[error("token {index} of the batch belongs to sequence {sequence}, the context has {limit}")]
    Sequence {
        /// Index in the batch.
        index: usize,
        /// The offending sequence.
        sequence: SequenceId,
        /// Number of sequences.
        limit: u32,
    },
    /// A position beyond the context's length.
    #[error("token {index} of the batch stands at position {position}, the context ends at {limit}")]
    Position {
        /// Index in the batch.
        index: usize,
        /// The offending position.
        position: Position,
        /// The context's length.
        limit: u32,
    },
    /// Positions of a sequence must follow on what it holds, without a gap and without going back.
    #[error("token {index} of the batch stands at position {position} of sequence {sequence}, expected {expected}")]
    Gap {
        /// Index in the batch.
        index: usize,
        /// The sequence.
        sequence: SequenceId,
        /// The position given.
        position: Position,
        /// The position that would continue the sequence.
        expected: Position,
    },
}
