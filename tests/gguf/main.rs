//! The GGUF reader, validator and writer, from outside: files in, values or typed errors out.
//!
//! The classes of hostile files that hit llama.cpp in the past, and the tests that hold them off:
//!
//! | Class | Tests |
//! |---|---|
//! | Counts and sizes that overflow (CVE-2024-21802 and its family, CVE-2025-53630), array lengths of 2^63 | `frame::huge_*`, `frame::impossible_shapes_are_refused`, `damage::*` |
//! | One type taken for another, arrays without an element check | `tokenizer::arrays_of_other_types_are_refused`, `files::a_part_number_of_another_type_is_refused` |
//! | Alignment without bound | `frame::alignments_without_bound_are_refused`, `frame::data_that_cannot_be_mapped_is_refused` |
//! | Vocabulary out of bounds (CVE-2025-49847) | `tokenizer::arrays_of_other_lengths_are_refused`, `tokenizer::special_tokens_outside_the_vocabulary_are_refused`, `frame::huge_strings_*` |
//! | Tensors over each other or beyond the file | `frame::overlapping_*`, `frame::data_beyond_the_end_of_the_file_is_refused` |
//!
//! Template injection (CVE-2024-34359) is not a matter of the file: nothing here runs a chat template.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic like the test itself")]

mod bitnet;
mod damage;
mod files;
mod frame;
mod hyperparameters;
mod round_trip;
mod storage;
mod tokenizer;

use gguf_loader::gguf::{Gguf, GgufError, KeyProblem, TensorType, Value, Writer};

const WIDTH: u64 = 64;
const BLOCKS: u32 = 2;
const TOKENS: u64 = 300;

/// A llama model with two blocks, as small as it can be and accepted.
fn model() -> Writer {
    let mut writer = Writer::new();
    writer
        .set("general.architecture", "llama")
        .set("llama.context_length", 128_u32)
        .set("llama.embedding_length", WIDTH as u32)
        .set("llama.block_count", BLOCKS)
        .set("llama.feed_forward_length", 128_u32)
        .set("llama.attention.head_count", 4_u32)
        .set("llama.attention.head_count_kv", 2_u32)
        .set("llama.attention.layer_norm_rms_epsilon", 1e-5_f32)
        .set("llama.rope.dimension_count", 16_u32)
        .set("llama.rope.freq_base", 10000.0_f32)
        .set("tokenizer.ggml.model", "gpt2")
        .set("tokenizer.ggml.tokens", (0..TOKENS).map(|id| format!("t{id}")).collect::<Vec<_>>())
        .set("tokenizer.ggml.token_type", vec![1_i32; TOKENS as usize])
        .set("tokenizer.ggml.scores", vec![0.0_f32; TOKENS as usize])
        .set("tokenizer.ggml.merges", vec!["t 1", "t 2"])
        .set("tokenizer.ggml.bos_token_id", 1_u32)
        .set("tokenizer.ggml.eos_token_id", 2_u32);
    add(&mut writer, "token_embd.weight", &[WIDTH, TOKENS], TensorType::Q8_0);
    add(&mut writer, "output_norm.weight", &[WIDTH], TensorType::F32);
    for block in 0..BLOCKS {
        let mut add = |name: &str, shape: &[u64], tensor_type| {
            add(&mut writer, &format!("blk.{block}.{name}.weight"), shape, tensor_type);
        };
        add("attn_norm", &[WIDTH], TensorType::F32);
        add("attn_q", &[WIDTH, WIDTH], TensorType::Q4_0);
        add("attn_k", &[WIDTH, WIDTH / 2], TensorType::Q4_0);
        add("attn_v", &[WIDTH, WIDTH / 2], TensorType::Q4_0);
        add("attn_output", &[WIDTH, WIDTH], TensorType::Q4_0);
        add("ffn_norm", &[WIDTH], TensorType::F32);
        add("ffn_gate", &[WIDTH, 128], TensorType::Q4_0);
        add("ffn_up", &[WIDTH, 128], TensorType::Q4_0);
        add("ffn_down", &[128, WIDTH], TensorType::Q4_0);
    }
    writer
}

/// Adds a tensor of zeros.
fn add(writer: &mut Writer, name: &str, shape: &[u64], tensor_type: TensorType) {
    let bytes = tensor_type.bytes_of(shape).unwrap();
    writer.add_tensor(name, shape, tensor_type, vec![0; bytes as usize]).unwrap();
}

fn bytes(writer: &Writer) -> Vec<u8> {
    let mut file = Vec::new();
    writer.write(&mut file).unwrap();
    file
}

fn accept(writer: &Writer) -> Gguf {
    Gguf::parse(&bytes(writer)).unwrap()
}

fn refuse(writer: &Writer) -> GgufError {
    Gguf::parse(&bytes(writer)).unwrap_err()
}

/// Asserts that the model with `key` set to `value` is refused because of `blamed`, at the byte where it stands.
#[track_caller]
fn refuse_key(key: &str, value: impl Into<Value>, blamed: &str) -> KeyProblem {
    let mut writer = model();
    writer.set(key, value);
    refuse_for(&writer, blamed)
}

/// Asserts that the file is refused because of `blamed`, at the byte where it stands.
#[track_caller]
fn refuse_for(writer: &Writer, blamed: &str) -> KeyProblem {
    let file = bytes(writer);
    let error = Gguf::parse(&file).unwrap_err();
    let message = error.to_string();
    match error {
        GgufError::Key { key, offset, problem, .. } if key == blamed => {
            let name = offset as usize + 8;
            assert_eq!(&file[name..name + key.len()], key.as_bytes(), "the offset of {message}");
            problem
        }
        _ => panic!("expected `{blamed}` to be blamed: {message}"),
    }
}

#[test]
fn the_model_that_the_other_tests_damage_is_accepted() {
    let gguf = accept(&model());
    assert_eq!(gguf.tensors().len(), 2 + 9 * BLOCKS as usize);
    assert_eq!(gguf.architecture().unwrap(), "llama");
}
