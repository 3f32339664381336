//! The hyperparameters that llama.cpp reads for every architecture (`llama_model_base::load_hparams`).

use super::Keys;
use crate::gguf::{Array, Gguf, GgufError, Value};

/// `LLAMA_MAX_LAYERS`.
const MAX_LAYERS: u64 = 512;
/// `LLAMA_MAX_EXPERTS`.
const MAX_EXPERTS: u64 = 1024;
/// Sizes beyond this overflow llama.cpp's 32-bit products of them.
const MAX_SIZE: u64 = 1 << 24;
/// llama.cpp keeps positions in an `int32_t`.
const MAX_CONTEXT: u64 = i32::MAX as u64;
/// Most dummy tokens that a model without a tokenizer gets; each takes memory.
const MAX_DUMMY_TOKENS: u64 = 1 << 24;

/// Checks them.
pub(super) fn check(gguf: &Gguf, keys: &Keys<'_>) -> Result<(), GgufError> {
    keys.integer_in("context_length", 1..=MAX_CONTEXT)?;
    keys.integer_in("embedding_length", 1..=MAX_SIZE)?;
    keys.integer_in("embedding_length_out", 0..=MAX_SIZE)?;
    keys.integer_in("vocab_size", 0..=MAX_DUMMY_TOKENS)?;
    // load_hparams: n_layer_all > 0 && n_layer_all <= LLAMA_MAX_LAYERS.
    let layers = keys.integer_in("block_count", 1..=MAX_LAYERS)?;
    if let Some(layers) = layers {
        // load_hparams: n_layer_nextn <= n_layer_all.
        keys.integer_in("nextn_predict_layers", 0..=layers)?;
        experts(gguf, keys, layers)?;
        heads(gguf, keys, layers)?;
        if let Some(sizes) = keys.per_layer("feed_forward_length", layers)?
            && let Some(size) = sizes.iter().find(|&&size| size > MAX_SIZE)
        {
            return Err(keys.wrong("feed_forward_length", size, format!("at most {MAX_SIZE}")));
        }
    }
    floats(keys)?;
    rope(keys)?;
    sliding_window(keys)?;
    // llama-graph.cpp and llama-context.cpp: GGML_ABORT("unknown pooling type").
    keys.integer_in("pooling_type", 0..=4)?;
    keys.integer_in("classifier.pooling_type", 0..=4)?;
    // Divisors: ggml_group_norm, the state-space models, RWKV.
    for name in ["attention.group_norm_groups", "ssm.conv_kernel", "ssm.inner_size", "ssm.state_size"] {
        keys.integer_in(name, 1..=MAX_SIZE)?;
    }
    if let Some(size) = keys.integer_in("wkv.head_size", 1..=MAX_SIZE)?
        && let Some(width) = keys.integer("embedding_length")?
        && !width.is_multiple_of(size)
    {
        return Err(keys.wrong("wkv.head_size", size, format!("a divisor of the embedding length {width}")));
    }
    Ok(())
}

/// load_hparams: the assertions on expert counts and groups.
fn experts(gguf: &Gguf, keys: &Keys<'_>, layers: u64) -> Result<(), GgufError> {
    let mut count = keys.integer_in("expert_count", 0..=MAX_EXPERTS)?.unwrap_or(0);
    let used = keys.per_layer("expert_used_count", layers)?.unwrap_or_default();
    let mut most_used = used.iter().copied().max().unwrap_or(0);
    if matches!(keys.architecture(), "hunyuan_vl" | "hunyuan-dense") && count <= 1 {
        count = 0;
        most_used = 0;
    }
    let least_used = u64::from(count > 0);
    if !(least_used..=count).contains(&most_used) {
        return Err(keys.wrong("expert_used_count", most_used, format!("{least_used} to the {count} experts")));
    }
    // build_moe_ffn divides by the number of experts that the block uses.
    let routes = |layer: usize| gguf.tensor(&format!("blk.{layer}.ffn_gate_inp.weight")).is_some();
    if let Some(layer) = (0..used.len()).find(|&layer| used[layer] == 0 && routes(layer)) {
        return Err(keys.wrong("expert_used_count", 0, format!("at least 1 in block {layer}")));
    }
    let groups = keys.integer("expert_group_count")?.unwrap_or(0);
    if groups > 0 && groups >= count {
        return Err(keys.wrong("expert_group_count", groups, format!("less than the {count} experts")));
    }
    if groups > 1 {
        if !count.is_multiple_of(groups) {
            return Err(keys.wrong("expert_group_count", groups, format!("a divisor of the {count} experts")));
        }
        let used = keys.integer("expert_group_used_count")?.unwrap_or(0);
        if used == 0 || used >= groups {
            return Err(keys.wrong("expert_group_used_count", used, format!("1 to {}", groups - 1)));
        }
    }
    Ok(())
}

