//! Tokenizers: tokens and their types, merges, special tokens, templates.

use gguf_loader::gguf::{Array, Gguf, Strings, Value};
use serde_json::json;

use super::{checkpoint::Checkpoint, converted};

fn key<'a>(gguf: &'a Gguf, name: &str) -> Option<&'a Value> {
    gguf.metadata().get(&format!("tokenizer.{name}"))
}

fn strings<'a>(gguf: &'a Gguf, name: &str) -> &'a Strings {
    key(gguf, name).and_then(Value::as_array).and_then(Array::as_strings).unwrap()
}

fn id(gguf: &Gguf, name: &str) -> Option<u64> {
    key(gguf, &format!("ggml.{name}_token_id")).and_then(Value::as_u64)
}

#[test]
fn tokens_stand_at_their_ids_with_their_types() {
    let gguf = converted(&Checkpoint::packed());
    let tokens = strings(&gguf, "ggml.tokens");
    let Some(Value::Array(Array::I32(kinds))) = key(&gguf, "ggml.token_type") else { panic!("no types") };
    let token = |id: usize| (tokens.text(id).unwrap().into_owned(), kinds[id]);
    assert_eq!((tokens.len(), kinds.len()), (264, 264));
    assert_eq!(token(0), ("!".to_owned(), 1));
    assert_eq!(token(257), ("the".to_owned(), 1));
    assert_eq!(token(260), ("<|begin_of_text|>".to_owned(), 3));
    assert_eq!(token(262), ("<tool>".to_owned(), 4));
    assert_eq!(token(263), ("[PAD263]".to_owned(), 5));
    assert_eq!(key(&gguf, "ggml.model").unwrap().as_str(), Some("gpt2"));
    assert_eq!(key(&gguf, "ggml.pre").unwrap().as_str(), Some("llama-bpe"));
}

#[test]
fn merges_come_as_strings_or_as_pairs() {
    let mut checkpoint = Checkpoint::packed();
    let joined = converted(&checkpoint);
    checkpoint.tokenizer["model"]["merges"] = json!([["t", "h"], ["th", "e"], ["a", "n"], ["an", "d"]]);
    let pairs = converted(&checkpoint);
    let expected: Strings = ["t h", "th e", "a n", "an d"].iter().collect();
    assert_eq!(strings(&joined, "ggml.merges"), &expected);
    assert_eq!(strings(&pairs, "ggml.merges"), &expected);
}

#[test]
fn special_tokens_come_from_the_most_special_file() {
    let mut checkpoint = Checkpoint::packed();
    let gguf = converted(&checkpoint);
    assert_eq!((id(&gguf, "bos"), id(&gguf, "eos"), id(&gguf, "eot")), (Some(260), Some(261), None));

    checkpoint
        .files
        .insert("generation_config.json", json!({"eos_token_id": [261, 262], "pad_token_id": 263}).to_string());
    let gguf = converted(&checkpoint);
    assert_eq!((id(&gguf, "eos"), id(&gguf, "eot"), id(&gguf, "padding")), (Some(261), Some(262), Some(263)));

    let config = checkpoint.config.as_object_mut().unwrap();
    config.remove("bos_token_id");
    config.remove("eos_token_id");
    checkpoint.files.clear();
    let settings = json!({"bos_token": {"content": "<|begin_of_text|>"}, "eos_token": "<|end_of_text|>"});
    checkpoint.files.insert("tokenizer_config.json", settings.to_string());
    let gguf = converted(&checkpoint);
    assert_eq!((id(&gguf, "bos"), id(&gguf, "eos")), (Some(260), Some(261)));
}

#[test]
fn up_to_three_ends_of_a_text_are_kept_and_each_counts_once() {
    let mut checkpoint = Checkpoint::packed();
    let ids = json!({"eos_token_id": [261, 262, 261, 259, 262]});
    checkpoint.files.insert("generation_config.json", ids.to_string());
    let gguf = converted(&checkpoint);
    assert_eq!((id(&gguf, "eos"), id(&gguf, "eot"), id(&gguf, "eom")), (Some(261), Some(262), Some(259)));
}

#[test]
fn template_of_the_tokenizer_says_whether_it_adds_the_first_token() {
    let adds_bos = |checkpoint: &Checkpoint| key(&converted(checkpoint), "ggml.add_bos_token").unwrap().as_bool();
    let mut checkpoint = Checkpoint::packed();
    // Fast tokenizers ignore the flag when they have a template.
    checkpoint.files.insert("tokenizer_config.json", json!({"add_bos_token": false}).to_string());
    assert_eq!(adds_bos(&checkpoint), Some(true));
    checkpoint.tokenizer["post_processor"] = json!({"type": "ByteLevel"});
    assert_eq!(adds_bos(&checkpoint), Some(false));
    checkpoint.files.insert("tokenizer_config.json", json!({"add_bos_token": true}).to_string());
    assert_eq!(adds_bos(&checkpoint), Some(true));
}

#[test]
fn chat_template_has_a_file_of_its_own_or_stands_among_the_settings() {
    let template = |checkpoint: &Checkpoint| {
        key(&converted(checkpoint), "chat_template").and_then(Value::as_str).map(str::to_owned)
    };
    let mut checkpoint = Checkpoint::packed();
    assert_eq!(template(&checkpoint), None);
    let named = json!([{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]);
    checkpoint.files.insert("tokenizer_config.json", json!({"chat_template": named}).to_string());
    assert_eq!(template(&checkpoint).as_deref(), Some("D"));
    checkpoint.files.insert("tokenizer_config.json", json!({"chat_template": "S"}).to_string());
    assert_eq!(template(&checkpoint).as_deref(), Some("S"));
    checkpoint.files.insert("chat_template.jinja", "F".to_owned());
    assert_eq!(template(&checkpoint).as_deref(), Some("F"));
}
