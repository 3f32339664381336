//! A [`Sampling`] at work.

use std::{collections::HashMap, fmt, sync::Arc};

use super::{
    Candidates, Pick, Processor, SampleError, SamplerStep, Sampling, SamplingError,
    infill::Infill,
    pick,
    random::Random,
    repetition::{Dry, Penalties},
    temperature::{DynamicTemperature, Temperature},
    truncation::{MinP, TopK, TopNSigma, TopP, Typical, Xtc},
};
use crate::{backend::Token, tokenizer::Tokenizer};

/// A step in the state that the tokens so far have left it in.
pub(super) trait Stage: Send {
    /// Changes the candidates, of which there is at least one.
    fn apply(&mut self, candidates: &mut Candidates, random: &mut Random);

    /// Is told which token was taken.
    fn accept(&mut self, token: Token) {
        let _ = token;
    }
}

/// The last step.
pub(super) trait Choose: Send {
    /// One of the candidates, of which there is at least one. It may be asked again before a token is taken.
    fn choose(&mut self, candidates: &mut Candidates, random: &mut Random) -> Token;

    /// Is told which token was taken.
    fn accept(&mut self, token: Token) {
        let _ = token;
    }
}

/// Chooses a token by the logits. Functions and closures will do: [`likeliest`](super::likeliest) is one.
pub trait ChooseToken: Send {
    /// The token. It may be asked again, with fewer logits, before a token is taken.
    ///
    /// # Errors
    ///
    /// [`SampleError`] when the logits give no choice.
    fn choose(&mut self, logits: &[f32]) -> Result<Token, SampleError>;

    /// Is told which token was taken, those of a prompt too.
    fn accept(&mut self, token: Token) {
        let _ = token;
    }
}

impl<F: FnMut(&[f32]) -> Option<Token> + Send> ChooseToken for F {
    fn choose(&mut self, logits: &[f32]) -> Result<Token, SampleError> {
        self(logits).ok_or(SampleError::NotANumber)
    }
}

/// The steps of a [`Sampling`], in the state that the tokens so far have left them in. It serves one sequence.
pub struct SamplerChain {
    stages: Vec<Link>,
    /// `None`: the likeliest of all, straight from the logits.
    choose: Option<Box<dyn Choose>>,
    candidates: Candidates,
    random: Random,
    seed: u64,
}

enum Link {
    Own(Box<dyn Stage>),
    Custom(Processor),
}

impl SamplerChain {
    /// Builds the chain for tokens of `tokenizer`.
    ///
    /// # Errors
    ///
    /// [`SamplingError`] when a parameter is out of range.
    pub fn new(tokenizer: &Tokenizer, sampling: &Sampling) -> Result<Self, SamplingError> {
        sampling.check(tokenizer.n_tokens())?;
        let stages = sampling.steps.iter().map(|step| link(tokenizer, step)).collect::<Result<_, _>>()?;
        let plain = sampling.steps.is_empty() && sampling.pick == Pick::Greedy;
        let choose = (!plain).then(|| pick::build(sampling.pick, tokenizer.n_tokens()));
        let seed = sampling.seed.unwrap_or_else(super::draw_seed);
        Ok(Self { stages, choose, candidates: Candidates::default(), random: Random::new(seed), seed })
    }

    /// What lots are drawn from: the one given, or one that was drawn itself.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

fn link(tokenizer: &Tokenizer, step: &SamplerStep) -> Result<Link, SamplingError> {
    let (odds, size) = (Vec::new(), |count: u32| count as usize);
    Ok(Link::Own(match *step {
        SamplerStep::Temperature { temperature } => Box::new(Temperature(temperature)),
        SamplerStep::DynamicTemperature { temperature, range, exponent } => {
            Box::new(DynamicTemperature { temperature, range, exponent, odds })
        }
        SamplerStep::TopK { k } => Box::new(TopK(size(k))),
        SamplerStep::TopP { p, min_keep } => Box::new(TopP { p, min_keep: size(min_keep), odds }),
        SamplerStep::MinP { p, min_keep } => Box::new(MinP { p, min_keep: size(min_keep) }),
        SamplerStep::Typical { p, min_keep } => Box::new(Typical { p, min_keep: size(min_keep), odds }),
        SamplerStep::TopNSigma { n } => Box::new(TopNSigma(n)),
        SamplerStep::Xtc { probability, threshold, min_keep } => {
            Box::new(Xtc { probability, threshold, min_keep: size(min_keep), odds, drawn: None })
        }
        SamplerStep::Penalties { last, repetition, frequency, presence } => {
            Box::new(Penalties::new(size(last), repetition, frequency, presence))
        }
        SamplerStep::Dry { multiplier, base, allowed_length, last, ref breakers } => {
            // To look through the vocabulary takes a while.
            let breakers = if multiplier == 0.0 { Arc::default() } else { tokenizer.breakers(breakers)? };
            Box::new(Dry::new(multiplier, base, size(allowed_length), size(last), breakers))
        }
        SamplerStep::LogitBias { ref biases } => Box::new(Bias::new(biases)),
        SamplerStep::Infill => Box::new(Infill::new(tokenizer)?),
        SamplerStep::Custom(ref processor) => {
            processor.lock().begin();
            return Ok(Link::Custom(processor.clone()));
        }
    }))
}

/// What is added to the logits of some tokens.
struct Bias(HashMap<Token, f32>);

impl Bias {
    fn new(biases: &[(Token, f32)]) -> Self {
        let mut sums = HashMap::new();
        for &(token, bias) in biases {
            *sums.entry(token).or_default() += bias;
        }
        Self(sums)
    }
}

impl Stage for Bias {
    fn apply(&mut self, candidates: &mut Candidates, _random: &mut Random) {
        candidates.change(&self.0, |bias, logit| logit + bias);
    }
}

impl ChooseToken for SamplerChain {
    fn choose(&mut self, logits: &[f32]) -> Result<Token, SampleError> {
        let Some(choose) = &mut self.choose else {
            return super::likeliest(logits).ok_or(SampleError::NotANumber);
        };
        self.candidates.fill(logits)?;
        for stage in &mut self.stages {
            match stage {
                Link::Own(stage) => stage.apply(&mut self.candidates, &mut self.random),
                Link::Custom(processor) => {
                    processor.lock().process(&mut self.candidates);
                    self.candidates.settle()?;
                }
            }
            self.candidates.check()?;
        }
        Ok(choose.choose(&mut self.candidates, &mut self.random))
    }

    fn accept(&mut self, token: Token) {
        for stage in &mut self.stages {
            match stage {
                Link::Own(stage) => stage.accept(token),
                Link::Custom(processor) => processor.lock().accept(token),
            }
        }
        if let Some(choose) = &mut self.choose {
            choose.accept(token);
        }
    }
}

impl fmt::Debug for SamplerChain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SamplerChain").field("steps", &self.stages.len()).field("seed", &self.seed).finish()
    }
}
