//! Checkpoints that cannot be converted: a typed error for each, and nothing left behind (`refused` looks).

use std::{fs, ops::ControlFlow, path::PathBuf};

use gguf_loader::{
    convert::{ConvertError, ConvertOptions, convert},
    gguf::WriteError,
};
use serde_json::{Value as Json, json};

use super::{
    checkpoint::{Checkpoint, FFN, KV_WIDTH, TOKENS, Tensor, WIDTH},
    refused,
};

/// Asserts that the error is of this kind and says each of the texts.
macro_rules! assert_refused {
    ($checkpoint:expr, $kind:pat, $($text:expr),+) => {
        let error = refused($checkpoint);
        assert!(matches!(error, $kind), "{error:?}");
        $(assert!(error.to_string().contains($text), "`{}` is not in: {error}", $text);)+
    };
}

/// Packed, with a field of `config.json` changed.
fn with_config(pointer: &str, value: Json) -> Checkpoint {
    let mut checkpoint = Checkpoint::packed();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    checkpoint.config.pointer_mut(parent).unwrap()[key] = value;
    checkpoint
}

/// Converts a folder whose file `name` was changed after it was written.
fn damaged(checkpoint: &Checkpoint, name: &str, change: impl FnOnce(PathBuf)) -> ConvertError {
    let (folder, target) = (checkpoint.write(), tempfile::tempdir().unwrap());
    change(folder.path().join(name));
    let options = ConvertOptions::default();
    let error =
        convert(folder.path(), target.path().join("model.gguf"), &options, |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0, "{error}");
    error
}

#[test]
fn missing_files_are_named() {
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let error = damaged(&Checkpoint::packed(), name, |path| fs::remove_file(path).unwrap());
        assert!(matches!(&error, ConvertError::Missing { path } if path.ends_with(name)), "{error:?}");
    }
    let mut sharded = Checkpoint::packed();
    sharded.shards = 2;
    let name = "model-00002-of-00002.safetensors";
    let error = damaged(&sharded, name, |path| fs::remove_file(path).unwrap());
    assert!(matches!(&error, ConvertError::Missing { path } if path.ends_with(name)), "{error:?}");
    let gone = convert("no-such-folder", "out.gguf", &ConvertOptions::default(), |_| ControlFlow::Continue(()));
    assert!(matches!(gone, Err(ConvertError::Missing { .. })), "{gone:?}");
}

#[test]
fn files_that_are_not_json_are_named() {
    for name in ["config.json", "tokenizer.json"] {
        let error = damaged(&Checkpoint::packed(), name, |path| fs::write(path, "{").unwrap());
        assert!(matches!(&error, ConvertError::Json { path, .. } if path.ends_with(name)), "{error:?}");
    }
    let mut checkpoint = Checkpoint::packed();
    checkpoint.config.as_object_mut().unwrap().remove("hidden_size");
    assert_refused!(&checkpoint, ConvertError::Json { .. }, "config.json");
}

#[test]
fn models_that_the_graph_does_not_compute_are_refused() {
    for (pointer, value) in [
        ("/model_type", json!("llama")),
        ("/hidden_act", json!("gelu")),
        ("/hidden_size", json!(0)),
        ("/num_attention_heads", json!(7)),
        ("/num_key_value_heads", json!(3)),
        ("/head_dim", json!(16)),
        ("/attention_bias", json!(true)),
        ("/rope_scaling", json!({"type": "linear", "factor": 2.0})),
        ("/rope_parameters", json!({"rope_type": "yarn"})),
        ("/quantization_config/quant_method", json!("gptq")),
        ("/quantization_config/linear_class", json!("linear")),
        ("/quantization_config/quantization_mode", json!("sometimes")),
        ("/quantization_config/use_rms_norm", json!(true)),
    ] {
        let error = refused(&with_config(pointer, value));
        assert!(matches!(error, ConvertError::Config { .. }), "{pointer}: {error:?}");
    }
}

#[test]
fn hyperparameters_that_no_reader_accepts_are_refused() {
    let error = refused(&with_config("/rms_norm_eps", json!(-1.0)));
    assert!(matches!(error, ConvertError::Invalid { .. }), "{error:?}");
    let error = refused(&with_config("/eos_token_id", json!(TOKENS)));
    assert!(matches!(error, ConvertError::Invalid { .. }), "{error:?}");
}

#[test]
fn tokenizers_that_gguf_has_no_words_for_are_refused() {
    let with = |pointer: &str, value: Json| {
        let mut checkpoint = Checkpoint::packed();
        *checkpoint.tokenizer.pointer_mut(pointer).unwrap() = value;
        checkpoint
    };
    assert_refused!(&with("/model/type", json!("Unigram")), ConvertError::Tokenizer { .. }, "byte-level BPE");
    assert_refused!(&with("/normalizer", json!({"type": "NFC"})), ConvertError::Tokenizer { .. }, "normalises");
    let words = json!({"type": "Whitespace"});
    assert_refused!(&with("/pre_tokenizer", words), ConvertError::Tokenizer { .. }, "cut text into words");
    let mut fallback = Checkpoint::packed();
    fallback.tokenizer["model"]["byte_fallback"] = true.into();
    assert_refused!(&fallback, ConvertError::Tokenizer { .. }, "fallback");
    let beyond = with("/added_tokens/0/id", json!(TOKENS));
    assert_refused!(&beyond, ConvertError::Tokenizer { .. }, "token 264", "beyond the 264 tokens");
    let twice = with("/added_tokens/0/id", json!(0));
    assert_refused!(&twice, ConvertError::Tokenizer { .. }, "token 0 is `!` and `<|begin_of_text|>`");
}

