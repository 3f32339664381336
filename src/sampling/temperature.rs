//! Steps that make the likely likelier, or less so.

use super::{Candidates, chain::Stage, random::Random, truncation::surprise};

pub(super) struct Temperature(pub(super) f32);

impl Stage for Temperature {
    fn apply(&mut self, candidates: &mut Candidates, _random: &mut Random) {
        divide(candidates, self.0);
    }
}

pub(super) struct DynamicTemperature {
    pub(super) temperature: f32,
    pub(super) range: f32,
    pub(super) exponent: f32,
    pub(super) odds: Vec<f32>,
}

impl Stage for DynamicTemperature {
    fn apply(&mut self, candidates: &mut Candidates, _random: &mut Random) {
        if candidates.len() < 2 {
            return;
        }
        let total = candidates.odds(&mut self.odds);
        let entropy: f64 = self.odds.iter().map(|&odds| surprise(f64::from(odds) / total)).sum();
        let largest_entropy = (candidates.len() as f64).ln();
        let uncertainty = (entropy / largest_entropy).powf(f64::from(self.exponent)) as f32;
        let (lowest, highest) = ((self.temperature - self.range).max(0.0), self.temperature + self.range);
        divide(candidates, lowest + (highest - lowest) * uncertainty);
    }
}

fn divide(candidates: &mut Candidates, temperature: f32) {
    if temperature == 1.0 {
        return;
    }
    let logits = candidates.as_slice().iter().map(|candidate| candidate.logit);
    let (least, largest) =
        logits.fold((f32::MAX, f32::MIN), |(least, largest), logit| (least.min(logit), largest.max(logit)));
    // A temperature so low that a quotient is no number leaves the likeliest, as 0 does.
    if !(least / temperature).is_finite() || !(largest / temperature).is_finite() {
        return candidates.keep_likeliest(1);
    }
    candidates.replace(|_, candidate| candidate.logit / temperature);
}
