//! Assertions of single architectures in llama.cpp's `src/models`.

use super::Keys;
use crate::gguf::{Gguf, GgufError, Value};

/// Architectures whose graph, their own or a shared one, asserts that keys and values have one head size.
const EQUAL_HEADS: &[&str] = &[
    "afmoe",
    "apertus",
    "arcee",
    "arctic",
    "baichuan",
    "bailingmoe2",
    "bert",
    "bitnet",
    "bitnet-25",
    "bitnet-b1.58",
    "bloom",
    "chameleon",
    "chatglm",
    "codeshell",
    "cogvlm",
    "cohere2",
    "cohere2moe",
    "command-r",
    "dbrx",
    "deci",
    "deepseek",
    "dots1",
    "dream",
    "ernie4_5",
    "ernie4_5-moe",
    "eurobert",
    "exaone",
    "exaone-moe",
    "exaone4",
    "falcon",
    "glm4",
    "glm4moe",
    "gpt2",
    "gptneox",
    "granite",
    "granite_swa",
    "granitehybrid",
    "granitemoe",
    "graniteswitch",
    "grok",
    "grovemoe",
    "hunyuan-dense",
    "hunyuan-moe",
    "hunyuan_vl",
    "hy_v3",
    "internlm2",
    "jais",
    "jais2",
    "jina-bert-v2",
    "jina-bert-v3",
    "llada",
    "llada-moe",
    "llama",
    "llama-embed",
    "llama4",
    "maincoder",
    "maple",
    "mellum",
    "minicpm",
    "minimax-01",
    "minimax-m2",
    "minimax-m3",
    "mistral3",
    "modern-bert",
    "mpt",
    "nanbeige",
    "nemotron",
    "nemotron_h",
    "nemotron_h_moe",
    "neo-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "olmo",
    "olmo2",
    "olmoe",
    "openelm",
    "orion",
    "paddleocr",
    "pangu-embedded",
    "phi2",
    "phi3",
    "phimoe",
    "plamo",
    "pockettts",
    "qwen",
    "qwen2",
    "qwen2moe",
    "qwen2vl",
    "qwen3",
    "qwen35",
    "qwen35moe",
    "qwen3moe",
    "qwen3next",
    "qwen3tts",
    "qwen3vl",
    "qwen3vlmoe",
    "refact",
    "rnd1",
    "seed_oss",
    "smallthinker",
    "smollm3",
    "spark2_5",
    "stablelm",
    "starcoder",
    "starcoder2",
    "t5",
    "t5encoder",
    "talkie",
    "xverse",
];

/// Architectures whose graph, their own or a shared one, asserts that all of a head is rotated.
const FULL_ROTATION: &[&str] = &[
    "apertus",
    "arcee",
    "arctic",
    "baichuan",
    "chameleon",
    "codeshell",
    "cogvlm",
    "cohere2moe",
    "dbrx",
    "deci",
    "deepseek",
    "dots1",
    "dream",
    "ernie4_5",
    "ernie4_5-moe",
    "exaone",
    "exaone-moe",
    "exaone4",
    "falcon",
    "granite",
    "granite_swa",
    "granitemoe",
    "graniteswitch",
    "grok",
    "grovemoe",
    "hunyuan-dense",
    "hunyuan-moe",
    "hunyuan_vl",
    "hy_v3",
    "internlm2",
    "jais2",
    "llada",
    "llada-moe",
    "llama",
    "llama-embed",
    "llama4",
    "maincoder",
    "mellum",
    "minicpm",
    "mistral3",
    "olmo",
    "olmo2",
    "olmoe",
    "orion",
    "paddleocr",
    "pangu-embedded",
    "plamo",
    "pockettts",
    "qwen2",
    "qwen2moe",
    "qwen2vl",
    "qwen3",
    "qwen3moe",
    "qwen3tts",
    "qwen3vl",
    "qwen3vlmoe",
    "rnd1",
    "seed_oss",
    "smallthinker",
    "smollm3",
    "starcoder2",
    "talkie",
    "xverse",
];

/// Architectures whose graph rotates nothing.
const NO_ROTATION: &[&str] = &[
    "arwkv7",
    "bert",
    "bloom",
    "gpt2",
    "jais",
    "jamba",
    "jina-bert-v2",
    "mamba",
    "mamba2",
    "mpt",
    "nemotron_h",
    "nemotron_h_moe",
    "refact",
    "rwkv6",
    "rwkv6qwen2",
    "rwkv7",
    "starcoder",
    "t5",
    "t5encoder",
    "wavtokenizer-dec",
];

