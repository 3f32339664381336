//! A checkpoint as small as one can be, for tests to change.

use std::{collections::BTreeMap, fs};

use half::bf16;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

pub(crate) const WIDTH: usize = 64;
pub(crate) const FFN: usize = 256;
/// One head of keys: eight elements.
pub(crate) const KV_WIDTH: usize = 8;
pub(crate) const LAYERS: usize = 2;
pub(crate) const TOKENS: usize = 264;

/// Words, numbers of up to three digits, punctuation, space: the expression of Llama 3.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The files of a checkpoint.
pub(crate) struct Checkpoint {
    pub(crate) config: Json,
    pub(crate) tokenizer: Json,
    /// Other files by name.
    pub(crate) files: BTreeMap<&'static str, String>,
    pub(crate) tensors: BTreeMap<String, Tensor>,
    /// Files of weights.
    pub(crate) shards: usize,
}

/// A tensor as it is stored.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<u8>,
}

impl Tensor {
    pub(crate) fn bf16(shape: &[usize], values: impl IntoIterator<Item = f32>) -> Self {
        let data = values.into_iter().flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect();
        Self { dtype: Dtype::BF16, shape: shape.to_vec(), data }
    }

    pub(crate) fn f32(shape: &[usize], values: impl IntoIterator<Item = f32>) -> Self {
        let data = values.into_iter().flat_map(f32::to_le_bytes).collect();
        Self { dtype: Dtype::F32, shape: shape.to_vec(), data }
    }

    fn view(&self) -> TensorView<'_> {
        TensorView::new(self.dtype, self.shape.clone(), &self.data).unwrap()
    }

    pub(crate) fn u8(shape: &[usize], data: Vec<u8>) -> Self {
        Self { dtype: Dtype::U8, shape: shape.to_vec(), data }
    }
}

/// Names, rows and columns of a block's matrices.
pub(crate) const MATRICES: [(&str, usize, usize); 7] = [
    ("self_attn.q_proj", WIDTH, WIDTH),
    ("self_attn.k_proj", KV_WIDTH, WIDTH),
    ("self_attn.v_proj", KV_WIDTH, WIDTH),
    ("self_attn.o_proj", WIDTH, WIDTH),
    ("mlp.gate_proj", FFN, WIDTH),
    ("mlp.up_proj", FFN, WIDTH),
    ("mlp.down_proj", WIDTH, FFN),
];

impl Checkpoint {
    /// Packed matrices of zeros with the scale 0.5, which is a factor.
    pub(crate) fn packed() -> Self {
        let mut checkpoint = Self::without_matrices("offline");
        checkpoint.each_matrix(|tensors, name, rows, columns| {
            tensors.insert(format!("{name}.weight"), Tensor::u8(&[rows / 4, columns], vec![0x55; rows / 4 * columns]));
            tensors.insert(format!("{name}.weight_scale"), Tensor::bf16(&[1], [0.5]));
        });
        checkpoint
    }

    /// Master weights that alternate between 0.5 and -0.5.
    pub(crate) fn master() -> Self {
        let mut checkpoint = Self::without_matrices("online");
        checkpoint.each_matrix(|tensors, name, rows, columns| {
            let weights = (0..rows * columns).map(|index| if index % 2 == 0 { 0.5 } else { -0.5 });
            tensors.insert(format!("{name}.weight"), Tensor::bf16(&[rows, columns], weights));
        });
        checkpoint
    }

    fn each_matrix(&mut self, mut add: impl FnMut(&mut BTreeMap<String, Tensor>, &str, usize, usize)) {
        for layer in 0..LAYERS {
            for (name, rows, columns) in MATRICES {
                add(&mut self.tensors, &format!("model.layers.{layer}.{name}"), rows, columns);
            }
        }
    }

