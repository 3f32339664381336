//! Text to tokens and back, for backends that can.

use std::sync::Arc;

use gguf_loader::backend::{TokenizeOptions, Vocabulary, VocabularyError};

use crate::{
    checks,
    models::Model,
    subject::{Subject, open_file, request},
};

checks! {
    text_comes_back_from_its_tokens,
    vocabulary_of_a_file_equals_that_of_a_model,
    special_tokens_are_those_of_the_file,
    token_outside_the_vocabulary_has_no_piece,
}

const TEXTS: &[&str] = &["the word", "What is it? 42!", "naïve — 😀\n\ttabs and  two spaces", "a"];

/// The vocabularies of a SentencePiece and of a BPE file.
fn vocabularies(subject: &Subject) -> [Arc<dyn Vocabulary>; 2] {
    [Model::SentencePieceVocabulary, Model::BytePairVocabulary].map(|model| {
        let file = open_file(&subject.models.path(model));
        let loaded = subject.backend.vocabulary(&request(&file));
        let loaded = loaded.expect("these checks are ignored for a backend that cannot tokenise");
        loaded.unwrap_or_else(|error| panic!("{model:?}: {error}"))
    })
}

fn tokenize(vocabulary: &dyn Vocabulary, text: &str, add_special: bool) -> Vec<u32> {
    let mut tokens = Vec::new();
    let options = TokenizeOptions { add_special, parse_special: false };
    vocabulary.tokenize(text, options, &mut tokens).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    tokens
}

fn text_comes_back_from_its_tokens(subject: &Subject) {
    for vocabulary in vocabularies(subject) {
        for &text in TEXTS {
            let tokens = tokenize(&*vocabulary, text, false);
            assert!(tokens.iter().all(|&token| token < vocabulary.n_tokens()), "{tokens:?}");
            let mut bytes = Vec::new();
            for &token in &tokens {
                vocabulary.append_piece(token, false, &mut bytes).expect("a token of the vocabulary");
            }
            let back = String::from_utf8(bytes).expect("the bytes of a text");
            // SentencePiece puts a space before the text.
            assert_eq!(back.strip_prefix(' ').unwrap_or(&back), text, "{tokens:?}");
        }
    }
}

fn vocabulary_of_a_file_equals_that_of_a_model(subject: &Subject) {
    let [of_file, _] = vocabularies(subject);
    let of_model = subject.load(subject.usual()).vocabulary().expect("a model of a backend that can tokenise");
    assert_eq!(of_model.n_tokens(), of_file.n_tokens());
    assert_eq!(of_model.special(), of_file.special());
    for &text in TEXTS {
        assert_eq!(tokenize(&*of_model, text, true), tokenize(&*of_file, text, true));
    }
}

fn special_tokens_are_those_of_the_file(subject: &Subject) {
    let [sentence_piece, byte_pair] = vocabularies(subject);
    for vocabulary in [&sentence_piece, &byte_pair] {
        assert_eq!(vocabulary.n_tokens(), 512);
        assert_eq!((vocabulary.special().bos, vocabulary.special().eos), (Some(1), Some(2)));
        assert!(vocabulary.is_end_of_generation(2) && !vocabulary.is_end_of_generation(300));
    }
    assert!(sentence_piece.special().add_bos && !byte_pair.special().add_bos);
    assert_eq!(tokenize(&*sentence_piece, "the", true)[0], 1);
    assert_ne!(tokenize(&*byte_pair, "the", true)[0], 1);
}

fn token_outside_the_vocabulary_has_no_piece(subject: &Subject) {
    for vocabulary in vocabularies(subject) {
        for token in [512, u32::MAX] {
            let mut bytes = Vec::new();
            let error = vocabulary.append_piece(token, true, &mut bytes);
            assert_eq!(error, Err(VocabularyError::Token { token, n_tokens: 512 }));
            assert!(bytes.is_empty());
        }
    }
}
