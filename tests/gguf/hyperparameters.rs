//! Hyperparameters that would abort llama.cpp: one test a class of assertion.

use gguf_loader::gguf::{GgufError, TensorProblem, TensorType, Writer};

use super::{accept, add, model, refuse, refuse_for, refuse_key};

/// Asserts that the model with `key` set to any of `bad` is refused because of it.
macro_rules! refuse_each {
    ($key:expr, [$($bad:expr),+ $(,)?]) => {
        $(refuse_key($key, $bad, $key);)+
    };
}

fn model_with(keys: &[(&str, u32)]) -> Writer {
    let mut writer = model();
    for &(key, value) in keys {
        writer.set(key, value);
    }
    writer
}

/// The keys of `model()` for another architecture; without tensors.
fn keys_of(architecture: &str) -> Writer {
    let mut writer = Writer::new();
    writer
        .set("general.architecture", architecture)
        .set(format!("{architecture}.block_count"), 4_u32)
        .set(format!("{architecture}.embedding_length"), 64_u32)
        .set(format!("{architecture}.attention.head_count"), 4_u32);
    writer
}

#[test]
fn sizes_of_zero_or_beyond_reason_are_refused() {
    refuse_each!("llama.context_length", [0_u32, u32::MAX, u64::MAX, -1_i32, "128"]);
    refuse_each!("llama.embedding_length", [0_u32, u32::MAX]);
    refuse_each!("llama.attention.key_length", [0_u32, u32::MAX]);
    refuse_each!("llama.attention.value_length", [0_u32]);
    refuse_each!(
        "llama.feed_forward_length",
        [u32::MAX, vec![128_u32], vec![128_u32; 3], vec![128, u32::MAX], vec![-1_i32, 128]]
    );
    refuse_each!("llama.vocab_size", [u32::MAX]);
}

// load_hparams: n_layer_all > 0 && n_layer_all <= LLAMA_MAX_LAYERS; n_layer_nextn <= n_layer_all.
#[test]
fn block_counts_that_llama_cpp_asserts_are_refused() {
    refuse_each!("llama.block_count", [0_u32, 513, u32::MAX]);
    refuse_each!("llama.nextn_predict_layers", [3_u32]);
}

// models/bitnet.cpp: matrices of the embedding's width are reshaped to the heads of the first block.
#[test]
fn heads_that_do_not_fill_the_width_of_a_bitnet_are_refused() {
    for architecture in ["bitnet", "bitnet-25", "bitnet-b1.58"] {
        let key = |name: &str| format!("{architecture}.{name}");
        accept(keys_of(architecture).set(key("attention.key_length"), 16_u32));
        let mut wide = keys_of(architecture);
        wide.set(key("attention.key_length"), 32_u32).set(key("attention.value_length"), 32_u32);
        refuse_for(&wide, &key("attention.key_length"));
        for name in ["attention.head_count", "attention.head_count_kv", "feed_forward_length"] {
            accept(keys_of(architecture).set(key(name), vec![4_u32; 4]));
            refuse_for(keys_of(architecture).set(key(name), vec![4_u32, 4, 2, 4]), &key(name));
        }
        refuse_for(keys_of(architecture).set(key("attention.value_length"), 8_u32), &key("attention.value_length"));
    }
}

#[test]
fn heads_that_do_not_divide_are_refused() {
    refuse_each!("llama.attention.head_count", [0_u32, 6, u32::MAX, vec![4_u32], vec![4_u32, 0]]);
    refuse_each!("llama.attention.head_count_kv", [3_u32, 8, vec![2_u32, 3], vec![2_u32]]);
    let mut per_layer = model();
    per_layer.set("llama.attention.head_count", vec![4_u32, 4]).set("llama.attention.head_count_kv", vec![2_i32, 1]);
    accept(&per_layer);
}

#[test]
fn a_model_without_attention_may_have_no_heads() {
    let mut writer = keys_of("mamba");
    writer.set("mamba.attention.head_count", 0_u32).set("mamba.feed_forward_length", 0_u32);
    add(&mut writer, "blk.0.ssm_in.weight", &[64, 64], TensorType::F16);
    assert_eq!(accept(&writer).profile().unwrap_err().to_string(), "<memory> has no key `mamba.context_length`");
}

