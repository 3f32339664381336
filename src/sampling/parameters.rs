//! A chain by its parameters, for command lines and requests.

use serde::{Deserialize, Serialize};

use super::{Pick, SamplerStep, Sampling, SamplingError};
use crate::backend::Token;

/// Parameters by the names that llama.cpp has for them. What is set becomes a step, in llama.cpp's order: biases, penalties,
/// DRY, top-n-sigma, top-k, typical, top-p, min-p, XTC, temperature.
///
/// Nothing is set by default, and that is greedy: the likeliest token. Penalties, DRY and biases change which one that is. What
/// is for choosing by chance (a temperature, or what keeps some of the candidates) makes it a choice by chance, and a
/// temperature of 0 makes it greedy whatever else is set.
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
    /// [`Pick::Mirostat`] (1) or [`Pick::MirostatV2`] (2); 0 is none.
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

    /// Checks that nothing is set which would do nothing.
    fn check(&self) -> Result<(), SamplingError> {
        let keeps = self.top_p.is_some() || self.min_p.is_some() || self.typical_p.is_some();
        let penalises = self.repeat_penalty.is_some() || self.frequency_penalty.is_some();
        let parts = [
            ("dynatemp_exponent", self.dynatemp_exponent.is_some(), "dynatemp_range", self.dynatemp_range.is_some()),
            (
                "min_keep",
                self.min_keep.is_some(),
                "top_p, min_p, typical_p or xtc_probability",
                keeps || self.xtc_probability.is_some(),
            ),
            ("xtc_threshold", self.xtc_threshold.is_some(), "xtc_probability", self.xtc_probability.is_some()),
            (
                "repeat_last_n",
                self.repeat_last_n.is_some(),
                "repeat_penalty, frequency_penalty or presence_penalty",
                penalises || self.presence_penalty.is_some(),
            ),
            ("dry_base", self.dry_base.is_some(), "dry_multiplier", self.dry_multiplier.is_some()),
            ("dry_allowed_length", self.dry_allowed_length.is_some(), "dry_multiplier", self.dry_multiplier.is_some()),
            ("dry_last_n", self.dry_last_n.is_some(), "dry_multiplier", self.dry_multiplier.is_some()),
            ("dry_breakers", self.dry_breakers.is_some(), "dry_multiplier", self.dry_multiplier.is_some()),
            ("mirostat_tau", self.mirostat_tau.is_some(), "mirostat", self.mirostat.is_some()),
            ("mirostat_eta", self.mirostat_eta.is_some(), "mirostat", self.mirostat.is_some()),
            ("adaptive_decay", self.adaptive_decay.is_some(), "adaptive_target", self.adaptive_target.is_some()),
        ];
        match parts.into_iter().find(|&(_, is_set, _, has_whole)| is_set && !has_whole) {
            Some((parameter, _, needs, _)) => Err(SamplingError::Alone { parameter, needs }),
            None => Ok(()),
        }
    }

    fn is_cold(&self) -> bool {
        self.temperature == Some(0.0) && self.dynatemp_range.unwrap_or(0.0) == 0.0
    }

    fn pick(&self) -> Result<Pick, SamplingError> {
        let (tau, eta) = (self.mirostat_tau.unwrap_or(5.0), self.mirostat_eta.unwrap_or(0.1));
        let own = match (self.mirostat.unwrap_or(0), self.adaptive_target) {
            (0, None) => None,
            (0, Some(target)) => Some(Pick::AdaptiveP { target, decay: self.adaptive_decay.unwrap_or(0.9) }),
            (1 | 2, Some(_)) => return Err(SamplingError::Together("mirostat", "adaptive_target")),
            (1, None) => Some(Pick::Mirostat { tau, eta, m: 100 }),
            (2, None) => Some(Pick::MirostatV2 { tau, eta }),
            (other, _) => {
                return Err(SamplingError::OutOfRange {
                    parameter: "mirostat",
                    value: other.into(),
                    range: "0, 1 or 2",
                });
            }
        };
        // Only to choose at random needs any of these.
        let by_chance = self.temperature.is_some()
            || self.dynatemp_range.is_some()
            || self.top_k.is_some()
            || self.top_p.is_some()
            || self.min_p.is_some()
            || self.typical_p.is_some()
            || self.top_n_sigma.is_some()
            || self.xtc_probability.is_some();
        Ok(match own {
            _ if self.is_cold() => Pick::Greedy,
            Some(own) => own,
            None if by_chance => Pick::Distribution,
            None => Pick::Greedy,
        })
    }
}

impl TryFrom<SamplingParameters> for Sampling {
    type Error = SamplingError;

