//! How to reply.

use std::num::NonZeroU32;

use serde_json::{Map, Value};

use super::{Tool, ToolChoice};
use crate::{generation::WhenFull, grammar::Grammar, sampling::Sampling};

/// How to reply.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReplyOptions {
    /// The tools that the model may call (default: none).
    pub tools: Vec<Tool>,
    /// Whether it may, or must (default: as it sees fit).
    pub tool_choice: ToolChoice,
    /// Whether it may make several calls in one reply (default: no).
    pub parallel_tool_calls: bool,
    /// What the reply must look like (default: anything); what the model thinks before it is free. Not together with tools.
    pub grammar: Option<Grammar>,
    /// How tokens are chosen (default: greedily).
    pub sampling: Sampling,
    /// Texts at which the reply ends, beside those of the template (default: none).
    pub stops: Vec<String>,
    /// Most tokens of the reply; `None` goes on until the model ends or the context is full (default).
    pub max_tokens: Option<NonZeroU32>,
    /// What happens when the context is full (default: the reply ends). A shift lets this reply go on; the next one needs a
    /// conversation that fits again, so that messages have to go then.
    pub when_full: WhenFull,
    /// Give each token's log-probability, and those of so many of the likeliest (default: no).
    pub logprobs: Option<u32>,
    /// Whether a model that can reason does (default: yes).
    pub thinking: bool,
    /// Most tokens that it does; `None` lets it think as long as it does (default).
    pub reasoning_budget: Option<u32>,
    /// Further variables of the template (default: none).
    pub arguments: Map<String, Value>,
}

impl Default for ReplyOptions {
    fn default() -> Self {
        Self {
            tools: Vec::new(),
            tool_choice: ToolChoice::default(),
            parallel_tool_calls: false,
            grammar: None,
            sampling: Sampling::default(),
            stops: Vec::new(),
            max_tokens: None,
            when_full: WhenFull::default(),
            logprobs: None,
            thinking: true,
            reasoning_budget: None,
            arguments: Map::new(),
        }
    }
}

impl ReplyOptions {
    /// Sets the tools that the model may call.
    pub fn with_tools(mut self, tools: Vec<Tool>) -> Self {
        self.tools = tools;
        self
    }

    /// Sets whether the model may, or must, call tools.
    pub fn with_tool_choice(mut self, choice: ToolChoice) -> Self {
        self.tool_choice = choice;
        self
    }

    /// Sets whether the model may make several calls in one reply.
    pub fn with_parallel_tool_calls(mut self, parallel: bool) -> Self {
        self.parallel_tool_calls = parallel;
        self
    }

    /// Sets what the reply must look like.
    pub fn with_grammar(mut self, grammar: Grammar) -> Self {
        self.grammar = Some(grammar);
        self
    }

    /// Sets how tokens are chosen.
    pub fn with_sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = sampling;
        self
    }

    /// Adds a text at which the reply ends.
    pub fn with_stop(mut self, stop: impl Into<String>) -> Self {
        self.stops.push(stop.into());
        self
    }

    /// Sets the most tokens of the reply.
    pub fn with_max_tokens(mut self, max_tokens: NonZeroU32) -> Self {
        self.max_tokens = Some(max_tokens);
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

    /// Sets whether a model that can reason does.
    pub fn with_thinking(mut self, thinking: bool) -> Self {
        self.thinking = thinking;
        self
    }

    /// Sets the most tokens that a model reasons before it answers; after them it is made to answer.
    pub fn with_reasoning_budget(mut self, tokens: u32) -> Self {
        self.reasoning_budget = Some(tokens);
        self
    }

    /// Sets a variable of the template.
    pub fn with_argument(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.arguments.insert(name.into(), value.into());
        self
    }
}
