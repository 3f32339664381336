//! Predicted speed: the roofline of memory bandwidth and multiply-add rate.
//!
//! S. Williams, A. Waterman, D. Patterson: Roofline: an insightful visual performance model for multicore
//! architectures, CACM 52(4), 2009.

use super::{ModelProfile, WeightGroup};
use crate::gguf::TensorType;

/// How fast a device multiplies and reads.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Rates {
    /// Multiply-adds a second with quantised weights that are not ternary, many tokens at a time.
    pub quantized: f64,
    /// Multiply-adds a second with [ternary](TensorType::is_ternary) weights, many tokens at a time.
    pub ternary: f64,
    /// Multiply-adds a second with F32, F16 and BF16 weights, many tokens at a time.
    pub float: f64,
    /// Multiply-adds a second with quantised weights that are not ternary, one token at a time.
    pub quantized_vector: f64,
    /// Multiply-adds a second with [ternary](TensorType::is_ternary) weights, one token at a time.
    pub ternary_vector: f64,
    /// Multiply-adds a second with F32, F16 and BF16 weights, one token at a time.
    pub float_vector: f64,
    /// Bytes a second that the device reads from memory.
    pub bandwidth: f64,
}

impl Rates {
    /// Whether every rate is one: finite and above zero.
    pub fn is_valid(&self) -> bool {
        let Self { quantized, ternary, float, quantized_vector, ternary_vector, float_vector, bandwidth } = *self;
        [quantized, ternary, float, quantized_vector, ternary_vector, float_vector, bandwidth]
            .iter()
            .all(|&rate| rate.is_finite() && rate > 0.0)
    }
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
    /// Whether both speeds are some: finite and above zero. The selector takes no other score.
    pub fn is_valid(&self) -> bool {
        [self.prompt, self.decode].iter().all(|&speed| speed.is_finite() && speed > 0.0)
    }

    /// All tokens of the workload over the time that they take.
    pub fn tokens_per_second(&self, workload: Workload) -> f64 {
        let tokens = f64::from(workload.prompt_tokens) + f64::from(workload.generated_tokens);
        let seconds =
            f64::from(workload.prompt_tokens) / self.prompt + f64::from(workload.generated_tokens) / self.decode;
        if tokens > 0.0 { tokens / seconds } else { self.decode }
    }

    /// The speed of a model whose tokens go through two parts in turn, of which these are the speeds.
    pub fn in_turn(self, other: Self) -> Self {
        let both = |one: f64, other: f64| 1.0 / (1.0 / one + 1.0 / other);
        Self { prompt: both(self.prompt, other.prompt), decode: both(self.decode, other.decode) }
    }
}

