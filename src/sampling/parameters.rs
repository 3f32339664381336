//! A chain by its parameters, for command lines and requests.

use serde::{Deserialize, Serialize};

use super::{Pick, SamplerStep, Sampling};
use crate::backend::Token;

/// Parameters by the names that llama.cpp has for them. What is set becomes a step, in llama.cpp's order: biases, penalties,
/// DRY, top-n-sigma, top-k, typical, top-p, min-p, XTC, temperature.
///
/// Nothing is set by default; a temperature of 0, or none of all, is greedy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingParameters {
    /// [`SamplerStep::Temperature`].
    pub temperature: Option<f32>,
    /// Makes it a [`SamplerStep::DynamicTemperature`] of this range.
    pub dynatemp_range: Option<f32>,
    /// Its exponent (default 1).
    pub dynatemp_exponent: Option<f32>,
    /// [`SamplerStep::TopK`]; 0 keeps all.
    pub top_k: Option<u32>,
    /// [`SamplerStep::TopP`].
    pub top_p: Option<f32>,
    /// [`SamplerStep::MinP`].
    pub min_p: Option<f32>,
    /// [`SamplerStep::Typical`].
    pub typical_p: Option<f32>,
    /// [`SamplerStep::TopNSigma`].
    pub top_n_sigma: Option<f32>,
    /// Candidates that all of these keep in any case (default 1).
    pub min_keep: Option<u32>,
    /// [`SamplerStep::Xtc`]: its probability.
    pub xtc_probability: Option<f32>,
    /// Its threshold (default 0.1).
    pub xtc_threshold: Option<f32>,
    /// [`SamplerStep::Penalties`]: repetition.
    pub repeat_penalty: Option<f32>,
    /// Frequency.
    pub frequency_penalty: Option<f32>,
    /// Presence.
    pub presence_penalty: Option<f32>,
    /// The tokens that they look back over (default 64).
    pub repeat_last_n: Option<u32>,
    /// [`SamplerStep::Dry`]: its multiplier.
    pub dry_multiplier: Option<f32>,
    /// Its base (default 1.75).
    pub dry_base: Option<f32>,
    /// Its allowed length (default 2).
    pub dry_allowed_length: Option<u32>,
    /// The tokens that it looks back over (default 4096).
    pub dry_last_n: Option<u32>,
    /// Its breakers (default: line break, colon, quotation mark, asterisk).
    pub dry_breakers: Option<Vec<String>>,
    /// [`SamplerStep::LogitBias`].
    pub logit_bias: Vec<(Token, f32)>,
    /// [`Pick::Mirostat`] (1) or [`Pick::MirostatV2`] (2); any other number is none.
    pub mirostat: Option<u8>,
    /// Its target (default 5).
    pub mirostat_tau: Option<f32>,
    /// Its rate (default 0.1).
    pub mirostat_eta: Option<f32>,
    /// [`Pick::AdaptiveP`]: its target.
    pub adaptive_target: Option<f32>,
    /// Its decay (default 0.9).
    pub adaptive_decay: Option<f32>,
    /// [`Sampling::seed`].
    pub seed: Option<u64>,
}

impl SamplingParameters {
    /// What [`Sampling::balanced`] sets.
    pub fn balanced() -> Self {
        Self { top_k: Some(40), top_p: Some(0.95), min_p: Some(0.05), temperature: Some(0.8), ..Self::default() }
    }

    /// What [`Sampling::creative`] sets.
    pub fn creative() -> Self {
        Self {
            dry_multiplier: Some(0.8),
            min_p: Some(0.05),
            xtc_probability: Some(0.5),
            temperature: Some(1.0),
            ..Self::default()
        }
    }

    /// These, and where nothing is set, what `base` sets.
    pub fn or(self, base: Self) -> Self {
        Self {
            temperature: self.temperature.or(base.temperature),
            dynatemp_range: self.dynatemp_range.or(base.dynatemp_range),
            dynatemp_exponent: self.dynatemp_exponent.or(base.dynatemp_exponent),
            top_k: self.top_k.or(base.top_k),
            top_p: self.top_p.or(base.top_p),
            min_p: self.min_p.or(base.min_p),
            typical_p: self.typical_p.or(base.typical_p),
            top_n_sigma: self.top_n_sigma.or(base.top_n_sigma),
            min_keep: self.min_keep.or(base.min_keep),
            xtc_probability: self.xtc_probability.or(base.xtc_probability),
            xtc_threshold: self.xtc_threshold.or(base.xtc_threshold),
            repeat_penalty: self.repeat_penalty.or(base.repeat_penalty),
            frequency_penalty: self.frequency_penalty.or(base.frequency_penalty),
            presence_penalty: self.presence_penalty.or(base.presence_penalty),
            repeat_last_n: self.repeat_last_n.or(base.repeat_last_n),
            dry_multiplier: self.dry_multiplier.or(base.dry_multiplier),
            dry_base: self.dry_base.or(base.dry_base),
            dry_allowed_length: self.dry_allowed_length.or(base.dry_allowed_length),
            dry_last_n: self.dry_last_n.or(base.dry_last_n),
            dry_breakers: self.dry_breakers.or(base.dry_breakers),
            logit_bias: if self.logit_bias.is_empty() { base.logit_bias } else { self.logit_bias },
            mirostat: self.mirostat.or(base.mirostat),
            mirostat_tau: self.mirostat_tau.or(base.mirostat_tau),
            mirostat_eta: self.mirostat_eta.or(base.mirostat_eta),
            adaptive_target: self.adaptive_target.or(base.adaptive_target),
            adaptive_decay: self.adaptive_decay.or(base.adaptive_decay),
            seed: self.seed.or(base.seed),
        }
    }

