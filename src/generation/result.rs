//! What is given.

use std::time::Duration;

use serde::Serialize;

use crate::{backend::Token, sampling::TokenLogprobs};

/// A part of the text, as it comes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Piece {
    /// Whose part it is.
    pub origin: Origin,
    /// The token, or `None` for text that was held back until the end, and for a prompt as a whole.
    pub token: Option<Token>,
    /// The text that can be shown with it: empty while a character, or what may be a stop, is incomplete, and for control
    /// tokens.
    pub text: String,
    /// How probable the model found the token, where that was asked for. `None` for the first token of a sequence.
    pub logprobs: Option<TokenLogprobs>,
}

/// Whose part a [`Piece`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The prompt's, which was to be echoed.
    Prompt,
    /// The model's.
    Model,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended its answer.
    End,
    /// One of the texts at which it was to end came.
    Stop,
    /// The model ended a chat reply and waits for the results of its calls.
    ToolCalls,
    /// As many tokens as were asked for.
    MaxTokens,
    /// The context holds no further token, or the cache that it shares with others is full.
    ContextFull,
    /// The callback broke off.
    BrokenOff,
    /// The context's [`CancelToken`](crate::backend::CancelToken) was used. It is ready to be used again; one that the context
    /// was opened with is not, until it is reset.
    Cancelled,
}

/// What a generation took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that the context held already.
    pub reused_tokens: usize,
    /// Tokens that were generated.
    pub generated_tokens: usize,
    /// Time until the first token: to tokenise the prompt, to compute what the context did not hold of it, and to choose.
    pub prompt_time: Duration,
    /// Time for all after it.
    pub generation_time: Duration,
    /// How much of that the engine took to decode; the rest is spent on choosing tokens and on their text.
    pub decode_time: Duration,
}

impl Usage {
    /// Tokens of the prompt that were computed in a second; `None` when there were none.
    pub fn prompt_speed(&self) -> Option<f64> {
        speed(self.prompt_tokens - self.reused_tokens, self.prompt_time)
    }

    /// Time from the request to the first token; `None` when there was none. What passes between two calls of
    /// [`next`](Iterator::next) does not count.
    pub fn time_to_first_token(&self) -> Option<Duration> {
        (self.generated_tokens > 0).then_some(self.prompt_time)
    }

    /// Mean time of a token after the first one; `None` when there was none.
    pub fn time_per_token(&self) -> Option<Duration> {
        let later = u32::try_from(self.generated_tokens.saturating_sub(1)).unwrap_or(u32::MAX);
        self.generation_time.checked_div(later)
    }

    /// Tokens that were generated in a second, the first one aside: it comes with the prompt.
    pub fn generation_speed(&self) -> Option<f64> {
        speed(self.generated_tokens.saturating_sub(1), self.generation_time)
    }
}

fn speed(tokens: usize, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| tokens as f64 / time.as_secs_f64())
}

/// A generation that has ended.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Completion {
    /// The text, with the prompt before it where that was to be echoed.
    pub text: String,
    /// The tokens that were generated. A token with which the model ended its answer is not among them.
    pub tokens: Vec<Token>,
    /// For each of [`tokens`](Self::tokens), where that was asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// Why it ended.
    pub finish: FinishReason,
    /// What it took.
    pub usage: Usage,
    /// What lots were drawn from: with it, the request can be repeated.
    pub seed: u64,
}