// load_hparams: the expert assertions.
#[test]
fn expert_counts_that_llama_cpp_asserts_are_refused() {
    let experts = |keys: &[(&str, u32)], blamed: &str| refuse_for(&model_with(keys), blamed);
    let (count, used) = ("llama.expert_count", "llama.expert_used_count");
    let (groups, groups_used) = ("llama.expert_group_count", "llama.expert_group_used_count");
    experts(&[(count, 1025), (used, 2)], count);
    experts(&[(count, 8), (used, 9)], used);
    experts(&[(count, 8), (used, 0)], used);
    experts(&[(used, 1)], used);
    experts(&[(count, 8), (used, 2), (groups, 8)], groups);
    experts(&[(count, 8), (used, 2), (groups, 3)], groups);
    experts(&[(count, 8), (used, 2), (groups, 4), (groups_used, 0)], groups_used);
    experts(&[(count, 8), (used, 2), (groups, 4), (groups_used, 4)], groups_used);
    experts(&[(groups, 1)], groups);
    accept(&model_with(&[(count, 8), (used, 2), (groups, 4), (groups_used, 2)]));
}

// ggml's norms: GGML_ASSERT(eps >= 0.0f).
#[test]
fn an_epsilon_that_ggml_asserts_is_refused() {
    refuse_each!("llama.attention.layer_norm_rms_epsilon", [-1e-5_f32, f32::NAN, f32::INFINITY, 2.0_f32]);
    refuse_each!("llama.attention.layer_norm_epsilon", [f32::NAN]);
}

#[test]
fn a_nan_is_refused_wherever_it_stands() {
    refuse_each!("llama.some.new.number", [f32::NAN, f64::NAN]);
    refuse_each!("llama.rope.freq_base", [0.0_f32, -1.0, f32::INFINITY]);
    refuse_each!("llama.rope.scaling.factor", [f32::INFINITY, -1.0]);
}

// ggml_compute_forward_rope, and the graph of llama: all of a head is rotated.
#[test]
fn rotations_that_ggml_asserts_are_refused() {
    refuse_each!("llama.rope.dimension_count", [15_u32, 17, 18, 8]);
    refuse_each!("llama.rope.dimension_sections", [vec![0_i32; 4], vec![-1_i32, 1, 1, 1]]);
    let mut partial = keys_of("gptneox");
    partial.set("gptneox.rope.dimension_count", 4_u32);
    accept(&partial);
    partial.set("gptneox.rope.dimension_count", 5_u32);
    refuse_for(&partial, "gptneox.rope.dimension_count");
}

// ggml_compute_forward_rope_flt never ends with nothing to rotate.
#[test]
fn a_rotation_of_nothing_is_refused_where_the_graph_rotates() {
    for architecture in ["gemma", "gptneox", "qwen3"] {
        let key = format!("{architecture}.rope.dimension_count");
        let mut writer = keys_of(architecture);
        writer.set(&key, 0_u32);
        refuse_for(&writer, &key);
    }
    let mut without = keys_of("gpt2");
    without.set("gpt2.rope.dimension_count", 0_u32);
    accept(&without);
}

// rwkv6.cpp: GGML_ASSERT(hparams.token_shift_count == 2).
#[test]
fn a_token_shift_that_rwkv_asserts_is_refused() {
    for (architecture, count, refused) in [("rwkv6", 1_u32, true), ("rwkv6", 2, false), ("rwkv6qwen2", 1, false)] {
        let key = format!("{architecture}.token_shift_count");
        let mut writer = keys_of(architecture);
        writer.set(&key, count);
        if refused {
            refuse_for(&writer, &key);
        } else {
            accept(&writer);
        }
    }
}

// load_hparams: rope_scaling_type_train != LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED.
#[test]
fn an_unknown_rope_scaling_is_refused() {
    refuse_each!("llama.rope.scaling.type", ["dynamic", ""]);
    for known in ["none", "linear", "yarn", "longrope"] {
        let mut writer = model();
        writer.set("llama.rope.scaling.type", known);
        accept(&writer);
    }
}

// llama-graph.cpp: GGML_ABORT("unknown pooling type").
#[test]
fn an_unknown_pooling_type_is_refused() {
    refuse_each!("llama.pooling_type", [5_u32, u32::MAX]);
    refuse_each!("llama.classifier.pooling_type", [5_u32]);
}

// llama_model::create_memory: GGML_ASSERT(hparams.is_swa_any()).
#[test]
fn a_sliding_window_without_a_sliding_layer_is_refused() {
    const PATTERN: &str = "gemma3.attention.sliding_window_pattern";
    let mut writer = keys_of("gemma3");
    writer.set("gemma3.attention.sliding_window", 512_u32);
    accept(&writer);
    writer.set(PATTERN, 1_u32);
    refuse_for(&writer, PATTERN);
    writer.set(PATTERN, vec![false; 4]);
    refuse_for(&writer, PATTERN);
    writer.set(PATTERN, vec![false, true, false, false]);
    accept(&writer);
}