/// Checks what the graph of this architecture asserts.
pub(super) fn check(gguf: &Gguf, keys: &Keys<'_>) -> Result<(), GgufError> {
    head_sizes(keys)?;
    const MANY: u64 = 1 << 24;
    match keys.architecture() {
        // The second and third are this crate's, on llama.cpp's graph of the first.
        "bitnet" | "bitnet-25" | "bitnet-b1.58" => bitnet(keys),
        "ernie4_5-moe" => keys.integer_in("interleave_moe_layer_step", 1..=MANY).map(drop),
        "grovemoe" => keys.integer_in("experts_per_group", 1..=MANY).map(drop),
        "nanbeige" => {
            let layers = keys.integer("block_count")?.unwrap_or(1).max(1);
            keys.integer_in("num_loops", 1..=512 / layers).map(drop)
        }
        "minimax-m3" => keys.integer_in("attention.indexer.block_size", 1..=MANY).map(drop),
        "glm5-next" => {
            let pool = keys.integer_in("attention.indexer.kpool", 2..=MANY)?.unwrap_or(2);
            if let Some(top) = keys.integer("attention.indexer.top_k")?
                && !top.is_multiple_of(pool)
            {
                return Err(keys.wrong("attention.indexer.top_k", top, format!("a multiple of the pool size {pool}")));
            }
            keys.integer_in("hyper_connection.count", 4..=4).map(drop)
        }
        "phi3" | "pockettts" => attention_matrices(gguf, keys),
        "rwkv6" | "rwkv6qwen2" => rwkv6(gguf, keys),
        "rwkv7" => token_shifts(keys),
        "dflash" => keys.integer_in("attention.output_group_count", 1..=MANY).map(drop),
        "gemma-embedding" => gemma_embedding(keys),
        "hrm-text" => hrm(keys),
        "bailingmoe3" => {
            if let Some(false) = keys.get("kda.safe_gate").and_then(Value::as_bool) {
                return Err(keys.wrong("kda.safe_gate", false, "true"));
            }
            keys.float("kda.gate_lower_bound", "below 0", |bound| bound < 0.0).map(drop)
        }
        "wavtokenizer-dec" => {
            let layers = keys.integer("block_count")?.unwrap_or(0);
            keys.integer_in("posnet.block_count", 0..=layers)?;
            keys.integer_in("convnext.block_count", 0..=layers).map(drop)
        }
        _ => Ok(()),
    }
}

fn head_sizes(keys: &Keys<'_>) -> Result<(), GgufError> {
    let default = match (keys.integer("embedding_length")?, keys.get("attention.head_count").and_then(Value::as_u64)) {
        (Some(width), Some(heads)) if heads > 0 => Some(width / heads),
        _ => None,
    };
    let key = keys.integer("attention.key_length")?.or(default);
    let value = keys.integer("attention.value_length")?.or(default);
    if let (Some(key), Some(value)) = (key, value)
        && key != value
        && EQUAL_HEADS.contains(&keys.architecture())
    {
        return Err(keys.wrong("attention.value_length", value, format!("the key length {key}")));
    }
    // ggml_compute_forward_rope_flt never ends when it has nothing to rotate.
    for name in ["rope.dimension_count", "rope.dimension_count_swa"] {
        if keys.integer(name)? == Some(0) && !NO_ROTATION.contains(&keys.architecture()) {
            return Err(keys.wrong(name, 0, "above 0"));
        }
    }
    if let (Some(key), Some(rotated)) = (key, keys.integer("rope.dimension_count")?)
        && key != rotated
        && FULL_ROTATION.contains(&keys.architecture())
    {
        return Err(keys.wrong("rope.dimension_count", rotated, format!("the head size {key}")));
    }
    Ok(())
}

/// The loader takes both forms of the matrices as optional; the graph has a null pointer without either.
fn attention_matrices(gguf: &Gguf, keys: &Keys<'_>) -> Result<(), GgufError> {
    for layer in 0..layers_with_weights(gguf, keys)? {
        let has = |name: &str| gguf.tensor(&format!("blk.{layer}.{name}.weight")).is_some();
        let separate = ["attn_q", "attn_k", "attn_v"].into_iter().all(has);
        if !(separate || has("attn_qkv")) {
            return Err(gguf.missing_tensor(&format!("blk.{layer}.attn_qkv.weight")));
        }
    }
    Ok(())
}

