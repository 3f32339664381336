//! Perplexity of a text: how surprised a model is by it.
//!
//! The method is that of llama.cpp's `llama-perplexity`, so that the numbers compare: the tokens are cut into chunks of
//! the context length; each chunk starts afresh, with BOS in the place of its first token where the model wants it; the
//! first half of a chunk only gives context, and the tokens of the second half count.
#![forbid(unsafe_code)]

use std::ops::ControlFlow;

use crate::{
    backend::{Batch, DecodeError, SequenceEdit, Token, VocabularyError},
    context::Context,
};

/// A perplexity and its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Perplexity {
    /// exp of the mean negative log-likelihood.
    pub value: f64,
    /// Standard error of `value`.
    pub standard_error: f64,
    /// Tokens that counted.
    pub tokens: u64,
    /// Chunks that the text was cut into.
    pub chunks: u64,
}

/// Measures `tokens`, which include BOS where the model wants it. `progress` gets the result so far after each chunk.
///
/// # Errors
///
/// [`PerplexityError::TooShort`] when there are fewer tokens than two contexts hold.
pub fn perplexity(
    context: &mut Context,
    tokens: &[Token],
    mut progress: impl FnMut(&Perplexity, u64) -> ControlFlow<()>,
) -> Result<Perplexity, PerplexityError> {
    let length = context.limits().context as usize;
    /// The second half of a chunk must hold a token and the one before it.
    const SHORTEST: usize = 4;
    if length < SHORTEST {
        return Err(PerplexityError::ContextTooShort { length, needed: SHORTEST });
    }
    let n_vocab = context.model().shape().n_vocab;
    if let Some(&token) = tokens.iter().find(|&&token| token >= n_vocab) {
        return Err(VocabularyError::Token { token, n_tokens: n_vocab }.into());
    }
    let needed = 2 * length;
    if tokens.len() < needed {
        return Err(PerplexityError::TooShort { tokens: tokens.len(), needed });
    }
    let special = context.model().tokenizer().ok().map(|tokenizer| tokenizer.special().clone());
    let bos = special.and_then(|special| special.bos.filter(|_| special.add_bos));
    let chunks = (tokens.len() / length) as u64;
    let mut likelihoods = Likelihoods::default();
    let mut batch = Batch::with_capacity(length);
    for chunk in tokens.chunks_exact(length) {
        context.edit(SequenceEdit::Clear)?;
        measure_chunk(context, chunk, bos, &mut batch, &mut likelihoods)?;
        if progress(&likelihoods.perplexity(), chunks).is_break() {
            return Err(DecodeError::Cancelled.into());
        }
    }
    Ok(likelihoods.perplexity())
}

fn measure_chunk(
    context: &mut Context,
    chunk: &[Token],
    bos: Option<Token>,
    batch: &mut Batch,
    likelihoods: &mut Likelihoods,
) -> Result<(), PerplexityError> {
    let first = chunk.len() / 2;
    let size = context.limits().batch as usize;
    for (start, part) in (0..).step_by(size).zip(chunk.chunks(size)) {
        batch.clear();
        for (position, &token) in (start..).zip(part) {
            let token = bos.filter(|_| position == 0).unwrap_or(token);
            batch.push(token, position as u32, 0, (first..chunk.len() - 1).contains(&position));
        }
        context.decode(batch)?;
        for (row, item) in batch.items().iter().enumerate().filter(|(_, item)| item.logits) {
            let logits = context.logits(row).ok_or(PerplexityError::NoLogits)?;
            let next = chunk[item.position as usize + 1];
            let surprise = negative_log_likelihood(logits, next);
            if !surprise.is_finite() {
                return Err(PerplexityError::NotANumber);
            }
            likelihoods.add(surprise);
        }
    }
    likelihoods.chunks += 1;
    Ok(())
}

/// -ln of the probability that softmax gives `token`.
fn negative_log_likelihood(logits: &[f32], token: Token) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - largest).exp())).sum();
    sum.ln() - f64::from(logits[token as usize] - largest)
}

#[derive(Debug, Default)]
struct Likelihoods {
    sum: f64,
    sum_of_squares: f64,
    tokens: u64,
    chunks: u64,
}

impl Likelihoods {
    fn add(&mut self, negative_log_likelihood: f64) {
        self.sum += negative_log_likelihood;
        self.sum_of_squares += negative_log_likelihood * negative_log_likelihood;
        self.tokens += 1;
    }

    fn perplexity(&self) -> Perplexity {
        let tokens = self.tokens as f64;
        let mean = self.sum / tokens;
        let variance = self.sum_of_squares / tokens - mean * mean;
        let value = mean.exp();
        // The error of the mean, carried through exp.
        let standard_error = if self.tokens > 1 { (variance.max(0.0) / (tokens - 1.0)).sqrt() * value } else { 0.0 };
        Perplexity { value, standard_error, tokens: self.tokens, chunks: self.chunks }
    }
}

/// Why a perplexity could not be measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PerplexityError {
    /// The text is too short: give more, or open a shorter context.
    #[error("the text has {tokens} tokens; with this context length at least {needed} are needed")]
    TooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Two contexts full.
        needed: usize,
    },
    /// The context is too short to predict anything from.
    #[error("a context of {length} tokens is too short; at least {needed} are needed")]
    ContextTooShort {
        /// The context's length.
        length: usize,
        /// The least that will do.
        needed: usize,
    },
    /// A token that the vocabulary does not have.
    #[error(transparent)]
    Token(#[from] VocabularyError),
    /// The model computes embeddings, not logits.
    #[error("the model gives no logits: it has no perplexity")]
    NoLogits,
    /// The model's weights are broken, or its arithmetic overflowed.
    #[error("the model's logits are not numbers: the file may be damaged")]
    NotANumber,
    /// A decode failed or was cancelled.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

#[cfg(test)]
mod tests {
    use super::{Likelihoods, negative_log_likelihood};

    #[test]
    fn equal_logits_are_as_surprising_as_the_vocabulary_is_large() {
        let mut likelihoods = Likelihoods::default();
        for token in 0..10 {
            likelihoods.add(negative_log_likelihood(&[2.5; 50], token));
        }
        let perplexity = likelihoods.perplexity();
        assert!((perplexity.value - 50.0).abs() < 1e-9, "{perplexity:?}");
        assert!(perplexity.standard_error < 1e-6, "{perplexity:?}");
    }

    #[test]
    fn likelihood_is_that_of_softmax() {
        // softmax of (0, ln 3) is (1/4, 3/4).
        let logits = [0.0, 3f32.ln()];
        assert!((negative_log_likelihood(&logits, 0) - 4f64.ln()).abs() < 1e-6);
        assert!((negative_log_likelihood(&logits, 1) - (4.0f64 / 3.0).ln()).abs() < 1e-6);
    }
}
