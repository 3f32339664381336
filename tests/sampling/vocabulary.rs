//! Steps that look into the vocabulary, on a trained model's: DRY and infill, against llama.cpp.

#![cfg(feature = "cpu")]

use std::{
    ffi::CString,
    path::{Path, PathBuf},
    ptr::NonNull,
};

use gguf_loader::{
    Tokenizer,
    backend::{Token, TokenizeOptions},
    gguf::synth::{self, SyntheticModel},
    sampling::SamplerStep,
};
use llama_cpp_sys_2 as sys;

use super::{
    compare::{left, probabilities},
    noise,
};

/// The vocabulary of SmolLM2, read by llama.cpp without us.
struct Reference(NonNull<sys::llama_model>);

impl Reference {
    fn load() -> Option<(Self, Tokenizer)> {
        let path = std::env::var_os("GGUF_LOADER_TEST_MODEL").map(PathBuf::from).filter(|path| path.is_file());
        if path.is_none() {
            println!("skipped: GGUF_LOADER_TEST_MODEL names no file");
        }
        path.map(|path| Self::of_file(&path))
    }

    /// A synthetic vocabulary with SentencePiece's spaces before words.
    fn sentence_piece() -> (Self, Tokenizer) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vocabulary.gguf");
        let model = SyntheticModel::tiny().with_tokenizer(synth::Tokenizer::SentencePiece);
        model.vocabulary_only().write_file(&path).unwrap();
        Self::of_file(&path)
    }

    fn of_file(path: &Path) -> (Self, Tokenizer) {
        let tokenizer = Tokenizer::load(path).unwrap();
        let path = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: plain calls; the path is a C string.
        let model = unsafe {
            let mut params = sys::llama_model_default_params();
            params.vocab_only = true;
            sys::llama_model_load_from_file(path.as_ptr(), params)
        };
        (Self(NonNull::new(model).unwrap()), tokenizer)
    }

    fn vocabulary(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is valid.
        unsafe { sys::llama_model_get_vocab(self.0.as_ptr()) }
    }

    /// What a sampler leaves, by probability: that of the logits, or with `computed` the one that it wrote itself.
    fn left(
        &self,
        sampler: *mut sys::llama_sampler,
        history: &[Token],
        logits: &[(Token, f32)],
        computed: bool,
    ) -> Vec<(Token, f64)> {
        let data = |&(token, logit): &(Token, f32)| sys::llama_token_data { id: token as i32, logit, p: 0.0 };
        let mut entries: Vec<sys::llama_token_data> = logits.iter().map(data).collect();
        let mut array = sys::llama_token_data_array {
            data: entries.as_mut_ptr(),
            size: entries.len(),
            selected: -1,
            sorted: false,
        };
        // SAFETY: the sampler is valid and freed once; the array points at entries that outlive the calls.
        unsafe {
            history.iter().for_each(|&token| sys::llama_sampler_accept(sampler, token as i32));
            sys::llama_sampler_apply(sampler, &mut array);
            sys::llama_sampler_free(sampler);
        }
        // SAFETY: llama.cpp leaves `size` entries at `data`, within the array that it was given.
        let entries = unsafe { std::slice::from_raw_parts(array.data, array.size) };
        let logit = |entry: &sys::llama_token_data| if computed { entry.p.ln() } else { entry.logit };
        let left = entries.iter().map(|entry| (entry.id as Token, logit(entry)));
        probabilities(&left.filter(|(_, logit)| *logit > f32::NEG_INFINITY).collect::<Vec<_>>())
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: loaded by us, freed once.
        unsafe { sys::llama_model_free(self.0.as_ptr()) };
    }
}

fn assert_same(ours: &[(Token, f64)], theirs: &[(Token, f64)], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}: {ours:?} and {theirs:?}");
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert!(ours.0 == theirs.0 && (ours.1 - theirs.1).abs() < 1e-4, "{what}: {ours:?} and {theirs:?}");
    }
}

