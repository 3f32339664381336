//! What chooses one of the candidates that are left.

use super::{Candidate, Candidates, Pick, chain::Choose, random::Random};
use crate::backend::Token;

pub(super) fn build(pick: Pick, n_tokens: u32) -> Box<dyn Choose> {
    match pick {
        Pick::Greedy => Box::new(Greedy),
        Pick::Distribution => Box::new(Distribution::default()),
        Pick::Mirostat { tau, eta, m } => {
            Box::new(Mirostat { estimate: Some((m as usize, n_tokens)), ..Mirostat::new(tau, eta) })
        }
        Pick::MirostatV2 { tau, eta } => Box::new(Mirostat::new(tau, eta)),
        Pick::AdaptiveP { target, decay } => Box::new(AdaptiveP::new(target, decay)),
    }
}

struct Greedy;

impl Choose for Greedy {
    fn choose(&mut self, candidates: &mut Candidates, _random: &mut Random) -> Token {
        candidates.likeliest(1)[0].token
    }
}

#[derive(Default)]
struct Distribution {
    odds: Vec<f32>,
}

impl Choose for Distribution {
    fn choose(&mut self, candidates: &mut Candidates, random: &mut Random) -> Token {
        let total = candidates.odds(&mut self.odds);
        candidates.as_slice()[random.index(&self.odds, total)].token
    }
}

/// Both of the paper's algorithms: the first one keeps so many candidates that their expected surprise is the bound, by an
/// estimate of the exponent of Zipf's law; the second one keeps those whose own surprise is at most the bound.
struct Mirostat {
    /// The first algorithm: candidates that the estimate looks at, and the size of the vocabulary.
    estimate: Option<(usize, u32)>,
    target: f64,
    rate: f64,
    /// In bits.
    bound: f64,
    odds: Vec<f32>,
    /// The token that was chosen last, and its surprise.
    chosen: Option<(Token, f64)>,
}

impl Mirostat {
    fn new(tau: f32, eta: f32) -> Self {
        let (target, rate) = (f64::from(tau), f64::from(eta));
        Self { estimate: None, target, rate, bound: 2.0 * target, odds: Vec::new(), chosen: None }
    }

    /// How many of the likeliest stay.
    fn kept(&self, candidates: &mut Candidates, total: f64) -> usize {
        let Some((looked_at, n_tokens)) = self.estimate else {
            // Surprise is the logarithm of total / odds.
            let largest = f64::from(candidates.largest());
            let least = largest + (total.log2() - self.bound) * std::f64::consts::LN_2;
            return candidates.as_slice().iter().filter(|candidate| f64::from(candidate.logit) >= least).count();
        };
        let likeliest = candidates.likeliest(looked_at);
        let (mut products, mut squares) = (0.0, 0.0);
        for (place, pair) in likeliest.windows(2).enumerate() {
            let [Candidate { logit: one, .. }, Candidate { logit: next, .. }] = *pair else { continue };
            let ranks = ((place + 2) as f64 / (place + 1) as f64).ln();
            products += ranks * f64::from(one - next);
            squares += ranks * ranks;
        }
        let exponent = products / squares;
        let excess = exponent - 1.0;
        let kept = (excess * self.bound.exp2() / (1.0 - f64::from(n_tokens).powf(-excess))).powf(1.0 / exponent);
        // With one candidate, or with equal ones, there is no exponent, and no reason to drop any.
        if kept.is_nan() { candidates.len() } else { kept.min(candidates.len() as f64) as usize }
    }
}

impl Choose for Mirostat {
    fn choose(&mut self, candidates: &mut Candidates, random: &mut Random) -> Token {
        let total = candidates.odds(&mut self.odds);
        let kept = self.kept(candidates, total).max(1);
        candidates.keep_likeliest(kept);
        let total = candidates.odds(&mut self.odds);
        let index = random.index(&self.odds, total);
        let token = candidates.as_slice()[index].token;
        self.chosen = Some((token, (total / f64::from(self.odds[index])).log2()));
        token
    }

    fn accept(&mut self, token: Token) {
        if let Some((chosen, surprise)) = self.chosen.take()
            && chosen == token
        {
            self.bound -= self.rate * (surprise - self.target);
        }
    }
}

/// Each candidate gets a new logit by how far its probability is from the one wanted: quadratic nearby, linear far off. What
/// is wanted lies as far beyond the target as the tokens so far, the older the less, have stayed behind it.
struct AdaptiveP {
    target: f32,
    decay: f32,
    sum: f32,
    weight: f32,
    odds: Vec<f32>,
    /// The token that was chosen last, and its probability.
    chosen: Option<(Token, f32)>,
}

impl AdaptiveP {
    const WIDTH: f32 = 0.3;
    const PEAK: f32 = 5.0;
    const SHARPNESS: f32 = 10.0;

    fn new(target: f32, decay: f32) -> Self {
        // As if all before had met the target, so that the first tokens do not weigh more than later ones.
        let weight = 1.0 / (1.0 - decay);
        Self { target, decay, sum: target * weight, weight, odds: Vec::new(), chosen: None }
    }
}

impl Choose for AdaptiveP {
    fn choose(&mut self, candidates: &mut Candidates, random: &mut Random) -> Token {
        let wanted = (2.0 * self.target - self.sum / self.weight).clamp(0.0, 1.0);
        let total = candidates.odds(&mut self.odds) as f32;
        let probabilities: Vec<f32> = self.odds.iter().map(|odds| odds / total).collect();
        candidates.replace(|index, _| {
            let distance = ((probabilities[index] - wanted) / Self::WIDTH).abs();
            Self::PEAK - Self::SHARPNESS * distance * distance / (1.0 + distance)
        });
        let total = candidates.odds(&mut self.odds);
        let index = random.index(&self.odds, total);
        let token = candidates.as_slice()[index].token;
        self.chosen = Some((token, probabilities[index]));
        token
    }

    fn accept(&mut self, token: Token) {
        if let Some((chosen, probability)) = self.chosen.take()
            && chosen == token
        {
            self.sum = probability + self.decay * self.sum;
            self.weight = 1.0 + self.decay * self.weight;
        }
    }
}
