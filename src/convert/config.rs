//! `config.json`: the sizes, the graph, and what the scales of packed matrices mean.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value as Json;

use super::{ConvertError, json};
use crate::gguf::{Value, Writer};

/// What the file says. Defaults are those of transformers' `configuration_bitnet.py`.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    model_type: String,
    #[serde(default = "relu2")]
    hidden_act: String,
    pub(super) vocab_size: u32,
    pub(super) hidden_size: u32,
    pub(super) intermediate_size: u32,
    pub(super) num_hidden_layers: u32,
    num_attention_heads: u32,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    #[serde(default = "default_context")]
    max_position_embeddings: u32,
    #[serde(default = "default_epsilon")]
    rms_norm_eps: f32,
    rope_theta: Option<f32>,
    rope_scaling: Option<Json>,
    rope_parameters: Option<RopeParameters>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    pub(super) tie_word_embeddings: bool,
    quantization_config: Option<QuantizationConfig>,
    pub(super) bos_token_id: Option<TokenIds>,
    pub(super) eos_token_id: Option<TokenIds>,
    pub(super) pad_token_id: Option<u32>,
}

fn relu2() -> String {
    "relu2".to_owned()
}

fn default_context() -> u32 {
    2048
}

fn default_epsilon() -> f32 {
    1e-5
}

/// Where version 5 of transformers keeps what `rope_theta` and `rope_scaling` were.
#[derive(Debug, Deserialize)]
struct RopeParameters {
    rope_theta: Option<f32>,
    rope_type: Option<String>,
}

/// How transformers replaces linear layers (`BitNetQuantConfig` in its `utils/quantization_config.py`).
#[derive(Debug, Deserialize)]
struct QuantizationConfig {
    quant_method: Option<String>,
    #[serde(default = "bitlinear")]
    linear_class: String,
    #[serde(default = "offline")]
    quantization_mode: String,
    #[serde(default)]
    use_rms_norm: bool,
}

fn bitlinear() -> String {
    "bitlinear".to_owned()
}

fn offline() -> String {
    "offline".to_owned()
}

/// One token, or several that mean the same.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum TokenIds {
    One(u32),
    Many(Vec<u32>),
}

impl TokenIds {
    /// All of them, the first one first.
    pub(super) fn all(&self) -> &[u32] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

/// What `weight_scale` does to a product with codes, by the class of linear layers in `integrations/bitnet.py`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScaleMeaning {
    /// `AutoBitLinear` multiplies with it.
    Factor,
    /// `BitLinear` divides by it.
    Divisor,
}

