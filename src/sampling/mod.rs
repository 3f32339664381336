//! How the next token is chosen.
//!
//! A [`Sampling`] is plain data: a list of [`SamplerStep`]s, which rule out candidates and change their logits in the order in
//! which they stand, and a [`Pick`], which chooses among those that are left. A [`SamplerChain`] is what it becomes for one
//! sequence, with the state that the tokens so far have left. A [`LogitProcessor`] is a step of one's own.
//!
//! ```
//! use gguf_loader::sampling::{Pick, SamplerStep, Sampling};
//!
//! let sampling = Sampling::new(Pick::Distribution)
//!     .then(SamplerStep::TopK { k: 40 })
//!     .then(SamplerStep::Temperature { temperature: 0.7 })
//!     .with_seed(42);
//! assert_ne!(sampling, Sampling::balanced());
//! ```
//!
//! The steps compute what llama.cpp's samplers compute (`tests/sampling` holds them to it), but draw their lots from
//! [PCG](https://www.pcg-random.org), which gives the same ones on every machine: same logits and seed, same tokens.
#![forbid(unsafe_code)]

mod candidates;
mod chain;
mod error;
mod infill;
mod logprobs;
mod parameters;
mod pick;
mod random;
mod repetition;
mod step;
mod temperature;
mod truncation;

pub use candidates::{Candidate, Candidates};
pub use chain::{ChooseToken, SamplerChain};
pub use error::{SampleError, SamplingError};
pub use logprobs::{TokenLogprob, TokenLogprobs};
pub use parameters::SamplingParameters;
pub use step::{LogitProcessor, Pick, Processor, SamplerStep};

use std::hash::{BuildHasher, RandomState};

use serde::{Deserialize, Serialize};

use crate::backend::Token;

/// How to choose tokens. The default is [`greedy`](Self::greedy).
///
/// As JSON: `{"steps": [{"top_k": {"k": 40}}, {"temperature": {"temperature": 0.8}}], "pick": "distribution", "seed": 1}`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Sampling {
    /// In this order.
    pub steps: Vec<SamplerStep>,
    /// What chooses among the candidates that are left.
    pub pick: Pick,
    /// What lots are drawn from: the same seed gives the same text on the same backend. `None` takes a new one each time.
    pub seed: Option<u64>,
}

impl Sampling {
    /// Chooses with `pick` among all tokens.
    pub fn new(pick: Pick) -> Self {
        Self { steps: Vec::new(), pick, seed: None }
    }

    /// The likeliest token, always: the same prompt gives the same text.
    pub fn greedy() -> Self {
        Self::new(Pick::Greedy)
    }

    /// What llama.cpp does unless told otherwise: top-k 40, top-p 0.95, min-p 0.05, temperature 0.8.
    pub fn balanced() -> Self {
        Self::new(Pick::Distribution)
            .then(SamplerStep::TopK { k: 40 })
            .then(SamplerStep::TopP { p: 0.95, min_keep: 1 })
            .then(SamplerStep::MinP { p: 0.05, min_keep: 1 })
            .then(SamplerStep::Temperature { temperature: 0.8 })
    }

    /// For stories: repetitions become unlikely (DRY 0.8), so does the obvious (XTC 0.5 at 0.1); min-p 0.05, temperature 1.
    pub fn creative() -> Self {
        Self::new(Pick::Distribution)
            .then(SamplerStep::dry(0.8))
            .then(SamplerStep::MinP { p: 0.05, min_keep: 1 })
            .then(SamplerStep::Xtc { probability: 0.5, threshold: 0.1, min_keep: 1 })
            .then(SamplerStep::Temperature { temperature: 1.0 })
    }

    /// Appends a step.
    pub fn then(mut self, step: SamplerStep) -> Self {
        self.steps.push(step);
        self
    }

    /// Appends a step of one's own.
    pub fn then_custom(self, processor: impl LogitProcessor + 'static) -> Self {
        self.then(SamplerStep::Custom(Processor::new(processor)))
    }

    /// Sets what lots are drawn from.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Checks that all parameters are in their range, and tokens below `n_tokens`.
    ///
    /// # Errors
    ///
    /// [`SamplingError`].
    pub fn check(&self, n_tokens: u32) -> Result<(), SamplingError> {
        self.steps.iter().try_for_each(|step| step.check(n_tokens))?;
        self.pick.check()
    }
}

/// A seed that nobody has foreseen.
fn draw_seed() -> u64 {
    // The standard library seeds its hash maps from the system's source of randomness. 32 bits are easier to write down.
    RandomState::new().hash_one(0_u8) >> 32
}

/// The index of the largest logit, the first of equal ones; `None` when there is a NaN or nothing.
pub fn likeliest(logits: &[f32]) -> Option<Token> {
    /// Lanes that the compiler can keep in one vector register of any tier.
    const LANES: usize = 16;
    let mut largest = [f32::NEG_INFINITY; LANES];
    let mut ordered = true;
    let chunks = logits.chunks_exact(LANES);
    let tail = chunks.remainder();
    for chunk in chunks {
        for (largest, &logit) in largest.iter_mut().zip(chunk) {
            ordered &= !logit.is_nan();
            *largest = if logit > *largest { logit } else { *largest };
        }
    }
    ordered &= tail.iter().all(|logit| !logit.is_nan());
    let largest = largest.iter().chain(tail).copied().fold(f32::NEG_INFINITY, f32::max);
    let index = logits.iter().position(|&logit| logit == largest)?;
    ordered.then_some(index as Token)
}

#[cfg(test)]
mod tests {
    use super::likeliest;

    #[test]
    fn the_first_of_equal_logits_wins_wherever_it_stands() {
        for length in [1, 5, 16, 17, 100] {
            for winner in 0..length {
                let mut logits = vec![-1.0; length];
                logits[winner..].fill(3.5);
                assert_eq!(likeliest(&logits), Some(winner as u32), "length {length}");
            }
        }
    }

    #[test]
    fn a_nan_anywhere_is_noticed() {
        for length in [1, 16, 33] {
            for place in 0..length {
                let mut logits = vec![1.0; length];
                logits[place] = f32::NAN;
                assert_eq!(likeliest(&logits), None, "{place} of {length}");
            }
        }
        assert_eq!(likeliest(&[]), None);
    }

    #[test]
    fn infinite_logits_are_numbers() {
        assert_eq!(likeliest(&[f32::NEG_INFINITY, 0.0, f32::INFINITY]), Some(2));
        assert_eq!(likeliest(&[f32::NEG_INFINITY; 20]), Some(0));
    }
}
