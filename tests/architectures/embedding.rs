//! Embeddings and scores of small models, against what the definition says.

use std::{num::NonZeroU32, ops::ControlFlow};

use gguf_loader::{
    LoadOptions, Model,
    backend::{CancelToken, ContextError, DecodeError, Pooling},
    embedding::{EmbedError, EmbedOptions, Embedder, Normalisation, Overflow, cosine},
    select::{ChooseOptions, Policy, Registry},
};

use crate::{
    file::{ModelFile, Tensor},
    models::{CONTEXT, FAMILIES, WIDTH},
};

fn file(family: &str) -> ModelFile {
    FAMILIES.iter().find(|(name, _)| *name == family).expect("a family").1()
}

fn load(file: &ModelFile) -> Model {
    load_on(file, None)
}

fn load_on(file: &ModelFile, backend: Option<&str>) -> Model {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.gguf");
    assert!(file.write(&path), "the model is written");
    let policy = backend.map_or(Policy::Deny(vec!["reference".into()]), |id| Policy::Named(id.into()));
    let mut choose = ChooseOptions::default();
    choose.policy = policy;
    let options = LoadOptions::default().with_choose(choose);
    Model::load_with(&path, &options, |_| ControlFlow::Continue(())).expect("the model loads")
}

fn options() -> EmbedOptions {
    EmbedOptions::default().with_threads(number(2))
}

fn number(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("above zero")
}

fn vector(embedder: &mut Embedder, text: &str) -> Vec<f32> {
    embedder.embed(text).expect("a vector").vector
}

#[track_caller]
fn assert_close(left: &[f32], right: &[f32], what: &str) {
    assert_eq!(left.len(), right.len(), "{what}");
    let largest = right.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    let difference = left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max);
    assert!(difference <= 2e-3 * largest, "{what}: {difference} of {largest}");
}

const TEXTS: [&str; 7] = [
    "a b c",
    "z",
    "the quick brown fox jumps over",
    "a b c d",
    "abc abc abc abc abc abc",
    "c b a",
    "q r s t u v w x y",
];

#[test]
fn texts_packed_together_have_the_vectors_that_they_have_alone() {
    // Encoders, a plain cache, one with a sliding window, a recurrent state.
    for family in ["bert", "nomic-bert", "llama", "gemma2", "mamba"] {
        let model = load(&file(family));
        for pooling in [Pooling::Mean, Pooling::Cls, Pooling::Last] {
            let options = options().with_pooling(pooling);
            let mut embedder = model.embedder(&options).expect("the embedder opens");
            let together = embedder.embed_all(&TEXTS).expect("vectors");
            assert_eq!(together.len(), TEXTS.len());
            for (text, embedding) in TEXTS.iter().zip(&together) {
                let alone = vector(&mut embedder, text);
                assert_eq!(alone.len(), WIDTH as usize);
                assert_close(&embedding.vector, &alone, &format!("{family}, {pooling:?}, {text}"));
            }
            // The first token is the same everywhere, and all that a model that reads from left to right has seen there.
            let is_blind = pooling == Pooling::Cls && !family.contains("bert");
            let between = cosine(&together[0].vector, &together[4].vector).expect("directions");
            assert_eq!(between < 0.9999, !is_blind, "{family}, {pooling:?}: {between}");
        }
    }
}

#[test]
fn order_and_batch_size_do_not_change_a_vector() {
    let model = load(&file("bert"));
    let mut wide = model.embedder(&options()).expect("the embedder opens");
    let mut narrow =
        model.embedder(&options().with_length(number(32)).with_batch(number(32))).expect("the embedder opens");
    assert_eq!((wide.limits().batch, narrow.limits().batch), (512, 32));
    let forward = wide.embed_all(&TEXTS).expect("vectors");
    let mut reversed = TEXTS;
    reversed.reverse();
    let mut backward = narrow.embed_all(&reversed).expect("vectors");
    backward.reverse();
    for ((one, other), text) in forward.iter().zip(&backward).zip(TEXTS) {
        assert_close(&one.vector, &other.vector, text);
        assert_eq!(one.tokens, other.tokens);
    }
}

