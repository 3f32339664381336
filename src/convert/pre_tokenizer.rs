//! The name that llama.cpp has for a pre-tokenizer.
//!
//! GGUF does not hold the rules that cut text into words, only a name for them (`tokenizer.ggml.pre`), which stands for
//! regular expressions in llama.cpp's `llama-vocab.cpp`. Here the rules themselves are compared: tokenizers are
//! recognised by what they do, not by what some text becomes.

use serde::Deserialize;
use serde_json::Value as Json;

/// Words, numbers of up to three digits, punctuation, space: Llama 3.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with digits one by one: Qwen 2.
const QWEN_2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// One rule of `tokenizer.json`, as the tokenizers library names it.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type")]
pub(super) enum PreTokenizer {
    Sequence {
        pretokenizers: Vec<PreTokenizer>,
    },
    Split {
        pattern: Json,
        behavior: String,
        #[serde(default)]
        invert: bool,
    },
    Digits {
        individual_digits: bool,
    },
    ByteLevel {
        #[serde(default)]
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    #[serde(other)]
    Other,
}

fn yes() -> bool {
    true
}

/// The name of these rules; `ignore_merges` is whether a word that is a token needs no merges to become it.
///
/// `None` when llama.cpp has no name that means the same.
pub(super) fn name(rules: &PreTokenizer, ignore_merges: bool) -> Option<&'static str> {
    let mut flat = Vec::new();
    flatten(rules, &mut flat);
    match (flat.as_slice(), ignore_merges) {
        ([Rule::Split(LLAMA_3), Rule::Bytes], true) => Some("llama-bpe"),
        // The same words; the names differ in what `ignore_merges` is.
        ([Rule::Split(LLAMA_3), Rule::Bytes], false) => Some("smaug-bpe"),
        ([Rule::Split(QWEN_2), Rule::Bytes], false) => Some("qwen2"),
        ([Rule::Gpt2], false) => Some("gpt-2"),
        ([Rule::Digits, Rule::Gpt2], false) => Some("smollm"),
        _ => None,
    }
}

#[derive(Debug, PartialEq)]
enum Rule<'a> {
    /// Matches of a regular expression are words, and so is what lies between them.
    Split(&'a str),
    /// Each digit is a word.
    Digits,
    /// GPT-2's own expression.
    Gpt2,
    /// No words, only bytes.
    Bytes,
    Unknown,
}

fn flatten<'a>(rules: &'a PreTokenizer, flat: &mut Vec<Rule<'a>>) {
    flat.push(match rules {
        PreTokenizer::Sequence { pretokenizers } => {
            pretokenizers.iter().for_each(|rules| flatten(rules, flat));
            return;
        }
        PreTokenizer::Split { pattern, behavior, invert: false } if behavior == "Isolated" => {
            pattern.get("Regex").and_then(Json::as_str).map_or(Rule::Unknown, Rule::Split)
        }
        PreTokenizer::Digits { individual_digits: true } => Rule::Digits,
        PreTokenizer::ByteLevel { add_prefix_space: false, use_regex: true } => Rule::Gpt2,
        PreTokenizer::ByteLevel { add_prefix_space: false, use_regex: false } => Rule::Bytes,
        _ => Rule::Unknown,
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(rules: &Json, ignore_merges: bool) -> Option<&'static str> {
        name(&serde_json::from_value(rules.clone()).unwrap(), ignore_merges)
    }

    fn split(regex: &str) -> Json {
        let split = json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        json!({"type": "Sequence", "pretokenizers": [split, bytes]})
    }

    #[test]
    fn words_and_merges_make_the_name() {
        assert_eq!(named(&split(LLAMA_3), true), Some("llama-bpe"));
        assert_eq!(named(&split(LLAMA_3), false), Some("smaug-bpe"));
        assert_eq!(named(&split(QWEN_2), false), Some("qwen2"));
        let gpt2 = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
        assert_eq!(named(&gpt2, false), Some("gpt-2"));
        let digits = json!({"type": "Digits", "individual_digits": true});
        assert_eq!(named(&json!({"type": "Sequence", "pretokenizers": [digits, gpt2]}), false), Some("smollm"));
    }

    #[test]
    fn rules_that_differ_a_little_have_no_name() {
        assert_eq!(named(&split(&LLAMA_3.replace("{1,3}", "{1,2}")), true), None);
        assert_eq!(named(&split(QWEN_2), true), None);
        assert_eq!(named(&json!({"type": "ByteLevel", "add_prefix_space": true}), false), None);
        assert_eq!(named(&json!({"type": "Metaspace", "replacement": "_"}), false), None);
    }
}
