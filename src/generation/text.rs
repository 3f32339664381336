//! The text of a generation, up to where it is stopped.

use crate::{
    backend::{Token, VocabularyError},
    tokenizer::{TextStream, Tokenizer},
};

/// Makes text of tokens, in whole characters, and holds back what may become a stop.
#[derive(Debug)]
pub(super) struct StoppedText {
    stream: TextStream,
    /// Special tokens that belong to the text.
    preserved: Vec<Token>,
    stops: Vec<String>,
    /// What cannot be shown yet: the beginning of a stop.
    held_back: String,
}

impl StoppedText {
    /// `stops` are not empty.
    pub(super) fn new(tokenizer: &Tokenizer, preserved: Vec<Token>, stops: Vec<String>) -> Self {
        Self { stream: tokenizer.stream(), preserved, stops, held_back: String::new() }
    }

    /// Appends to `text` what can be shown once `token` has come. Whether a stop has come with it, which ends the text.
    pub(super) fn push(&mut self, token: Token, text: &mut String) -> Result<bool, VocabularyError> {
        let special = self.preserved.contains(&token);
        if self.stops.is_empty() {
            self.stream.push_as(token, special, text)?;
            return Ok(false);
        }
        self.stream.push_as(token, special, &mut self.held_back)?;
        if let Some(found) = self.stops.iter().filter_map(|stop| self.held_back.find(stop.as_str())).min() {
            text.push_str(&self.held_back[..found]);
            self.held_back.clear();
            return Ok(true);
        }
        let begun = self.stops.iter().filter_map(|stop| overlap(&self.held_back, stop)).max().unwrap_or(0);
        text.extend(self.held_back.drain(..self.held_back.len() - begun));
        Ok(false)
    }

    /// What was held back and is no stop after all. A character that was not completed is not shown.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held_back)
    }
}

/// How much of the end of `text` is the beginning of `stop`. Both are UTF-8, so that a match ends where a character does.
fn overlap(text: &str, stop: &str) -> Option<usize> {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|&length| stop.is_char_boundary(length) && text.ends_with(&stop[..length]))
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn the_longest_beginning_of_a_stop_counts() {
        assert_eq!(overlap("ab", "abc"), Some(2));
        assert_eq!(overlap("xa", "abc"), Some(1));
        assert_eq!(overlap("aa", "aab"), Some(2));
        assert_eq!(overlap("xaa", "aab"), Some(2));
        assert_eq!(overlap("abc", "abc"), None);
        assert_eq!(overlap("", "abc"), None);
        assert_eq!(overlap("ab", "x"), None);
        assert_eq!(overlap("né", "éé"), Some(2));
    }
}