#[test]
fn dry() {
    let Some((reference, tokenizer)) = Reference::load() else { return };
    let n_vocab = tokenizer.n_tokens() as usize;
    let breakers = ["\n", ":", "\"", "*", "end of", "ab\ncd"];
    let raw: Vec<CString> = breakers.iter().map(|text| CString::new(*text).unwrap()).collect();
    let mut pointers: Vec<*const std::ffi::c_char> = raw.iter().map(|text| text.as_ptr()).collect();
    let text = "she said: the cat sat on the mat and the cat sat on the rug, then the end of the cat sat on";
    let plain = TokenizeOptions { add_special: false, parse_special: false };
    let sentence = tokenizer.tokenize(text, plain).unwrap();
    let (mut compared, mut penalised) = (0, 0);
    for length in 1..=sentence.len() {
        for (allowed_length, last) in [(1, 4096), (2, 4096), (3, 20)] {
            let history = &sentence[..length];
            let logits: Vec<f32> = noise(length as u64).take(n_vocab).map(|noise| noise as f32 * 4.0).collect();
            let own = breakers.map(str::to_owned).to_vec();
            let step = SamplerStep::Dry { multiplier: 0.8, base: 1.75, allowed_length, last, breakers: own };
            // SAFETY: the vocabulary is valid while the sampler lives, and the texts are copied.
            let sampler = unsafe {
                sys::llama_sampler_init_dry(
                    reference.vocabulary(),
                    0.8,
                    1.75,
                    allowed_length as i32,
                    last as i32,
                    pointers.as_mut_ptr(),
                    pointers.len(),
                )
            };
            let entries: Vec<(Token, f32)> = (0..).zip(logits.iter().copied()).collect();
            let theirs = reference.left(sampler, history, &entries, false);
            let ours = left(&tokenizer, &[step], history, &logits);
            assert_same(&ours, &theirs, &format!("{length} tokens, {allowed_length} allowed"));
            compared += 1;
            penalised += usize::from(theirs != probabilities(&entries));
        }
    }
    assert!(penalised * 4 > compared, "only {penalised} of {compared} cases have a repetition");
}

#[test]
fn infill() {
    if let Some((reference, tokenizer)) = Reference::load() {
        compare_infill(&reference, &tokenizer, &["f", "fo", "for", "form", "g", "go", "x", " the", "return", "re"]);
    }
}

#[test]
fn infill_with_spaces_that_are_a_part_of_tokens() {
    let (reference, tokenizer) = Reference::sentence_piece();
    // A word and the same one after a space are two texts, of which neither begins like the other.
    compare_infill(&reference, &tokenizer, &["t", " t", " th", " the", "h", "o", " o", " of", "i", " i"]);
}

/// `words` are tokens, the likeliest candidates.
fn compare_infill(reference: &Reference, tokenizer: &Tokenizer, words: &[&str]) {
    let n_vocab = tokenizer.n_tokens() as usize;
    let end = tokenizer.special().eot.or(tokenizer.special().eos).unwrap();
    let token_of = |text: &&str| {
        let is = |&token: &Token| tokenizer.piece(token, false).unwrap() == text.as_bytes();
        (0..tokenizer.n_tokens()).rev().find(is).unwrap_or_else(|| panic!("no token {text:?}"))
    };
    let words: Vec<Token> = words.iter().map(token_of).collect();
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..200_u64 {
        let mut noise = noise(seed);
        let mut logits = vec![f32::NEG_INFINITY; n_vocab];
        for &word in &words {
            logits[word as usize] = noise.next().unwrap() as f32 * 6.0;
        }
        // Likely, hardly possible, impossible.
        logits[end as usize] = [6.0, -14.0, f32::NEG_INFINITY][seed as usize % 3] + noise.next().unwrap() as f32 * 6.0;
        let entries: Vec<(Token, f32)> =
            (0..).zip(logits.iter().copied()).filter(|(_, logit)| *logit > f32::NEG_INFINITY).collect();
        // SAFETY: the vocabulary is valid while the sampler lives.
        let sampler = unsafe { sys::llama_sampler_init_infill(reference.vocabulary()) };
        let theirs = reference.left(sampler, &[], &entries, true);
        let ours = left(tokenizer, &[SamplerStep::Infill], &[], &logits);
        // Where nothing but the end is left, llama.cpp writes no probability to it.
        let ours: Vec<_> = if theirs.is_empty() { Vec::new() } else { ours };
        kinds.insert((ours.iter().any(|(token, _)| *token == end), ours.len() > 1));
        assert_same(&ours, &theirs, &format!("seed {seed}"));
    }
    assert!(kinds.len() > 2, "the cases are too much alike: {kinds:?}");
}
