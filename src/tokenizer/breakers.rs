//! Texts that break something off, looked for in the vocabulary.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::Tokenizer;
use crate::backend::{Token, TokenizeOptions, VocabularyError};

/// The breakers that were asked for last: to look through a vocabulary takes as long as some tokens.
#[derive(Debug, Default)]
pub(super) struct KnownBreakers(VecDeque<(Vec<String>, Arc<Breakers>)>);

impl KnownBreakers {
    /// Texts come with requests, which may have any.
    const MOST: usize = 8;

    pub(super) fn find(&self, texts: &[String]) -> Option<Arc<Breakers>> {
        self.0.iter().find(|(known, _)| known == texts).map(|(_, breakers)| Arc::clone(breakers))
    }

    pub(super) fn add(&mut self, texts: &[String], breakers: &Arc<Breakers>) {
        self.0.truncate(Self::MOST - 1);
        self.0.push_front((texts.to_vec(), Arc::clone(breakers)));
    }
}

/// Texts that break something off, as the tokens that can write them.
#[derive(Debug, Default)]
pub(crate) struct Breakers {
    /// By the token that such a text begins in: what follows it. Nothing follows where the token has all of the text.
    tails: HashMap<Token, Vec<Vec<Token>>>,
}

impl Breakers {
    /// Tokens of a tail that are compared.
    const LONGEST: usize = 20;

    /// Looks through the vocabulary for tokens that hold one of `texts`, or end with the beginning of one.
    pub(super) fn new(tokenizer: &Tokenizer, texts: &[String]) -> Result<Self, VocabularyError> {
        let mut breakers = Self::default();
        if texts.is_empty() {
            return Ok(breakers);
        }
        for token in 0..tokenizer.n_tokens() {
            let piece = tokenizer.detokenize(&[token], true)?;
            for text in texts {
                for tail in tails(&piece, text) {
                    let mut tail =
                        tokenizer.tokenize(tail, TokenizeOptions { add_special: false, parse_special: false })?;
                    tail.truncate(Self::LONGEST);
                    let known = breakers.tails.entry(token).or_default();
                    if !known.contains(&tail) {
                        known.push(tail);
                    }
                }
            }
        }
        Ok(breakers)
    }

    /// Whether `token` has all of a text.
    pub(crate) fn is_single(&self, token: Token) -> bool {
        self.tails.get(&token).is_some_and(|tails| tails.iter().any(Vec::is_empty))
    }

    /// Tokens since the last break. `tokens` has the newest first.
    pub(crate) fn distance(&self, tokens: &[Token]) -> usize {
        if self.tails.is_empty() {
            return tokens.len();
        }
        for (place, token) in tokens.iter().enumerate() {
            let Some(tails) = self.tails.get(token) else { continue };
            let follows = |tail: &&Vec<Token>| {
                tail.len() <= place && tail.iter().eq(tokens[..place].iter().rev().take(tail.len()))
            };
            if let Some(longest) = tails.iter().filter(follows).map(Vec::len).max() {
                return place - longest;
            }
        }
        tokens.len()
    }
}

/// What remains of `text` after a token with these bytes in which it begins. Nothing remains where the token holds all of it.
fn tails<'a>(piece: &[u8], text: &'a str) -> Vec<&'a str> {
    let bytes = text.as_bytes();
    if piece.windows(bytes.len()).any(|window| window == bytes) {
        return vec![""];
    }
    let overlaps = |&length: &usize| piece.ends_with(&bytes[..length]) && text.is_char_boundary(length);
    (1..bytes.len().min(piece.len() + 1)).filter(overlaps).map(|length| &text[length..]).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::backend::{SpecialTokens, Vocabulary};

    #[test]
    fn a_text_begins_in_the_tokens_that_hold_it_or_end_like_it() {
        assert_eq!(tails(b"a\n\nb", "\n"), [""]);
        assert_eq!(tails(b"say: ab", "abba"), ["ba"]);
        // Both `a` and `aba` are beginnings of the text.
        assert_eq!(tails(b"aba", "abab"), ["bab", "b"]);
        assert_eq!(tails(b"xyz", "abc"), [""; 0]);
    }

    #[test]
    fn a_break_ends_what_counts_as_repetition() {
        // 9 is a breaker of its own; 7 begins one that 8 ends.
        let breakers = Breakers { tails: HashMap::from([(9, vec![vec![]]), (7, vec![vec![8]])]) };
        assert_eq!(breakers.distance(&[1, 2, 3]), 3);
        assert_eq!(breakers.distance(&[1, 9, 3]), 1);
        assert_eq!(breakers.distance(&[9, 3]), 0);
        // The newest comes first: 7 was followed by 8, and that by 1.
        assert_eq!(breakers.distance(&[1, 8, 7, 2]), 1);
        assert_eq!(breakers.distance(&[1, 5, 7, 2]), 4);
        // The end of it may not have come yet.
        assert_eq!(breakers.distance(&[7, 2]), 2);
    }

    /// Three tokens of one letter; counts how often one is read.
    #[derive(Debug, Default)]
    struct Letters {
        special: SpecialTokens,
        reads: AtomicU32,
    }

    impl Vocabulary for Letters {
        fn n_tokens(&self) -> u32 {
            3
        }

        fn special(&self) -> &SpecialTokens {
            &self.special
        }

        fn is_end_of_generation(&self, _token: Token) -> bool {
            false
        }

        fn tokenize(&self, _: &str, _: TokenizeOptions, _: &mut Vec<Token>) -> Result<(), VocabularyError> {
            Ok(())
        }

        fn append_piece(&self, token: Token, _: bool, bytes: &mut Vec<u8>) -> Result<(), VocabularyError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            bytes.push(b'a' + token as u8);
            Ok(())
        }
    }

    #[test]
    fn a_vocabulary_is_looked_through_once_for_the_same_texts() {
        let letters = Arc::new(Letters::default());
        let tokenizer = Tokenizer::new(letters.clone());
        let texts = |text: &str| [text.to_owned()];
        for _ in 0..3 {
            assert!(tokenizer.clone().breakers(&texts("b")).unwrap().is_single(1));
        }
        assert_eq!(letters.reads.load(Ordering::Relaxed), 3);
        // Others push the first ones out, and those are looked for again.
        for number in 0..KnownBreakers::MOST {
            tokenizer.breakers(&texts(&number.to_string())).unwrap();
        }
        let before = letters.reads.load(Ordering::Relaxed);
        assert!(tokenizer.breakers(&texts("b")).unwrap().is_single(1));
        assert_eq!(letters.reads.load(Ordering::Relaxed), before + 3);
    }
}
