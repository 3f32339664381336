//! Text to tokens and back.
#![forbid(unsafe_code)]

mod breakers;
mod fragments;
mod guide;

pub(crate) use breakers::Breakers;
use breakers::KnownBreakers;
pub(crate) use fragments::Fragments;
pub(crate) use guide::Guide;

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use crate::{
    backend::{
        self, GrammarEngineError, GrammarMatcher, GrammarTrigger, LoadRequest, SpecialTokens, TemplateSource, Token,
        TokenizeOptions, Vocabulary, VocabularyError,
    },
    gguf::{Gguf, GgufError},
    import::{self, CacheError, ImportError, ImportOptions},
    knobs::{KnobError, Knobs},
    select::{Registry, RegistryError},
};

/// A model's tokenizer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    vocabulary: Arc<dyn Vocabulary>,
    /// Looked for when the first grammar needs them.
    fragments: Arc<OnceLock<Arc<Fragments>>>,
    guide: Arc<OnceLock<Result<Arc<Guide>, GrammarEngineError>>>,
    breakers: Arc<Mutex<KnownBreakers>>,
}

impl Tokenizer {
    pub(crate) fn new(vocabulary: Arc<dyn Vocabulary>) -> Self {
        Self { vocabulary, fragments: Arc::default(), guide: Arc::default(), breakers: Arc::default() }
    }

