//! Characters in pieces: tokens whose bytes are not UTF-8 by themselves.

use std::sync::Arc;

use crate::{backend::Token, tokenizer::Fragments};

/// Sees to it that tokens write UTF-8. Engines read what they hold to a grammar more loosely: to llama.cpp the bytes F0 80 80 80,
/// which are no character, are one.
#[derive(Debug)]
pub(super) struct Characters {
    fragments: Arc<Fragments>,
    /// The beginning of a character, at most three bytes.
    pending: Vec<u8>,
    joined: Vec<u8>,
}

impl Characters {
    pub(super) fn new(fragments: Arc<Fragments>) -> Self {
        Self { fragments, pending: Vec::new(), joined: Vec::new() }
    }

    /// Whether `token` may come next.
    pub(super) fn allow(&mut self, token: Token) -> bool {
        self.fragments.after(&self.pending, token, &mut self.joined).is_some()
    }

    /// Rules out the logits of what may not come next.
    pub(super) fn mask(&mut self, logits: &mut [f32]) {
        let mut rule_out = |token: Token, logit: &mut f32| {
            if self.fragments.after(&self.pending, token, &mut self.joined).is_none() {
                *logit = f32::NEG_INFINITY;
            }
        };
        if self.pending.is_empty() {
            for token in self.fragments.tokens() {
                logits.get_mut(token as usize).into_iter().for_each(|logit| rule_out(token, logit));
            }
        } else {
            (0..).zip(logits).for_each(|(token, logit)| rule_out(token, logit));
        }
    }

    pub(super) fn accept(&mut self, token: Token) {
        if let Some(pending) = self.fragments.after(&self.pending, token, &mut self.joined) {
            self.pending = pending.to_vec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_character_is_ruled_out_at_its_first_wrong_byte() {
        let fragments = Fragments::from([
            (1, b"\xf0".as_slice()),
            (2, b"\x9f\xa6"),
            (3, b"\x99"),
            (4, b"\x80"),
            (5, b"a\xc3"),
            (6, b"\xa4b\xe2\x82"),
        ]);
        let mut characters = Characters::new(Arc::new(fragments));
        let mut allowed = |then: Option<Token>| {
            then.into_iter().for_each(|token| characters.accept(token));
            let mut logits = [0.0; 7];
            characters.mask(&mut logits);
            let one_by_one: Vec<Token> = (0..7).filter(|&token| characters.allow(token)).collect();
            let masked: Vec<Token> = (0..7).filter(|&token| logits[token as usize] == 0.0).collect();
            assert_eq!(one_by_one, masked);
            masked
        };
        // Token 0 is whole.
        assert_eq!(allowed(None), [0, 1, 5]);
        // F0 80 would begin a character in more bytes than it needs.
        assert_eq!(allowed(Some(1)), [2, 3]);
        assert_eq!(allowed(Some(2)), [3, 4, 6]);
        assert_eq!(allowed(Some(3)), [0, 1, 5]);
        assert_eq!(allowed(Some(5)), [3, 4, 6]);
        // E2 82 takes any of 80 to BF.
        assert_eq!(allowed(Some(6)), [3, 4, 6]);
        assert_eq!(allowed(Some(4)), [0, 1, 5]);
    }
}
