//! Tokenizers that would abort or hang llama.cpp: one test a class.

use gguf_loader::gguf::{KeyProblem, Strings, Writer};

use super::{accept, refuse, refuse_for, refuse_key};

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";

fn vocabulary(model: &str, tokens: &[&[u8]]) -> Writer {
    let mut writer = Writer::new();
    writer.set(MODEL, model).set(TOKENS, tokens.iter().collect::<Strings>());
    writer
}

#[test]
fn tokens_without_a_tokenizer_are_refused() {
    let mut writer = Writer::new();
    writer.set(TOKENS, vec!["a"]);
    assert!(refuse(&writer).to_string().contains(MODEL));
}

// KV type confusion: arrays taken for another element type.
#[test]
fn arrays_of_other_types_are_refused() {
    refuse_key(TOKENS, vec![1_u8; 300], TOKENS);
    refuse_key(TOKENS, "text", TOKENS);
    refuse_key(TYPES, vec![1_u32; 300], TYPES);
    refuse_key(TYPES, vec![1_i64; 300], TYPES);
    refuse_key(SCORES, vec![0.0_f64; 300], SCORES);
    refuse_key(SCORES, vec!["a"; 300], SCORES);
    refuse_key("tokenizer.ggml.merges", vec![1_u8], "tokenizer.ggml.merges");
    refuse_key(MODEL, 1_u32, MODEL);
}

// Vocabulary out of bounds: llama.cpp indexes these arrays by token.
#[test]
fn arrays_of_other_lengths_are_refused() {
    for length in [0, 299, 301] {
        refuse_key(TYPES, vec![1_i32; length], TYPES);
        refuse_key(SCORES, vec![0.0_f32; length], SCORES);
    }
}

#[test]
fn an_empty_vocabulary_is_refused() {
    refuse_for(&vocabulary("test", &[]), TOKENS);
}

// llama_vocab::impl::load: GGML_ASSERT(id_to_token.size() == token_to_id.size()).
#[test]
fn tokens_that_llama_cpp_takes_for_the_same_are_refused() {
    refuse_for(&vocabulary("test", &[b"a", b"b", b"a"]), TOKENS);
    refuse_for(&vocabulary("test", &[b"a", b"a\0b"]), TOKENS);
    refuse_for(&vocabulary("test", &[b"[EMPTY_1]", b""]), TOKENS);
    accept(&vocabulary("test", &[b"a", b"", b"b", b"\0"]));
}

#[test]
fn token_types_out_of_range_are_refused() {
    for bad in [-1, 7, i32::MAX, i32::MIN] {
        let mut types = vec![1; 300];
        types[150] = bad;
        let KeyProblem::Value { found, .. } = refuse_key(TYPES, types, TYPES) else { panic!() };
        assert_eq!(found, format!("{bad} for token 150"));
    }
}

// llama_vocab::impl::token_to_byte.
#[test]
fn byte_tokens_that_are_not_bytes_are_refused() {
    let mut short = vocabulary("llama", &[b"<unk>", b"<s>", b"</s>", b"x"]);
    short.set(TYPES, vec![2_i32, 3, 3, 6]);
    refuse_for(&short, TYPES);
    let mut good = vocabulary("llama", &[b"<unk>", b"<s>", b"</s>", b"<0x0A>"]);
    good.set(TYPES, vec![2_i32, 3, 3, 6]);
    accept(&good);
}

#[test]
fn a_score_that_is_no_number_is_refused() {
    let mut scores = vec![0.0_f32; 300];
    scores[7] = f32::NAN;
    refuse_key(SCORES, scores, SCORES);
}

#[test]
fn special_tokens_outside_the_vocabulary_are_refused() {
    for name in ["bos", "eos", "eot", "eom", "unknown"] {
        let key = format!("tokenizer.ggml.{name}_token_id");
        refuse_key(&key, 300_u32, &key);
        refuse_key(&key, u32::MAX, &key);
        refuse_key(&key, "1", &key);
    }
}

#[test]
fn padding_outside_the_vocabulary_is_common_and_accepted() {
    let mut writer = super::model();
    writer.set("tokenizer.ggml.padding_token_id", 300_u32);
    accept(&writer);
}

// tokenize: GGML_ASSERT(special_bos_id != LLAMA_TOKEN_NULL), and the same for EOS and the separator.
#[test]
fn a_special_token_that_is_added_must_exist() {
    refuse_for(&vocabulary("llama", &[b"a"]), MODEL);
    refuse_for(&vocabulary("bert", &[b"a"]), MODEL);
    refuse_for(&vocabulary("gemma4", &[b"a"]), MODEL);
    refuse_for(&vocabulary("t5", &[b"a"]), MODEL);
    let mut bpe = vocabulary("gpt2", &[b"a"]);
    accept(&bpe);
    bpe.set("tokenizer.ggml.add_bos_token", true);
    refuse_for(&bpe, MODEL);
    bpe.set("tokenizer.ggml.bos_token_id", 0_u32);
    accept(&bpe);
    bpe.set("tokenizer.ggml.add_eos_token", true);
    refuse_for(&bpe, MODEL);
    let mut llama3 = vocabulary("gpt2", &[b"a"]);
    llama3.set("tokenizer.ggml.pre", "llama-bpe");
    refuse_for(&llama3, MODEL);
}

// llm_tokenizer_rwkv_session::tokenize starts over when no token matches what began like one.
#[test]
fn an_rwkv_vocabulary_without_its_single_bytes_is_refused() {
    accept(&vocabulary("rwkv", &[b"a", b"ab", b"\\n", b"\\n\\n", b"\\xff", b"\\xff\\x00"]));
    refuse_for(&vocabulary("rwkv", &[b"a", b"bc"]), TOKENS);
    refuse_for(&vocabulary("rwkv", &[b"n", b"\\n\\n"]), TOKENS);
}
