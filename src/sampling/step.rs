//! The steps that there are, as plain data.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{Candidates, SamplingError};
use crate::backend::Token;

/// A step that rules out candidates, or changes their logits. The names and parameters are llama.cpp's.
///
/// `min_keep` is how many candidates stay in any case, at least one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum SamplerStep {
    /// Divides the logits by `temperature`: below 1 the likely become likelier. 0 leaves only the likeliest.
    Temperature {
        /// At least 0.
        temperature: f32,
    },
    /// A temperature between `temperature - range` and `temperature + range`, the higher the less certain the model is:
    /// (entropy / largest possible entropy) ^ `exponent` of the way. <https://arxiv.org/abs/2309.02772>
    DynamicTemperature {
        /// At least 0.
        temperature: f32,
        /// At least 0.
        range: f32,
        /// Above 0; 1 follows the entropy in proportion.
        exponent: f32,
    },
    /// Keeps the `k` likeliest. <https://arxiv.org/abs/1805.04833>
    TopK {
        /// At least 1.
        k: u32,
    },
    /// Keeps the likeliest that together have probability `p`: nucleus sampling. <https://arxiv.org/abs/1904.09751>
    TopP {
        /// 0 to 1.
        p: f32,
        /// See above.
        min_keep: u32,
    },
    /// Keeps those that have at least `p` times the probability of the likeliest. <https://arxiv.org/abs/2407.01082>
    MinP {
        /// 0 to 1.
        p: f32,
        /// See above.
        min_keep: u32,
    },
    /// Keeps those whose surprise is nearest to the expected one, up to probability `p`: locally typical sampling.
    /// <https://arxiv.org/abs/2202.00666>
    Typical {
        /// 0 to 1.
        p: f32,
        /// See above.
        min_keep: u32,
    },
    /// Keeps those whose logit is at most `n` standard deviations below the largest. <https://arxiv.org/abs/2411.07641>
    TopNSigma {
        /// Above 0.
        n: f32,
    },
    /// With probability `probability`, drops all candidates of at least `threshold` but the least likely of them:
    /// "exclude top choices". <https://github.com/oobabooga/text-generation-webui/pull/6335>
    Xtc {
        /// 0 to 1.
        probability: f32,
        /// 0 to 1; above 0.5 nothing is ever dropped.
        threshold: f32,
        /// See above.
        min_keep: u32,
    },
    /// Makes the tokens that stand among the last ones less likely. <https://arxiv.org/abs/1909.05858>
    Penalties {
        /// How many of the last tokens count, those of the prompt too.
        last: u32,
        /// Divides positive logits of such tokens, multiplies negative ones; above 0, and 1 does nothing.
        repetition: f32,
        /// Is subtracted for each occurrence.
        frequency: f32,
        /// Is subtracted once.
        presence: f32,
    },
    /// "Don't repeat yourself": a token that would continue a repetition of `length` tokens loses
    /// `multiplier * base ^ (length - allowed_length)`. <https://github.com/oobabooga/text-generation-webui/pull/5677>
    Dry {
        /// At least 0; 0 does nothing.
        multiplier: f32,
        /// At least 1.
        base: f32,
        /// Shorter repetitions are free; at least 1.
        allowed_length: u32,
        /// How many of the last tokens are searched, those of the prompt too.
        last: u32,
        /// Texts across which nothing counts as a repetition.
        breakers: Vec<String>,
    },
    /// Adds to the logits of some tokens; minus infinity rules a token out.
    LogitBias {
        /// The tokens, and what is added. A token may stand there more than once.
        biases: Vec<(Token, f32)>,
    },
    /// For filling a gap in a text: joins candidates that begin alike, and prefers the end when it is likely. Put it after
    /// `TopK` and `TopP`: it looks at no more than 256 candidates.
    Infill,
    /// A step of the program's own.
    #[serde(skip)]
    Custom(Processor),
}

/// What chooses among the candidates that the steps have left.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Pick {
    /// The likeliest.
    #[default]
    Greedy,
    /// At random, by their probabilities.
    Distribution,
    /// At random, with a surprise that is held near `tau`, by an estimate over the `m` likeliest.
    /// <https://arxiv.org/abs/2007.14966>
    Mirostat {
        /// The surprise, in bits; above 0.
        tau: f32,
        /// How fast it learns; above 0, at most 1.
        eta: f32,
        /// At least 2; 100 in the paper.
        m: u32,
    },
    /// The same without an estimate.
    MirostatV2 {
        /// The surprise, in bits; above 0.
        tau: f32,
        /// How fast it learns; above 0, at most 1.
        eta: f32,
    },
    /// At random, with a preference for tokens whose probability is near one that over time leads to `target`.
    /// <https://github.com/ggml-org/llama.cpp/pull/17927>
    AdaptiveP {
        /// 0 to 1.
        target: f32,
        /// How slowly it forgets: 0 to 0.99.
        decay: f32,
    },
}

/// A step of the program's own. It sees the candidates as the steps before it left them.
pub trait LogitProcessor: Send {
    /// Is told that a text begins: forget the one before, so that the same seed gives the same text. The tokens of the prompt
    /// come next, one [`accept`](Self::accept) each.
    fn begin(&mut self) {}

    /// Changes logits, or takes candidates out. It may be called several times for one token, each time with fewer candidates,
    /// where a grammar refuses what was chosen: what it remembers belongs into [`accept`](Self::accept).
    fn process(&mut self, candidates: &mut Candidates);