#[test]
fn every_tier_gives_the_same_vectors() {
    let file = file("bert");
    let mut first: Option<Vec<f32>> = None;
    let hardware = gguf_loader::hardware::Hardware::detect();
    for backend in Registry::global().expect("a registry").iter() {
        if !backend.id().starts_with("cpu-") || backend.devices(&hardware).is_err() {
            continue;
        }
        let mut embedder = load_on(&file, Some(backend.id())).embedder(&options()).expect("the embedder opens");
        assert_eq!(embedder.executed_by(), backend.id());
        let vector = vector(&mut embedder, TEXTS[2]);
        let expected = first.get_or_insert_with(|| vector.clone());
        assert_close(&vector, expected, backend.id());
    }
    assert!(first.is_some(), "a tier runs");
}

#[test]
fn the_mean_of_two_tokens_is_half_way_between_the_first_and_the_last() {
    let model = load(&file("bert"));
    let raw = options().with_normalisation(Normalisation::None);
    let of = |pooling| {
        let mut embedder = model.embedder(&raw.clone().with_pooling(pooling)).expect("the embedder opens");
        vector(&mut embedder, "")
    };
    // An empty text is two tokens to BERT: its first and its last are all there is.
    let (mean, cls, last) = (of(Pooling::Mean), of(Pooling::Cls), of(Pooling::Last));
    let expected: Vec<f32> = cls.iter().zip(&last).map(|(first, last)| (first + last) / 2.0).collect();
    assert_close(&mean, &expected, "mean of two");
    assert!(cosine(&cls, &last).expect("directions") < 0.999);
}

#[test]
fn vectors_have_length_one_unless_they_are_wanted_as_they_are() {
    let model = load(&file("bert"));
    let mut unit = model.embedder(&options()).expect("the embedder opens");
    assert_eq!((unit.pooling(), unit.dimensions()), (Pooling::Mean, WIDTH as usize));
    let mut raw = model.embedder(&options().with_normalisation(Normalisation::None)).expect("the embedder opens");
    let (unit, raw) = (vector(&mut unit, TEXTS[0]), vector(&mut raw, TEXTS[0]));
    let norm = |vector: &[f32]| vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    assert!((norm(&unit) - 1.0).abs() < 1e-5 && (norm(&raw) - 1.0).abs() > 0.1, "{} {}", norm(&unit), norm(&raw));
    assert!(cosine(&unit, &raw).expect("directions") > 0.99999);
}

#[test]
fn a_long_text_is_an_error_that_names_it_unless_it_may_be_cut() {
    let model = load(&file("bert"));
    let long = "a ".repeat(CONTEXT as usize);
    let mut strict = model.embedder(&options()).expect("the embedder opens");
    let error = strict.embed_all(&["a", &long]).expect_err("too long");
    let tokens = CONTEXT as usize + 2;
    assert_eq!(error, EmbedError::TooLong { index: 1, tokens, limit: CONTEXT as usize });
    assert!(strict.embed("a").is_ok(), "the embedder stays usable");

    let mut lenient = model.embedder(&options().with_overflow(Overflow::Truncate)).expect("the embedder opens");
    let cut = lenient.embed(&long).expect("a vector");
    assert_eq!((cut.tokens, cut.truncated), (CONTEXT as usize, true));
    // The token that closes the text is kept: what is cut equals what is as long by itself.
    let fitting = strict.embed(&"a ".repeat(CONTEXT as usize - 2)).expect("a vector");
    assert_eq!((fitting.tokens, fitting.truncated), (CONTEXT as usize, false));
    assert_close(&cut.vector, &fitting.vector, "cut");
}

#[test]
fn a_model_without_pooling_needs_one_to_be_named() {
    let model = load(&file("llama"));
    assert_eq!(model.default_pooling(), None);
    assert_eq!(model.embedder(&options()).expect_err("no pooling"), EmbedError::NoPooling);
    assert!(model.embedder(&options().with_pooling(Pooling::Last)).is_ok());
    let bert = load(&file("bert"));
    assert_eq!(bert.embedder(&options().with_pooling(Pooling::Rank)).expect_err("scores"), EmbedError::IsRanking);
    let error = bert.reranker(&options()).expect_err("no head");
    assert_eq!(error, EmbedError::Context(ContextError::NoRanking));
}

#[test]
fn lengths_beyond_the_positions_of_the_model_are_refused() {
    let model = load(&file("bert"));
    let error = model.embedder(&options().with_length(number(CONTEXT as u32 + 1))).expect_err("too long");
    assert!(matches!(error, EmbedError::Context(ContextError::Length { .. })), "{error}");
}

