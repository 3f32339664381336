//! A trained model, from the checkpoint that it could have been.
//!
//! The I2_S file in `tests/fixtures/bitnet` is read here by bitnet.cpp's rule for x86, and written as Hugging Face has such
//! models: with packed matrices, and with master weights that round to the same codes. What those become is the file that an
//! import of the I2_S file makes, and computes what PyTorch computed.

use std::{ops::ControlFlow, path::PathBuf};

use gguf_loader::{
    gguf::{Gguf, Value},
    import::{ImportOptions, Layout, import},
};
use half::{bf16, f16};
use serde_json::{Value as Json, json};

use super::{
    checkpoint::{Checkpoint, Tensor},
    convert_to, data, floats,
};

/// Names of a block's tensors in a checkpoint and in GGUF.
const MATRICES: [(&str, &str); 7] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
const NORMS: [(&str, &str); 4] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.attn_sub_norm", "attn_sub_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.ffn_sub_norm", "ffn_sub_norm"),
];

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/bitnet", name].iter().collect()
}

/// A matrix of the trained model.
struct Ternary {
    rows: usize,
    columns: usize,
    /// -1, 0 or 1.
    weights: Vec<i8>,
    scale: f32,
}

impl Ternary {
    /// 128 weights in 32 bytes, weight `j` in byte `j % 32` at bit `6 - 2 * (j / 32)`; the scale behind all of them.
    fn read(gguf: &Gguf, name: &str) -> Self {
        let [columns, rows] = gguf.tensor(name).unwrap().shape[..] else { panic!("{name} is no matrix") };
        let bytes = data(gguf, name);
        let (codes, scale) = bytes.split_at((rows * columns / 4) as usize);
        let weight = |block: &[u8; 32], at: usize| (block[at % 32] >> (6 - 2 * (at / 32)) & 3) as i8 - 1;
        let weights = codes.as_chunks().0.iter().flat_map(|block| (0..128).map(move |at| weight(block, at)));
        let scale = f32::from_le_bytes(*scale.first_chunk().unwrap());
        Self { rows: rows as usize, columns: columns as usize, weights: weights.collect(), scale }
    }

    /// Four stripes of rows in a quarter of the rows, the first in the lowest bits.
    fn packed(&self) -> Tensor {
        let stripe = self.rows / 4;
        let mut packed = vec![0; stripe * self.columns];
        for (row, weights) in self.weights.chunks(self.columns).enumerate() {
            for (byte, weight) in packed[row % stripe * self.columns..].iter_mut().zip(weights) {
                *byte |= ((weight + 1) as u8) << (2 * (row / stripe));
            }
        }
        Tensor::u8(&[stripe, self.columns], packed)
    }

    /// Weights whose mean magnitude is the scale: a quarter of it where the code is zero. The others share what is left, as
    /// two neighbours in BF16.
    fn master(&self) -> Tensor {
        let others = self.weights.iter().filter(|&&weight| weight != 0).count();
        let small = bf16::from_f32(self.scale / 4.0).to_f32();
        let sum = f64::from(self.scale) * self.weights.len() as f64;
        let left = sum - f64::from(small) * (self.weights.len() - others) as f64;
        // The upper half of an F32 is the BF16 below it.
        let low = bf16::from_bits((((left / others as f64) as f32).to_bits() >> 16) as u16);
        let (low, high) = (low.to_f32(), bf16::from_bits(low.to_bits() + 1).to_f32());
        let mut highs = ((left - f64::from(low) * others as f64) / f64::from(high - low)).round() as usize;
        let values = self.weights.iter().enumerate().map(|(at, &weight)| match weight {
            0 if at % 2 == 0 => small,
            0 => -small,
            _ => {
                let magnitude = if highs > 0 { high } else { low };
                highs = highs.saturating_sub(1);
                magnitude * f32::from(weight)
            }
        });
        Tensor::bf16(&[self.rows, self.columns], values.collect::<Vec<_>>())
    }
}

/// How a checkpoint has its matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Packed,
    Master,
}

/// The checkpoint of the trained model.
fn checkpoint(model: &Gguf, form: Form) -> Checkpoint {
    let (mut checkpoint, mode) = match form {
        Form::Packed => (Checkpoint::packed(), "offline"),
        Form::Master => (Checkpoint::master(), "online"),
    };
    let of = |key: &str| model.metadata().u64(&format!("bitnet-b1.58.{key}")).unwrap();
    for (field, value) in [
        ("hidden_size", of("embedding_length")),
        ("intermediate_size", of("feed_forward_length")),
        ("num_hidden_layers", of("block_count")),
        ("num_attention_heads", of("attention.head_count")),
        ("num_key_value_heads", of("attention.head_count_kv")),
        ("max_position_embeddings", of("context_length")),
        ("vocab_size", of("vocab_size")),
        ("bos_token_id", model.metadata().u64("tokenizer.ggml.bos_token_id").unwrap()),
        ("eos_token_id", model.metadata().u64("tokenizer.ggml.eos_token_id").unwrap()),
    ] {
        checkpoint.config[field] = value.into();
    }
    checkpoint.config["quantization_config"]["quantization_mode"] = mode.into();
    set_tokenizer(&mut checkpoint.tokenizer, model);

    checkpoint.tensors.clear();
    let mut add = |name: String, tensor: Tensor| checkpoint.tensors.insert(name, tensor);
    let embedding = data(model, "token_embd.weight");
    let embedding = embedding.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32());
    let (width, tokens) = (of("embedding_length") as usize, of("vocab_size") as usize);
    add("model.embed_tokens.weight".to_owned(), Tensor::f32(&[tokens, width], embedding));
    let norm = |name: &str| {
        let values = floats(model, name);
        Tensor::f32(&[values.len()], values)
    };
    add("model.norm.weight".to_owned(), norm("output_norm.weight"));
    for layer in 0..of("block_count") {
        for (to, from) in NORMS {
            add(format!("model.layers.{layer}.{to}.weight"), norm(&format!("blk.{layer}.{from}.weight")));
        }
        for (to, from) in MATRICES {
            let (matrix, to) =
                (Ternary::read(model, &format!("blk.{layer}.{from}.weight")), format!("model.layers.{layer}.{to}"));
            if form == Form::Packed {
                add(format!("{to}.weight"), matrix.packed());
                add(format!("{to}.weight_scale"), Tensor::f32(&[1], [matrix.scale]));
            } else {
                add(format!("{to}.weight"), matrix.master());
            }
        }
    }
    checkpoint
}

