//! How long a generation took, as JSON and for people.

use gguf_loader::generation::Usage;
use serde::Serialize;

/// The times of a generation.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Timings {
    /// Until the first token.
    prompt_seconds: f64,
    /// From then on.
    generation_seconds: f64,
    /// From the request to the first token; absent when there was none.
    first_token_seconds: Option<f64>,
    /// The mean of all later tokens; absent when nothing was decoded after the prompt, as is the last one.
    seconds_per_token: Option<f64>,
    prompt_tokens_per_second: Option<f64>,
    generated_tokens_per_second: Option<f64>,
}

impl From<Usage> for Timings {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_seconds: usage.prompt_time.as_secs_f64(),
            generation_seconds: usage.generation_time.as_secs_f64(),
            first_token_seconds: usage.time_to_first_token().map(|time| time.as_secs_f64()),
            seconds_per_token: usage.time_per_token().map(|time| time.as_secs_f64()),
            prompt_tokens_per_second: usage.prompt_speed(),
            generated_tokens_per_second: usage.generation_speed(),
        }
    }
}

impl Timings {
    /// ` at 35.1/s`, for the prompt; nothing where nothing was computed.
    pub(crate) fn of_prompt(&self) -> String {
        self.prompt_tokens_per_second.map(|speed| format!(" at {speed:.1}/s")).unwrap_or_default()
    }

    /// The same for what was generated.
    pub(crate) fn of_generation(&self) -> String {
        self.generated_tokens_per_second.map(|speed| format!(" at {speed:.1}/s")).unwrap_or_default()
    }

    /// `, the first after 0.12 s`; nothing where there was none.
    pub(crate) fn of_first_token(&self) -> String {
        self.first_token_seconds.map(|seconds| format!(", the first after {seconds:.2} s")).unwrap_or_default()
    }
}
