//! The smallest models of the architectures that are used most, with what is peculiar to each: fused and grouped
//! attention, learned positions, encoders, experts, sliding windows, recurrent states.

use gguf_loader::gguf::{Gguf, TensorType, Value, synth::SyntheticModel};

use crate::file::{ModelFile, Tensor};

/// Sizes that all share.
pub(crate) const WIDTH: u64 = 64;
pub(crate) const HEAD: u64 = 16;
pub(crate) const HEADS: u64 = WIDTH / HEAD;
pub(crate) const KV_HEADS: u64 = 2;
pub(crate) const KV_WIDTH: u64 = HEAD * KV_HEADS;
pub(crate) const FEED_FORWARD: u64 = 96;
pub(crate) const BLOCKS: u64 = 2;
/// Also the length of learned tables of positions.
pub(crate) const CONTEXT: u64 = 128;

/// A family's name, and what makes its model.
pub(crate) type Family = (&'static str, fn() -> ModelFile);

/// All of them.
pub(crate) const FAMILIES: &[Family] = &[
    ("llama", llama),
    ("mixtral", mixtral),
    ("qwen2", qwen2),
    ("qwen3", qwen3),
    ("gemma", gemma),
    ("gemma2", gemma2),
    ("gemma3", gemma3),
    ("phi3", phi3),
    ("stablelm", stablelm),
    ("falcon", falcon),
    ("gpt2", gpt2),
    ("bert", bert),
    ("nomic-bert", nomic_bert),
    ("mamba", mamba),
    ("rwkv6", rwkv6),
];

fn llama() -> ModelFile {
    let mut model = Builder::new("llama").attention_keys().rms_norm();
    model.set("rope.dimension_count", HEAD as u32);
    model.blocks(|block| {
        block.norm("attn_norm").separate_attention();
        block.norm("ffn_norm").gated_feed_forward();
    });
    model.finish()
}

fn mixtral() -> ModelFile {
    const EXPERTS: u64 = 4;
    let mut model = Builder::new("llama").attention_keys().rms_norm();
    model.set("rope.dimension_count", HEAD as u32);
    model.set("expert_count", EXPERTS as u32);
    model.set("expert_used_count", 2_u32);
    model.blocks(|block| {
        block.norm("attn_norm").separate_attention().norm("ffn_norm");
        block.weight("ffn_gate_inp", &[WIDTH, EXPERTS]);
        block.weight("ffn_gate_exps", &[WIDTH, FEED_FORWARD, EXPERTS]);
        block.weight("ffn_up_exps", &[WIDTH, FEED_FORWARD, EXPERTS]);
        block.weight("ffn_down_exps", &[FEED_FORWARD, WIDTH, EXPERTS]);
    });
    model.finish()
}

fn qwen2() -> ModelFile {
    let mut model = Builder::new("qwen2").attention_keys().rms_norm();
    model.blocks(|block| {
        block.norm("attn_norm").separate_attention();
        block.bias("attn_q", WIDTH).bias("attn_k", KV_WIDTH).bias("attn_v", KV_WIDTH);
        block.norm("ffn_norm").gated_feed_forward();
    });
    model.finish()
}

fn qwen3() -> ModelFile {
    let mut model = Builder::new("qwen3").attention_keys().rms_norm();
    model.set("attention.key_length", HEAD as u32);
    model.set("attention.value_length", HEAD as u32);
    model.blocks(|block| {
        block.norm("attn_norm").separate_attention();
        block.weight("attn_q_norm", &[HEAD]).weight("attn_k_norm", &[HEAD]);
        block.norm("ffn_norm").gated_feed_forward();
    });
    model.finish()
}

fn gemma() -> ModelFile {
    let mut model = Builder::new("gemma").attention_keys().rms_norm();
    model.set("attention.key_length", HEAD as u32);
    model.set("attention.value_length", HEAD as u32);
    model.blocks(|block| {
        block.norm("attn_norm").separate_attention().norm("ffn_norm").gated_feed_forward();
    });
    model.finish()
}

fn gemma2() -> ModelFile {
    let mut model = Builder::new("gemma2").attention_keys().rms_norm();
    model.set("attention.key_length", HEAD as u32);
    model.set("attention.value_length", HEAD as u32);
    model.set("attention.sliding_window", 16_u32);
    model.set("attn_logit_softcapping", 50.0_f32);
    model.set("final_logit_softcapping", 30.0_f32);
    model.blocks(|block| {
        block.norm("attn_norm").separate_attention().norm("post_attention_norm");
        block.norm("ffn_norm").gated_feed_forward().norm("post_ffw_norm");
    });
    model.finish()
}

fn gemma3() -> ModelFile {
    let mut model = Builder::new("gemma3").attention_keys().rms_norm();
    model.set("attention.key_length", HEAD as u32);
    model.set("attention.value_length", HEAD as u32);
    model.set("attention.sliding_window", 16_u32);
    model.set("rope.freq_base", 1_000_000.0_f32);
    model.blocks(|block| {
        block.norm("attn_norm").separate_attention().norm("post_attention_norm");
        block.weight("attn_q_norm", &[HEAD]).weight("attn_k_norm", &[HEAD]);
        block.norm("ffn_norm").gated_feed_forward().norm("post_ffw_norm");
    });
    model.finish()
}

fn phi3() -> ModelFile {
    let mut model = Builder::new("phi3").attention_keys().rms_norm();
    model.set("rope.dimension_count", HEAD as u32);
    model.set("rope.scaling.original_context_length", 64_u32);
    model.set("attention.sliding_window", 32_u32);
    model.weight("output", &[WIDTH, model.vocabulary]);
    model.weight("rope_factors_long", &[HEAD / 2]).weight("rope_factors_short", &[HEAD / 2]);
    model.blocks(|block| {
        block.norm("attn_norm").fused_attention().norm("ffn_norm");
        block.weight("ffn_up", &[WIDTH, 2 * FEED_FORWARD]).weight("ffn_down", &[FEED_FORWARD, WIDTH]);
    });
    model.finish()
}

fn stablelm() -> ModelFile {
    let mut model = Builder::new("stablelm").attention_keys().layer_norm();
    model.set("rope.dimension_count", HEAD as u32 / 2);
    model.set("use_parallel_residual", false);
    model.weight("output", &[WIDTH, model.vocabulary]).bias("output_norm", WIDTH);
    model.blocks(|block| {
        block.norm("attn_norm").bias("attn_norm", WIDTH).separate_attention();
        block.weight("attn_q_norm", &[HEAD, HEADS]).weight("attn_k_norm", &[HEAD, KV_HEADS]);
        block.norm("ffn_norm").bias("ffn_norm", WIDTH).gated_feed_forward();
    });
    model.finish()
}

fn falcon() -> ModelFile {
    let mut model = Builder::new("falcon").attention_keys().layer_norm();
    model.bias("output_norm", WIDTH);
    model.blocks(|block| {
        block.norm("attn_norm").bias("attn_norm", WIDTH).norm("attn_norm_2").bias("attn_norm_2", WIDTH);
        block.fused_attention().plain_feed_forward();
    });
    model.finish()
}

fn gpt2() -> ModelFile {
    let mut model = Builder::new("gpt2").attention_keys().layer_norm();
    model.weight("position_embd", &[WIDTH, CONTEXT]).bias("output_norm", WIDTH);
    model.blocks(|block| {
        block.norm("attn_norm").bias("attn_norm", WIDTH);
        block.fused_attention().bias("attn_qkv", WIDTH + 2 * KV_WIDTH).bias("attn_output", WIDTH);
        block.norm("ffn_norm").bias("ffn_norm", WIDTH);
        block.plain_feed_forward().bias("ffn_up", FEED_FORWARD).bias("ffn_down", WIDTH);
    });
    model.finish()
}

fn bert() -> ModelFile {
    let mut model = Builder::new("bert").attention_keys().layer_norm().encoder();
    model.weight("position_embd", &[WIDTH, CONTEXT]);
    model.blocks(|block| {
        block.separate_attention().bias("attn_q", WIDTH).bias("attn_k", KV_WIDTH).bias("attn_v", KV_WIDTH);
        block.bias("attn_output", WIDTH).norm("attn_output_norm").bias("attn_output_norm", WIDTH);
        block.plain_feed_forward().bias("ffn_up", FEED_FORWARD).bias("ffn_down", WIDTH);
        block.norm("layer_output_norm").bias("layer_output_norm", WIDTH);
    });
    model.finish()
}

fn nomic_bert() -> ModelFile {
    let mut model = Builder::new("nomic-bert").attention_keys().layer_norm().encoder();
    model.set("rope.freq_base", 1000.0_f32);
    model.blocks(|block| {
        block.fused_attention().norm("attn_output_norm").bias("attn_output_norm", WIDTH);
        block.gated_feed_forward().norm("layer_output_norm").bias("layer_output_norm", WIDTH);
    });
    model.finish()
}

fn mamba() -> ModelFile {
    const INNER: u64 = 2 * WIDTH;
    const STATE: u64 = 16;
    const RANK: u64 = 4;
    const KERNEL: u64 = 4;
    let mut model = Builder::new("mamba").rms_norm();
    model.set("feed_forward_length", 0_u32);
    model.set("attention.head_count", 0_u32);
    for (name, size) in
        [("conv_kernel", KERNEL), ("inner_size", INNER), ("state_size", STATE), ("time_step_rank", RANK)]
    {
        model.set(&format!("ssm.{name}"), size as u32);
    }
    model.blocks(|block| {
        block.norm("attn_norm").weight("ssm_in", &[WIDTH, 2 * INNER]);
        block.weight("ssm_conv1d", &[KERNEL, INNER]).bias("ssm_conv1d", INNER);
        block.weight("ssm_x", &[INNER, RANK + 2 * STATE]);
        block.weight("ssm_dt", &[RANK, INNER]).bias("ssm_dt", INNER);
        block.bare("ssm_a", &[STATE, INNER]).bare("ssm_d", &[INNER]);
        block.weight("ssm_out", &[INNER, WIDTH]);
    });
    model.finish()
}

fn rwkv6() -> ModelFile {
    const EXTRA: u64 = 8;
    let mut model = Builder::new("rwkv6").layer_norm().rwkv_vocabulary();
    model.set("attention.head_count", 0_u32);
    model.set("feed_forward_length", FEED_FORWARD as u32);
    model.set("wkv.head_size", HEAD as u32);
    model.set("time_mix_extra_dim", EXTRA as u32);
    model.set("time_decay_extra_dim", EXTRA as u32);
    model.set("rescale_every_n_layers", 6_u32);
    model.norm("token_embd_norm").bias("token_embd_norm", WIDTH).bias("output_norm", WIDTH);
    model.weight("output", &[WIDTH, model.vocabulary]);
    model.blocks(|block| {
        for norm in ["attn_norm", "attn_norm_2", "time_mix_ln"] {
            block.norm(norm).bias(norm, WIDTH);
        }
        block.weight("time_mix_w1", &[WIDTH, 5 * EXTRA]).weight("time_mix_w2", &[EXTRA, WIDTH, 5]);
        for lerp in ["x", "w", "k", "v", "r", "g"] {
            block.weight(&format!("time_mix_lerp_{lerp}"), &[WIDTH, 1, 1]);
        }
        block.weight("time_mix_first", &[HEAD, WIDTH / HEAD]).weight("time_mix_decay", &[WIDTH]);
        block.weight("time_mix_decay_w1", &[WIDTH, EXTRA]).weight("time_mix_decay_w2", &[EXTRA, WIDTH]);
        for matrix in ["key", "value", "receptance", "gate", "output"] {
            block.weight(&format!("time_mix_{matrix}"), &[WIDTH, WIDTH]);
        }
        block.weight("channel_mix_lerp_k", &[WIDTH, 1, 1]).weight("channel_mix_lerp_r", &[WIDTH, 1, 1]);
        block.weight("channel_mix_key", &[WIDTH, FEED_FORWARD]).weight("channel_mix_value", &[FEED_FORWARD, WIDTH]);
        block.weight("channel_mix_receptance", &[WIDTH, WIDTH]);
    });
    model.finish()
}

/// Collects keys and tensors; names of tensors get the prefix of the block that is being described.
struct Builder {
    file: ModelFile,
    prefix: String,
    vocabulary: u64,
}

impl Builder {
    /// The keys of every architecture, a SentencePiece vocabulary, the embedding and the last norm.
    fn new(architecture: &str) -> Self {
        let mut template = SyntheticModel::tiny().vocabulary_only();
        template.shape.n_vocab = 384;
        let mut bytes = Vec::new();
        template.writer().and_then(|writer| Ok(writer.write(&mut bytes)?)).expect("a vocabulary can be written");
        let template = Gguf::parse(&bytes).expect("what was written is valid");
        let tokenizer = template.metadata().iter().filter(|(key, _)| key.starts_with("tokenizer."));
        let keys = tokenizer.map(|(key, value)| (key.to_owned(), value.clone())).collect();
        let file = ModelFile { keys, tensors: Vec::new() };
        let mut builder = Self { file, prefix: String::new(), vocabulary: 384 };
        builder.file.set("general.architecture", architecture);
        builder.set("context_length", CONTEXT as u32);
        builder.set("embedding_length", WIDTH as u32);
        builder.set("block_count", BLOCKS as u32);
        builder.weight("token_embd", &[WIDTH, builder.vocabulary]).norm("output_norm");
        builder
    }

    fn finish(self) -> ModelFile {
        self.file
    }

    /// Sets a key of the architecture.
    fn set(&mut self, name: &str, value: impl Into<Value>) {
        let key = format!("{}.{name}", self.file.architecture());
        self.file.set(&key, value);
    }

    fn attention_keys(mut self) -> Self {
        self.set("feed_forward_length", FEED_FORWARD as u32);
        self.set("attention.head_count", HEADS as u32);
        self.set("attention.head_count_kv", KV_HEADS as u32);
        self
    }

    fn rms_norm(mut self) -> Self {
        self.set("attention.layer_norm_rms_epsilon", 1e-5_f32);
        self
    }

    fn layer_norm(mut self) -> Self {
        self.set("attention.layer_norm_epsilon", 1e-5_f32);
        self
    }

    /// A WordPiece vocabulary, types of tokens, and no direction.
    fn encoder(mut self) -> Self {
        const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        let letters = ('a'..='z').flat_map(|letter| [format!("\u{2581}{letter}"), letter.to_string()]);
        let tokens: Vec<String> = SPECIAL.map(str::to_owned).into_iter().chain(letters).collect();
        let types: Vec<i32> = (0..tokens.len()).map(|token| if token < SPECIAL.len() { 3 } else { 1 }).collect();
        self.file.keys.retain(|(key, _)| !key.starts_with("tokenizer."));
        self.file.set("tokenizer.ggml.model", "bert");
        self.file.set("tokenizer.ggml.token_type_count", 2_u32);
        self.replace_vocabulary(tokens, types);
        for (name, token) in [("padding", 0_u32), ("unknown", 1), ("bos", 2), ("seperator", 3), ("mask", 4)] {
            self.file.set(&format!("tokenizer.ggml.{name}_token_id"), token);
        }
        self.set("attention.causal", false);
        self.set("pooling_type", 1_u32);
        self.weight("token_types", &[WIDTH, 2]);
        self.norm("token_embd_norm").bias("token_embd_norm", WIDTH);
        self.file.tensors.retain(|tensor| tensor.name != "output_norm.weight");
        self
    }

    /// Every byte and a few words, escaped as this tokenizer's vocabularies are.
    fn rwkv_vocabulary(mut self) -> Self {
        let bytes = (0..=255_u8).map(|byte| format!("\\x{byte:02x}"));
        let tokens: Vec<String> = std::iter::once("<s>".to_owned()).chain(bytes).chain(["hello".to_owned()]).collect();
        let types = (0..tokens.len()).map(|token| if token == 0 { 3 } else { 1 }).collect();
        self.file.keys.retain(|(key, _)| !key.starts_with("tokenizer."));
        self.file.set("tokenizer.ggml.model", "rwkv");
        self.replace_vocabulary(tokens, types);
        self
    }

    fn replace_vocabulary(&mut self, tokens: Vec<String>, types: Vec<i32>) {
        self.vocabulary = tokens.len() as u64;
        self.file.tensors[0].shape[1] = self.vocabulary;
        self.file.set("tokenizer.ggml.tokens", tokens);
        self.file.set("tokenizer.ggml.token_type", types);
    }

    fn blocks(&mut self, mut describe: impl FnMut(&mut Self)) {
        for block in 0..BLOCKS {
            self.prefix = format!("blk.{block}.");
            describe(self);
        }
    }

    /// A tensor whose name has no ending.
    fn bare(&mut self, name: &str, shape: &[u64]) -> &mut Self {
        let name = format!("{}{name}", self.prefix);
        self.file.tensors.push(Tensor { name, shape: shape.to_vec(), tensor_type: TensorType::F32 });
        self
    }

    fn weight(&mut self, name: &str, shape: &[u64]) -> &mut Self {
        self.bare(&format!("{name}.weight"), shape)
    }

    fn bias(&mut self, name: &str, length: u64) -> &mut Self {
        self.bare(&format!("{name}.bias"), &[length])
    }

    fn norm(&mut self, name: &str) -> &mut Self {
        self.weight(name, &[WIDTH])
    }

    fn separate_attention(&mut self) -> &mut Self {
        self.weight("attn_q", &[WIDTH, WIDTH])
            .weight("attn_k", &[WIDTH, KV_WIDTH])
            .weight("attn_v", &[WIDTH, KV_WIDTH]);
        self.weight("attn_output", &[WIDTH, WIDTH])
    }

    fn fused_attention(&mut self) -> &mut Self {
        self.weight("attn_qkv", &[WIDTH, WIDTH + 2 * KV_WIDTH]).weight("attn_output", &[WIDTH, WIDTH])
    }

    fn gated_feed_forward(&mut self) -> &mut Self {
        self.weight("ffn_gate", &[WIDTH, FEED_FORWARD]).plain_feed_forward()
    }

    fn plain_feed_forward(&mut self) -> &mut Self {
        self.weight("ffn_up", &[WIDTH, FEED_FORWARD]).weight("ffn_down", &[FEED_FORWARD, WIDTH])
    }
}
