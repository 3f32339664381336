//! What the file says about cost: profile, quantisation, memory.

use gguf_loader::gguf::{TensorGroup, TensorType, Writer};

use super::{BLOCKS, TOKENS, WIDTH, accept, add, model};

const MATRICES: u64 = WIDTH * WIDTH * 2 + WIDTH * WIDTH / 2 * 2 + WIDTH * 128 * 3;

fn elements(writer: &Writer, tensor_type: TensorType) -> u64 {
    let profile = accept(writer).profile().unwrap();
    profile.groups.iter().filter(|group| group.tensor_type == tensor_type).map(|group| group.elements).sum()
}

#[test]
fn tied_embeddings_count_as_the_output_matrix() {
    assert_eq!(elements(&model(), TensorType::Q8_0), WIDTH * TOKENS);
    let mut untied = model();
    add(&mut untied, "output.weight", &[WIDTH, TOKENS], TensorType::F16);
    assert_eq!(elements(&untied, TensorType::Q8_0), 0);
    assert_eq!(elements(&untied, TensorType::F16), WIDTH * TOKENS);
}

#[test]
fn matrices_of_all_blocks_count_and_norms_do_not() {
    assert_eq!(elements(&model(), TensorType::Q4_0), MATRICES * u64::from(BLOCKS));
    assert_eq!(elements(&model(), TensorType::F32), 0);
}

#[test]
fn of_experts_only_the_used_share_counts() {
    let mut writer = model();
    writer.set("llama.expert_count", 8_u32).set("llama.expert_used_count", 2_u32);
    add(&mut writer, "blk.1.ffn_up_exps.weight", &[64, 16, 8], TensorType::F16);
    add(&mut writer, "blk.1.ffn_up_shexp.weight", &[64, 16], TensorType::F16);
    assert_eq!(elements(&writer, TensorType::F16), 64 * 16 * 2 + 64 * 16);
    let groups = accept(&writer).profile().unwrap().groups;
    let stacked: Vec<_> = groups.iter().filter(|group| group.stacked).collect();
    assert_eq!(stacked.len(), 1);
    assert_eq!((stacked[0].tensor_type, stacked[0].elements), (TensorType::F16, 64 * 16 * 2));
}

#[test]
fn blocks_that_predict_further_tokens_do_not_count() {
    let mut writer = model();
    writer.set("llama.nextn_predict_layers", 1_u32);
    assert_eq!(elements(&writer, TensorType::Q4_0), MATRICES);
}

#[test]
fn kv_bytes_follow_the_heads_of_each_block() {
    let kv = |writer: &Writer| accept(writer).profile().unwrap().kv_bytes_per_token;
    // Two blocks, two heads of 16 keys and 16 values, two bytes each.
    assert_eq!(kv(&model()), 2 * 2 * (16 + 16) * 2);
    let mut per_block = model();
    per_block.set("llama.attention.head_count_kv", vec![1_u32, 4]);
    assert_eq!(kv(&per_block), (1 + 4) * (16 + 16) * 2);
    let mut recurrent = model();
    recurrent.set("llama.attention.head_count_kv", vec![0_u32, 2]);
    assert_eq!(kv(&recurrent), 2 * (16 + 16) * 2);
}

#[test]
fn the_profile_has_the_sizes_of_the_model() {
    let gguf = accept(&model());
    let profile = gguf.profile().unwrap();
    assert_eq!((profile.n_ctx_train, profile.n_layer, profile.n_vocab), (128, BLOCKS, TOKENS as u32));
    assert_eq!(profile.weight_bytes, gguf.tensors().iter().map(|tensor| tensor.bytes).sum::<u64>());
    assert!(!profile.vocabulary_only);
}

#[test]
fn a_vocabulary_without_weights_has_a_profile() {
    let mut writer = Writer::new();
    writer.set("general.architecture", "llama").set("tokenizer.ggml.model", "gpt2");
    writer.set("tokenizer.ggml.tokens", vec!["a", "b"]);
    let profile = accept(&writer).profile().unwrap();
    assert!(profile.vocabulary_only && profile.groups.is_empty());
    assert_eq!(profile.n_vocab, 2);
}

#[test]
fn quantisation_is_told_by_group_type_and_layer() {
    let quantization = accept(&model()).quantization();
    let attention = quantization.groups.iter().find(|group| group.group == TensorGroup::Attention).unwrap();
    assert_eq!(attention.types.len(), 1);
    assert_eq!((attention.types[0].tensor_type, attention.types[0].tensors), (TensorType::Q4_0, 4 * u64::from(BLOCKS)));
    assert_eq!(attention.bits_per_weight, 4.5);
    let norm = quantization.groups.iter().find(|group| group.group == TensorGroup::Norm).unwrap();
    assert_eq!(norm.types[0].elements, WIDTH * (1 + 2 * u64::from(BLOCKS)));
    assert_eq!(quantization.layers.len(), BLOCKS as usize);
    assert_eq!(quantization.layers[1].bytes, MATRICES / 32 * 18 + 2 * WIDTH * 4);
    let whole = quantization.bytes as f64 * 8.0 / quantization.parameters as f64;
    assert_eq!(quantization.bits_per_weight, whole);
    assert!(serde_json::to_string(&quantization).unwrap().contains("\"attention\""));
}

#[test]
fn memory_grows_with_context_and_sequences() {
    let gguf = accept(&model());
    let one = gguf.memory(1024, 1);
    assert_eq!(one.kv_cache, 1024 * gguf.profile().unwrap().kv_bytes_per_token);
    assert_eq!(gguf.memory(1024, 3).kv_cache, 3 * one.kv_cache);
    assert_eq!(one.total(), one.weights + one.kv_cache + one.compute);
    assert!(one.compute >= 512 * TOKENS * 4, "the logits of a pass fit");
}