/// The trained model's vocabulary in place of that of the small checkpoint; the rules are the same.
fn set_tokenizer(tokenizer: &mut Json, model: &Gguf) {
    const CONTROL: u64 = 3;
    let array = |key: &str| model.metadata().get(key).and_then(Value::as_array).unwrap().clone();
    let texts = |key: &str| -> Vec<String> {
        array(key).as_strings().unwrap().iter().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
    };
    let (mut vocabulary, mut special) = (serde_json::Map::new(), Vec::new());
    let kinds = array("tokenizer.ggml.token_type").to_u64().unwrap();
    for (id, (text, kind)) in texts("tokenizer.ggml.tokens").into_iter().zip(kinds).enumerate() {
        if kind == CONTROL {
            special.push(json!({"id": id, "content": text, "special": true}));
        } else {
            vocabulary.insert(text, id.into());
        }
    }
    tokenizer["model"]["vocab"] = vocabulary.into();
    tokenizer["model"]["merges"] = texts("tokenizer.ggml.merges").into();
    tokenizer["added_tokens"] = special.into();
}

#[test]
fn checkpoint_of_the_trained_model_becomes_what_its_i2_s_file_becomes() {
    let folder = tempfile::tempdir().unwrap();
    let (converted, imported) = (folder.path().join("converted.gguf"), folder.path().join("imported.gguf"));
    let options = ImportOptions::default().with_layout(Layout::X86);
    import(fixture("scribe.gguf"), &imported, &options, |_| ControlFlow::Continue(())).unwrap();
    let (source, imported) = (Gguf::open(fixture("scribe.gguf")).unwrap(), Gguf::open(imported).unwrap());
    for form in [Form::Packed, Form::Master] {
        convert_to(&checkpoint(&source, form), &converted).unwrap();
        let converted = Gguf::open(&converted).unwrap();
        assert_eq!(converted.tensors().len(), imported.tensors().len());
        for tensor in imported.tensors() {
            let name = &tensor.name;
            if form == Form::Master && name.ends_with(".scale") {
                let (found, expected) = (floats(&converted, name)[0], floats(&imported, name)[0]);
                assert!((found / expected - 1.0).abs() < 1e-6, "{name} is {found} instead of {expected}");
            } else {
                assert_eq!(converted.tensor(name).unwrap().tensor_type, tensor.tensor_type, "{form:?} {name}");
                assert!(data(&converted, name) == data(&imported, name), "{form:?} {name}");
            }
        }
        // No reader of BPE looks at scores.
        let of_model = |key: &str| key.starts_with("bitnet-b1.58.") || key.starts_with("tokenizer.");
        let keys = source.metadata().iter().filter(|(key, _)| of_model(key) && !key.ends_with(".scores"));
        for (key, value) in keys {
            assert_eq!(converted.metadata().get(key), Some(value), "{form:?} {key}");
        }
    }
}

/// Tolerances are those of the conformance suite, where their reasons are.
#[cfg(feature = "reference")]
#[test]
fn checkpoint_of_the_trained_model_computes_what_pytorch_computed() {
    use gguf_loader::{
        Model,
        backend::{Batch, ContextOptions},
        model::LoadOptions,
        select::{ChooseOptions, Policy},
    };

    const ROOT_MEAN_SQUARE: f64 = 0.05;
    const LARGEST: f64 = 0.3;
    let recorded: Json = serde_json::from_slice(&std::fs::read(fixture("logits.json")).unwrap()).unwrap();
    let tokens: Vec<u32> = serde_json::from_value(recorded["tokens"].clone()).unwrap();
    let expected: Vec<f32> = serde_json::from_value(recorded["last"].clone()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (source, converted) = (Gguf::open(fixture("scribe.gguf")).unwrap(), folder.path().join("converted.gguf"));
    for form in [Form::Packed, Form::Master] {
        convert_to(&checkpoint(&source, form), &converted).unwrap();
        let choose = ChooseOptions::default().with_policy(Policy::Named("reference".to_owned()));
        let options = LoadOptions::default().with_choose(choose);
        let model = Model::load_with(&converted, &options, |_| ControlFlow::Continue(())).unwrap();
        let mut context = model.context(&ContextOptions::default()).unwrap();
        let mut batch = Batch::new();
        batch.extend(&tokens, 0, 0);
        context.decode(&batch).unwrap();
        let found = context.logits(tokens.len() - 1).unwrap();
        assert_eq!(found.len(), expected.len());
        let differences = || found.iter().zip(&expected).map(|(found, expected)| f64::from(found - expected).abs());
        let (largest, squares) = (differences().fold(0.0, f64::max), differences().map(|by| by * by).sum::<f64>());
        let mean = (squares / expected.len() as f64).sqrt();
        assert!(mean < ROOT_MEAN_SQUARE && largest < LARGEST, "{form:?}: off by {mean:.4}, by {largest:.4} at most");
    }
}
