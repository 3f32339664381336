//! The loop: decode, choose, give the text.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{
    Completion, FinishReason, GenerateError, GenerateRequest, Origin, Piece, Prompt, Start, Usage, WhenFull,
    choice::Choice, prompt::Prepared, text::StoppedText,
};
use crate::{
    backend::{Batch, DecodeError, Position, SequenceEdit, SequenceId, Token},
    context::Context,
    sampling::{ChooseToken, SamplerChain, TokenLogprobs},
    tokenizer::Tokenizer,
};

/// Text as it is generated: an iterator of [`Piece`]s. Drop it to stop; the context keeps what was decoded.
#[derive(Debug)]
pub struct Generation<'a> {
    context: &'a mut Context,
    tokenizer: Tokenizer,
    sequence: SequenceId,
    choice: Choice,
    text: StoppedText,
    left: Option<u32>,
    when_full: WhenFull,
    logprobs: Option<usize>,
    /// What is echoed of the prompt and has not been given yet.
    echo: VecDeque<Piece>,
    batch: Batch,
    /// Index in the last batch of the row of logits that the next token comes from.
    row: usize,
    state: State,
    usage: Usage,
}

#[derive(Debug)]
enum State {
    /// The rest of the prompt is still to be decoded; with an index, each of its tokens from there on is to be echoed.
    Prompt(Vec<Token>, Option<usize>),
    /// This token was generated and is still to be decoded.
    Token(Token),
    /// What was held back is still to be given.
    Ending(FinishReason),
    /// Nothing more comes, because of an error when there is no reason.
    Finished(Option<FinishReason>),
}

impl<'a> Generation<'a> {
    pub(crate) fn new(context: &'a mut Context, request: &GenerateRequest) -> Result<Self, GenerateError> {
        let begin = Instant::now();
        let tokenizer = context.model().tokenizer().map_err(|_| GenerateError::NoTokenizer)?.clone();
        let sequence = request.sequence;
        let limit = context.limits().context;
        let held = if request.start == Start::Continue { context.next_position(sequence) } else { 0 };
        let prepared = Prepared::new(&tokenizer, request, held > 0)?;
        let mut tokens = prepared.tokens;
        let prompt_tokens = tokens.len();
        // It was given when it was generated, and is no part of the prompt.
        let undecoded = context.undecoded(sequence).filter(|_| request.start == Start::Continue);
        let of_model = usize::from(undecoded.is_some());
        tokens.splice(..0, undecoded);
        if tokens.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if tokens.len() > limit.saturating_sub(held) as usize {
            return Err(GenerateError::PromptTooLong { tokens: tokens.len(), used: held, limit });
        }
        if let WhenFull::Shift { keep } = request.when_full
            && keep.saturating_add(1) >= limit
        {
            return Err(GenerateError::NothingToShift { keep, limit });
        }
        if request.when_full != WhenFull::Stop && !context.can_shift() {
            return Err(GenerateError::CannotShift);
        }
        let mut chain = SamplerChain::new(&tokenizer, &request.sampling)?;

        // From here on the sequence changes.
        let each = request.echo && request.logprobs.is_some();
        let reused = match request.start {
            Start::Continue => 0,
            Start::Reuse if !each => keep_common(context, sequence, &tokens)?,
            Start::Fresh | Start::Reuse => forget(context, sequence)?,
        };
        if request.start == Start::Continue {
            context.tokens(sequence).iter().for_each(|&token| chain.accept(token));
        }
        tokens.iter().for_each(|&token| chain.accept(token));
        let rest = tokens.split_off(reused);
        let mut echo = VecDeque::new();
        if request.echo && !each {
            echo.push_back(Piece { text: echoed(&tokenizer, request)?, ..Piece::of_prompt(None) });
        }
        let usage = Usage { prompt_tokens, reused_tokens: reused, prompt_time: begin.elapsed(), ..Usage::default() };
        Ok(Self {
            text: StoppedText::new(&tokenizer, prepared.preserved, prepared.stops),
            batch: Batch::with_capacity((context.limits().batch as usize).min(rest.len())),
            context,
            choice: Choice {
                tokenizer: tokenizer.clone(),
                chain,
                constraint: prepared.constraint,
                reasoning: prepared.reasoning,
                stop_at_end: request.stop_at_end,
            },
            tokenizer,
            sequence,
            left: request.max_tokens.map(NonZeroU32::get),
            when_full: request.when_full,
            logprobs: request.logprobs.map(|top| top as usize),
            echo,
            row: 0,
            state: State::Prompt(rest, each.then_some(of_model)),
            usage,
        })
    }