// The graphs: GGML_ASSERT(n_embd_head == hparams.n_embd_head_v()).
#[test]
fn head_sizes_that_the_graph_asserts_are_refused() {
    refuse_each!("llama.attention.value_length", [8_u32]);
    let mut latent = keys_of("deepseek2");
    latent.set("deepseek2.attention.key_length", 576_u32).set("deepseek2.attention.value_length", 512_u32);
    accept(&latent);
}

#[test]
fn divisors_of_zero_are_refused() {
    for (architecture, name) in [
        ("mamba", "ssm.conv_kernel"),
        ("mamba", "ssm.inner_size"),
        ("mamba", "ssm.state_size"),
        ("rwkv6", "wkv.head_size"),
        ("wavtokenizer-dec", "attention.group_norm_groups"),
        ("ernie4_5-moe", "interleave_moe_layer_step"),
        ("grovemoe", "experts_per_group"),
        ("minimax-m3", "attention.indexer.block_size"),
    ] {
        let key = format!("{architecture}.{name}");
        let mut writer = keys_of(architecture);
        writer.set(key.as_str(), 0_u32);
        refuse_for(&writer, &key);
    }
}

// src/models: assertions in load_arch_hparams.
#[test]
fn assertions_of_single_architectures_are_refused() {
    let refuse_one = |architecture: &str, name: &str, value: u32| {
        let key = format!("{architecture}.{name}");
        let mut writer = keys_of(architecture);
        writer.set(key.as_str(), value);
        refuse_for(&writer, &key);
    };
    refuse_one("nanbeige", "num_loops", 0);
    refuse_one("nanbeige", "num_loops", 129);
    refuse_one("gemma-embedding", "dense_2_feat_in", 65);
    refuse_one("gemma-embedding", "dense_3_feat_out", 65);
    refuse_one("glm5-next", "attention.indexer.kpool", 1);
    refuse_one("glm5-next", "hyper_connection.count", 3);
    refuse_one("wavtokenizer-dec", "posnet.block_count", 5);
    refuse_one("wavtokenizer-dec", "convnext.block_count", 5);
    refuse_one("dflash", "attention.output_group_count", 0);
    refuse_one("hrm-text", "hrm.h_cycles", 0);
    let mut gate = keys_of("bailingmoe3");
    gate.set("bailingmoe3.kda.gate_lower_bound", 0.0_f32);
    refuse_for(&gate, "bailingmoe3.kda.gate_lower_bound");
    gate.set("bailingmoe3.kda.gate_lower_bound", -1.0_f32).set("bailingmoe3.kda.safe_gate", false);
    refuse_for(&gate, "bailingmoe3.kda.safe_gate");
    let mut hrm = keys_of("hrm-text");
    hrm.set("hrm-text.hrm.layers_per_stack", 1_u32).set("hrm-text.hrm.h_cycles", 1_u32);
    hrm.set("hrm-text.hrm.l_cycles", 2_u32);
    refuse_for(&hrm, "hrm-text.block_count");
    hrm.set("hrm-text.hrm.l_cycles", 3_u32);
    accept(&hrm);
}

// ggml's CPU operators: no dot product for these types, no element-wise operation beside F32.
#[test]
fn element_types_without_a_kernel_are_refused() {
    let offence = |name: &str, shape: &[u64], tensor_type| {
        let mut writer = model();
        add(&mut writer, name, shape, tensor_type);
        matches!(refuse(&writer), GgufError::Tensor { tensor, problem: TensorProblem::Type { .. }, .. } if tensor == name)
    };
    for tensor_type in [TensorType::I8, TensorType::I64, TensorType::F64, TensorType::I32, TensorType::Q8_1] {
        assert!(offence("blk.0.attn_x.weight", &[64, 2], tensor_type), "{tensor_type}");
    }
    for tensor_type in [TensorType::F16, TensorType::Q8_0, TensorType::I32] {
        assert!(offence("blk.0.attn_q.bias", &[64], tensor_type), "{tensor_type}");
        assert!(offence("blk.0.x_norm.weight", &[64, 2], tensor_type), "{tensor_type}");
    }
    let mut table = model();
    add(&mut table, "blk.0.ffn_gate_tid2eid.weight", &[2, 300], TensorType::I32);
    accept(&table);
}
