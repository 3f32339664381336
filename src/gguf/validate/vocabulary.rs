//! The tokenizer (`llama_vocab::impl::load` and `tokenize`).

use std::collections::HashSet;

use crate::gguf::{Array, GgufError, KeyProblem, Metadata, Strings, Value};

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const SEPARATOR: &str = "tokenizer.ggml.seperator_token_id";

/// A token type: a single byte, written `<0x0A>`.
const BYTE: i32 = 6;

/// Checks the tokenizer, if the file has one.
pub(super) fn check(metadata: &Metadata) -> Result<(), GgufError> {
    if metadata.get(TOKENS).is_none() {
        return Ok(());
    }
    let model = metadata.str(MODEL)?;
    let tokens = strings(metadata, TOKENS)?;
    // llama.cpp keeps token ids in an `int32_t`; the `test` tokenizer divides by the count.
    if tokens.is_empty() || tokens.len() > i32::MAX as usize {
        return Err(wrong(metadata, TOKENS, format!("{} tokens", tokens.len()), "1 to 2^31 - 1 tokens".into()));
    }
    check_unique(metadata, tokens)?;
    check_types(metadata, model, tokens)?;
    check_scores(metadata, tokens)?;
    if metadata.get(MERGES).is_some() {
        strings(metadata, MERGES)?;
    }
    check_special(metadata, model, tokens.len() as u64)?;
    check_rwkv(metadata, model, tokens)
}

fn strings<'a>(metadata: &'a Metadata, key: &str) -> Result<&'a Strings, GgufError> {
    let array = metadata.array(key)?;
    array.as_strings().ok_or_else(|| mistyped(metadata, key, "arr[str]"))
}

fn mistyped(metadata: &Metadata, key: &str, expected: &'static str) -> GgufError {
    let found = metadata.get(key).map_or_else(String::new, |value| value.type_name().into_owned());
    metadata.problem(key, KeyProblem::Type { expected, found })
}

fn wrong(metadata: &Metadata, key: &str, found: String, expected: String) -> GgufError {
    metadata.problem(key, KeyProblem::Value { found, expected })
}

/// `GGML_ASSERT(id_to_token.size() == token_to_id.size())`: two tokens of one text abort. llama.cpp reads tokens as C
/// strings, so the text ends at a NUL, and it names an empty token `[EMPTY_<id>]`.
fn check_unique(metadata: &Metadata, tokens: &Strings) -> Result<(), GgufError> {
    let twice = |id: usize, text: &[u8]| {
        let found = format!("token {id} with the text of another one, `{}`", text.escape_ascii());
        wrong(metadata, TOKENS, found, "tokens that differ before the first NUL".into())
    };
    let mut seen = HashSet::with_capacity(tokens.len());
    let mut empty = Vec::new();
    for (id, token) in tokens.iter().enumerate() {
        let text = token.iter().position(|&byte| byte == 0).map_or(token, |end| &token[..end]);
        if text.is_empty() {
            empty.push(id);
        } else if !seen.insert(text) {
            return Err(twice(id, text));
        }
    }
    for id in empty {
        let text = format!("[EMPTY_{id}]").into_bytes();
        if seen.contains(text.as_slice()) {
            return Err(twice(id, &text));
        }
    }
    Ok(())
}

fn check_types(metadata: &Metadata, model: &str, tokens: &Strings) -> Result<(), GgufError> {
    if metadata.get(TYPES).is_none() {
        return Ok(());
    }
    let Array::I32(types) = metadata.array(TYPES)? else {
        return Err(mistyped(metadata, TYPES, "arr[i32]"));
    };
    if types.len() != tokens.len() {
        let expected = format!("one for each of the {} tokens", tokens.len());
        return Err(wrong(metadata, TYPES, format!("{} types", types.len()), expected));
    }
    for (id, (&token_type, token)) in types.iter().zip(tokens.iter()).enumerate() {
        if !(0..=BYTE).contains(&token_type) {
            return Err(wrong(metadata, TYPES, format!("{token_type} for token {id}"), "0 to 6".into()));
        }
        // llama_vocab::impl::token_to_byte: GGML_ABORT for WordPiece, and digits from the fourth character on.
        if token_type == BYTE && (model == "bert" || (model != "rwkv" && model != "test" && token.len() < 4)) {
            let text = token.escape_ascii();
            return Err(wrong(
                metadata,
                TYPES,
                format!("6 for token {id}, `{text}`"),
                "6 only for <0x00> to <0xFF>".into(),
            ));
        }
    }
    Ok(())
}

fn check_scores(metadata: &Metadata, tokens: &Strings) -> Result<(), GgufError> {
    let nan = match metadata.get(SCORES) {
        None => return Ok(()),
        Some(Value::Array(Array::F32(scores))) => scores.iter().position(|score| score.is_nan()),
        Some(Value::Array(Array::I32(_))) => None,
        Some(_) => return Err(mistyped(metadata, SCORES, "arr[f32]")),
    };
    let scores = metadata.array(SCORES)?.len();
    if scores != tokens.len() {
        let expected = format!("one for each of the {} tokens", tokens.len());
        return Err(wrong(metadata, SCORES, format!("{scores} scores"), expected));
    }
    // The merge queue sorts by score; an order with a NaN in it is none.
    match nan {
        Some(id) => Err(wrong(metadata, SCORES, format!("NaN for token {id}"), "numbers".into())),
        None => Ok(()),
    }
}