    /// Is told which token was taken, those of the prompt included.
    fn accept(&mut self, token: Token) {
        let _ = token;
    }
}

/// A [`LogitProcessor`] in a chain. Clones share it, and with it its memory: sequences that are generated at the same time need
/// one each.
#[derive(Clone)]
pub struct Processor(Arc<Mutex<dyn LogitProcessor>>);

impl Processor {
    /// Holds `processor`.
    pub fn new(processor: impl LogitProcessor + 'static) -> Self {
        Self(Arc::new(Mutex::new(processor)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, dyn LogitProcessor + 'static> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Only so that steps can be read from JSON, which never has one.
impl Default for Processor {
    fn default() -> Self {
        struct Nothing;
        impl LogitProcessor for Nothing {
            fn process(&mut self, _: &mut Candidates) {}
        }
        Self::new(Nothing)
    }
}

impl fmt::Debug for Processor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Processor")
    }
}

/// Two are equal when they are the same object.
impl PartialEq for Processor {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl SamplerStep {
    /// [`Dry`](Self::Dry) with llama.cpp's defaults: base 1.75, repetitions of two tokens and more among the last 4096, ended
    /// by a line break, a colon, a quotation mark or an asterisk.
    pub fn dry(multiplier: f32) -> Self {
        let breakers = ["\n", ":", "\"", "*"].map(str::to_owned).to_vec();
        Self::Dry { multiplier, base: 1.75, allowed_length: 2, last: 4096, breakers }
    }

    /// Checks that all parameters are in their range, and tokens below `n_tokens`.
    ///
    /// # Errors
    ///
    /// [`SamplingError`].
    pub fn check(&self, n_tokens: u32) -> Result<(), SamplingError> {
        match *self {
            Self::Temperature { temperature } => not_negative("temperature", temperature),
            Self::DynamicTemperature { temperature, range, exponent } => {
                not_negative("temperature", temperature)?;
                not_negative("dynamic temperature range", range)?;
                positive("dynamic temperature exponent", exponent)
            }
            Self::TopK { k } => within("top-k", k as f32, k >= 1, "at least 1"),
            Self::TopP { p, .. } => share("top-p", p),
            Self::MinP { p, .. } => share("min-p", p),
            Self::Typical { p, .. } => share("typical p", p),
            Self::TopNSigma { n } => positive("top-n-sigma", n),
            Self::Xtc { probability, threshold, .. } => {
                share("XTC probability", probability)?;
                share("XTC threshold", threshold)
            }
            Self::Penalties { last: _, repetition, frequency, presence } => {
                positive("repetition penalty", repetition)?;
                finite("frequency penalty", frequency)?;
                finite("presence penalty", presence)
            }
            Self::Dry { multiplier, base, allowed_length, last: _, ref breakers } => {
                not_negative("DRY multiplier", multiplier)?;
                within("DRY base", base, base >= 1.0 && base.is_finite(), "at least 1")?;
                within("DRY allowed length", allowed_length as f32, allowed_length >= 1, "at least 1")?;
                if breakers.iter().any(String::is_empty) { Err(SamplingError::EmptyBreaker) } else { Ok(()) }
            }
            Self::LogitBias { ref biases } => biases.iter().try_for_each(|&(token, bias)| {
                if token >= n_tokens {
                    return Err(SamplingError::Token { token, n_tokens });
                }
                within("logit bias", bias, bias < f32::INFINITY, "a number or minus infinity")
            }),
            Self::Infill | Self::Custom(_) => Ok(()),
        }
    }
}

impl Pick {
    /// Checks that all parameters are in their range.
    ///
    /// # Errors
    ///
    /// [`SamplingError::OutOfRange`].
    pub fn check(&self) -> Result<(), SamplingError> {
        let rate = |eta: f32| within("mirostat eta", eta, eta > 0.0 && eta <= 1.0, "above 0, at most 1");
        match *self {
            Self::Greedy | Self::Distribution => Ok(()),
            Self::Mirostat { tau, eta, m } => {
                positive("mirostat tau", tau)?;
                rate(eta)?;
                within("mirostat m", m as f32, m >= 2, "at least 2")
            }
            Self::MirostatV2 { tau, eta } => {
                positive("mirostat tau", tau)?;
                rate(eta)
            }
            Self::AdaptiveP { target, decay } => {
                share("adaptive-p target", target)?;
                within("adaptive-p decay", decay, (0.0..=0.99).contains(&decay), "0 to 0.99")
            }
        }
    }
}

fn within(parameter: &'static str, value: f32, is: bool, range: &'static str) -> Result<(), SamplingError> {
    if is { Ok(()) } else { Err(SamplingError::OutOfRange { parameter, value, range }) }
}

fn not_negative(parameter: &'static str, value: f32) -> Result<(), SamplingError> {
    within(parameter, value, value >= 0.0 && value.is_finite(), "at least 0")
}

fn positive(parameter: &'static str, value: f32) -> Result<(), SamplingError> {
    within(parameter, value, value > 0.0 && value.is_finite(), "above 0")
}

fn finite(parameter: &'static str, value: f32) -> Result<(), SamplingError> {
    within(parameter, value, value.is_finite(), "a finite number")
}

fn share(parameter: &'static str, value: f32) -> Result<(), SamplingError> {
    within(parameter, value, (0.0..=1.0).contains(&value), "0 to 1")
}
