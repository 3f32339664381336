//! Characters in pieces: tokens whose bytes are not UTF-8 by themselves.

use std::sync::Arc;

use crate::{
    backend::{GrammarEngineError, GrammarMatcher, GrammarMismatch, Token},
    tokenizer::Fragments,
};

/// A grammar whose engine reads bytes more loosely than UTF-8 has them, kept from tokens that write none: to llama.cpp the bytes
/// F0 80 80 80, which are no character, are one.
#[derive(Debug)]
pub(super) struct WholeCharacters {
    matcher: Box<dyn GrammarMatcher>,
    fragments: Arc<Fragments>,
    /// The beginning of a character, at most three bytes.
    pending: Vec<u8>,
    joined: Vec<u8>,
}

impl WholeCharacters {
    pub(super) fn new(matcher: Box<dyn GrammarMatcher>, fragments: Arc<Fragments>) -> Self {
        Self { matcher, fragments, pending: Vec::new(), joined: Vec::new() }
    }
}

impl GrammarMatcher for WholeCharacters {
    fn allows(&mut self, token: Token) -> bool {
        self.fragments.after(&self.pending, token, &mut self.joined).is_some() && self.matcher.allows(token)
    }

    fn mask(&mut self, logits: &mut [f32]) -> usize {
        let Self { matcher, fragments, pending, joined } = self;
        let mut left = matcher.mask(logits);
        let mut rule_out = |token: Token, logit: &mut f32| {
            if *logit > f32::NEG_INFINITY && fragments.after(pending, token, joined).is_none() {
                *logit = f32::NEG_INFINITY;
                left -= 1;
            }
        };
        if pending.is_empty() {
            for token in fragments.tokens() {
                logits.get_mut(token as usize).into_iter().for_each(|logit| rule_out(token, logit));
            }
        } else {
            (0..).zip(logits).for_each(|(token, logit)| rule_out(token, logit));
        }
        left
    }

    fn accept(&mut self, token: Token) -> Result<(), GrammarMismatch> {
        let Some(pending) = self.fragments.after(&self.pending, token, &mut self.joined) else {
            return Err(GrammarMismatch(token));
        };
        self.matcher.accept(token)?;
        self.pending = pending.to_vec();
        Ok(())
    }

    fn failure(&self) -> Option<GrammarEngineError> {
        self.matcher.failure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grammar of any text.
    #[derive(Debug)]
    struct Anything;

    impl GrammarMatcher for Anything {
        fn allows(&mut self, _token: Token) -> bool {
            true
        }

        fn mask(&mut self, logits: &mut [f32]) -> usize {
            logits.len()
        }

        fn accept(&mut self, _token: Token) -> Result<(), GrammarMismatch> {
            Ok(())
        }
    }

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
        let mut characters = WholeCharacters::new(Box::new(Anything), Arc::new(fragments));
        let mut allowed = |then: Option<Token>| {
            then.into_iter().for_each(|token| characters.accept(token).unwrap());
            let mut logits = [0.0; 7];
            let left = characters.mask(&mut logits);
            let one_by_one: Vec<Token> = (0..7).filter(|&token| characters.allows(token)).collect();
            let masked: Vec<Token> = (0..7).filter(|&token| logits[token as usize] == 0.0).collect();
            assert_eq!(one_by_one, masked);
            assert_eq!(left, masked.len());
            assert!((0..7).all(|token| masked.contains(&token) || characters.accept(token).is_err()));
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