impl Config {
    /// Reads and checks `config.json` of `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, ConvertError> {
        let path = folder.join("config.json");
        let config: Self = json::read(&path)?;
        config.check(path)?;
        Ok(config)
    }

    /// `general.architecture`: by the activation, the only difference between the two graphs.
    pub(super) fn architecture(&self) -> &'static str {
        if self.hidden_act == "silu" { "bitnet" } else { "bitnet-b1.58" }
    }

    /// What the scales of packed matrices do.
    pub(super) fn scale_meaning(&self) -> ScaleMeaning {
        match &self.quantization_config {
            Some(quantization) if quantization.linear_class == "autobitlinear" => ScaleMeaning::Factor,
            _ => ScaleMeaning::Divisor,
        }
    }

    /// Whether the configuration says that layers hold codes, not floats that each pass rounds.
    pub(super) fn is_offline(&self) -> bool {
        self.quantization_config.as_ref().is_some_and(|quantization| quantization.quantization_mode == "offline")
    }

    /// Width of the keys, and of the values, of all heads.
    pub(super) fn kv_width(&self) -> u64 {
        u64::from(self.hidden_size / self.num_attention_heads) * u64::from(self.kv_heads())
    }

    /// Sets the keys of the architecture.
    pub(super) fn set_keys(&self, writer: &mut Writer) {
        let architecture = self.architecture();
        let mut set = |name: &str, value: Value| {
            writer.set(format!("{architecture}.{name}"), value);
        };
        set("vocab_size", self.vocab_size.into());
        set("context_length", self.max_position_embeddings.into());
        set("embedding_length", self.hidden_size.into());
        set("block_count", self.num_hidden_layers.into());
        set("feed_forward_length", self.intermediate_size.into());
        set("rope.dimension_count", (self.hidden_size / self.num_attention_heads).into());
        set("rope.freq_base", self.rope_base().into());
        set("attention.head_count", self.num_attention_heads.into());
        set("attention.head_count_kv", self.kv_heads().into());
        set("attention.layer_norm_rms_epsilon", self.rms_norm_eps.into());
    }

    fn kv_heads(&self) -> u32 {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    fn rope_base(&self) -> f32 {
        const DEFAULT: f32 = 500_000.0;
        let nested = self.rope_parameters.as_ref().and_then(|parameters| parameters.rope_theta);
        self.rope_theta.or(nested).unwrap_or(DEFAULT)
    }

    /// Refuses what the graph does not compute. The validator of GGUF files looks at the sizes once more.
    fn check(&self, path: PathBuf) -> Result<(), ConvertError> {
        let wrong = |key: &str, problem: String| Err(ConvertError::Config { path, key: key.to_owned(), problem });
        if self.model_type != "bitnet" {
            return wrong("model_type", format!("is `{}`, only `bitnet` can be converted", self.model_type));
        }
        if !matches!(self.hidden_act.as_str(), "relu2" | "silu") {
            return wrong("hidden_act", format!("is `{}`, must be `relu2` or `silu`", self.hidden_act));
        }
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.kv_heads()),
        ];
        if let Some((key, size)) = sizes.into_iter().find(|(_, size)| !(1..=1 << 24).contains(size)) {
            return wrong(key, format!("is {size}, must be 1 to 2^24"));
        }
        let (width, heads, kv_heads) = (self.hidden_size, self.num_attention_heads, self.kv_heads());
        if !width.is_multiple_of(heads) || self.head_dim.is_some_and(|head| head != width / heads) {
            return wrong("num_attention_heads", format!("is {heads}: heads must fill the width of {width}"));
        }
        if !heads.is_multiple_of(kv_heads) {
            return wrong("num_key_value_heads", format!("is {kv_heads}, must divide the {heads} heads"));
        }
        if self.attention_bias {
            return wrong("attention_bias", "is true, which no engine here computes".to_owned());
        }
        if self.rope_scaling.as_ref().is_some_and(|scaling| !scaling.is_null()) {
            return wrong("rope_scaling", "is set, which no engine here computes for BitNet".to_owned());
        }
        let rope_type = self.rope_parameters.as_ref().and_then(|parameters| parameters.rope_type.as_deref());
        if let Some(kind) = rope_type.filter(|&kind| kind != "default") {
            return wrong("rope_parameters", format!("has the type `{kind}`, must be `default`"));
        }
        let Some(quantization) = &self.quantization_config else { return Ok(()) };
        if let Some(method) = quantization.quant_method.as_deref().filter(|&method| method != "bitnet") {
            return wrong("quantization_config.quant_method", format!("is `{method}`, must be `bitnet`"));
        }
        if !matches!(quantization.linear_class.as_str(), "bitlinear" | "autobitlinear") {
            let problem = format!("is `{}`, must be `bitlinear` or `autobitlinear`", quantization.linear_class);
            return wrong("quantization_config.linear_class", problem);
        }
        if !matches!(quantization.quantization_mode.as_str(), "offline" | "online") {
            let problem = format!("is `{}`, must be `offline` or `online`", quantization.quantization_mode);
            return wrong("quantization_config.quantization_mode", problem);
        }
        if quantization.use_rms_norm {
            return wrong("quantization_config.use_rms_norm", "is true, which no engine here computes".to_owned());
        }
        Ok(())
    }
}
