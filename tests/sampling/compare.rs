//! What our steps leave, in a form that can be compared with what llama.cpp's leave.

use gguf_loader::{
    Tokenizer,
    backend::Token,
    sampling::{Candidates, ChooseToken as _, LogitProcessor, Pick, SamplerChain, SamplerStep, Sampling},
};

/// A step's own view: it keeps what the steps before it left.
struct Spy(std::sync::Arc<std::sync::Mutex<Vec<(Token, f32)>>>);

impl LogitProcessor for Spy {
    fn process(&mut self, candidates: &mut Candidates) {
        let left = candidates.as_slice().iter().map(|candidate| (candidate.token, candidate.logit));
        *self.0.lock().unwrap() = left.collect();
    }
}

/// What `steps` leave of `logits` after `history`, by token: probabilities, so that a constant on all logits is none.
pub(crate) fn left(
    tokenizer: &Tokenizer,
    steps: &[SamplerStep],
    history: &[Token],
    logits: &[f32],
) -> Vec<(Token, f64)> {
    let seen = std::sync::Arc::default();
    let mut sampling = Sampling::new(Pick::Greedy);
    sampling.steps = steps.to_vec();
    let sampling = sampling.then_custom(Spy(std::sync::Arc::clone(&seen)));
    let mut chain = SamplerChain::new(tokenizer, &sampling).unwrap();
    history.iter().for_each(|&token| chain.accept(token));
    chain.choose(logits).unwrap();
    let seen = seen.lock().unwrap();
    probabilities(&seen)
}

/// Probabilities of what is left, by token.
pub(crate) fn probabilities(candidates: &[(Token, f32)]) -> Vec<(Token, f64)> {
    let largest = candidates.iter().fold(f32::NEG_INFINITY, |largest, (_, logit)| largest.max(*logit));
    let odds = |logit: f32| f64::from(logit - largest).exp();
    let total: f64 = candidates.iter().map(|(_, logit)| odds(*logit)).sum();
    let mut probabilities: Vec<(Token, f64)> =
        candidates.iter().map(|&(token, logit)| (token, odds(logit) / total)).collect();
    probabilities.sort_by_key(|(token, _)| *token);
    probabilities
}
