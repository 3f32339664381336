//! Greedy generation: the likeliest token, again and again.
#![forbid(unsafe_code)]

use std::{num::NonZeroU32, ops::ControlFlow};

use crate::{
    backend::{Batch, DecodeError, Token, VocabularyError},
    context::Context,
    tokenizer::{TextStream, Tokenizer},
};

/// How to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Most tokens to generate; `None` goes on until the model ends or the context is full.
    pub max_tokens: Option<NonZeroU32>,
    /// Whether a token that ends the answer stops the generation (default: yes).
    pub stop_at_end: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self { max_tokens: None, stop_at_end: true }
    }
}

impl GenerateOptions {
    /// Sets the most tokens to generate.
    pub fn with_max_tokens(mut self, max_tokens: NonZeroU32) -> Self {
        self.max_tokens = Some(max_tokens);
        self
    }

    /// Sets whether a token that ends the answer stops the generation.
    pub fn with_stop_at_end(mut self, stop_at_end: bool) -> Self {
        self.stop_at_end = stop_at_end;
        self
    }
}

/// A generated token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The token.
    pub token: Token,
    /// The text that it completed: empty while a character is incomplete, and for control tokens.
    pub text: String,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended its answer.
    End,
    /// [`GenerateOptions::max_tokens`] were generated.
    MaxTokens,
    /// The context holds no further token.
    ContextFull,
}

/// Tokens as they are generated. Drop it to stop; the context keeps what was decoded.
///
/// Text comes in whole characters. One within which the generation ends is not shown; its tokens are.
#[derive(Debug)]
pub struct Generation<'a> {
    context: &'a mut Context,
    stream: TextStream,
    tokenizer: Tokenizer,
    batch: Batch,
    /// Index in the last batch of the row of logits that the next token comes from.
    row: usize,
    left: Option<u32>,
    stop_at_end: bool,
    state: State,
    prompt_tokens: usize,
    generated_tokens: usize,
}

#[derive(Debug)]
enum State {
    /// The prompt is still to be decoded.
    Prompt(Vec<Token>),
    /// This token was generated and is still to be decoded.
    Token(Token),
    /// Nothing more comes, because of an error when there is no reason.
    Finished(Option<FinishReason>),
}

impl<'a> Generation<'a> {
    pub(crate) fn new(
        context: &'a mut Context,
        tokenizer: Tokenizer,
        prompt: Vec<Token>,
        options: &GenerateOptions,
    ) -> Result<Self, GenerateError> {
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        let limit = context.limits().context;
        let used = context.next_position(0);
        if prompt.len() > limit.saturating_sub(used) as usize {
            return Err(GenerateError::PromptTooLong { tokens: prompt.len(), used, limit });
        }
        let prompt_tokens = prompt.len();
        let batch = Batch::with_capacity((context.limits().batch as usize).min(prompt_tokens));
        let stream = tokenizer.stream();
        let (left, stop_at_end) = (options.max_tokens.map(NonZeroU32::get), options.stop_at_end);
        let state = State::Prompt(prompt);
        Ok(Self {
            context,
            stream,
            tokenizer,
            batch,
            row: 0,
            left,
            stop_at_end,
            state,
            prompt_tokens,
            generated_tokens: 0,
        })
    }

