//! The same logits through our steps and through llama.cpp's samplers, which this project did not write.

use gguf_loader::{
    Tokenizer,
    backend::Token,
    sampling::{ChooseToken as _, Pick, SamplerChain, SamplerStep, Sampling},
};
use llama_cpp_sys_2 as sys;

use super::{
    compare::{left, probabilities},
    logits, noise, tokenizer,
};

/// What one of llama.cpp's samplers leaves. It is freed.
fn left_by_llama_cpp(sampler: *mut sys::llama_sampler, history: &[Token], logits: &[f32]) -> Vec<(Token, f64)> {
    let data = |(id, &logit): (sys::llama_token, &f32)| sys::llama_token_data { id, logit, p: 0.0 };
    let mut entries: Vec<sys::llama_token_data> = (0..).zip(logits).map(data).collect();
    let mut array =
        sys::llama_token_data_array { data: entries.as_mut_ptr(), size: entries.len(), selected: -1, sorted: false };
    // SAFETY: the sampler is valid and freed once; the array points at entries that outlive the calls.
    unsafe {
        history.iter().for_each(|&token| sys::llama_sampler_accept(sampler, token.cast_signed()));
        sys::llama_sampler_apply(sampler, &mut array);
        sys::llama_sampler_free(sampler);
    }
    // SAFETY: llama.cpp leaves `size` entries at `data`, within the array that it was given.
    let entries = unsafe { std::slice::from_raw_parts(array.data, array.size) };
    let left = entries.iter().filter(|entry| entry.logit > f32::NEG_INFINITY);
    probabilities(&left.map(|entry| (entry.id.cast_unsigned(), entry.logit)).collect::<Vec<_>>())
}

/// Compares on vocabularies of several sizes. A candidate may be missing at one side where rounding decides about it: then
/// its probability is next to nothing, or the sum stands at the bound.
fn compare(step: &SamplerStep, sampler: impl Fn() -> *mut sys::llama_sampler) {
    let Some(tokenizer) = tokenizer() else { return };
    for (seed, count) in [2, 3, 10, 100, 1000, 20_000].into_iter().cycle().take(60).enumerate() {
        let logits = logits(count, seed as u64);
        let history = history(seed as u64, count);
        compare_one(&tokenizer, step, sampler(), &history, &logits);
    }
}

fn compare_one(
    tokenizer: &Tokenizer,
    step: &SamplerStep,
    sampler: *mut sys::llama_sampler,
    history: &[Token],
    logits: &[f32],
) {
    let ours = left(tokenizer, std::slice::from_ref(step), history, logits);
    let theirs = left_by_llama_cpp(sampler, history, logits);
    let tokens = |side: &[(Token, f64)]| side.iter().map(|(token, _)| *token).collect::<Vec<_>>();
    let n = logits.len();
    if tokens(&ours) != tokens(&theirs) {
        // At the bound, where llama.cpp's sum, in floats, is off by the rounding of thousands of terms.
        let (ours, theirs) = (ours.len(), theirs.len());
        assert!(n >= 1000 && ours.abs_diff(theirs) <= 1 + n / 5000, "{step:?} of {n}: {ours} and {theirs}");
        return;
    }
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!((ours.1 - theirs.1).abs() < 1e-4, "{step:?} of {n}: {ours:?} and {theirs:?}");
    }
}

/// Tokens with many repetitions.
fn history(seed: u64, count: usize) -> Vec<Token> {
    noise(seed ^ 0xabc).take(120).map(|noise| (noise * count.min(5) as f64) as Token).collect()
}

macro_rules! same_as_llama_cpp {
    ($($name:ident: $step:expr => $sampler:expr;)*) => {$(
        #[test]
        fn $name() {
            // SAFETY: a constructor with plain values.
            compare(&$step, || unsafe { $sampler });
        }
    )*};
}

same_as_llama_cpp! {
    temperature: SamplerStep::Temperature { temperature: 0.7 } => sys::llama_sampler_init_temp(0.7);
    temperature_0: SamplerStep::Temperature { temperature: 0.0 } => sys::llama_sampler_init_temp(0.0);
    dynamic_temperature: SamplerStep::DynamicTemperature { temperature: 0.8, range: 0.5, exponent: 1.3 }
        => sys::llama_sampler_init_temp_ext(0.8, 0.5, 1.3);
    top_k: SamplerStep::TopK { k: 7 } => sys::llama_sampler_init_top_k(7);
    top_k_of_many: SamplerStep::TopK { k: 300 } => sys::llama_sampler_init_top_k(300);
    top_p: SamplerStep::TopP { p: 0.8, min_keep: 1 } => sys::llama_sampler_init_top_p(0.8, 1);
    top_p_that_keeps: SamplerStep::TopP { p: 0.1, min_keep: 3 } => sys::llama_sampler_init_top_p(0.1, 3);
    top_p_of_nearly_all: SamplerStep::TopP { p: 0.99, min_keep: 1 } => sys::llama_sampler_init_top_p(0.99, 1);
    min_p: SamplerStep::MinP { p: 0.05, min_keep: 1 } => sys::llama_sampler_init_min_p(0.05, 1);
    min_p_that_keeps: SamplerStep::MinP { p: 0.9, min_keep: 4 } => sys::llama_sampler_init_min_p(0.9, 4);
    typical: SamplerStep::Typical { p: 0.6, min_keep: 1 } => sys::llama_sampler_init_typical(0.6, 1);
    typical_that_keeps: SamplerStep::Typical { p: 0.05, min_keep: 3 } => sys::llama_sampler_init_typical(0.05, 3);
    top_n_sigma: SamplerStep::TopNSigma { n: 1.5 } => sys::llama_sampler_init_top_n_sigma(1.5);
    // With probability 1 nothing is left to chance.
    xtc: SamplerStep::Xtc { probability: 1.0, threshold: 0.1, min_keep: 1 }
        => sys::llama_sampler_init_xtc(1.0, 0.1, 1, 0);
    xtc_that_keeps: SamplerStep::Xtc { probability: 1.0, threshold: 0.02, min_keep: 3 }
        => sys::llama_sampler_init_xtc(1.0, 0.02, 3, 0);
}

