//! `tokenizer.json` and its companions: byte-level BPE to the keys `tokenizer.*`.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value as Json;

use super::{
    ConvertError,
    config::{Config, TokenIds},
    json,
    pre_tokenizer::{self, PreTokenizer},
};
use crate::gguf::Writer;

/// Token types of `tokenizer.ggml.token_type`: `llama_token_type` of llama.h.
mod kind {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER_DEFINED: i32 = 4;
    pub(super) const UNUSED: i32 = 5;
}

/// The keys of tokens that end a text: `tokenizer.ggml.<key>_token_id`. A model that knows several names the end of the text
/// first, then that of a turn, then that of a message.
const END_KEYS: [&str; 3] = ["eos", "eot", "eom"];

/// A vocabulary, ready to be written.
#[derive(Debug)]
pub(super) struct Tokenizer {
    tokens: Vec<String>,
    kinds: Vec<i32>,
    merges: Vec<String>,
    /// The name of the rules that cut text into words.
    pub(super) pre: &'static str,
    bos: Option<u32>,
    /// In the order of [`END_KEYS`].
    ends: Vec<u32>,
    pad: Option<u32>,
    adds_bos: bool,
    adds_eos: bool,
    /// The Jinja template of a conversation.
    pub(super) chat_template: Option<String>,
}

#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<Json>,
    pre_tokenizer: Option<PreTokenizer>,
    post_processor: Option<PostProcessor>,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Model {
    #[serde(rename = "BPE")]
    Bpe(Bpe),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Bpe {
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
}

/// Two pieces: older files have them in one string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Joined(String),
    Pair([String; 2]),
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum PostProcessor {
    Sequence {
        processors: Vec<PostProcessor>,
    },
    TemplateProcessing {
        single: Vec<Json>,
    },
    #[serde(other)]
    Other,
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    bos_token: Option<NamedToken>,
    eos_token: Option<NamedToken>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    chat_template: Option<ChatTemplate>,
}

/// The text of a token, alone or among its properties.
#[derive(Deserialize)]
#[serde(untagged)]
enum NamedToken {
    Text(String),
    Described { content: String },
}

impl NamedToken {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Described { content: text } => text,
        }
    }
}

