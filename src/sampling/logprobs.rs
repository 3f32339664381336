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
    pub fn of(logits: &[f32], token: Token, top: usize) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = logits.iter().map(|&logit| f64::from((logit - largest).exp())).sum();
        let logprob = |logit: f32| (f64::from(logit - largest) - total.ln()) as f32;
        let mut order: Vec<Token> = (0..).take(logits.len()).collect();
        let logit = |token: Token| logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
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