#[test]
fn a_cancelled_embedder_says_so_and_goes_on_after_a_reset() {
    let cancel = CancelToken::new();
    let mut embedder = load(&file("bert")).embedder(&options().with_cancel(cancel.clone())).expect("it opens");
    let before = vector(&mut embedder, "a b");
    cancel.cancel();
    assert_eq!(embedder.embed("a b").expect_err("cancelled"), EmbedError::Decode(DecodeError::Cancelled));
    cancel.reset();
    assert_eq!(vector(&mut embedder, "a b"), before);
}

/// BERT with a head that gives `scores` numbers.
fn ranking(scores: u64) -> ModelFile {
    let mut file = file("bert");
    file.set("bert.pooling_type", 4_u32);
    let f32 = file.tensors[0].tensor_type;
    file.tensors.push(Tensor { name: "cls.weight".into(), shape: vec![WIDTH, WIDTH], tensor_type: f32 });
    file.tensors.push(Tensor { name: "cls.output.weight".into(), shape: vec![WIDTH, scores], tensor_type: f32 });
    file
}

#[test]
fn documents_come_back_best_first_with_the_scores_that_they_have_alone() {
    let model = load(&ranking(1));
    assert_eq!(model.default_pooling(), Some(Pooling::Rank));
    let mut reranker = model.reranker(&options()).expect("the reranker opens");
    let ranked = reranker.rank("a b", &TEXTS).expect("scores");
    assert!(ranked.windows(2).all(|pair| pair[0].score >= pair[1].score), "{ranked:?}");
    let mut indices: Vec<_> = ranked.iter().map(|ranked| ranked.index).collect();
    assert_ne!(ranked[0].score, ranked[6].score);
    indices.sort_unstable();
    assert_eq!(indices, [0, 1, 2, 3, 4, 5, 6]);
    for one in &ranked {
        let alone = reranker.rank("a b", &[TEXTS[one.index]]).expect("a score");
        let difference = (alone[0].score - one.score).abs();
        assert!(difference < 2e-3 * ranked[0].score.abs().max(ranked[6].score.abs()), "{difference}");
    }
    // [CLS] a b [SEP] z [SEP]
    assert_eq!(ranked.iter().find(|ranked| ranked.index == 1).expect("it is there").tokens, 6);
    // The query counts.
    let other = reranker.rank("z z z z", &TEXTS).expect("scores");
    let score = |ranked: &[gguf_loader::embedding::Ranked]| ranked.iter().find(|one| one.index == 0).unwrap().score;
    assert_ne!(score(&ranked), score(&other));
}

#[test]
fn a_document_may_be_cut_and_a_query_may_not() {
    let model = load(&ranking(1));
    let long = "a ".repeat(CONTEXT as usize);
    let error = model.reranker(&options()).expect("it opens").rank("b", &["a", &long]).expect_err("too long");
    assert!(matches!(error, EmbedError::TooLong { index: 1, .. }), "{error}");
    let mut lenient = model.reranker(&options().with_overflow(Overflow::Truncate)).expect("it opens");
    let ranked = lenient.rank("b", &[long.as_str()]).expect("a score");
    assert_eq!((ranked[0].tokens, ranked[0].truncated), (CONTEXT as usize, true));
    let error = lenient.rank(&long, &["a"]).expect_err("the query fills it");
    assert!(matches!(error, EmbedError::TooLong { index: 0, .. }), "{error}");
    assert_eq!(lenient.rank("b", &[""]).expect_err("empty"), EmbedError::Empty { index: 0 });
}

#[test]
fn a_head_of_another_width_than_its_labels_is_refused() {
    for scores in [1, 3] {
        let mut file = ranking(scores);
        file.set("bert.classifier.output_labels", vec!["no".to_owned(), "maybe".to_owned(), "yes".to_owned()]);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("model.gguf");
        assert!(file.write(&path));
        // llama.cpp refuses the width itself, or we do; neither reads past the scores.
        match Model::load(&path) {
            Ok(model) => assert_eq!(model.reranker(&options()).is_ok(), scores == 3),
            Err(error) => assert!(scores == 1, "{error}"),
        }
    }
}