    /// Loads the tokenizer of a file, without its weights. Files that hold only a vocabulary will do.
    ///
    /// No engine opens a file with I2_S matrices: it is [imported](crate::import) first, as [`Model`](crate::Model) does.
    ///
    /// # Errors
    ///
    /// [`TokenizerError`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let path = path.as_ref();
        let file = Gguf::open(path)?;
        if !import::is_needed(&file) {
            return Self::of_request(&LoadRequest::new(&file)?);
        }
        let cache = Knobs::from_environment().imports()?.ok_or(ImportError::Cache(CacheError::NoFolder))?;
        let imported = cache.import(&file, &ImportOptions::default(), |_| ControlFlow::Continue(()))?;
        let file = Gguf::open(imported.path())?;
        Self::of_request(&LoadRequest::new(&file)?)
    }

    /// Asks the backends, in the order of their ids, for one that reads vocabularies.
    pub(crate) fn of_request(request: &LoadRequest<'_>) -> Result<Self, TokenizerError> {
        let vocabulary = Registry::global()?.iter().find_map(|backend| backend.vocabulary(request));
        Ok(Self::new(vocabulary.ok_or(VocabularyError::Unsupported)??))
    }

    /// Number of tokens.
    pub fn n_tokens(&self) -> u32 {
        self.vocabulary.n_tokens()
    }

    /// The tokens with a meaning of their own.
    pub fn special(&self) -> &SpecialTokens {
        self.vocabulary.special()
    }

    /// Whether the model ends its answer with this token.
    pub fn is_end_of_generation(&self, token: Token) -> bool {
        self.vocabulary.is_end_of_generation(token)
    }

    /// The tokens of `text`.
    ///
    /// # Errors
    ///
    /// [`VocabularyError`] when the model has no tokenizer or the text is too long.
    pub fn tokenize(&self, text: &str, options: TokenizeOptions) -> Result<Vec<Token>, VocabularyError> {
        let mut tokens = Vec::new();
        self.vocabulary.tokenize(text, options, &mut tokens)?;
        Ok(tokens)
    }

    /// The bytes of one token, as it stands within a text: [`detokenize`](Self::detokenize) leaves out the space that some
    /// tokenizers put before the first word. A control token is written only with `special`.
    ///
    /// # Errors
    ///
    /// [`VocabularyError::Token`] when the vocabulary does not have it.
    pub fn piece(&self, token: Token, special: bool) -> Result<Vec<u8>, VocabularyError> {
        let mut bytes = Vec::new();
        self.vocabulary.append_piece(token, special, &mut bytes)?;
        Ok(bytes)
    }

    /// The bytes of `tokens`; control tokens are written only with `special`. Not always UTF-8: a sequence may begin or
    /// end within a character.
    ///
    /// # Errors
    ///
    /// [`VocabularyError::Token`] when the vocabulary does not have one of them.
    pub fn detokenize(&self, tokens: &[Token], special: bool) -> Result<Vec<u8>, VocabularyError> {
        let mut bytes = Vec::new();
        self.vocabulary.detokenize(tokens, special, &mut bytes)?;
        Ok(bytes)
    }

    /// The chat template that comes with the model; `variant` names a further one, e.g. `tool_use`.
    pub fn chat_template(&self, variant: Option<&str>) -> Option<String> {
        self.vocabulary.chat_template(variant)
    }

    /// A template for this model's special tokens.
    pub fn template_source(&self, text: impl Into<String>) -> TemplateSource {
        let text_of = |token: Option<Token>| {
            let bytes = token.and_then(|token| self.detokenize(&[token], true).ok()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let SpecialTokens { bos, eos, .. } = *self.special();
        TemplateSource { text: text.into(), bos: text_of(bos), eos: text_of(eos) }
    }

    /// A grammar in GBNF over the vocabulary.
    pub(crate) fn grammar(
        &self,
        gbnf: &str,
        triggers: Option<&[GrammarTrigger]>,
    ) -> Result<Box<dyn GrammarMatcher>, GrammarEngineError> {
        self.vocabulary.grammar(gbnf, triggers)
    }

    /// The vocabulary as llguidance reads it: made once, by whoever needs it first.
    pub(crate) fn guide(&self) -> Result<Arc<Guide>, GrammarEngineError> {
        self.guide.get_or_init(|| Guide::new(self).map(Arc::new)).clone()
    }

    /// The tokens that are not whole characters.
    pub(crate) fn fragments(&self) -> Arc<Fragments> {
        Arc::clone(self.fragments.get_or_init(|| Arc::new(Fragments::of(self))))
    }

    /// The tokens that can write these texts.
    pub(crate) fn breakers(&self, texts: &[String]) -> Result<Arc<Breakers>, VocabularyError> {
        let known = || self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(breakers) = known().find(texts) {
            return Ok(breakers);
        }
        let breakers = Arc::new(Breakers::new(self, texts)?);
        known().add(texts, &breakers);
        Ok(breakers)
    }

    /// A decoder for tokens that arrive one by one.
    pub fn stream(&self) -> TextStream {
        TextStream { tokenizer: self.clone(), pending: Vec::new() }
    }
}

/// Why a tokenizer could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The file is not a GGUF model that can be loaded safely.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The file could not be brought into a form that engines open.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// An environment variable makes no sense.
    #[error(transparent)]
    Knob(#[from] KnobError),
    /// The program was put together wrongly.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// No compiled backend reads vocabularies.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// The backend could not load the vocabulary.
    #[error(transparent)]
    Backend(#[from] backend::LoadError),
}

/// Turns tokens into text as they arrive, and holds back the bytes of a character that is not complete.
#[derive(Debug, Clone)]
pub struct TextStream {
    tokenizer: Tokenizer,
    pending: Vec<u8>,
}

impl TextStream {
    /// Appends to `text` what is complete once `token` has arrived. Control tokens write nothing; bytes that can never
    /// become UTF-8 are replaced by U+FFFD.
    ///
    /// # Errors
    ///
    /// [`VocabularyError::Token`] when the vocabulary does not have it.
    pub fn push(&mut self, token: Token, text: &mut String) -> Result<(), VocabularyError> {
        self.push_as(token, false, text)
    }

    /// Like [`push`](Self::push); a control token is written only with `special`.
    ///
    /// # Errors
    ///
    /// [`VocabularyError::Token`] when the vocabulary does not have it.
    pub fn push_as(&mut self, token: Token, special: bool, text: &mut String) -> Result<(), VocabularyError> {
        self.tokenizer.vocabulary.append_piece(token, special, &mut self.pending)?;
        take_complete(&mut self.pending, text);
        Ok(())
    }

    /// Appends what was held back: a character that will not be completed becomes U+FFFD.
    pub fn finish(&mut self, text: &mut String) {
        if !self.pending.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            self.pending.clear();
        }
    }
}

/// Moves the complete characters of `bytes` to `text`, and U+FFFD for each sequence that is not UTF-8.
fn take_complete(bytes: &mut Vec<u8>, text: &mut String) {
    let mut rest = bytes.as_slice();
    let kept = loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                break 0;
            }
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                // Valid up to here: nothing is replaced.
                text.push_str(&String::from_utf8_lossy(valid));
                match error.error_len() {
                    Some(invalid) => {
                        text.push(char::REPLACEMENT_CHARACTER);
                        rest = &after[invalid..];
                    }
                    None => break after.len(),
                }
            }
        }
    };
    bytes.drain(..bytes.len() - kept);
}

#[cfg(test)]
mod tests {
    use super::take_complete;

    fn feed(chunks: &[&[u8]]) -> (String, usize) {
        let (mut bytes, mut text) = (Vec::new(), String::new());
        for chunk in chunks {
            bytes.extend_from_slice(chunk);
            take_complete(&mut bytes, &mut text);
        }
        (text, bytes.len())
    }

    #[test]
    fn a_character_in_four_pieces_appears_once_it_is_complete() {
        assert_eq!(feed(&[b"a\xf0", b"\x9f", b"\xa6"]), ("a".to_owned(), 3));
        assert_eq!(feed(&[b"a\xf0", b"\x9f", b"\xa6", b"\x99b"]), ("a🦙b".to_owned(), 0));
    }

    #[test]
    fn bytes_that_are_not_utf8_become_replacement_characters_and_nothing_else_is_lost() {
        assert_eq!(feed(&[b"a\xffb\xc3(c"]), ("a\u{fffd}b\u{fffd}(c".to_owned(), 0));
    }
}
