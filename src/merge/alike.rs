//! Whether the weights of two models mean the same, so that what lies between them makes sense.

use super::MergeError;
use crate::gguf::{Gguf, Strings, Value, dequantize};

/// Hyperparameters that say nothing about what a weight means, or that the shapes of the tensors say too.
const FREE: &[&str] = &["context_length", "vocab_size", "attention.key_length", "attention.value_length"];

/// `LLAMA_TOKEN_TYPE_NORMAL` and `LLAMA_TOKEN_TYPE_BYTE` of llama.h: tokens with a text that stands for itself.
const PLAIN: [u64; 2] = [1, 6];

/// Checks that two models have the same tensors, in types that can be read, the same hyperparameters, and the same texts for
/// their tokens.
pub(super) fn check(one: &Gguf, other: &Gguf) -> Result<(), MergeError> {
    let (architecture, others) = (one.architecture()?, other.architecture()?);
    if architecture != others {
        return Err(different(format!("their architectures are `{architecture}` and `{others}`")));
    }
    check_tensors(one, other)?;
    check_hyperparameters(one, other, &format!("{architecture}."))?;
    check_tokens(one, other)
}

fn different(text: String) -> MergeError {
    MergeError::Different(text)
}

fn check_tensors(one: &Gguf, other: &Gguf) -> Result<(), MergeError> {
    for tensor in one.tensors() {
        let name = &tensor.name;
        match other.tensor(name) {
            None => return Err(different(format!("the second one has no `{name}`"))),
            Some(found) if found.shape != tensor.shape => {
                return Err(different(format!("`{name}` has the shapes {:?} and {:?}", tensor.shape, found.shape)));
            }
            Some(found) if dequantize::decoder(found.tensor_type).is_none() => {
                return Err(MergeError::Type { tensor: name.clone(), tensor_type: found.tensor_type });
            }
            Some(_) => {}
        }
    }
    match other.tensors().iter().find(|tensor| one.tensor(&tensor.name).is_none()) {
        Some(tensor) => Err(different(format!("the first one has no `{}`", tensor.name))),
        None => Ok(()),
    }
}

fn check_hyperparameters(one: &Gguf, other: &Gguf, prefix: &str) -> Result<(), MergeError> {
    let of = |gguf: &Gguf| -> Vec<String> { gguf.metadata().iter().map(|(key, _)| key.to_owned()).collect() };
    for key in of(one).into_iter().chain(of(other)) {
        let Some(name) = key.strip_prefix(prefix) else { continue };
        let (ours, theirs) = (one.metadata().get(&key), other.metadata().get(&key));
        if !FREE.contains(&name) && !same(ours, theirs) {
            return Err(different(format!("`{key}` is {} and {}", text_of(ours), text_of(theirs))));
        }
    }
    Ok(())
}

/// Whether two values say the same, whatever type the writers took for a number.
fn same(one: Option<&Value>, other: Option<&Value>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return one.is_none() && other.is_none() };
    let integers = one.as_u64().zip(other.as_u64());
    let floats = one.as_f64().zip(other.as_f64());
    one == other || integers.is_some_and(|(one, other)| one == other) || floats.is_some_and(|(one, other)| one == other)
}

fn text_of(value: Option<&Value>) -> String {
    let Some(value) = value else { return "missing".to_owned() };
    let integer = value.as_u64().map(|value| value.to_string());
    let number = integer.or_else(|| value.as_f64().map(|value| value.to_string()));
    number.or_else(|| value.as_str().map(|text| format!("`{text}`"))).unwrap_or_else(|| format!("{value:?}"))
}

/// Tokens with a meaning of their own may have other texts: fine-tuning puts reserved ones to use.
fn check_tokens(one: &Gguf, other: &Gguf) -> Result<(), MergeError> {
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let (Some(ours), Some(theirs)) = (tokens(one, TOKENS), tokens(other, TOKENS)) else { return Ok(()) };
    if ours.len() != theirs.len() {
        return Err(different(format!("`{TOKENS}` has {} and {} tokens", ours.len(), theirs.len())));
    }
    let (kinds, other_kinds) = (kinds(one), kinds(other));
    let is_plain = |kinds: &Option<Vec<u64>>, index: usize| {
        kinds.as_ref().and_then(|kinds| kinds.get(index)).is_none_or(|kind| PLAIN.contains(kind))
    };
    let differs = |&index: &usize| ours.get(index) != theirs.get(index);
    let plain = |&index: &usize| is_plain(&kinds, index) && is_plain(&other_kinds, index);
    match (0..ours.len()).filter(plain).find(differs) {
        Some(index) => {
            let text = |tokens: &Strings| tokens.text(index).unwrap_or_default().into_owned();
            Err(different(format!("token {index} of `{TOKENS}` is {:?} and {:?}", text(ours), text(theirs))))
        }
        None => Ok(()),
    }
}

fn tokens<'a>(gguf: &'a Gguf, key: &str) -> Option<&'a Strings> {
    gguf.metadata().get(key).and_then(Value::as_array)?.as_strings()
}

fn kinds(gguf: &Gguf) -> Option<Vec<u64>> {
    gguf.metadata().get("tokenizer.ggml.token_type").and_then(Value::as_array)?.to_u64()
}
