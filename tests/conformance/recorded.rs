//! Every backend computes what llama.cpp computed, natively built and recorded in `tests/fixtures/llama.cpp`: the check
//! that none of this project's own code can bend.

use gguf_loader::{backend::Batch, gguf::TensorType};

use crate::{
    agreement::{assert_agree, tolerance},
    checks,
    models::{Model, TERNARY_TYPES, TYPES},
    subject::{Subject, open, two_threads},
};

checks! {
    logits_agree_with_those_recorded_from_llama_cpp,
}

fn logits_agree_with_those_recorded_from_llama_cpp(subject: &Subject) {
    // The recordings were made with a KV cache in F32, and with F32 weights nothing else is rounded either.
    let exact = |tensor_type| subject.backend.id() == "reference" && tensor_type == TensorType::F32;
    for &tensor_type in TYPES.iter().filter(|&&tensor_type| subject.can_run(Model::Tiny(tensor_type))) {
        let tolerance = if exact(tensor_type) { 0.0005 } else { tolerance(tensor_type) };
        agree_with_recording(subject, Model::Tiny(tensor_type), tolerance);
    }
    for &tensor_type in TERNARY_TYPES {
        agree_with_recording(subject, Model::Ternary(tensor_type), tolerance(tensor_type));
    }
    let tolerance = if exact(TensorType::F32) { 0.0005 } else { tolerance(TensorType::F32) };
    if subject.can_run(Model::Full) {
        agree_with_recording(subject, Model::Full, tolerance);
    }
}

/// Asserts that the logits are within `tolerance` of the recorded ones.
pub(crate) fn agree_with_recording(subject: &Subject, model: Model, tolerance: f64) {
    let recording = Recording::read(model);
    let mut batch = Batch::new();
    for (position, &token) in recording.tokens.iter().enumerate() {
        batch.push(token, position as u32, 0, true);
    }
    let mut context = open(&subject.load(model), &two_threads());
    context.decode(&batch).expect("a valid batch");
    assert!(recording.rows.len() > 10);
    for (position, expected) in &recording.rows {
        let logits = context.logits(*position).expect("asked for");
        let what = format!("{model:?}, position {position}");
        assert_agree(&log_probabilities(logits), expected, tolerance, &what);
    }
}

/// What `llama-perplexity --kl-divergence-base` wrote.
struct Recording {
    tokens: Vec<u32>,
    /// Positions, and the log-probabilities after the token there.
    rows: Vec<(usize, Vec<f32>)>,
}

impl Recording {
    fn read(model: Model) -> Self {
        let name = match model {
            Model::Tiny(tensor_type) | Model::Ternary(tensor_type) => tensor_type.name().to_lowercase(),
            Model::BitNet(tensor_type) => format!("bitnet_{}", tensor_type.name().to_lowercase()),
            other => format!("{other:?}").to_lowercase(),
        };
        let path = format!("{}/tests/fixtures/llama.cpp/{name}.logits", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let word = |offset: usize| -> [u8; 4] { bytes[offset..offset + 4].try_into().expect("four bytes") };
        assert_eq!(&bytes[..8], b"_logits_");
        let [n_ctx, n_vocab, n_chunk] = [8, 12, 16].map(|offset| u32::from_le_bytes(word(offset)) as usize);
        assert_eq!((n_vocab % 2, n_chunk), (0, 1), "the reader below expects an even vocabulary and one chunk");

        let tokens = (0..n_ctx).map(|index| u32::from_le_bytes(word(20 + 4 * index))).collect();
        let rows = bytes[20 + 4 * n_ctx..].chunks_exact(8 + 2 * n_vocab).map(|row| {
            let float = |offset: usize| f32::from_le_bytes(row[offset..offset + 4].try_into().expect("four bytes"));
            let (scale, least) = (float(0), float(4));
            let codes = row[8..].as_chunks().0.iter().map(|&code| u16::from_le_bytes(code));
            codes.map(|code| least + scale * f32::from(code)).collect()
        });
        Self { tokens, rows: (n_ctx / 2..).zip(rows).collect() }
    }
}

/// The logarithm of the softmax; llama.cpp records nothing that lies more than 16 below the largest.
fn log_probabilities(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    logits.iter().map(|logit| (logit - largest).max(-16.0) - sum.ln()).collect()
}