    fn without_matrices(mode: &str) -> Self {
        let mut tensors = BTreeMap::new();
        let embedding = (0..TOKENS * WIDTH).map(|index| (index % 31) as f32 / 16.0 - 1.0);
        tensors.insert("model.embed_tokens.weight".to_owned(), Tensor::bf16(&[TOKENS, WIDTH], embedding));
        let mut norm = |name: String, length: usize| tensors.insert(name, Tensor::bf16(&[length], vec![1.5; length]));
        norm("model.norm.weight".to_owned(), WIDTH);
        for layer in 0..LAYERS {
            norm(format!("model.layers.{layer}.input_layernorm.weight"), WIDTH);
            norm(format!("model.layers.{layer}.post_attention_layernorm.weight"), WIDTH);
            norm(format!("model.layers.{layer}.self_attn.attn_sub_norm.weight"), WIDTH);
            norm(format!("model.layers.{layer}.mlp.ffn_sub_norm.weight"), FFN);
        }
        let config = json!({
            "architectures": ["BitNetForCausalLM"],
            "model_type": "bitnet",
            "hidden_act": "relu2",
            "hidden_size": WIDTH,
            "intermediate_size": FFN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "max_position_embeddings": 128,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
            "tie_word_embeddings": true,
            "vocab_size": TOKENS,
            "bos_token_id": 260,
            "eos_token_id": 261,
            "quantization_config": {
                "quant_method": "bitnet",
                "linear_class": "autobitlinear",
                "quantization_mode": mode,
            },
        });
        Self { config, tokenizer: tokenizer(), files: BTreeMap::new(), tensors, shards: 1 }
    }

    /// Sets a tensor of the first block.
    pub(crate) fn set(&mut self, name: &str, tensor: Tensor) -> &mut Self {
        self.tensors.insert(format!("model.layers.0.{name}"), tensor);
        self
    }

    /// Writes the folder.
    pub(crate) fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("config.json"), self.config.to_string()).unwrap();
        fs::write(path("tokenizer.json"), self.tokenizer.to_string()).unwrap();
        for (name, text) in &self.files {
            fs::write(path(name), text).unwrap();
        }
        let views: Vec<_> = self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.view())).collect();
        if self.shards == 1 {
            let bytes = safetensors::serialize(views, None).unwrap();
            fs::write(path("model.safetensors"), bytes).unwrap();
            return folder;
        }
        let mut map = BTreeMap::new();
        for (number, views) in views.chunks(views.len().div_ceil(self.shards)).enumerate() {
            let name = format!("model-{:05}-of-{:05}.safetensors", number + 1, self.shards);
            fs::write(path(&name), safetensors::serialize(views.to_vec(), None).unwrap()).unwrap();
            map.extend(views.iter().map(|(tensor, _)| (tensor.clone(), name.clone())));
        }
        let index = json!({"metadata": {"total_size": 0}, "weight_map": map});
        fs::write(path("model.safetensors.index.json"), index.to_string()).unwrap();
        folder
    }
}

/// 256 bytes, four merges, two special tokens; two ids that nobody has.
fn tokenizer() -> Json {
    // Any 256 characters serve as the bytes; the text of these tests is ASCII, which stands for itself.
    let mut vocabulary: BTreeMap<String, usize> = (0..256_u32)
        .map(|id| (char::from_u32(if id < 94 { 33 + id } else { 256 + id }).unwrap().to_string(), id as usize))
        .collect();
    for (id, word) in ["th", "the", "an", "and"].into_iter().enumerate() {
        vocabulary.insert(word.to_owned(), 256 + id);
    }
    let special = |id: usize, content: &str| json!({"id": id, "content": content, "special": true});
    json!({
        "version": "1.0",
        "added_tokens": [
            special(260, "<|begin_of_text|>"),
            special(261, "<|end_of_text|>"),
            {"id": 262, "content": "<tool>", "special": false},
        ],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA_3}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]},
        "post_processor": {"type": "Sequence", "processors": [
            {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
            {"type": "TemplateProcessing", "single": [
                {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ]},
        ]},
        "model": {
            "type": "BPE",
            "ignore_merges": true,
            "vocab": vocabulary,
            "merges": ["t h", "th e", "a n", "an d"],
        },
    })
}
