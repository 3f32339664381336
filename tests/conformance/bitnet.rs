//! BitNet b1.58: `bitnet` with SiLU, which llama.cpp runs too, and `bitnet-b1.58` with the squared ReLU, which it does
//! not.

use gguf_loader::gguf::TensorType;

use crate::{
    agreement::{agree, tolerance},
    checks,
    models::{Model, TERNARY_TYPES},
    recorded::agree_with_recording,
    subject::{Subject, assert_same, distance, feed, feed_singly, open, options, prompt},
};

checks! {
    bitnet_computes_what_was_recorded_from_llama_cpp,
}

/// What those do that know the squared ReLU.
pub(crate) mod b158 {
    use super::*;

    checks! {
        bitnet_is_the_same_in_batches_and_token_by_token,
        bitnet_is_the_same_in_every_ternary_type,
        bitnet_of_mixed_types_is_the_same_but_for_rounding,
        bitnet_25_is_the_same_under_its_first_name,
        bitnet_is_the_same_with_a_scale_in_blocks,
        squared_relu_is_not_silu,
    }
}

/// What those do that know the squared ReLU and are not the reference.
pub(crate) mod agreement {
    use super::*;

    checks! {
        bitnet_agrees_with_the_reference,
        bitnet_with_few_heads_agrees_with_the_reference,
    }
}

fn bitnet_computes_what_was_recorded_from_llama_cpp(subject: &Subject) {
    // In F32 nothing rounds: the recording holds the graph to account, where the ternary one holds the scales.
    let exact = subject.backend.id() == "reference";
    if subject.can_run(Model::BitNet(TensorType::F32)) {
        agree_with_recording(subject, Model::BitNet(TensorType::F32), if exact { 0.0005 } else { 0.01 });
    }
    agree_with_recording(subject, Model::BitNet(TensorType::TQ2_0), tolerance(TensorType::TQ2_0));
}

fn bitnet_is_the_same_in_batches_and_token_by_token(subject: &Subject) {
    let model = subject.load(Model::BitNetB158(TensorType::TQ2_0));
    let tokens = prompt(24, 3);
    let together = feed(&mut *open(&model, &options()), &tokens, 0, 0);
    let singly = feed_singly(&mut *open(&model, &options()), &tokens, 0, 0);
    assert_same(&together, &singly);
}

fn bitnet_is_the_same_in_every_ternary_type(subject: &Subject) {
    let logits = |tensor_type| {
        let model = subject.load(Model::BitNetB158(tensor_type));
        feed(&mut *open(&model, &options()), &prompt(12, 5), 0, 0)
    };
    let expected = logits(TensorType::TQ2_0);
    for &tensor_type in TERNARY_TYPES {
        if rounds_by_block(subject) {
            let off = distance(&logits(tensor_type), &expected);
            assert!(off < tolerance(tensor_type), "{tensor_type}: off by {off:.4} of the deviation");
        } else {
            assert_same(&logits(tensor_type), &expected);
        }
    }
}

fn bitnet_of_mixed_types_is_the_same_but_for_rounding(subject: &Subject) {
    let logits = |model| {
        let model = subject.load(model);
        let mut context = open(&model, &options());
        let prompt_pass = feed(&mut *context, &prompt(12, 5), 0, 0);
        (prompt_pass, feed_singly(&mut *context, &prompt(3, 6), 12, 0))
    };
    let (together, singly) = logits(Model::BitNetMixed);
    let (expected_together, expected_singly) = logits(Model::BitNetB158(TensorType::TQ2_0));
    for (found, expected) in [(together, expected_together), (singly, expected_singly)] {
        let off = distance(&found, &expected);
        assert!(off < tolerance(TensorType::TQ2_0), "off by {off:.4} of the deviation");
    }
}

fn bitnet_25_is_the_same_under_its_first_name(subject: &Subject) {
    let logits = |model| feed(&mut *open(&subject.load(model), &options()), &prompt(12, 5), 0, 0);
    assert_eq!(logits(Model::BitNet25), logits(Model::BitNetB158(TensorType::TQ2_0)));
}

/// One scale has 11 bits in the blocks, and 24 beside the matrix.
fn bitnet_is_the_same_with_a_scale_in_blocks(subject: &Subject) {
    let logits = |model| feed(&mut *open(&subject.load(model), &options()), &prompt(12, 5), 0, 0);
    let off = distance(&logits(Model::BitNetScaleInBlocks), &logits(Model::BitNetB158(TensorType::TQ2_0)));
    assert!(off < F16, "off by {off:.4} of the deviation");
}

/// ggml's own kernels round activations with a scale for each 256 of them (TQ1_0, TQ2_0) or 32 (Q2_0), where BitNet, the
/// reference and the ternary kernels have one for the whole token. Their logits differ by that, and between the types.
fn rounds_by_block(subject: &Subject) -> bool {
    subject.backend.id().starts_with("cpu-")
}

/// The two models have the same weights.
fn squared_relu_is_not_silu(subject: &Subject) {
    let logits = |model| feed(&mut *open(&subject.load(model), &options()), &prompt(8, 2), 0, 0);
    let (squared, silu) = (logits(Model::BitNetB158(TensorType::TQ2_0)), logits(Model::BitNet(TensorType::TQ2_0)));
    assert!(distance(&squared, &silu) > 0.2, "the activations make no difference");
}

/// What is left where both round activations alike: the KV cache and the output matrix in F16. ARM's CPUs with arithmetic in
/// F16 have the sums of those products in F16 too.
const F16: f64 = if cfg!(target_arch = "aarch64") { 0.1 } else { 0.05 };

fn bitnet_agrees_with_the_reference(subject: &Subject) {
    for &tensor_type in TERNARY_TYPES {
        let allowed = if rounds_by_block(subject) { tolerance(tensor_type) } else { F16 };
        agree(subject, Model::BitNetB158(tensor_type), allowed);
    }
}

fn bitnet_with_few_heads_agrees_with_the_reference(subject: &Subject) {
    agree(subject, Model::BitNetNarrow, if rounds_by_block(subject) { tolerance(TensorType::TQ2_0) } else { F16 });
}