#[test]
fn more_ends_of_a_text_than_a_file_can_hold_are_refused() {
    let ids = json!([261, 262, 259, 258]);
    let mut checkpoint = Checkpoint::packed();
    checkpoint.files.insert("generation_config.json", json!({"eos_token_id": ids}).to_string());
    assert_refused!(
        &checkpoint,
        ConvertError::EndTokens { found: 4, places: 3, .. },
        "generation_config.json",
        "`eos_token_id`"
    );
    let checkpoint = with_config("/eos_token_id", ids);
    assert_refused!(&checkpoint, ConvertError::EndTokens { found: 4, places: 3, .. }, "/config.json");
}

#[test]
fn damaged_safetensors_are_refused() {
    let name = "model.safetensors";
    let truncated = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    };
    let huge_header = |path: PathBuf| fs::write(path, [0xff; 64]).unwrap();
    let empty = |path: PathBuf| fs::write(path, "").unwrap();
    let not_json = |path: PathBuf| fs::write(path, b"\x02\0\0\0\0\0\0\0[]").unwrap();
    for change in [truncated as fn(PathBuf), huge_header, empty] {
        let error = damaged(&Checkpoint::packed(), name, change);
        assert!(matches!(error, ConvertError::Damaged { .. }), "{error:?}");
    }
    let error = damaged(&Checkpoint::packed(), name, not_json);
    assert!(matches!(error, ConvertError::Json { .. }), "{error:?}");
    let lying = |path: PathBuf| {
        let header = br#"{"model.norm.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#;
        fs::write(path, [&(header.len() as u64).to_le_bytes(), &header[..], &[0; 4]].concat()).unwrap();
    };
    let error = damaged(&Checkpoint::packed(), name, lying);
    assert!(error.to_string().contains("4 bytes for the shape [2]"), "{error}");
}

#[test]
fn index_that_leads_elsewhere_is_refused() {
    let mut checkpoint = Checkpoint::packed();
    checkpoint.shards = 2;
    for file in ["../secret.safetensors", "/etc/passwd", ".."] {
        let index = json!({"weight_map": {"model.norm.weight": file}}).to_string();
        let error = damaged(&checkpoint, "model.safetensors.index.json", |path| fs::write(path, index).unwrap());
        assert!(matches!(error, ConvertError::Damaged { .. }), "{file}: {error:?}");
    }
    let index = json!({"weight_map": {"no.such": "model-00001-of-00002.safetensors"}}).to_string();
    let error = damaged(&checkpoint, "model.safetensors.index.json", |path| fs::write(path, index).unwrap());
    assert!(error.to_string().contains("`no.such` is not in"), "{error}");
}

#[test]
fn tensors_must_be_those_of_the_graph() {
    for name in ["model.norm.weight", "model.layers.1.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight_scale"] {
        let mut checkpoint = Checkpoint::packed();
        checkpoint.tensors.remove(name);
        assert_refused!(&checkpoint, ConvertError::MissingTensor { .. }, name);
    }
    let mut untied = with_config("/tie_word_embeddings", json!(false));
    assert_refused!(&untied, ConvertError::MissingTensor { .. }, "lm_head.weight");
    untied.config["tie_word_embeddings"] = true.into();
    untied.set("self_attn.q_proj.bias", Tensor::f32(&[WIDTH], vec![0.0; WIDTH]));
    assert_refused!(&untied, ConvertError::UnknownTensor { .. }, "model.layers.0.self_attn.q_proj.bias");
    // Older programs wrote what can be computed.
    let mut old = Checkpoint::packed();
    old.set("self_attn.rotary_emb.inv_freq", Tensor::f32(&[4], vec![0.0; 4]));
    super::converted(&old);
}

#[test]
fn element_types_and_shapes_must_agree_with_the_configuration() {
    let with = |name: &str, tensor: Tensor| {
        let mut checkpoint = Checkpoint::packed();
        checkpoint.set(name, tensor);
        checkpoint
    };
    let square = Tensor::u8(&[WIDTH / 4, WIDTH - 1], vec![0x55; WIDTH / 4 * (WIDTH - 1)]);
    assert_refused!(&with("self_attn.q_proj.weight", square), ConvertError::Shape { .. }, "[16, 63]", "[16, 64]");
    let norm = Tensor::u8(&[WIDTH], vec![0; WIDTH]);
    assert_refused!(&with("input_layernorm.weight", norm), ConvertError::Dtype { .. }, "is U8");
    let scale = Tensor::f32(&[2], [1.0, 1.0]);
    assert_refused!(&with("mlp.up_proj.weight_scale", scale), ConvertError::Shape { .. }, "weight_scale");
    let mixed = Tensor::f32(&[KV_WIDTH, WIDTH], vec![1.0; KV_WIDTH * WIDTH]);
    let mut checkpoint = with("self_attn.k_proj.weight", mixed);
    checkpoint.tensors.remove("model.layers.0.self_attn.k_proj.weight_scale");
    assert_refused!(&checkpoint, ConvertError::Dtype { .. }, "is F32", "must be U8");
}

