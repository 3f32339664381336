//! Speed of a model, with the meaning of llama.cpp's `llama-bench`.
//!
//! *pp* (prompt processing) feeds `n` random tokens to an empty context; *tg* (text generation) feeds `n` random tokens
//! one by one. Logits are computed for the last token of each decode. A run that does not count warms up first.
#![forbid(unsafe_code)]

use std::{ops::Range, time::Instant};

use crate::{
    backend::{Batch, DecodeError, SequenceEdit, Token},
    context::Context,
};

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// This many tokens at once.
    Prompt(u32),
    /// This many tokens, one by one.
    Generation(u32),
}

impl Test {
    /// Number of tokens.
    pub fn tokens(self) -> u32 {
        match self {
            Self::Prompt(tokens) | Self::Generation(tokens) => tokens,
        }
    }
}

/// Runs `test` once after `depth` tokens, and returns its speed in tokens a second. What the context holds but for them is
/// forgotten.
///
/// # Errors
///
/// [`DecodeError`], among others when the context is shorter than the depth and the test.
pub fn run(context: &mut Context, test: Test, depth: u32) -> Result<f64, DecodeError> {
    let mut tokens = RandomTokens::new(context.model().shape().n_vocab);
    let most = context.limits().batch;
    // They are the same in every run, and may be there from the one before.
    let cut = SequenceEdit::Truncate { sequence: 0, from: depth };
    if context.next_position(0) > depth && depth > 0 && context.edit(cut).is_ok() && context.next_position(0) == depth {
        (0..depth).for_each(|_| _ = tokens.next());
    } else {
        context.edit(SequenceEdit::Clear)?;
        feed(context, &mut tokens, 0..depth, most)?;
    }
    let chunk = match test {
        Test::Prompt(_) => most,
        Test::Generation(_) => 1,
    };
    let start = Instant::now();
    feed(context, &mut tokens, depth..depth.saturating_add(test.tokens()), chunk)?;
    Ok(f64::from(test.tokens()) / start.elapsed().as_secs_f64())
}

/// Feeds random tokens at these positions, `chunk` at a time.
fn feed(
    context: &mut Context,
    tokens: &mut RandomTokens,
    positions: Range<u32>,
    chunk: u32,
) -> Result<(), DecodeError> {
    let mut batch = Batch::with_capacity(chunk.min(positions.len() as u32) as usize);
    let mut begin = positions.start;
    while begin < positions.end {
        let end = positions.end.min(begin.saturating_add(chunk));
        batch.clear();
        for position in begin..end {
            batch.push(tokens.next(), position, 0, position + 1 == end);
        }
        context.decode(&batch)?;
        begin = end;
    }
    Ok(())
}

/// Runs `test` after one run that does not count, and returns the speed of each of the `repetitions`.
///
/// # Errors
///
/// [`DecodeError`].
pub fn repeat(context: &mut Context, test: Test, repetitions: u32) -> Result<Vec<f64>, DecodeError> {
    warm_up(context, test)?;
    (0..repetitions).map(|_| run(context, test, 0)).collect()
}

/// A run that does not count. One token warms a generation: it touches every weight.
///
/// # Errors
///
/// [`DecodeError`].
pub fn warm_up(context: &mut Context, test: Test) -> Result<(), DecodeError> {
    let short = match test {
        Test::Prompt(tokens) => Test::Prompt(tokens),
        Test::Generation(tokens) => Test::Generation(tokens.min(1)),
    };
    run(context, short, 0).map(drop)
}

/// Mean and sample standard deviation.
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

/// The same "random" tokens in every run: xorshift64 (Marsaglia, Xorshift RNGs, 2003).
struct RandomTokens {
    state: u64,
    n_vocab: u32,
}

impl RandomTokens {
    fn new(n_vocab: u32) -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15, n_vocab: n_vocab.max(1) }
    }

    fn next(&mut self) -> Token {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state % u64::from(self.n_vocab)) as Token
    }
}

#[cfg(test)]
mod tests {
    use super::{RandomTokens, mean_and_deviation};

    #[test]
    fn deviation_is_that_of_a_sample() {
        assert_eq!(mean_and_deviation(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]), (5.0, (32.0f64 / 7.0).sqrt()));
        assert_eq!(mean_and_deviation(&[3.0]), (3.0, 0.0));
    }

    #[test]
    fn random_tokens_stay_in_the_vocabulary_and_vary() {
        let mut tokens = RandomTokens::new(100);
        let drawn: std::collections::BTreeSet<_> = (0..1000).map(|_| tokens.next()).collect();
        assert!(drawn.len() > 90 && drawn.iter().all(|&token| token < 100), "{drawn:?}");
    }
}
