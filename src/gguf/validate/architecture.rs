//! Assertions of single architectures in llama.cpp's `src/models`.

use super::Keys;
use crate::gguf::{GgufError, Value};

/// Architectures whose graph asserts that keys and values have one head size.
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
    "graniteswitch",
    "grok",
    "grovemoe",
    "hunyuan-moe",
    "hunyuan_vl",
    "hy_v3",
    "internlm2",
    "jais",
    "jais2",
    "llada",
    "llada-moe",
    "llama",
    "llama4",
    "maincoder",
    "maple",
    "mellum",
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
    "olmo",
    "olmo2",
    "olmoe",
    "openelm",
    "orion",
    "paddleocr",
    "pangu-embedded",
    "phi2",
    "phi3",
    "plamo",
    "qwen",
    "qwen2",
    "qwen2moe",
    "qwen2vl",
    "qwen3",
    "qwen35",
    "qwen35moe",
    "qwen3moe",
    "qwen3next",
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
    "talkie",
    "xverse",
];

/// Architectures whose graph asserts that all of a head is rotated.
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
    "graniteswitch",
    "grok",
    "grovemoe",
    "hunyuan-moe",
    "hunyuan_vl",
    "hy_v3",
    "internlm2",
    "jais2",
    "llada",
    "llada-moe",
    "llama",
    "llama4",
    "maincoder",
    "mellum",
    "mistral3",
    "olmo",
    "olmo2",
    "olmoe",
    "orion",
    "paddleocr",
    "pangu-embedded",
    "plamo",
    "qwen2",
    "qwen2moe",
    "qwen2vl",
    "qwen3",
    "qwen3moe",
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
pub(super) fn check(keys: &Keys<'_>) -> Result<(), GgufError> {
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