/// One template, or several with names.
#[derive(Deserialize)]
#[serde(untagged)]
enum ChatTemplate {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

#[derive(Default, Deserialize)]
struct GenerationConfig {
    bos_token_id: Option<TokenIds>,
    eos_token_id: Option<TokenIds>,
    pad_token_id: Option<u32>,
}

impl Tokenizer {
    /// Reads the tokenizer of the checkpoint in `folder`.
    pub(super) fn read(folder: &Path, config: &Config) -> Result<Self, ConvertError> {
        let path = folder.join("tokenizer.json");
        let file: TokenizerFile = json::read(&path)?;
        let settings: TokenizerConfig = json::read_optional(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let generation_path = folder.join("generation_config.json");
        let generation: GenerationConfig = json::read_optional(&generation_path)?.unwrap_or_default();
        let chat_template = match json::read_text(&folder.join("chat_template.jinja"))? {
            Some(template) => Some(template),
            None => settings.chat_template.and_then(default_template),
        };
        let unsupported = |problem: &str| ConvertError::Tokenizer { path: path.clone(), problem: problem.to_owned() };

        let Model::Bpe(bpe) = file.model else {
            return Err(unsupported("only byte-level BPE can be converted, not this kind of model"));
        };
        let is_affixed = [&bpe.continuing_subword_prefix, &bpe.end_of_word_suffix]
            .into_iter()
            .any(|affix| affix.as_deref().is_some_and(|affix| !affix.is_empty()));
        if bpe.byte_fallback || is_affixed {
            return Err(unsupported("only byte-level BPE can be converted, not BPE with fallback bytes or affixes"));
        }
        if file.normalizer.is_some_and(|normalizer| !normalizer.is_null()) {
            return Err(unsupported("it normalises text, which GGUF has no word for"));
        }
        let pre = file.pre_tokenizer.as_ref().and_then(|rules| pre_tokenizer::name(rules, bpe.ignore_merges));
        let pre = pre.ok_or_else(|| unsupported("llama.cpp has no name for its way to cut text into words"))?;

        let merges = bpe.merges.into_iter().map(Merge::joined).collect();
        let (tokens, kinds) = place(bpe.vocab, &file.added_tokens, config.vocab_size, &path)?;
        let id_of = |token: &Option<NamedToken>| {
            let text = token.as_ref()?.text();
            tokens.iter().position(|token| token == text).map(|id| id as u32)
        };
        let first = |ids: &Option<TokenIds>| ids.as_ref().and_then(|ids| ids.all().first().copied());
        let bos =
            first(&generation.bos_token_id).or(first(&config.bos_token_id)).or_else(|| id_of(&settings.bos_token));
        let ends = match (&generation.eos_token_id, &config.eos_token_id) {
            (Some(ids), _) => ends(ids, &generation_path)?,
            (None, Some(ids)) => ends(ids, &folder.join("config.json"))?,
            (None, None) => id_of(&settings.eos_token).into_iter().collect(),
        };
        let (begins, finishes) = file.post_processor.as_ref().map_or((None, None), template_ends);
        let is = |text: Option<&str>, id: Option<u32>| {
            text.zip(id).map(|(text, id)| tokens.get(id as usize).is_some_and(|token| token == text))
        };
        let has_template = begins.is_some() || finishes.is_some();
        let adds_bos = is(begins, bos).or(settings.add_bos_token.filter(|_| !has_template)).unwrap_or(false);
        let adds_eos =
            is(finishes, ends.first().copied()).or(settings.add_eos_token.filter(|_| !has_template)).unwrap_or(false);
        let pad = generation.pad_token_id.or(config.pad_token_id);
        Ok(Self { pre, merges, bos, ends, pad, adds_bos, adds_eos, chat_template, tokens, kinds })
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Sets the keys `tokenizer.*`.
    pub(super) fn set_keys(&self, writer: &mut Writer) {
        writer
            .set("tokenizer.ggml.model", "gpt2")
            .set("tokenizer.ggml.pre", self.pre)
            .set("tokenizer.ggml.tokens", self.tokens.clone())
            .set("tokenizer.ggml.token_type", self.kinds.clone())
            .set("tokenizer.ggml.merges", self.merges.clone());
        let ends = END_KEYS.into_iter().zip(&self.ends).map(|(key, &id)| (key, Some(id)));
        for (name, id) in [("bos", self.bos), ("padding", self.pad)].into_iter().chain(ends) {
            if let Some(id) = id {
                writer.set(format!("tokenizer.ggml.{name}_token_id"), id);
            }
        }
        writer.set("tokenizer.ggml.add_bos_token", self.adds_bos).set("tokenizer.ggml.add_eos_token", self.adds_eos);
        if let Some(template) = &self.chat_template {
            writer.set("tokenizer.chat_template", template.as_str());
        }
    }
}

impl Merge {
    fn joined(self) -> String {
        match self {
            Self::Joined(pair) => pair,
            Self::Pair([left, right]) => format!("{left} {right}"),
        }
    }
}

/// The different tokens of a list, in its order; an error when there are more than the format has keys for: text would go
/// on behind one that nobody knows.
fn ends(ids: &TokenIds, path: &Path) -> Result<Vec<u32>, ConvertError> {
    let mut ends = Vec::new();
    for &id in ids.all() {
        if !ends.contains(&id) {
            ends.push(id);
        }
    }
    if ends.len() > END_KEYS.len() {
        return Err(ConvertError::EndTokens { path: path.to_owned(), found: ends.len(), places: END_KEYS.len() });
    }
    Ok(ends)
}

/// The tokens by id, and their types. Ids that nobody has become unused tokens.
fn place(
    vocabulary: HashMap<String, u32>,
    added: &[AddedToken],
    size: u32,
    path: &Path,
) -> Result<(Vec<String>, Vec<i32>), ConvertError> {
    let wrong = |problem: String| ConvertError::Tokenizer { path: PathBuf::from(path), problem };
    let mut tokens: Vec<Option<String>> = vec![None; size as usize];
    let mut kinds = vec![kind::UNUSED; tokens.len()];
    let added_tokens = added.iter().map(|token| {
        let kind = if token.special { kind::CONTROL } else { kind::USER_DEFINED };
        (token.content.clone(), token.id, kind)
    });
    // Added tokens may be in the vocabulary too; what they are is said in their list.
    for (text, id, kind) in vocabulary.into_iter().map(|(text, id)| (text, id, kind::NORMAL)).chain(added_tokens) {
        let Some(place) = tokens.get_mut(id as usize) else {
            return Err(wrong(format!("token {id}, `{text}`, is beyond the {size} tokens of config.json")));
        };
        if let Some(other) = place.as_ref().filter(|&other| *other != text) {
            return Err(wrong(format!("token {id} is `{other}` and `{text}`")));
        }
        *place = Some(text);
        kinds[id as usize] = kind;
    }
    let name = |(id, token): (usize, Option<String>)| token.unwrap_or_else(|| format!("[PAD{id}]"));
    Ok((tokens.into_iter().enumerate().map(name).collect(), kinds))
}

/// The texts of the tokens that a template puts before and after a text.
fn template_ends(processor: &PostProcessor) -> (Option<&str>, Option<&str>) {
    fn special(item: Option<&Json>) -> Option<&str> {
        item?.get("SpecialToken")?.get("id")?.as_str()
    }
    match processor {
        PostProcessor::Sequence { processors } => processors
            .iter()
            .map(template_ends)
            .find(|(first, last)| first.is_some() || last.is_some())
            .unwrap_or_default(),
        PostProcessor::TemplateProcessing { single } => (special(single.first()), special(single.last())),
        PostProcessor::Other => (None, None),
    }
}

/// Of several templates the one called `default`.
fn default_template(templates: ChatTemplate) -> Option<String> {
    match templates {
        ChatTemplate::One(template) => Some(template),
        ChatTemplate::Named(templates) => {
            templates.into_iter().find(|template| template.name == "default").map(|template| template.template)
        }
    }
}