#[test]
fn penalties() {
    let Some(tokenizer) = tokenizer() else { return };
    for (last, repetition, frequency, presence) in [(64, 1.3, 0.0, 0.0), (16, 1.0, 0.2, -0.4), (200, 0.8, 0.05, 1.0)] {
        let step = SamplerStep::Penalties { last, repetition, frequency, presence };
        for (seed, count) in [5, 50, 500].into_iter().enumerate() {
            let (logits, history) = (logits(count, seed as u64), history(seed as u64, count));
            // SAFETY: a constructor with plain values.
            let sampler = unsafe {
                sys::llama_sampler_init_penalties(count as i32, last as i32, repetition, frequency, presence)
            };
            compare_one(&tokenizer, &step, sampler, &history, &logits);
        }
    }
}

#[test]
fn logit_bias() {
    let Some(tokenizer) = tokenizer() else { return };
    let biases = vec![(0, 2.5), (3, -1.0), (4, f32::NEG_INFINITY)];
    let raw: Vec<sys::llama_logit_bias> =
        biases.iter().map(|&(token, bias)| sys::llama_logit_bias { token: token as i32, bias }).collect();
    for seed in 0..10 {
        let logits = logits(30, seed);
        // SAFETY: three biases, which the constructor copies.
        let sampler = unsafe { sys::llama_sampler_init_logit_bias(30, 3, raw.as_ptr()) };
        compare_one(&tokenizer, &SamplerStep::LogitBias { biases: biases.clone() }, sampler, &[], &logits);
    }
}

/// llama.cpp draws its own lots, so ours are drawn until they agree; each then learns from what was taken.
#[test]
fn adaptive_p_is_where_llama_cpp_is_after_the_same_tokens() {
    const DRAWS: usize = 20_000;
    let Some(tokenizer) = tokenizer() else { return };
    let logits = [2.0, 1.6, 1.0, 0.3, -0.5];
    for (target, decay) in [(0.3, 0.9), (0.5, 0.5), (0.15, 0.99)] {
        let sampling = Sampling::new(Pick::AdaptiveP { target, decay }).with_seed(3);
        let mut chain = SamplerChain::new(&tokenizer, &sampling).unwrap();
        // SAFETY: a constructor with plain values.
        let sampler = unsafe { sys::llama_sampler_init_adaptive_p(target, decay, 7) };
        let data = |(id, &logit): (sys::llama_token, &f32)| sys::llama_token_data { id, logit, p: 0.0 };
        for taken in 0..12 {
            let mut entries: Vec<sys::llama_token_data> = (0..).zip(&logits).map(data).collect();
            let size = entries.len();
            let mut array =
                sys::llama_token_data_array { data: entries.as_mut_ptr(), size, selected: -1, sorted: false };
            // SAFETY: the sampler is valid; the array points at entries that outlive the call.
            unsafe { sys::llama_sampler_apply(sampler, &mut array) };
            let selected = entries[usize::try_from(array.selected).unwrap()].id;
            if [0, 1, 4, 11].contains(&taken) {
                let mut counts = [0_u32; 5];
                (0..DRAWS).for_each(|_| counts[chain.choose(&logits).unwrap() as usize] += 1);
                for entry in &entries {
                    let (p, count) = (f64::from(entry.p), f64::from(counts[entry.id as usize]));
                    let deviation = (DRAWS as f64 * p * (1.0 - p)).sqrt();
                    let off = (count - DRAWS as f64 * p).abs();
                    assert!(off < 5.0 * deviation + 1.0, "{target}, {decay}, {taken} taken: {count} draws of {p}");
                }
            }
            while chain.choose(&logits).unwrap() != selected.cast_unsigned() {}
            chain.accept(selected.cast_unsigned());
            // SAFETY: the sampler is valid.
            unsafe { sys::llama_sampler_accept(sampler, selected) };
        }
        // SAFETY: the sampler is valid and freed once.
        unsafe { sys::llama_sampler_free(sampler) };
    }
}
