//! The text of a reply, as a parser reads it.

use super::{ChatError, RenderedPrompt};
use crate::{
    backend::{Token, TokenizeOptions},
    tokenizer::{TextStream, Tokenizer},
};

/// The text of a reply, up to where it is stopped.
#[derive(Debug)]
pub(super) struct ReplyText {
    stream: TextStream,
    /// Special tokens that belong to the text.
    preserved: Vec<Token>,
    stops: Vec<String>,
    text: String,
    /// How much of the text can no longer become a part of a stop.
    visible: usize,
    stopped: bool,
}

impl ReplyText {
    pub(super) fn new(tokenizer: &Tokenizer, rendered: &RenderedPrompt) -> Result<Self, ChatError> {
        let plain = TokenizeOptions { add_special: false, parse_special: true };
        let mut preserved = Vec::new();
        for text in &rendered.preserved {
            // A marker of several tokens is made of plain ones.
            if let [token] = tokenizer.tokenize(text, plain)?.as_slice() {
                preserved.push(*token);
            }
        }
        let stops = rendered.stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        let stream = tokenizer.stream();
        Ok(Self { stream, preserved, stops, text: String::new(), visible: 0, stopped: false })
    }

    /// Adds a token's text; whether more of it can be seen now.
    pub(super) fn push(&mut self, token: Token) -> Result<bool, ChatError> {
        let special = self.preserved.contains(&token);
        self.stream.push_as(token, special, &mut self.text)?;
        let before = self.visible;
        self.look_for_stops();
        Ok(self.visible > before)
    }

    /// Adds what was held back.
    pub(super) fn finish(&mut self) {
        if !self.stopped {
            self.stream.finish(&mut self.text);
            self.visible = self.text.len();
        }
    }

    pub(super) fn visible(&self) -> &str {
        &self.text[..self.visible]
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn look_for_stops(&mut self) {
        let text = &self.text;
        // What could be seen holds no beginning of a stop.
        let found = self.stops.iter().filter_map(|stop| text[self.visible..].find(stop.as_str())).min();
        if let Some(found) = found {
            self.visible += found;
            self.stopped = true;
            return;
        }
        let begun =
            |stop: &String| (1..stop.len()).rev().find(|&length| text.as_bytes().ends_with(&stop.as_bytes()[..length]));
        let held_back = self.stops.iter().filter_map(begun).max().unwrap_or(0);
        // The beginning of a stop may end within a character of it, but not of the text.
        let end = text.len() - held_back;
        self.visible = if text.is_char_boundary(end) { end.max(self.visible) } else { self.visible };
    }
}