fn heads(gguf: &Gguf, keys: &Keys<'_>, layers: u64) -> Result<(), GgufError> {
    keys.integer_in("attention.key_length", 1..=MAX_SIZE)?;
    keys.integer_in("attention.value_length", 1..=MAX_SIZE)?;
    let Some(heads) = keys.per_layer("attention.head_count", layers)? else { return Ok(()) };
    let kv_heads = keys.per_layer("attention.head_count_kv", layers)?;
    // Recurrent layers have no heads; a layer that has a query matrix needs them.
    let attends = |layer: usize| {
        ["attn_q", "attn_qkv"].iter().any(|name| gguf.tensor(&format!("blk.{layer}.{name}.weight")).is_some())
    };
    for (layer, &heads) in heads.iter().enumerate() {
        if heads > MAX_SIZE || (heads == 0 && attends(layer)) {
            return Err(keys.wrong("attention.head_count", heads, format!("1 to {MAX_SIZE} in block {layer}")));
        }
        // ggml_mul_mat broadcasts the keys over the queries and asserts that it comes out even. 0: no attention.
        let kv_heads = kv_heads.as_ref().map_or(heads, |kv_heads| kv_heads[layer]);
        if kv_heads != 0 && !heads.is_multiple_of(kv_heads) {
            let expected = format!("a divisor of the {heads} heads of block {layer}");
            return Err(keys.wrong("attention.head_count_kv", kv_heads, expected));
        }
    }
    // Without an explicit head size it is the embedding length over the heads of the first block.
    let width = keys.integer("embedding_length")?;
    if let (Some(width), Some(&first)) = (width, heads.first())
        && first > 0
        && attends(0)
        && keys.get("attention.key_length").is_none()
        && !width.is_multiple_of(first)
    {
        return Err(keys.wrong("attention.head_count", first, format!("a divisor of the embedding length {width}")));
    }
    Ok(())
}

fn floats(keys: &Keys<'_>) -> Result<(), GgufError> {
    for (name, value) in keys.floats() {
        // ggml's norms: GGML_ASSERT(eps >= 0), which a NaN fails too.
        if name.ends_with("epsilon") && !(0.0..=1.0).contains(&value) {
            return Err(keys.wrong(name, value, "0 to 1"));
        }
        if value.is_nan() {
            return Err(keys.wrong(name, value, "a number"));
        }
    }
    for name in ["rope.freq_base", "rope.freq_base_swa"] {
        keys.float(name, "a finite number above 0", |base| base.is_finite() && base > 0.0)?;
    }
    for name in ["rope.scaling.factor", "rope.scale_linear"] {
        keys.float(name, "a finite number not below 0", |factor| factor.is_finite() && factor >= 0.0)?;
    }
    Ok(())
}

fn rope(keys: &Keys<'_>) -> Result<(), GgufError> {
    // load_hparams: rope_scaling_type_train != LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED.
    if let Some(scaling) = keys.get("rope.scaling.type").and_then(Value::as_str)
        && !matches!(scaling, "none" | "linear" | "yarn" | "longrope")
    {
        return Err(keys.wrong("rope.scaling.type", scaling, "none, linear, yarn or longrope"));
    }
    // ggml_compute_forward_rope: n_dims <= ne0 and n_dims % 2 == 0.
    let head = match keys.integer("attention.key_length")? {
        Some(length) => Some(length),
        None => match (keys.integer("embedding_length")?, keys.get("attention.head_count").and_then(Value::as_u64)) {
            (Some(width), Some(heads)) if heads > 0 => Some(width / heads),
            _ => None,
        },
    };
    let sliding_head = keys.integer("attention.key_length_swa")?.or(head);
    for (name, head) in [("rope.dimension_count", head), ("rope.dimension_count_swa", sliding_head)] {
        if let Some(dimensions) = keys.integer(name)?
            && let Some(head) = head
            && head > 0
            && (!dimensions.is_multiple_of(2) || dimensions > head)
        {
            return Err(keys.wrong(name, dimensions, format!("even and at most the head size {head}")));
        }
    }
    // ggml_compute_forward_rope: one of the first three sections is above 0.
    if let Some(Value::Array(sections)) = keys.get("rope.dimension_sections")
        && sections.to_u64().is_none_or(|sections| sections.iter().take(3).all(|&section| section == 0))
    {
        return Err(keys.wrong("rope.dimension_sections", sections_text(sections), "not negative, and not all 0"));
    }
    Ok(())
}

fn sections_text(sections: &Array) -> String {
    sections.to_u64().map_or_else(|| "negative or not integers".into(), |sections| format!("{sections:?}"))
}

/// llama_model::create_memory asserts that a model with a sliding window has a layer that slides.
fn sliding_window(keys: &Keys<'_>) -> Result<(), GgufError> {
    const PATTERN: &str = "attention.sliding_window_pattern";
    if keys.integer_in("attention.sliding_window", 0..=MAX_CONTEXT)?.unwrap_or(0) == 0 {
        return Ok(());
    }
    let slides = match keys.get(PATTERN) {
        Some(Value::Array(Array::Bool(layers))) => layers.contains(&true),
        Some(Value::Array(layers)) => layers.to_u64().is_some_and(|layers| layers.iter().any(|&slides| slides != 0)),
        // A period of n has n - 1 sliding layers; 0 means all.
        Some(period) => period.as_u64() != Some(1),
        None => true,
    };
    if slides { Ok(()) } else { Err(keys.wrong(PATTERN, "no sliding layer", "a pattern with one")) }
}