/// Ids that generation relies on lie in the vocabulary, and a token that is to be added exists
/// (`GGML_ASSERT(special_bos_id != LLAMA_TOKEN_NULL)` in `tokenize`).
///
/// Padding, mask and fill-in-the-middle ids beyond the vocabulary are common in published files; llama.cpp warns and
/// ignores them, and so are they accepted here.
fn check_special(metadata: &Metadata, model: &str, tokens: u64) -> Result<(), GgufError> {
    for key in
        [BOS, EOS, "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id", "tokenizer.ggml.unknown_token_id"]
    {
        if metadata.get(key).is_some() {
            let id = metadata.u64(key)?;
            if id >= tokens {
                return Err(wrong(metadata, key, id.to_string(), format!("below the {tokens} tokens")));
            }
        }
    }
    let pre = metadata.get("tokenizer.ggml.pre").and_then(Value::as_str).unwrap_or_default();
    // What llama.cpp assumes without the keys: (adds BOS, BOS, adds EOS, EOS).
    let (adds_bos, bos, adds_eos, eos) = match model {
        "llama" | "plamo2" => (model == "llama", Some(1), false, Some(2)),
        "bert" => (true, Some(101), false, None),
        "t5" => (false, None, true, Some(1)),
        "gpt2" | "hybriddna" | "whitespace" if matches!(pre, "chatglm-bpe" | "glm4" | "glm5") => {
            (false, None, false, Some(11))
        }
        "gpt2" | "hybriddna" | "whitespace" => (BPE_WITH_BOS.contains(&pre), Some(11), false, Some(11)),
        "gemma4" => (true, None, false, None),
        _ => return Ok(()),
    };
    let flag = |key: &str| metadata.get(key).map(|_| metadata.bool(key)).transpose();
    let adds_bos = match model {
        // These add it whatever the key says.
        "bert" | "gemma4" => true,
        _ => flag("tokenizer.ggml.add_bos_token")?.unwrap_or(adds_bos),
    };
    let adds_eos = flag("tokenizer.ggml.add_eos_token")?.unwrap_or(adds_eos) && model != "bert";
    // An id beyond the vocabulary counts as none.
    let exists = |key: &str, default: Option<u64>| {
        metadata.get(key).map_or(default, Value::as_u64).is_some_and(|id| id < tokens)
    };
    for (adds, key, default) in [(adds_bos, BOS, bos), (adds_eos, EOS, eos), (model == "bert", SEPARATOR, Some(102))] {
        if adds && !exists(key, default) {
            return Err(wrong(
                metadata,
                MODEL,
                format!("`{model}`, which adds a token without `{key}`"),
                format!("with `{key}`"),
            ));
        }
    }
    Ok(())
}

/// Pre-tokenizers for which llama.cpp adds BOS without being told.
const BPE_WITH_BOS: &[&str] = &[
    "chameleon",
    "falcon-h1",
    "falcon3",
    "jina-v5-nano",
    "lfm2",
    "llama-bpe",
    "llama-v3",
    "llama3",
    "midm-2.0",
    "pixtral",
    "tekken",
    "granite-embed-multi-311m",
];

/// `llm_tokenizer_rwkv_session::tokenize` never ends when text begins like a token but no token matches: each byte that
/// begins a token must be a token by itself.
fn check_rwkv(metadata: &Metadata, model: &str, tokens: &Strings) -> Result<(), GgufError> {
    if model != "rwkv" {
        return Ok(());
    }
    let mut single = [false; 256];
    let mut first = [None; 256];
    for (id, token) in tokens.iter().enumerate() {
        match *unescape(token) {
            [] => {}
            [byte] => single[usize::from(byte)] = true,
            [byte, ..] => first[usize::from(byte)] = Some(id),
        }
    }
    match (0..=255_u8).find(|&byte| first[usize::from(byte)].is_some() && !single[usize::from(byte)]) {
        Some(byte) => {
            let id = first[usize::from(byte)].unwrap_or_default();
            let found = format!("token {id} beginning with byte {byte:#04x}");
            Err(wrong(metadata, TOKENS, found, "a vocabulary with that byte as a token".into()))
        }
        None => Ok(()),
    }
}

/// The bytes of an RWKV token: `\t`, `\n`, `\r`, `\x0a`, and any other escaped character stands for itself.
fn unescape(token: &[u8]) -> Vec<u8> {
    let digit =
        |byte: u8| if byte >= b'a' { byte.wrapping_sub(b'a').wrapping_add(10) } else { byte.wrapping_sub(b'0') };
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token;
    loop {
        rest = match rest {
            [] | [b'\\'] | [b'\\', b'x'] | [b'\\', b'x', _] => return bytes,
            [b'\\', b'x', high, low, rest @ ..] => {
                bytes.push((digit(*high) << 4).wrapping_add(digit(*low)));
                rest
            }
            [b'\\', escaped, rest @ ..] => {
                bytes.push(match escaped {
                    b't' => b'\t',
                    b'n' => b'\n',
                    b'r' => b'\r',
                    other => *other,
                });
                rest
            }
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
}
