//! Steps that take candidates out by how likely they are.

use super::{Candidates, chain::Stage, random::Random};
use crate::backend::Token;

/// Candidates that are sorted at first where it is not known how many will be needed; then twice as many, and so on.
const STRIDE: usize = 128;

pub(super) struct TopK(pub(super) usize);

impl Stage for TopK {
    fn apply(&mut self, candidates: &mut Candidates, _random: &mut Random) {
        candidates.keep_likeliest(self.0);
    }
}

pub(super) struct TopP {
    pub(super) p: f32,
    pub(super) min_keep: usize,
    pub(super) odds: Vec<f32>,
}

impl Stage for TopP {
    fn apply(&mut self, candidates: &mut Candidates, _random: &mut Random) {
        if self.p >= 1.0 {
            return;
        }
        let enough = candidates.odds(&mut self.odds) * f64::from(self.p);
        let largest = candidates.largest();
        let (mut count, mut sum, mut sorted) = (0, 0.0, STRIDE);
        while count < candidates.len() {
            if count == sorted {
                sorted *= 2;
            }
            let next = candidates.likeliest(sorted)[count];
            sum += f64::from((next.logit - largest).exp());
            count += 1;
            if sum >= enough && count >= self.min_keep {
                break;
            }
        }
        candidates.truncate(count);
    }
}

pub(super) struct MinP {
    pub(super) p: f32,
    pub(super) min_keep: usize,
}

impl Stage for MinP {
    fn apply(&mut self, candidates: &mut Candidates, _random: &mut Random) {
        let bound = candidates.largest() + self.p.ln();
        let enough = candidates.as_slice().iter().filter(|candidate| candidate.logit >= bound).count();
        if enough < self.min_keep {
            candidates.keep_likeliest(self.min_keep);
        } else {
            candidates.retain(|candidate| candidate.logit >= bound);
        }
    }
}

pub(super) struct Typical {
    pub(super) p: f32,
    pub(super) min_keep: usize,
    pub(super) odds: Vec<f32>,
}

impl Stage for Typical {
    fn apply(&mut self, candidates: &mut Candidates, _random: &mut Random) {
        if self.p >= 1.0 {
            return;
        }
        // Only so that candidates which are equally typical come in an order that does not depend on the steps before.
        candidates.likeliest(candidates.len());
        let total = candidates.odds(&mut self.odds);
        let probability = |index: usize| f64::from(self.odds[index]) / total;
        let entropy: f64 = (0..self.odds.len()).map(|index| surprise(probability(index))).sum();
        let distance = |index: &usize| (-probability(*index).ln() - entropy).abs();
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        order.sort_by(|one, other| distance(one).total_cmp(&distance(other)));
        let (mut count, mut sum) = (0, 0.0);
        while count < order.len() {
            sum += probability(order[count]);
            count += 1;
            if sum > f64::from(self.p) && count >= self.min_keep {
                break;
            }
        }
        candidates.pick_out(&order[..count]);
    }
}

/// What an event of this probability adds to an entropy, in nats.
pub(super) fn surprise(probability: f64) -> f64 {
    if probability > 0.0 { -probability * probability.ln() } else { 0.0 }
}

pub(super) struct TopNSigma(pub(super) f32);

impl Stage for TopNSigma {
    fn apply(&mut self, candidates: &mut Candidates, _random: &mut Random) {
        let logits = || candidates.as_slice().iter().map(|candidate| f64::from(candidate.logit));
        let count = candidates.len() as f64;
        let mean = logits().sum::<f64>() / count;
        let variance = logits().map(|logit| (logit - mean).powi(2)).sum::<f64>() / count;
        let bound = f64::from(candidates.largest()) - f64::from(self.0) * variance.sqrt();
        candidates.retain(|candidate| f64::from(candidate.logit) >= bound);
    }
}

pub(super) struct Xtc {
    pub(super) probability: f32,
    pub(super) threshold: f32,
    pub(super) min_keep: usize,
    pub(super) odds: Vec<f32>,
    /// Whether it is at work for the token that is being chosen; drawn once for it, however often it is tried.
    pub(super) drawn: Option<bool>,
}

impl Stage for Xtc {
    fn apply(&mut self, candidates: &mut Candidates, random: &mut Random) {
        let active = *self.drawn.get_or_insert_with(|| random.share() < f64::from(self.probability));
        if !active || self.threshold > 0.5 {
            return;
        }
        let bound = candidates.odds(&mut self.odds) * f64::from(self.threshold);
        let largest = candidates.largest();
        let above = |logit: f32| f64::from((logit - largest).exp()) >= bound;
        let top = candidates.as_slice().iter().filter(|candidate| above(candidate.logit)).count();
        if top < 2 || candidates.len() - (top - 1) < self.min_keep {
            return;
        }
        let last = candidates.likeliest(top)[top - 1];
        candidates.retain(|candidate| candidate.token == last.token || !above(candidate.logit));
    }

    fn accept(&mut self, _token: Token) {
        self.drawn = None;
    }
}
