//! Every backend computes what the reference backend computes.

use std::sync::{Arc, Mutex, PoisonError};

use gguf_loader::{
    backend::{Batch, registered},
    gguf::TensorType,
};

use crate::{
    checks,
    models::{Model, TERNARY_TYPES, TYPES},
    subject::{Subject, best, distance, open, prompt, two_threads},
};

checks! {
    logits_agree_with_the_reference_in_every_type,
    logits_agree_with_the_reference_with_all_optional_tensors,
}

/// How far logits may be from exact ones, as a part of their deviation.
///
/// llama.cpp keeps the KV cache in F16 and rounds activations to the type that its kernels multiply with: to F16 for
/// F16 weights, to BF16 (8 bits of mantissa) for BF16 ones, to 8 bits with a scale for each 32 or 256 for quantised
/// ones. The roundings of two layers of the tiny model add up to the figures below with room of a factor of two to
/// three; a wrong weight, position or scale gives 0.3 and more.
pub(crate) fn tolerance(tensor_type: TensorType) -> f64 {
    match tensor_type {
        TensorType::F32 => 0.01,
        TensorType::F16 => 0.01,
        TensorType::BF16 => 0.05,
        _ => 0.12,
    }
}

/// Compares rows of logits, and the best token where it is clearly the best.
pub(crate) fn assert_agree(found: &[f32], expected: &[f32], tolerance: f64, what: &str) {
    let distance = distance(found, expected);
    assert!(distance < tolerance, "{what}: off by {distance:.4} of the deviation, {tolerance} is allowed");
    let best_expected = best(expected);
    let second = (0..expected.len())
        .filter(|&token| token != best_expected)
        .map(|token| expected[token])
        .fold(f32::NEG_INFINITY, f32::max);
    // Synthetic logits have a deviation of about 2.5; an error of the tolerance in both of two logits moves them
    // against each other by less than this.
    let clear = 2.5 * 4.0 * tolerance as f32;
    if expected[best_expected] - second > clear {
        assert_eq!(best(found), best_expected, "{what}: another best token, though the margin is clear");
    }
}

fn logits_agree_with_the_reference_in_every_type(subject: &Subject) {
    for &tensor_type in TYPES.iter().filter(|&&tensor_type| subject.can_run(Model::Tiny(tensor_type))) {
        agree(subject, Model::Tiny(tensor_type), tolerance(tensor_type));
    }
    for &tensor_type in TERNARY_TYPES {
        agree(subject, Model::Ternary(tensor_type), tolerance(tensor_type));
    }
}

fn logits_agree_with_the_reference_with_all_optional_tensors(subject: &Subject) {
    if subject.can_run(Model::Full) {
        agree(subject, Model::Full, tolerance(TensorType::F32));
    }
}

/// Asserts that the logits of `model` are within `tolerance` of those of the reference.
pub(crate) fn agree(subject: &Subject, model: Model, tolerance: f64) {
    let reference = registered().find(|backend| backend.id() == "reference");
    let backend = reference.expect("these checks are ignored without the reference");
    let device = backend.devices(&subject.hardware).expect("the reference runs everywhere").remove(0);
    let reference = Subject::new(backend, device, subject.hardware.clone(), subject.models.clone());
    let (found, expected) = (all_logits(subject, model), expected_logits(&reference, model));
    for (position, (found, expected)) in found.iter().zip(&*expected).enumerate() {
        assert_agree(found, expected, tolerance, &format!("{model:?}, position {position}"));
    }
}

/// A row of logits for each position.
type Rows = Vec<Vec<f32>>;

/// What the reference computes, once for all backends.
fn expected_logits(reference: &Subject, model: Model) -> Arc<Rows> {
    static COMPUTED: Mutex<Vec<(Model, Arc<Rows>)>> = Mutex::new(Vec::new());
    let mut computed = COMPUTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, rows)) = computed.iter().find(|(of, _)| *of == model) {
        return Arc::clone(rows);
    }
    let rows = Arc::new(all_logits(reference, model));
    computed.push((model, Arc::clone(&rows)));
    rows
}

fn all_logits(subject: &Subject, model: Model) -> Rows {
    let mut context = open(&subject.load(model), &two_threads());
    let mut batch = Batch::new();
    for (position, &token) in prompt(48, 1).iter().enumerate() {
        batch.push(token, position as u32, 0, true);
    }
    context.decode(&batch).expect("a valid batch");
    (0..48).map(|index| context.logits(index).expect("asked for").to_vec()).collect()
}
