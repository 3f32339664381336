//! Predicted speed: the roofline of memory bandwidth and multiply-add rate.
//!
//! S. Williams, A. Waterman, D. Patterson: Roofline: an insightful visual performance model for multicore
//! architectures, CACM 52(4), 2009.

use super::{ModelProfile, WeightGroup};

/// How fast a device multiplies and reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Multiply-adds a second with quantised weights, many tokens at a time.
    pub quantized: f64,
    /// Multiply-adds a second with F32, F16 and BF16 weights, many tokens at a time.
    pub float: f64,
    /// Multiply-adds a second with quantised weights, one token at a time.
    pub quantized_vector: f64,
    /// Multiply-adds a second with F32, F16 and BF16 weights, one token at a time.
    pub float_vector: f64,
    /// Bytes a second that the device reads from memory.
    pub bandwidth: f64,
}

/// Predicted speed of a model on a device, in tokens a second.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Score {
    /// While a prompt is read, many tokens at a time.
    pub prompt: f64,
    /// While text is generated, one token at a time.
    pub decode: f64,
}

/// What a user does with the model: the mix of prompt and generated tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Workload {
    /// Tokens of prompt.
    pub prompt_tokens: u32,
    /// Generated tokens.
    pub generated_tokens: u32,
}

impl Default for Workload {
    /// A question of 512 tokens and an answer of 128.
    fn default() -> Self {
        Self { prompt_tokens: 512, generated_tokens: 128 }
    }
}

impl Score {
    /// All tokens of the workload over the time that they take.
    pub fn tokens_per_second(&self, workload: Workload) -> f64 {
        let tokens = f64::from(workload.prompt_tokens) + f64::from(workload.generated_tokens);
        let seconds =
            f64::from(workload.prompt_tokens) / self.prompt + f64::from(workload.generated_tokens) / self.decode;
        if tokens > 0.0 { tokens / seconds } else { self.decode }
    }
}

/// The speed at which `model` runs with `rates`: each token costs the larger of its multiply-adds and its bytes.
pub fn roofline(model: &ModelProfile, rates: &Rates) -> Score {
    /// Tokens of a prompt that share one pass over the weights.
    const PROMPT_BATCH: f64 = 512.0;
    let seconds = |quantized: f64, float: f64, tokens_per_pass: f64| -> f64 {
        let of_group = |group: &WeightGroup| {
            let rate = if group.tensor_type.is_quantized() { quantized } else { float };
            let compute = group.elements as f64 / rate;
            let read = group.bytes as f64 / rates.bandwidth / tokens_per_pass;
            compute.max(read)
        };
        model.groups.iter().map(of_group).sum()
    };
    // A model without matrices (a vocabulary) has no speed; keep the score finite and comparable.
    const SHORTEST: f64 = 1e-9;
    Score {
        prompt: 1.0 / seconds(rates.quantized, rates.float, PROMPT_BATCH).max(SHORTEST),
        decode: 1.0 / seconds(rates.quantized_vector, rates.float_vector, 1.0).max(SHORTEST),
    }
}
