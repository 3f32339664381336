//! all-MiniLM-L6-v2 against the vectors that sentence-transformers computes with PyTorch.
//!
//! `tools/embeddings/record.py` recorded them and says how to make the model; `GGUF_LOADER_TEST_EMBEDDING_MODEL` names it.
#![cfg(feature = "cpu")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic and says why it does nothing")]

use gguf_loader::{
    Model,
    backend::Pooling,
    embedding::{EmbedOptions, cosine},
};

#[derive(serde::Deserialize)]
struct Record {
    text: String,
    vector: Vec<f32>,
}

#[test]
fn vectors_are_those_of_sentence_transformers() {
    let Some(path) = std::env::var_os("GGUF_LOADER_TEST_EMBEDDING_MODEL") else {
        eprintln!("skipped: GGUF_LOADER_TEST_EMBEDDING_MODEL names no file");
        return;
    };
    let records: Vec<Record> = serde_json::from_str(include_str!("fixtures/embeddings/all-minilm-l6-v2.json")).unwrap();
    let model = Model::load(path).unwrap();
    assert_eq!(model.default_pooling(), Some(Pooling::Mean));
    let mut embedder = model.embedder(&EmbedOptions::default()).unwrap();
    let texts: Vec<&str> = records.iter().map(|record| record.text.as_str()).collect();
    let embeddings = embedder.embed_all(&texts).unwrap();
    for (record, embedding) in records.iter().zip(&embeddings) {
        let cosine = cosine(&embedding.vector, &record.vector).unwrap();
        eprintln!("cosine {cosine:.7}: {:.40}", record.text);
        assert!(cosine >= 0.999, "{cosine}: {}", record.text);
    }
    // They do not all point the same way: two sentences of one meaning are closer than two of different ones.
    let between = |left: usize, right: usize| cosine(&embeddings[left].vector, &embeddings[right].vector).unwrap();
    assert!(between(0, 1) > 0.5 && between(0, 2) < 0.3, "{} {}", between(0, 1), between(0, 2));
}