/// The speed at which `model` runs with `rates`: each token costs the larger of its multiply-adds and its bytes.
///
/// Rates that are not [valid](Rates::is_valid) give a score that is not [valid](Score::is_valid) either: `f64::max`
/// drops a NaN, so that a single bad rate would otherwise look like a fast device.
pub fn roofline(model: &ModelProfile, rates: &Rates) -> Score {
    /// Tokens of a prompt that share one pass over the weights: the default ubatch.
    const PROMPT_BATCH: f64 = 512.0;
    /// A model without matrices (a vocabulary) costs nothing; keep its score finite and comparable.
    const SHORTEST: f64 = 1e-9;

    if !rates.is_valid() {
        return Score { prompt: f64::NAN, decode: f64::NAN };
    }
    let seconds = |rate: &dyn Fn(TensorType) -> f64, tokens_per_pass: f64| -> f64 {
        let of_group = |group: &WeightGroup| {
            let compute = group.elements as f64 / rate(group.tensor_type);
            let read = group.bytes as f64 / rates.bandwidth / tokens_per_pass;
            compute.max(read)
        };
        model.groups.iter().map(of_group).sum()
    };
    let choose = |tensor_type: TensorType, quantized, ternary, float| match tensor_type {
        kind if kind.is_ternary() => ternary,
        kind if kind.is_quantized() => quantized,
        _ => float,
    };
    let prompt = |kind| choose(kind, rates.quantized, rates.ternary, rates.float);
    let decode = |kind| choose(kind, rates.quantized_vector, rates.ternary_vector, rates.float_vector);
    Score {
        prompt: 1.0 / seconds(&prompt, PROMPT_BATCH).max(SHORTEST),
        decode: 1.0 / seconds(&decode, 1.0).max(SHORTEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates {
        quantized: 4e11,
        ternary: 8e11,
        float: 1e11,
        quantized_vector: 1e11,
        ternary_vector: 2e11,
        float_vector: 5e10,
        bandwidth: 2e10,
    };

    fn model(groups: &[(TensorType, u64)]) -> ModelProfile {
        let group = |&(tensor_type, elements): &(TensorType, u64)| WeightGroup {
            tensor_type,
            stacked: false,
            elements,
            bytes: elements / tensor_type.block_elements() * tensor_type.block_bytes(),
        };
        let groups: Vec<_> = groups.iter().map(group).collect();
        ModelProfile {
            architecture: "llama".into(),
            weight_bytes: groups.iter().map(|group| group.bytes).sum(),
            groups,
            kv_bytes_per_token: 0,
            n_ctx_train: 2048,
            n_layer: 1,
            n_vocab: 32,
            vocabulary_only: false,
        }
    }

    #[test]
    fn decode_is_bound_by_bandwidth_and_prompt_by_multiply_adds() {
        // 1.28e9 weights of Q4_0 are 7.2e8 bytes: 36 ms to read, 3.2 ms to multiply in a prompt.
        let score = roofline(&model(&[(TensorType::Q4_0, 1_280_000_000)]), &RATES);
        assert!((score.decode - 1.0 / 0.036).abs() < 1e-6, "{score:?}");
        assert!((score.prompt - 1.0 / 0.0032).abs() < 1e-6, "{score:?}");
    }

    #[test]
    fn float_weights_run_at_the_float_rates() {
        // Eight bytes of bandwidth a multiply-add would hide the rate: make memory free.
        let rates = Rates { bandwidth: 1e18, ..RATES };
        let score = roofline(&model(&[(TensorType::F32, 1_000_000)]), &rates);
        assert!((score.prompt / (rates.float / 1e6) - 1.0).abs() < 1e-9, "{score:?}");
        assert!((score.decode / (rates.float_vector / 1e6) - 1.0).abs() < 1e-9, "{score:?}");
    }

    #[test]
    fn only_ternary_weights_run_at_the_ternary_rates() {
        // An imported BitNet model: ternary blocks, and an output matrix in Q6_K.
        let rates = Rates { bandwidth: 1e18, ..RATES };
        let score = roofline(&model(&[(TensorType::TQ2_0, 256_000_000), (TensorType::Q6_K, 128_000_000)]), &rates);
        let prompt = 256e6 / rates.ternary + 128e6 / rates.quantized;
        let decode = 256e6 / rates.ternary_vector + 128e6 / rates.quantized_vector;
        assert!((score.prompt * prompt - 1.0).abs() < 1e-9, "{score:?}");
        assert!((score.decode * decode - 1.0).abs() < 1e-9, "{score:?}");
    }

    #[test]
    fn groups_add_up() {
        let (one, other) = ((TensorType::Q4_0, 64_000_000), (TensorType::F16, 32_000_000));
        let alone = |group| roofline(&model(&[group]), &RATES);
        let both = roofline(&model(&[one, other]), &RATES);
        let seconds = 1.0 / alone(one).decode + 1.0 / alone(other).decode;
        assert!((both.decode * seconds - 1.0).abs() < 1e-9);
        let in_turn = alone(one).in_turn(alone(other));
        assert!((in_turn.decode / both.decode - 1.0).abs() < 1e-9);
        assert!((in_turn.prompt / both.prompt - 1.0).abs() < 1e-9);
    }

    #[test]
    fn one_bad_rate_spoils_the_score() {
        let model = model(&[(TensorType::Q4_0, 64_000_000)]);
        for bad in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
            for rates in [
                Rates { quantized: bad, ..RATES },
                Rates { ternary: bad, ..RATES },
                Rates { ternary_vector: bad, ..RATES },
                Rates { float: bad, ..RATES },
                Rates { quantized_vector: bad, ..RATES },
                Rates { float_vector: bad, ..RATES },
                Rates { bandwidth: bad, ..RATES },
            ] {
                assert!(!roofline(&model, &rates).is_valid(), "{rates:?}");
            }
        }
    }

    #[test]
    fn a_model_without_matrices_has_a_finite_score() {
        assert!(roofline(&model(&[]), &RATES).is_valid());
    }

    #[test]
    fn a_workload_takes_the_time_of_its_parts() {
        let score = Score { prompt: 100.0, decode: 10.0 };
        let speed =
            |prompt_tokens, generated_tokens| score.tokens_per_second(Workload { prompt_tokens, generated_tokens });
        assert_eq!(speed(100, 0), 100.0);
        assert_eq!(speed(0, 10), 10.0);
        assert_eq!(speed(100, 10), 55.0);
        assert_eq!(speed(0, 0), 10.0);
    }
}
