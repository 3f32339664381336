//! What a model thinks before it answers: where that ends, so that a grammar holds the answer alone, and that it does end.

use super::{GenerateError, prompt::AS_WRITTEN};
use crate::{
    backend::{ReasoningMarkers, Token},
    sampling::{ChooseToken, SampleError, SamplerChain},
    tokenizer::Tokenizer,
};

/// Follows a reply from its beginning to the end of its reasoning.
///
/// A grammar does not know of reasoning: one that ruled from the first token would have the model answer in place of it, and one
/// that waits for the marker of a call would take a thought about a call for a call. So it rests meanwhile.
#[derive(Debug)]
pub(super) struct Reasoning {
    tokenizer: Tokenizer,
    start: Vec<u8>,
    ends: Vec<Vec<u8>>,
    /// The tokens of the first of `ends`.
    closing: Vec<Token>,
    grammar: Grammar,
    place: Place,
    /// What the reply begins with, while that may be a marker; what the reasoning ends with, as far as it may be part of one.
    recent: Vec<u8>,
    /// Tokens until it is closed by force.
    left: Option<u32>,
    /// Tokens of `closing` that have been forced.
    forced: usize,
    /// The logits, less those of tokens that were refused.
    logits: Vec<f32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Within,
    Behind,
}

/// What the grammar does while the model thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grammar {
    /// There is none, or it describes the reasoning too.
    Rules,
    /// It rests, and begins behind the reasoning. Until it is kept the reply cannot end.
    Begins,
    /// It rests, and waits behind the reasoning for what sets it to work.
    Waits,
}

impl Reasoning {
    /// `budget`: most tokens of it.
    pub(super) fn new(
        tokenizer: &Tokenizer,
        markers: &ReasoningMarkers,
        grammar: Grammar,
        budget: Option<u32>,
    ) -> Result<Self, GenerateError> {
        let closing = match markers.ends.first() {
            Some(end) => tokenizer.tokenize(end, AS_WRITTEN)?,
            None => Vec::new(),
        };
        // Behind a marker that ends every reply nothing comes.
        let ends = |&token: &Token| tokenizer.is_end_of_generation(token);
        let place = match () {
            () if closing.is_empty() || closing.iter().any(ends) => Place::Behind,
            () if markers.open => Place::Within,
            // What a grammar rules from its beginning on begins no reasoning.
            () if markers.start.is_empty() || grammar == Grammar::Begins => Place::Behind,
            () => Place::Before,
        };
        Ok(Self {
            tokenizer: tokenizer.clone(),
            start: markers.start.clone().into_bytes(),
            ends: markers.ends.iter().map(|end| end.clone().into_bytes()).collect(),
            closing,
            grammar,
            place,
            recent: Vec::new(),
            left: budget,
            forced: 0,
            logits: Vec::new(),
        })
    }

    fn is_open(&self) -> bool {
        self.place == Place::Within
    }

    /// Whether the model is thinking, and the grammar rests.
    pub(super) fn suspends_grammar(&self) -> bool {
        self.is_open() && self.grammar != Grammar::Rules
    }

    /// The token that must come now: the budget is spent.
    pub(super) fn forced(&self) -> Option<Token> {
        let due = self.is_open() && (self.forced > 0 || (self.left == Some(0) && ends_whole(&self.recent)));
        due.then(|| self.closing.get(self.forced).copied()).flatten()
    }

    /// Forces nothing more: a grammar does not take it.
    pub(super) fn give_up(&mut self) {
        (self.left, self.forced) = (None, 0);
    }

    /// Chooses a token of the reasoning.
    pub(super) fn choose(&mut self, logits: &[f32], chain: &mut SamplerChain) -> Result<Token, GenerateError> {
        let first = chain.choose(logits)?;
        if self.allows(first)? {
            return Ok(first);
        }
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        let mut refused = first;
        loop {
            match self.logits.get_mut(refused as usize) {
                Some(logit) if *logit > f32::NEG_INFINITY => *logit = f32::NEG_INFINITY,
                // A chooser that insists.
                _ => return Err(SampleError::NothingLeft.into()),
            }
            refused = chain.choose(&self.logits)?;
            if self.allows(refused)? {
                return Ok(refused);
            }
        }
    }

    /// What follows the end in the same token would be no one's: not of the reasoning, and not seen by the grammar.
    fn allows(&self, token: Token) -> Result<bool, GenerateError> {
        if self.tokenizer.is_end_of_generation(token) {
            return Ok(self.grammar == Grammar::Waits);
        }
        let mut text = self.recent.clone();
        text.extend(self.tokenizer.piece(token, true)?);
        Ok(self.end_in(&text).is_none_or(|end| text[end..].iter().all(u8::is_ascii_whitespace)))
    }

    /// Goes on behind `token`. Where that ends the reasoning, what a grammar that waits is to see of it.
    pub(super) fn accept(&mut self, token: Token) -> Result<&[Token], GenerateError> {
        if self.place == Place::Behind {
            return Ok(&[]);
        }
        let forced = self.forced() == Some(token);
        self.recent.extend(self.tokenizer.piece(token, true)?);
        if self.place == Place::Before {
            let blanks = self.recent.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let text = &self.recent[blanks..];
            if !text.starts_with(&self.start) {
                if !self.start.starts_with(text) {
                    self.place = Place::Behind;
                }
                return Ok(&[]);
            }
            self.recent.drain(..blanks + self.start.len());
            self.place = Place::Within;
        } else {
            self.forced += usize::from(forced);
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        if self.end_in(&self.recent).is_some() || self.forced == self.closing.len() {
            self.place = Place::Behind;
            return Ok(if self.grammar == Grammar::Waits { &self.closing } else { &[] });
        }
        let longest = self.ends.iter().map(Vec::len).max().unwrap_or(0);
        self.recent.drain(..self.recent.len().saturating_sub(longest));
        Ok(&[])
    }

    /// Where the first marker of an end in `text` ends.
    fn end_in(&self, text: &[u8]) -> Option<usize> {
        let place = |end: &Vec<u8>| text.windows(end.len()).position(|window| window == end).map(|at| at + end.len());
        self.ends.iter().filter(|end| !end.is_empty()).filter_map(place).min()
    }
}

/// Whether the last character of UTF-8 is all there.
fn ends_whole(text: &[u8]) -> bool {
    let Some(last) = text.iter().rposition(|byte| byte & 0xC0 != 0x80) else { return true };
    !std::str::from_utf8(&text[last..]).is_err_and(|error| error.error_len().is_none())
}