    /// Why the generation ended; `None` while it runs, and after an error.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        match self.state {
            State::Finished(reason) => reason,
            State::Prompt(_) | State::Token(_) => None,
        }
    }

    /// Number of tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Number of tokens that were generated.
    pub fn generated_tokens(&self) -> usize {
        self.generated_tokens
    }

    /// Runs to the end, and hands each piece of text to `callback`, which may break off.
    ///
    /// # Errors
    ///
    /// [`GenerateError`] of the decode that failed; what was generated before has been handed out.
    pub fn for_each_piece(
        mut self,
        mut callback: impl FnMut(&Piece) -> ControlFlow<()>,
    ) -> Result<Option<FinishReason>, GenerateError> {
        for piece in self.by_ref() {
            if callback(&piece?).is_break() {
                return Ok(None);
            }
        }
        Ok(self.finish_reason())
    }

    fn step(&mut self) -> Result<Option<Piece>, GenerateError> {
        if self.left == Some(0) {
            return Ok(self.finish(FinishReason::MaxTokens));
        }
        match std::mem::replace(&mut self.state, State::Finished(None)) {
            State::Finished(reason) => {
                self.state = State::Finished(reason);
                return Ok(None);
            }
            State::Prompt(tokens) => self.decode_prompt(&tokens)?,
            State::Token(_) if self.context.next_position(0) >= self.context.limits().context => {
                return Ok(self.finish(FinishReason::ContextFull));
            }
            State::Token(token) => {
                self.batch.clear();
                self.batch.push(token, self.context.next_position(0), 0, true);
                self.context.decode(&self.batch)?;
                self.row = 0;
            }
        }
        let logits = self.context.logits(self.row).ok_or(GenerateError::NoLogits)?;
        let token = likeliest(logits).ok_or(GenerateError::NotANumber)?;
        if self.stop_at_end && self.tokenizer.is_end_of_generation(token) {
            return Ok(self.finish(FinishReason::End));
        }
        let mut text = String::new();
        self.stream.push(token, &mut text)?;
        self.generated_tokens += 1;
        self.left = self.left.map(|left| left - 1);
        self.state = State::Token(token);
        Ok(Some(Piece { token, text }))
    }

    fn finish(&mut self, reason: FinishReason) -> Option<Piece> {
        self.state = State::Finished(Some(reason));
        None
    }

    fn decode_prompt(&mut self, tokens: &[Token]) -> Result<(), GenerateError> {
        let size = self.context.limits().batch as usize;
        let chunks = tokens.len().div_ceil(size);
        for (index, chunk) in tokens.chunks(size).enumerate() {
            self.batch.clear();
            let first = self.context.next_position(0);
            for (position, &token) in (first..).zip(chunk) {
                self.batch.push(token, position, 0, false);
            }
            if index + 1 == chunks {
                self.batch.ask_for_last_logits();
            }
            self.context.decode(&self.batch)?;
            if self.context.next_position(0) == first {
                return Err(GenerateError::NoMemory);
            }
            self.row = chunk.len() - 1;
        }
        Ok(())
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Piece, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// The index of the largest logit, the first of equal ones; `None` when there is a NaN or nothing.
pub fn likeliest(logits: &[f32]) -> Option<Token> {
    /// Lanes that the compiler can keep in one vector register of any tier.
    const LANES: usize = 16;
    let mut largest = [f32::NEG_INFINITY; LANES];
    let mut ordered = true;
    let chunks = logits.chunks_exact(LANES);
    let tail = chunks.remainder();
    for chunk in chunks {
        for (largest, &logit) in largest.iter_mut().zip(chunk) {
            ordered &= !logit.is_nan();
            *largest = if logit > *largest { logit } else { *largest };
        }
    }
    ordered &= tail.iter().all(|logit| !logit.is_nan());
    let largest = largest.iter().chain(tail).copied().fold(f32::NEG_INFINITY, f32::max);
    let index = logits.iter().position(|&logit| logit == largest)?;
    ordered.then_some(index as Token)
}

/// Why a generation could not start or go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// There is nothing to continue.
    #[error("the prompt is empty: there is nothing to continue")]
    EmptyPrompt,
    /// The prompt does not fit: shorten it, or open a longer context.
    #[error("the prompt has {tokens} tokens; the context holds {limit}, of which {used} are in use")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that the sequence holds.
        used: u32,
        /// Tokens that fit.
        limit: u32,
    },
    /// The model has no tokenizer that a compiled backend can read.
    #[error("the model has no tokenizer that this program can read")]
    NoTokenizer,
    /// The model computes embeddings, not logits.
    #[error("the model gives no logits: it is not made to generate text")]
    NoLogits,
    /// The model remembers nothing from one batch to the next: an encoder.
    #[error("the model has no memory of what it read: it is not made to generate text")]
    NoMemory,
    /// The model's weights are broken, or its arithmetic overflowed.
    #[error("the model's logits are not numbers: the file may be damaged")]
    NotANumber,
    /// The text could not be tokenised.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// A decode failed or was cancelled.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

#[cfg(test)]
mod tests {
    use super::likeliest;

    #[test]
    fn the_first_of_equal_logits_wins_wherever_it_stands() {
        for length in [1, 5, 16, 17, 100] {
            for winner in 0..length {
                let mut logits = vec![-1.0; length];
                logits[winner..].fill(3.5);
                assert_eq!(likeliest(&logits), Some(winner as u32), "length {length}");
            }
        }
    }

    #[test]
    fn a_nan_anywhere_is_noticed() {
        for length in [1, 16, 33] {
            for place in 0..length {
                let mut logits = vec![1.0; length];
                logits[place] = f32::NAN;
                assert_eq!(likeliest(&logits), None, "{place} of {length}");
            }
        }
        assert_eq!(likeliest(&[]), None);
    }

    #[test]
    fn infinite_logits_are_numbers() {
        assert_eq!(likeliest(&[f32::NEG_INFINITY, 0.0, f32::INFINITY]), Some(2));
        assert_eq!(likeliest(&[f32::NEG_INFINITY; 20]), Some(0));
    }
}