    /// # Errors
    ///
    /// [`SamplingError`] for what would do nothing, or cannot be combined; ranges are checked with the chain.
    fn try_from(parameters: SamplingParameters) -> Result<Self, SamplingError> {
        let p = &parameters;
        p.check()?;
        let mut sampling = Self { steps: Vec::new(), pick: p.pick()?, seed: p.seed };
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
            _ if p.is_cold() => None,
            (temperature, Some(range)) => Some(SamplerStep::DynamicTemperature {
                temperature: temperature.unwrap_or(1.0),
                range,
                exponent: p.dynatemp_exponent.unwrap_or(1.0),
            }),
            (Some(temperature), None) => Some(SamplerStep::Temperature { temperature }),
            (None, None) => None,
        });
        Ok(sampling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(change: impl FnOnce(&mut SamplingParameters)) -> Result<Sampling, SamplingError> {
        let mut parameters = SamplingParameters::default();
        change(&mut parameters);
        Sampling::try_from(parameters)
    }

    #[test]
    fn the_presets_are_those_of_the_sampling() {
        assert_eq!(Sampling::try_from(SamplingParameters::default()), Ok(Sampling::greedy()));
        assert_eq!(Sampling::try_from(SamplingParameters::balanced()), Ok(Sampling::balanced()));
        assert_eq!(Sampling::try_from(SamplingParameters::creative()), Ok(Sampling::creative()));
    }

    #[test]
    fn what_is_set_wins_over_the_base_and_a_temperature_of_0_is_greedy() {
        let cold = SamplingParameters { temperature: Some(0.0), top_k: Some(0), ..SamplingParameters::default() };
        let sampling = Sampling::try_from(cold.or(SamplingParameters::balanced())).unwrap();
        assert_eq!(sampling.pick, Pick::Greedy);
        let is_gone = |step: &SamplerStep| matches!(step, SamplerStep::TopK { .. } | SamplerStep::Temperature { .. });
        assert!(!sampling.steps.iter().any(is_gone));
    }

    #[test]
    fn a_temperature_of_0_is_greedy_whatever_else_would_choose() {
        type Change = fn(&mut SamplingParameters);
        let others: [Change; 3] =
            [|p| p.mirostat = Some(1), |p| p.mirostat = Some(2), |p| p.adaptive_target = Some(0.5)];
        for other in others {
            let warm = sampling(|p| {
                other(p);
                p.temperature = Some(0.5);
            });
            assert_eq!(warm.unwrap().steps, [SamplerStep::Temperature { temperature: 0.5 }]);
            let cold = sampling(|p| {
                other(p);
                p.temperature = Some(0.0);
            });
            assert_eq!(cold, Ok(Sampling::greedy()));
        }
        // It has a range to go up in.
        let dynamic = sampling(|p| (p.temperature, p.dynatemp_range) = (Some(0.0), Some(0.5))).unwrap();
        assert_eq!(dynamic.pick, Pick::Distribution);
    }

    #[test]
    fn penalties_and_biases_alone_leave_it_greedy() {
        type Change = fn(&mut SamplingParameters);
        let changes: [Change; 5] = [
            |p| p.repeat_penalty = Some(1.1),
            |p| p.frequency_penalty = Some(0.1),
            |p| p.presence_penalty = Some(0.1),
            |p| p.dry_multiplier = Some(0.8),
            |p| p.logit_bias = vec![(1, 1.0)],
        ];
        for change in changes {
            let sampling = sampling(change).unwrap();
            assert_eq!((sampling.pick, sampling.steps.len()), (Pick::Greedy, 1));
        }
        assert_eq!(sampling(|p| p.min_p = Some(0.1)).unwrap().pick, Pick::Distribution);
    }

    #[test]
    fn what_would_do_nothing_is_an_error_that_says_what_it_needs() {
        type Change = fn(&mut SamplingParameters);
        let parts: [(Change, Change, &str); 11] = [
            (|p| p.dynatemp_exponent = Some(1.0), |p| p.dynatemp_range = Some(0.1), "dynatemp_exponent"),
            (|p| p.min_keep = Some(2), |p| p.typical_p = Some(0.5), "min_keep"),
            (|p| p.xtc_threshold = Some(0.1), |p| p.xtc_probability = Some(0.1), "xtc_threshold"),
            (|p| p.repeat_last_n = Some(9), |p| p.presence_penalty = Some(0.1), "repeat_last_n"),
            (|p| p.dry_base = Some(2.0), |p| p.dry_multiplier = Some(0.1), "dry_base"),
            (|p| p.dry_allowed_length = Some(2), |p| p.dry_multiplier = Some(0.1), "dry_allowed_length"),
            (|p| p.dry_last_n = Some(2), |p| p.dry_multiplier = Some(0.1), "dry_last_n"),
            (|p| p.dry_breakers = Some(Vec::new()), |p| p.dry_multiplier = Some(0.1), "dry_breakers"),
            (|p| p.mirostat_tau = Some(2.0), |p| p.mirostat = Some(0), "mirostat_tau"),
            (|p| p.mirostat_eta = Some(0.1), |p| p.mirostat = Some(2), "mirostat_eta"),
            (|p| p.adaptive_decay = Some(0.1), |p| p.adaptive_target = Some(0.1), "adaptive_decay"),
        ];
        for (part, whole, name) in parts {
            let error = sampling(part).unwrap_err();
            assert!(matches!(error, SamplingError::Alone { parameter, .. } if parameter == name), "{name}: {error}");
            let both = sampling(|p| {
                part(p);
                whole(p);
            });
            assert!(both.is_ok(), "{name}: {both:?}");
        }
        let third = sampling(|p| p.mirostat = Some(3));
        assert!(matches!(third, Err(SamplingError::OutOfRange { parameter: "mirostat", value: 3.0, .. })), "{third:?}");
        let both = sampling(|p| (p.mirostat, p.adaptive_target) = (Some(2), Some(0.5)));
        assert_eq!(both, Err(SamplingError::Together("mirostat", "adaptive_target")));
    }
}