#[test]
fn rows_without_a_block_are_refused() {
    let mut checkpoint = with_config("/intermediate_size", json!(96));
    for layer in 0..2 {
        let name = |part: &str| format!("model.layers.{layer}.mlp.{part}");
        for part in ["gate_proj.weight", "up_proj.weight"] {
            checkpoint.tensors.insert(name(part), Tensor::u8(&[24, WIDTH], vec![0x55; 24 * WIDTH]));
        }
        checkpoint.tensors.insert(name("down_proj.weight"), Tensor::u8(&[WIDTH / 4, 96], vec![0x55; WIDTH / 4 * 96]));
        checkpoint.tensors.insert(name("ffn_sub_norm.weight"), Tensor::f32(&[96], vec![1.0; 96]));
    }
    assert_refused!(&checkpoint, ConvertError::Row { row: 96, .. }, "down_proj", "multiple of 64");
}

#[test]
fn code_that_no_weight_has_is_found() {
    let mut packed = vec![0x55; FFN / 4 * WIDTH];
    // The third stripe: row 2 * 64 + 5.
    packed[5 * WIDTH + 7] = 0b01_11_01_01;
    let mut checkpoint = Checkpoint::packed();
    checkpoint.set("mlp.gate_proj.weight", Tensor::u8(&[FFN / 4, WIDTH], packed));
    assert_refused!(&checkpoint, ConvertError::Code { row: 133, column: 7, .. }, "mlp.gate_proj.weight");
}

#[test]
fn scales_that_are_no_numbers_above_zero_are_refused() {
    for scale in [0.0, -0.5, f32::NAN, f32::INFINITY] {
        for class in ["bitlinear", "autobitlinear"] {
            let mut checkpoint = with_config("/quantization_config/linear_class", json!(class));
            checkpoint.set("mlp.up_proj.weight_scale", Tensor::bf16(&[1], [scale]));
            assert_refused!(&checkpoint, ConvertError::Scale { .. }, "mlp.up_proj.weight_scale");
        }
    }
    // Its inverse is beyond F32.
    let mut checkpoint = with_config("/quantization_config/linear_class", json!("bitlinear"));
    checkpoint.set("mlp.up_proj.weight_scale", Tensor::f32(&[1], [1e-39]));
    assert_refused!(&checkpoint, ConvertError::Scale { .. }, "mlp.up_proj.weight_scale");
}

#[test]
fn floats_that_are_not_finite_are_found() {
    let mut weights = vec![0.5; KV_WIDTH * WIDTH];
    weights[3 * WIDTH + 9] = f32::NAN;
    let mut checkpoint = Checkpoint::master();
    checkpoint.set("self_attn.v_proj.weight", Tensor::bf16(&[KV_WIDTH, WIDTH], weights));
    assert_refused!(&checkpoint, ConvertError::Value { row: 3, column: 9, .. }, "v_proj.weight");

    // 65536 is a number in BF16 and none in F16, in which the embedding is stored.
    let mut embedding = vec![0.5; TOKENS * WIDTH];
    embedding[WIDTH + 2] = 65536.0;
    let mut checkpoint = Checkpoint::packed();
    checkpoint.tensors.insert("model.embed_tokens.weight".to_owned(), Tensor::bf16(&[TOKENS, WIDTH], embedding));
    assert_refused!(&checkpoint, ConvertError::Value { row: 1, column: 2, .. }, "65536");
}

#[test]
fn output_that_is_part_of_the_checkpoint_is_refused() {
    let folder = Checkpoint::packed().write();
    let into = |name: &str| {
        let path = folder.path().join(name);
        convert(folder.path(), path, &ConvertOptions::default(), |_| ControlFlow::Continue(()))
    };
    for name in ["model.safetensors", "tokenizer.json"] {
        let before = fs::read(folder.path().join(name)).unwrap();
        let error = into(name).unwrap_err();
        assert!(matches!(&error, ConvertError::SameFile { path } if path.ends_with(name)), "{error:?}");
        assert_eq!(fs::read(folder.path().join(name)).unwrap(), before);
    }
    // A new file may lie there, and may be written again.
    assert!(into("model.gguf").is_ok() && into("model.gguf").is_ok());
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let folder = Checkpoint::packed().write();
    let output = folder.path().join("no-such-folder/model.gguf");
    let error = convert(folder.path(), &output, &ConvertOptions::default(), |_| ControlFlow::Continue(())).unwrap_err();
    let ConvertError::Write(WriteError::Io { path, .. }) = error else { panic!("{error:?}") };
    assert_eq!(path, output);
}
