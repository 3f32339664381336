//! Tokens that are pieces of characters.

use std::collections::HashMap;

use super::Tokenizer;
use crate::backend::Token;

/// The tokens of a vocabulary whose bytes are not whole characters.
#[derive(Debug, Default)]
pub(crate) struct Fragments(HashMap<Token, Box<[u8]>>);

impl Fragments {
    /// Looks through the whole vocabulary.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Self {
        let piece = |token| tokenizer.detokenize(&[token], true).ok().filter(|piece| str::from_utf8(piece).is_err());
        let fragments = (0..tokenizer.n_tokens()).filter_map(|token| Some((token, piece(token)?.into_boxed_slice())));
        Self(fragments.collect())
    }

    /// All of them.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = Token> {
        self.0.keys().copied()
    }

    /// What follows `pending`, the beginning of a character, once `token` has come: the beginning of another one, or nothing.
    /// `None` where that is no UTF-8.
    pub(crate) fn after<'a>(&'a self, pending: &[u8], token: Token, joined: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let Some(piece) = self.0.get(&token) else { return pending.is_empty().then_some(&[]) };
        joined.clear();
        joined.extend_from_slice(pending);
        joined.extend_from_slice(piece);
        match str::from_utf8(joined) {
            Ok(_) => Some(&[]),
            Err(error) if error.error_len().is_none() => Some(&joined[error.valid_up_to()..]),
            Err(_) => None,
        }
    }
}

#[cfg(test)]
impl<const N: usize> From<[(Token, &[u8]); N]> for Fragments {
    fn from(pieces: [(Token, &[u8]); N]) -> Self {
        Self(pieces.into_iter().map(|(token, piece)| (token, piece.into())).collect())
    }
}