    fn pick(&self) -> Pick {
        let (tau, eta) = (self.mirostat_tau.unwrap_or(5.0), self.mirostat_eta.unwrap_or(0.1));
        match (self.mirostat, self.adaptive_target) {
            (Some(1), _) => Pick::Mirostat { tau, eta, m: 100 },
            (Some(2), _) => Pick::MirostatV2 { tau, eta },
            (_, Some(target)) => Pick::AdaptiveP { target, decay: self.adaptive_decay.unwrap_or(0.9) },
            // Only to choose at random needs a temperature that is not 0.
            _ if self.temperature == Some(0.0) || *self == (Self { seed: self.seed, ..Self::default() }) => {
                Pick::Greedy
            }
            _ => Pick::Distribution,
        }
    }
}

impl From<SamplingParameters> for Sampling {
    fn from(parameters: SamplingParameters) -> Self {
        let p = &parameters;
        let mut sampling = Self { steps: Vec::new(), pick: p.pick(), seed: p.seed };
        let mut step = |step: Option<SamplerStep>| sampling.steps.extend(step);
        let min_keep = p.min_keep.unwrap_or(1);

        step((!p.logit_bias.is_empty()).then(|| SamplerStep::LogitBias { biases: p.logit_bias.clone() }));
        let penalties = [p.repeat_penalty, p.frequency_penalty, p.presence_penalty];
        step(penalties.iter().any(Option::is_some).then(|| SamplerStep::Penalties {
            last: p.repeat_last_n.unwrap_or(64),
            repetition: p.repeat_penalty.unwrap_or(1.0),
            frequency: p.frequency_penalty.unwrap_or(0.0),
            presence: p.presence_penalty.unwrap_or(0.0),
        }));
        step(p.dry_multiplier.map(|multiplier| {
            let mut dry = SamplerStep::dry(multiplier);
            if let SamplerStep::Dry { base, allowed_length, last, breakers, .. } = &mut dry {
                *base = p.dry_base.unwrap_or(*base);
                *allowed_length = p.dry_allowed_length.unwrap_or(*allowed_length);
                *last = p.dry_last_n.unwrap_or(*last);
                if let Some(own) = &p.dry_breakers {
                    breakers.clone_from(own);
                }
            }
            dry
        }));
        step(p.top_n_sigma.map(|n| SamplerStep::TopNSigma { n }));
        step(p.top_k.filter(|&k| k > 0).map(|k| SamplerStep::TopK { k }));
        step(p.typical_p.map(|p| SamplerStep::Typical { p, min_keep }));
        step(p.top_p.map(|p| SamplerStep::TopP { p, min_keep }));
        step(p.min_p.map(|p| SamplerStep::MinP { p, min_keep }));
        step(p.xtc_probability.map(|probability| SamplerStep::Xtc {
            probability,
            threshold: p.xtc_threshold.unwrap_or(0.1),
            min_keep,
        }));
        step(match (p.temperature, p.dynatemp_range) {
            (temperature, Some(range)) => Some(SamplerStep::DynamicTemperature {
                temperature: temperature.unwrap_or(1.0),
                range,
                exponent: p.dynatemp_exponent.unwrap_or(1.0),
            }),
            // 0 is greedy, which needs no step.
            (Some(temperature), None) if temperature != 0.0 => Some(SamplerStep::Temperature { temperature }),
            _ => None,
        });
        sampling
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_are_those_of_the_sampling() {
        assert_eq!(Sampling::from(SamplingParameters::default()), Sampling::greedy());
        assert_eq!(Sampling::from(SamplingParameters::balanced()), Sampling::balanced());
        assert_eq!(Sampling::from(SamplingParameters::creative()), Sampling::creative());
    }

    #[test]
    fn what_is_set_wins_over_the_base_and_a_temperature_of_0_is_greedy() {
        let cold = SamplingParameters { temperature: Some(0.0), top_k: Some(0), ..SamplingParameters::default() };
        let sampling = Sampling::from(cold.or(SamplingParameters::balanced()));
        assert_eq!(sampling.pick, Pick::Greedy);
        assert!(
            !sampling
                .steps
                .iter()
                .any(|step| matches!(step, SamplerStep::TopK { .. } | SamplerStep::Temperature { .. }))
        );
    }
}