    /// Why the generation ended; `None` while it runs, and after an error.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        match self.state {
            State::Finished(reason) => reason,
            State::Prompt(..) | State::Token(_) | State::Ending(_) => None,
        }
    }

    /// What it has taken so far. Time that passes between two calls of `next` does not count.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// What lots are drawn from.
    pub fn seed(&self) -> u64 {
        self.choice.chain.seed()
    }

    /// Runs to the end.
    ///
    /// # Errors
    ///
    /// [`GenerateError`]; what was generated before is lost with it: see [`for_each_piece`](Self::for_each_piece).
    pub fn complete(self) -> Result<Completion, GenerateError> {
        self.for_each_piece(|_| ControlFlow::Continue(()))
    }

    /// Runs to the end, and hands each piece to `callback`, which may break off.
    ///
    /// # Errors
    ///
    /// [`GenerateError`]; what was generated before has been handed out.
    pub fn for_each_piece(
        mut self,
        mut callback: impl FnMut(&Piece) -> ControlFlow<()>,
    ) -> Result<Completion, GenerateError> {
        let (mut text, mut tokens, mut logprobs) = (String::new(), Vec::new(), Vec::new());
        let mut broken = false;
        for piece in self.by_ref() {
            let piece = piece?;
            text.push_str(&piece.text);
            broken = callback(&piece).is_break();
            if piece.origin == Origin::Model {
                tokens.extend(piece.token);
                logprobs.extend(piece.logprobs);
            }
            if broken {
                break;
            }
        }
        let finish = self.finish_reason().filter(|_| !broken).unwrap_or(FinishReason::BrokenOff);
        Ok(Completion { text, tokens, logprobs, finish, usage: self.usage, seed: self.seed() })
    }

    fn step(&mut self) -> Result<Option<Piece>, GenerateError> {
        if let Some(piece) = self.echo.pop_front() {
            return Ok(Some(piece));
        }
        let ready = match std::mem::replace(&mut self.state, State::Finished(None)) {
            State::Finished(reason) => {
                self.state = State::Finished(reason);
                return Ok(None);
            }
            State::Ending(reason) => return Ok(self.end(reason)),
            State::Prompt(rest, echoed) => self.decode_prompt(&rest, echoed),
            State::Token(_) if self.left == Some(0) => return Ok(self.end(FinishReason::MaxTokens)),
            State::Token(token) => self.decode(token),
        };
        match ready {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(reason)) => return Ok(self.end(reason)),
            Err(GenerateError::Decode(DecodeError::Cancelled)) => {
                // It has done what it was for.
                self.context.cancel_token().reset();
                return Ok(self.end(FinishReason::Cancelled));
            }
            Err(error) => return Err(error),
        }
        let piece = self.choose()?;
        match piece {
            // The prompt's own pieces come first.
            Some(piece) if !self.echo.is_empty() => {
                self.echo.push_back(piece);
                Ok(self.echo.pop_front())
            }
            piece => Ok(piece),
        }
    }

    /// Chooses the next token and gives its text.
    fn choose(&mut self) -> Result<Option<Piece>, GenerateError> {
        let logits = self.context.logits(self.row).ok_or(GenerateError::NoLogits)?;
        let Some(token) = self.choice.next(logits)? else {
            if !self.echo.is_empty() {
                self.state = State::Ending(FinishReason::End);
                return Ok(self.echo.pop_front());
            }
            return Ok(self.end(FinishReason::End));
        };
        let logprobs = self.logprobs.map(|top| TokenLogprobs::of(logits, token, top));
        let mut text = String::new();
        let stopped = self.text.push(token, &mut text)?;
        self.usage.generated_tokens += 1;
        self.left = self.left.map(|left| left - 1);
        self.context.set_undecoded(self.sequence, token);
        self.state = if stopped { State::Ending(FinishReason::Stop) } else { State::Token(token) };
        Ok(Some(Piece { origin: Origin::Model, token: Some(token), text, logprobs }))
    }

    /// Ends it, with what was held back.
    fn end(&mut self, reason: FinishReason) -> Option<Piece> {
        self.state = State::Finished(Some(reason));
        let text = self.text.finish();
        (!text.is_empty()).then_some(Piece { origin: Origin::Model, token: None, text, logprobs: None })
    }

    /// Decodes one token more, and makes room for it where that was asked for.
    fn decode(&mut self, token: Token) -> Result<ControlFlow<FinishReason>, GenerateError> {
        let limit = self.context.limits().context;
        loop {
            let used = self.context.next_position(self.sequence);
            if used < limit {
                self.batch.clear();
                self.batch.push(token, used, self.sequence, true);
                let begin = Instant::now();
                let decoded = self.context.decode(&self.batch);
                self.usage.decode_time += begin.elapsed();
                match decoded {
                    Ok(()) => break,
                    // Other sequences have filled the cache that they share.
                    Err(DecodeError::ContextFull { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if !self.shift(used)? {
                return Ok(ControlFlow::Break(FinishReason::ContextFull));
            }
        }
        self.row = 0;
        Ok(ControlFlow::Continue(()))
    }

    /// Forgets a part of the `used` tokens; whether that was asked for, and there was something to forget.
    fn shift(&mut self, used: u32) -> Result<bool, GenerateError> {
        let WhenFull::Shift { keep } = self.when_full else { return Ok(false) };
        if used <= keep.saturating_add(1) {
            return Ok(false);
        }
        let to = keep + ((used - keep) / 2).max(1);
        match self.context.edit(SequenceEdit::Remove { sequence: self.sequence, from: keep, to }) {
            Ok(()) => Ok(true),
            // A fork needs room to part from the others.
            Err(DecodeError::ContextFull { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Decodes the prompt; with `echoed`, gives each token from this index on.
    fn decode_prompt(
        &mut self,
        tokens: &[Token],
        echoed: Option<usize>,
    ) -> Result<ControlFlow<FinishReason>, GenerateError> {
        /// Rows of logits are large: a token has one number for each entry of the vocabulary.
        const ROWS: usize = 64;
        let batch = self.context.limits().batch as usize;
        let size = if echoed.is_some() { batch.min(ROWS) } else { batch };
        let chunks = tokens.len().div_ceil(size);
        let mut text = self.tokenizer.stream();
        let mut before: Option<TokenLogprobs> = None;
        for (index, chunk) in tokens.chunks(size).enumerate() {
            self.batch.clear();
            let first = self.context.next_position(self.sequence);
            for (position, &token) in (first..).zip(chunk) {
                self.batch.push(token, position, self.sequence, echoed.is_some());
            }
            if index + 1 == chunks {
                self.batch.ask_for_last_logits();
            }
            self.context.decode(&self.batch)?;
            if self.context.next_position(self.sequence) == first {
                return Err(GenerateError::NoMemory);
            }
            self.row = chunk.len() - 1;
            if let Some(from) = echoed {
                for (row, &token) in chunk.iter().enumerate() {
                    let place = index * size + row;
                    let mut piece = Piece { logprobs: before.take(), ..Piece::of_prompt(Some(token)) };
                    if place >= from {
                        text.push_as(token, true, &mut piece.text)?;
                        self.echo.push_back(piece);
                    }
                    let next = tokens.get(place + 1);
                    let logits = self.context.logits(row).ok_or(GenerateError::NoLogits)?;
                    let top = self.logprobs.unwrap_or(0);
                    before = next.map(|&next| TokenLogprobs::of(logits, next, top));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Piece {
    fn of_prompt(token: Option<Token>) -> Self {
        Self { origin: Origin::Prompt, token, text: String::new(), logprobs: None }
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Piece, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        let begin = Instant::now();
        let before = self.usage.generated_tokens;
        let piece = self.step().transpose();
        let time: &mut Duration =
            if before == 0 { &mut self.usage.prompt_time } else { &mut self.usage.generation_time };
        *time += begin.elapsed();
        piece
    }
}

/// The prompt as it was given.
fn echoed(tokenizer: &Tokenizer, request: &GenerateRequest) -> Result<String, GenerateError> {
    Ok(match &request.prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Tokens(tokens) => String::from_utf8_lossy(&tokenizer.detokenize(tokens, true)?).into_owned(),
        Prompt::Rendered(rendered) => rendered.text.clone(),
    })
}

fn forget(context: &mut Context, sequence: SequenceId) -> Result<usize, GenerateError> {
    context.edit(SequenceEdit::Truncate { sequence, from: 0 })?;
    Ok(0)
}

/// Forgets what the sequence holds beyond what it shares with `tokens`, of which one at least is left to compute.
fn keep_common(context: &mut Context, sequence: SequenceId, tokens: &[Token]) -> Result<usize, GenerateError> {
    let held = context.tokens(sequence);
    let shared = held.iter().zip(tokens).take_while(|(held, token)| held == token).count();
    let shared = shared.min(tokens.len() - 1);
    let from = Position::try_from(shared).unwrap_or(Position::MAX);
    // A recurrent model cannot forget the end alone.
    if shared == held.len() || context.edit(SequenceEdit::Truncate { sequence, from }).is_ok() {
        return Ok(shared);
    }
    forget(context, sequence)
}
