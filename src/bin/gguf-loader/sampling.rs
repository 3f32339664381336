//! The options that say how tokens are chosen.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use gguf_loader::{
    backend::Token,
    generation::GenerateError,
    sampling::{Sampling, SamplingParameters},
};

use crate::failure::{Exit, Failure};

/// Parameters to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// The likeliest token, always
    Greedy,
    /// What llama.cpp does: top-k 40, top-p 0.95, min-p 0.05, temperature 0.8
    Balanced,
    /// For stories: DRY 0.8, min-p 0.05, XTC 0.5 at 0.1, temperature 1
    Creative,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Parameters to begin with; the options below change them
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// What lots are drawn from: the same seed gives the same text [default: a new one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Below 1 the likely becomes likelier; 0 takes the likeliest; at least 0
    #[arg(long, visible_alias = "temp", value_name = "T")]
    temperature: Option<f32>,
    /// Let the temperature go so far up and down, the higher the less certain the model is; at least 0
    #[arg(long, value_name = "T")]
    dynatemp_range: Option<f32>,
    /// Above 1 it rises later; above 0 [default: 1]
    #[arg(long, value_name = "E")]
    dynatemp_exponent: Option<f32>,
    /// Keep the K likeliest; 0 keeps all
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Keep the likeliest that together have this probability, 0 to 1
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Keep what has this share of the likeliest's probability, 0 to 1
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Keep the most typical that together have this probability, 0 to 1
    #[arg(long, value_name = "P")]
    typical_p: Option<f32>,
    /// Keep what is at most N standard deviations below the likeliest; above 0
    #[arg(long, value_name = "N")]
    top_n_sigma: Option<f32>,
    /// Tokens that all of these keep in any case [default: 1]
    #[arg(long, value_name = "N")]
    min_keep: Option<u32>,
    /// Drop the top choices with this probability, 0 to 1
    #[arg(long, value_name = "P")]
    xtc_probability: Option<f32>,
    /// What is a top choice: its probability, 0 to 1 [default: 0.1]
    #[arg(long, value_name = "P")]
    xtc_threshold: Option<f32>,
    /// Make tokens that came before less likely: more than 1; above 0
    #[arg(long, value_name = "R")]
    repeat_penalty: Option<f32>,
    /// The same, for each time that they came: more than 0; a finite number
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// The same, once: more than 0; a finite number
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// The tokens that these three look back over [default: 64]
    #[arg(long, value_name = "N")]
    repeat_last_n: Option<u32>,
    /// Make longer repetitions less likely (DRY); at least 0
    #[arg(long, value_name = "M")]
    dry_multiplier: Option<f32>,
    /// How fast that grows with the length; at least 1 [default: 1.75]
    #[arg(long, value_name = "B")]
    dry_base: Option<f32>,
    /// Repetitions that are shorter are free; at least 1 [default: 2]
    #[arg(long, value_name = "N")]
    dry_allowed_length: Option<u32>,
    /// The tokens that it looks back over [default: 4096]
    #[arg(long, value_name = "N")]
    dry_last_n: Option<u32>,
    /// A text that ends a repetition; may be given again [default: line break, colon, quotation mark, asterisk]
    #[arg(long, value_name = "TEXT")]
    dry_breaker: Vec<String>,
    /// Hold the surprise at --mirostat-tau: 1 or 2, the paper's two algorithms
    #[arg(long, value_name = "1|2", value_parser = clap::value_parser!(u8).range(1..=2))]
    mirostat: Option<u8>,
    /// The surprise, in bits; above 0 [default: 5]
    #[arg(long, value_name = "T")]
    mirostat_tau: Option<f32>,
    /// How fast it learns; above 0, at most 1 [default: 0.1]
    #[arg(long, value_name = "E")]
    mirostat_eta: Option<f32>,
    /// Prefer tokens whose probability is near this one, 0 to 1
    #[arg(long, value_name = "P")]
    adaptive_target: Option<f32>,
    /// How slowly that forgets; 0 to 0.99 [default: 0.9]
    #[arg(long, value_name = "D")]
    adaptive_decay: Option<f32>,
    /// Add to a token's logit: 198=-2.5, or 198=-inf to rule it out; may be given again
    #[arg(long, value_name = "TOKEN=BIAS", allow_hyphen_values = true)]
    logit_bias: Vec<Bias>,
    /// The whole chain as JSON, see the library's `Sampling`: {"steps": [{"top_k": {"k": 40}}], "pick": "distribution"}
    #[arg(long, value_name = "JSON", conflicts_with = "preset")]
    sampler_chain: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Bias(Token, f32);

impl FromStr for Bias {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (token, bias) = text.split_once('=').ok_or("write TOKEN=BIAS, e.g. 198=-2.5")?;
        let token = token.trim().parse().map_err(|error| format!("`{token}` is no token: {error}"))?;
        let bias = bias.trim().parse().map_err(|error| format!("`{bias}` is no bias: {error}"))?;
        Ok(Self(token, bias))
    }
}

