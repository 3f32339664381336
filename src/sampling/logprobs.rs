//! Log-probabilities of tokens.

use serde::Serialize;

use crate::backend::Token;

/// A token and how probable the model found it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TokenLogprob {
    /// The token.
    pub token: Token,
    /// The natural logarithm of its probability.
    pub logprob: f32,
}

/// How probable the model found a token that was generated, and what else it thought of. Before any sampling.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenLogprobs {
    /// The natural logarithm of the token's own probability.
    pub logprob: f32,
    /// The likeliest tokens, in descending order.
    pub top: Vec<TokenLogprob>,
}

impl TokenLogprobs {
    /// Of `token`, with the `top` likeliest. The softmax is computed in f64, from the largest logit.
    pub(crate) fn of(logits: &[f32], token: Token, top: usize) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
        let logprob = |logit: f32| (f64::from(logit - largest) - total.ln()) as f32;
        let mut order: Vec<Token> = (0..).take(logits.len()).collect();
        let logit = |token: Token| logits[token as usize];
        let descending = |&one: &Token, &other: &Token| logit(other).total_cmp(&logit(one)).then(one.cmp(&other));
        let top = top.min(order.len());
        if top > 0 && top < order.len() {
            order.select_nth_unstable_by(top - 1, descending);
        }
        order.truncate(top);
        order.sort_unstable_by(descending);
        let top = order.into_iter().map(|token| TokenLogprob { token, logprob: logprob(logit(token)) }).collect();
        Self { logprob: logprob(logit(token)), top }
    }
}

#[cfg(test)]
mod tests {
    use super::TokenLogprobs;

    #[test]
    fn they_are_those_of_the_softmax() {
        // exp: 1, 2, 4, 1 of 8.
        let two = 2.0_f32.ln();
        let logprobs = TokenLogprobs::of(&[0.0, two, 2.0 * two, 0.0], 1, 3);
        assert!((logprobs.logprob - 0.25_f32.ln()).abs() < 1e-6);
        let top: Vec<(u32, f32)> = logprobs.top.iter().map(|entry| (entry.token, entry.logprob.exp())).collect();
        assert_eq!(top.iter().map(|entry| entry.0).collect::<Vec<_>>(), [2, 1, 0]);
        assert!((top[0].1 - 0.5).abs() < 1e-6 && (top[1].1 - 0.25).abs() < 1e-6 && (top[2].1 - 0.125).abs() < 1e-6);
    }

    #[test]
    fn more_than_there_are_is_all_of_them() {
        assert_eq!(TokenLogprobs::of(&[1.0, 2.0], 0, 9).top.len(), 2);
        assert_eq!(TokenLogprobs::of(&[1.0, 2.0], 0, 0).top.len(), 0);
    }
}
