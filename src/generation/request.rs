//! What is asked for.

use std::num::NonZeroU32;

use crate::{
    backend::{RenderedPrompt, SequenceId, Token},
    grammar::Grammar,
    sampling::Sampling,
};

/// A request to generate text. A text alone is one, with the defaults.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GenerateRequest {
    /// What the model continues.
    pub prompt: Prompt,
    /// What becomes of what the sequence held before (default: it is forgotten).
    pub start: Start,
    /// The sequence of the context (default: 0).
    pub sequence: SequenceId,
    /// How tokens are chosen (default: greedily).
    pub sampling: Sampling,
    /// What the text must look like (default: anything).
    pub grammar: Option<Grammar>,
    /// Most tokens to generate; `None` goes on until the model ends or the context is full (default).
    pub max_tokens: Option<NonZeroU32>,
    /// Texts at which the generation ends; they are not shown (default: none).
    pub stops: Vec<String>,
    /// Whether a token that ends the answer stops the generation (default: yes).
    pub stop_at_end: bool,
    /// What happens when the context is full (default: the generation ends).
    pub when_full: WhenFull,
    /// Give each token's log-probability, and those of so many of the likeliest (default: no).
    pub logprobs: Option<u32>,
    /// Most tokens that the model thinks before it answers, where a chat template says how its reasoning is marked; after them
    /// the marker of its end is written for the model. `None` lets it think as long as it does (default).
    pub reasoning_budget: Option<u32>,
    /// Whether the prompt is given too, before what is generated; with [`logprobs`](Self::logprobs), token by token
    /// (default: no).
    pub echo: bool,
}

/// What the model continues.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Prompt {
    /// Text, with BOS before it where the model wants one. Texts of special tokens become these tokens.
    Text(String),
    /// Tokens, as they are.
    Tokens(Vec<Token>),
    /// What a chat template has written, with the stops and the grammar that come with it.
    Rendered(Box<RenderedPrompt>),
}

/// What becomes of what a sequence held before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Start {
    /// It is forgotten. The same request then gives the same text (default).
    #[default]
    Fresh,
    /// What it has in common with the prompt, from the beginning, is kept and not computed again. Prompts are then read in
    /// other pieces than from the beginning, which some kernels round differently.
    Reuse,
    /// It stays, and the prompt follows on it. The prompt may be empty where something was generated before.
    Continue,
}

/// What happens when the context is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The generation ends (default).
    #[default]
    Stop,
    /// Half of what the sequence holds is forgotten, after the first `keep` tokens, and what is newer moves up. The model
    /// then answers from what is left. A fork in a shared cache gets cells of its own for what moves; where there are none, the
    /// generation ends.
    Shift {
        /// Tokens at the beginning that stay, e.g. those of a system prompt.
        keep: u32,
    },
}

impl GenerateRequest {
    /// Continues `prompt`, with the defaults.
    pub fn new(prompt: impl Into<Prompt>) -> Self {
        Self {
            prompt: prompt.into(),
            start: Start::default(),
            sequence: 0,
            sampling: Sampling::default(),
            grammar: None,
            max_tokens: None,
            stops: Vec::new(),
            stop_at_end: true,
            when_full: WhenFull::default(),
            logprobs: None,
            reasoning_budget: None,
            echo: false,
        }
    }

    /// Sets what becomes of what the sequence held before.
    pub fn with_start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Sets the sequence.
    pub fn with_sequence(mut self, sequence: SequenceId) -> Self {
        self.sequence = sequence;
        self
    }

    /// Sets how tokens are chosen.
    pub fn with_sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = sampling;
        self
    }

    /// Sets what the text must look like.
    pub fn with_grammar(mut self, grammar: Grammar) -> Self {
        self.grammar = Some(grammar);
        self
    }

    /// Sets the most tokens to generate.
    pub fn with_max_tokens(mut self, max_tokens: NonZeroU32) -> Self {
        self.max_tokens = Some(max_tokens);
        self
    }

    /// Adds a text at which the generation ends.
    pub fn with_stop(mut self, stop: impl Into<String>) -> Self {
        self.stops.push(stop.into());
        self
    }

    /// Sets whether a token that ends the answer stops the generation.
    pub fn with_stop_at_end(mut self, stop_at_end: bool) -> Self {
        self.stop_at_end = stop_at_end;
        self
    }

    /// Sets what happens when the context is full.
    pub fn with_when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Asks for log-probabilities, and those of the `top` likeliest tokens.
    pub fn with_logprobs(mut self, top: u32) -> Self {
        self.logprobs = Some(top);
        self
    }

    /// Sets the most tokens that the model thinks before it answers.
    pub fn with_reasoning_budget(mut self, tokens: u32) -> Self {
        self.reasoning_budget = Some(tokens);
        self
    }

    /// Sets whether the prompt is given too.
    pub fn with_echo(mut self, echo: bool) -> Self {
        self.echo = echo;
        self
    }
}

impl<P: Into<Prompt>> From<P> for GenerateRequest {
    fn from(prompt: P) -> Self {
        Self::new(prompt)
    }
}

impl From<&Self> for GenerateRequest {
    fn from(request: &Self) -> Self {
        request.clone()
    }
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Prompt {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<Token>> for Prompt {
    fn from(tokens: Vec<Token>) -> Self {
        Self::Tokens(tokens)
    }
}

impl From<&[Token]> for Prompt {
    fn from(tokens: &[Token]) -> Self {
        Self::Tokens(tokens.to_vec())
    }
}

impl From<RenderedPrompt> for Prompt {
    fn from(rendered: RenderedPrompt) -> Self {
        Self::Rendered(Box::new(rendered))
    }
}
