//! The loop that computes a reply's tokens.

use std::num::NonZeroU32;

use super::{ChatError, ChatFinish};
use crate::{
    backend::{Batch, Token},
    context::Context,
    grammar::{ChooseToken, Constraint},
    tokenizer::Tokenizer,
};

/// A reply that is being computed, on sequence 0 of a context.
pub(super) struct Decoding<'a> {
    context: &'a mut Context,
    /// The tokens that the sequence holds; kept true whatever fails.
    held: &'a mut Vec<Token>,
    constraint: Option<Constraint>,
    left: Option<u32>,
    batch: Batch,
    /// Index in the last batch of the row of logits that the next token comes from.
    row: usize,
    /// The token that was chosen and not decoded yet.
    pending: Option<Token>,
}

impl<'a> Decoding<'a> {
    pub(super) fn new(
        context: &'a mut Context,
        held: &'a mut Vec<Token>,
        constraint: Option<Constraint>,
        max_tokens: Option<NonZeroU32>,
    ) -> Self {
        let batch = Batch::with_capacity(context.limits().batch as usize);
        Self { context, held, constraint, left: max_tokens.map(NonZeroU32::get), batch, row: 0, pending: None }
    }

    /// Computes what the sequence does not hold of a prompt that begins with what it holds.
    pub(super) fn prompt(&mut self, tokens: &[Token]) -> Result<(), ChatError> {
        let size = self.context.limits().batch as usize;
        let rest = &tokens[self.held.len()..];
        for (index, chunk) in rest.chunks(size).enumerate() {
            self.decode(chunk, (index + 1) * size >= rest.len())?;
        }
        Ok(())
    }

    /// The next token, or why there is none.
    pub(super) fn next(
        &mut self,
        tokenizer: &Tokenizer,
        chooser: &mut dyn ChooseToken,
    ) -> Result<Result<Token, ChatFinish>, ChatError> {
        if self.left == Some(0) {
            return Ok(Err(ChatFinish::MaxTokens));
        }
        if let Some(token) = self.pending.take() {
            if self.context.next_position(0) >= self.context.limits().context {
                return Ok(Err(ChatFinish::ContextFull));
            }
            self.decode(&[token], true)?;
        }
        let logits = self.context.logits(self.row).ok_or(ChatError::NoLogits)?;
        let token = match &mut self.constraint {
            Some(constraint) => constraint.choose(logits, chooser)?,
            None => chooser.choose(logits).ok_or(ChatError::NotANumber)?,
        };
        if tokenizer.is_end_of_generation(token) {
            return Ok(Err(ChatFinish::End));
        }
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(token).map_err(|mismatch| ChatError::Constraint(mismatch.into()))?;
        }
        self.left = self.left.map(|left| left - 1);
        self.pending = Some(token);
        Ok(Ok(token))
    }

    fn decode(&mut self, tokens: &[Token], last: bool) -> Result<(), ChatError> {
        let first = self.context.next_position(0);
        self.batch.clear();
        for (position, &token) in (first..).zip(tokens) {
            self.batch.push(token, position, 0, false);
        }
        if last {
            self.batch.ask_for_last_logits();
        }
        let result = self.context.decode(&self.batch);
        // A decode that was cancelled may have got a part of the way, and a recurrent model forgets all.
        let now = self.context.next_position(0) as usize;
        self.held.extend_from_slice(tokens);
        self.held.truncate(now);
        result?;
        if now == first as usize {
            return Err(ChatError::NoMemory);
        }
        self.row = tokens.len() - 1;
        Ok(())
    }
}