/// rwkv6.cpp and rwkv6-base.cpp.
fn rwkv6(gguf: &Gguf, keys: &Keys<'_>) -> Result<(), GgufError> {
    let fused_only = keys.architecture() == "rwkv6qwen2";
    if !fused_only {
        token_shifts(keys)?;
    }
    let layers = layers_with_weights(gguf, keys)?;
    if layers == 0 {
        return Ok(());
    }
    for layer in 0..layers {
        let name = |part: &str| format!("blk.{layer}.time_mix_lerp_{part}.weight");
        if fused_only || gguf.tensor(&name("fused")).is_some() {
            continue;
        }
        if let Some(part) = ["w", "k", "v", "r", "g"].into_iter().find(|part| gguf.tensor(&name(part)).is_none()) {
            return Err(gguf.missing_tensor(&name(part)));
        }
    }
    // GGML_ASSERT(n_head % n_head_kv == 0), and a reshape to this many heads; only rwkv6qwen2 has matrices for fewer.
    let (Some(width), Some(size)) = (keys.integer("embedding_length")?, keys.integer("wkv.head_size")?) else {
        return Ok(());
    };
    let heads = width / size.max(1);
    let key =
        if keys.get("attention.head_count_kv").is_some() { "attention.head_count_kv" } else { "attention.head_count" };
    let found = keys.per_layer(key, layers)?.unwrap_or_default();
    let fits = |&count: &u64| count == 0 || count == heads || (fused_only && heads.is_multiple_of(count));
    match found.iter().find(|count| !fits(count)) {
        Some(count) => Err(keys.wrong(key, count, format!("0 or {heads}"))),
        None => Ok(()),
    }
}

/// GGML_ASSERT(hparams.token_shift_count == 2).
fn token_shifts(keys: &Keys<'_>) -> Result<(), GgufError> {
    keys.integer_in("token_shift_count", 2..=2).map(drop)
}

/// The blocks, or none in a file without weights.
fn layers_with_weights(gguf: &Gguf, keys: &Keys<'_>) -> Result<u64, GgufError> {
    if gguf.tensors().is_empty() { Ok(0) } else { Ok(keys.integer("block_count")?.unwrap_or(0)) }
}

/// Query and key matrices are as wide as the embedding and its share of key heads, whatever the head size; the graph
/// reshapes their products to heads (ggml_reshape_3d: ne0 * ne1 * ne2 == nelements) by the numbers of the first block.
fn bitnet(keys: &Keys<'_>) -> Result<(), GgufError> {
    let Some(layers) = keys.integer("block_count")? else { return Ok(()) };
    for name in ["attention.head_count", "attention.head_count_kv", "feed_forward_length"] {
        if let Some(numbers) = keys.per_layer(name, layers)?
            && let Some(other) = numbers.iter().find(|&&number| number != numbers[0])
        {
            return Err(keys.wrong(name, other, format!("{} in every block", numbers[0])));
        }
    }
    let heads = keys.per_layer("attention.head_count", layers)?.and_then(|heads| heads.first().copied());
    if let (Some(width), Some(heads), Some(head)) =
        (keys.integer("embedding_length")?, heads, keys.integer("attention.key_length")?)
        && heads.checked_mul(head) != Some(width)
    {
        return Err(keys.wrong("attention.key_length", head, format!("{width} over {heads} heads")));
    }
    Ok(())
}

fn gemma_embedding(keys: &Keys<'_>) -> Result<(), GgufError> {
    let Some(width) = keys.integer("embedding_length")? else { return Ok(()) };
    for name in ["dense_2_feat_in", "dense_3_feat_out"] {
        if let Some(size) = keys.integer(name)?
            && size != 0
            && size != width
        {
            return Err(keys.wrong(name, size, format!("the embedding length {width}")));
        }
    }
    Ok(())
}

fn hrm(keys: &Keys<'_>) -> Result<(), GgufError> {
    const MOST: u64 = 512;
    let stack = keys.integer_in("hrm.layers_per_stack", 1..=MOST)?;
    let high = keys.integer_in("hrm.h_cycles", 1..=MOST)?;
    let low = keys.integer_in("hrm.l_cycles", 1..=MOST)?;
    if let (Some(stack), Some(high), Some(low), Some(layers)) = (stack, high, low, keys.integer("block_count")?)
        && stack * high * (low + 1) != layers
    {
        return Err(keys.wrong("block_count", layers, format!("{stack} * {high} * ({low} + 1)")));
    }
    Ok(())
}