impl SamplingArgs {
    /// What is asked for; where nothing is, `preset`. Whoever sets a parameter and no preset changes the balanced one.
    pub(crate) fn sampling(&self, preset: Preset) -> Result<Sampling, Failure> {
        let own = SamplingParameters::from(self);
        let changes = SamplingParameters { seed: None, ..own.clone() } != SamplingParameters::default();
        if let Some(chain) = &self.sampler_chain {
            if changes {
                return Err(Failure::message(Exit::Usage, "--sampler-chain has all steps: leave the others out"));
            }
            let chain: Sampling = serde_json::from_str(chain)
                .map_err(|error| Failure::new(Exit::Usage, &error).with_headline("--sampler-chain makes no sense"))?;
            return Ok(match self.seed {
                Some(seed) => chain.with_seed(seed),
                None => chain,
            });
        }
        let base = match self.preset.unwrap_or(if changes { Preset::Balanced } else { preset }) {
            Preset::Greedy => SamplingParameters::default(),
            Preset::Balanced => SamplingParameters::balanced(),
            Preset::Creative => SamplingParameters::creative(),
        };
        Ok(Sampling::try_from(own.or(base)).map_err(GenerateError::Sampling)?)
    }
}

impl From<&SamplingArgs> for SamplingParameters {
    fn from(args: &SamplingArgs) -> Self {
        Self {
            temperature: args.temperature,
            dynatemp_range: args.dynatemp_range,
            dynatemp_exponent: args.dynatemp_exponent,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            typical_p: args.typical_p,
            top_n_sigma: args.top_n_sigma,
            min_keep: args.min_keep,
            xtc_probability: args.xtc_probability,
            xtc_threshold: args.xtc_threshold,
            repeat_penalty: args.repeat_penalty,
            frequency_penalty: args.frequency_penalty,
            presence_penalty: args.presence_penalty,
            repeat_last_n: args.repeat_last_n,
            dry_multiplier: args.dry_multiplier,
            dry_base: args.dry_base,
            dry_allowed_length: args.dry_allowed_length,
            dry_last_n: args.dry_last_n,
            dry_breakers: (!args.dry_breaker.is_empty()).then(|| args.dry_breaker.clone()),
            logit_bias: args.logit_bias.iter().map(|&Bias(token, bias)| (token, bias)).collect(),
            mirostat: args.mirostat,
            mirostat_tau: args.mirostat_tau,
            mirostat_eta: args.mirostat_eta,
            adaptive_target: args.adaptive_target,
            adaptive_decay: args.adaptive_decay,
            seed: args.seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use gguf_loader::sampling::{Pick, SamplerStep};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        sampling: SamplingArgs,
    }

    /// The chain of a command line; each option has a value that no other one has.
    fn chain(arguments: &str) -> Sampling {
        let line = Line::try_parse_from(["program"].into_iter().chain(arguments.split_whitespace())).unwrap();
        line.sampling.sampling(Preset::Greedy).unwrap()
    }

    #[test]
    fn each_option_is_the_parameter_that_it_names() {
        let found = chain(
            "--temperature 0.7 --dynatemp-range 0.2 --dynatemp-exponent 1.3 --top-k 31 --top-p 0.91 --min-p 0.07 \
             --typical-p 0.83 --top-n-sigma 2.5 --min-keep 3 --xtc-probability 0.42 --xtc-threshold 0.12 \
             --repeat-penalty 1.1 --frequency-penalty 0.3 --presence-penalty -0.4 --repeat-last-n 77 \
             --dry-multiplier 0.9 --dry-base 1.9 --dry-allowed-length 5 --dry-last-n 99 --dry-breaker . --dry-breaker ; \
             --logit-bias 7=-1.5 --logit-bias 8=-inf --mirostat 2 --mirostat-tau 4.5 --mirostat-eta 0.25 --seed 6",
        );
        let steps = [
            SamplerStep::LogitBias { biases: vec![(7, -1.5), (8, f32::NEG_INFINITY)] },
            SamplerStep::Penalties { last: 77, repetition: 1.1, frequency: 0.3, presence: -0.4 },
            SamplerStep::Dry {
                multiplier: 0.9,
                base: 1.9,
                allowed_length: 5,
                last: 99,
                breakers: vec![".".to_owned(), ";".to_owned()],
            },
            SamplerStep::TopNSigma { n: 2.5 },
            SamplerStep::TopK { k: 31 },
            SamplerStep::Typical { p: 0.83, min_keep: 3 },
            SamplerStep::TopP { p: 0.91, min_keep: 3 },
            SamplerStep::MinP { p: 0.07, min_keep: 3 },
            SamplerStep::Xtc { probability: 0.42, threshold: 0.12, min_keep: 3 },
            SamplerStep::DynamicTemperature { temperature: 0.7, range: 0.2, exponent: 1.3 },
        ];
        let pick = Pick::MirostatV2 { tau: 4.5, eta: 0.25 };
        assert_eq!(found, steps.into_iter().fold(Sampling::new(pick).with_seed(6), Sampling::then));
    }

    #[test]
    fn other_ways_to_choose_are_those_that_are_named() {
        let alone = "--preset greedy";
        assert_eq!(
            chain(&format!("{alone} --mirostat 1 --mirostat-tau 4.5 --mirostat-eta 0.25")).pick,
            Pick::Mirostat { tau: 4.5, eta: 0.25, m: 100 }
        );
        let adaptive = chain(&format!("{alone} --adaptive-target 0.6 --adaptive-decay 0.8"));
        assert_eq!(adaptive, Sampling::new(Pick::AdaptiveP { target: 0.6, decay: 0.8 }));
        assert_eq!(chain(""), Sampling::greedy());
        assert_eq!(chain("--preset creative"), Sampling::creative());
        // Who sets a parameter, and no preset, changes the balanced one.
        let hot = chain("--temp 1.5");
        assert_eq!(hot.steps[..3], Sampling::balanced().steps[..3]);
        assert_eq!(hot.steps[3..], [SamplerStep::Temperature { temperature: 1.5 }]);
    }
}
