//! Text to tokens and back.

use std::fmt;

use super::{GrammarEngineError, GrammarMatcher, GrammarTrigger, Token, VocabularyError};

/// A model's vocabulary and the rules of its tokenizer.
pub trait Vocabulary: fmt::Debug + Send + Sync {
    /// Number of tokens.
    fn n_tokens(&self) -> u32;

    /// The tokens with a meaning of their own.
    fn special(&self) -> &SpecialTokens;

    /// Whether the model ends its answer with this token.
    fn is_end_of_generation(&self, token: Token) -> bool;

    /// Appends the tokens of `text` to `tokens`.
    ///
    /// # Errors
    ///
    /// [`VocabularyError`] when the model has no tokenizer or the text is too long.
    fn tokenize(&self, text: &str, options: TokenizeOptions, tokens: &mut Vec<Token>) -> Result<(), VocabularyError>;

    /// Appends the bytes of one token to `bytes`; a control token is written only with `special`.
    ///
    /// A token may be a part of a UTF-8 character.
    ///
    /// # Errors
    ///
    /// [`VocabularyError::Token`] when the vocabulary does not have it.
    fn append_piece(&self, token: Token, special: bool, bytes: &mut Vec<u8>) -> Result<(), VocabularyError>;

    /// Appends the text of `tokens` to `bytes`: the pieces, less what the tokenizer adds before the first word.
    ///
    /// # Errors
    ///
    /// [`VocabularyError::Token`] when the vocabulary does not have one of them.
    fn detokenize(&self, tokens: &[Token], special: bool, bytes: &mut Vec<u8>) -> Result<(), VocabularyError> {
        tokens.iter().try_for_each(|&token| self.append_piece(token, special, bytes))
    }

    /// The chat template that comes with the model; `variant` names a further one, e.g. `tool_use`.
    fn chat_template(&self, variant: Option<&str>) -> Option<String> {
        let _ = variant;
        None
    }

    /// A grammar in GBNF, to hold the model to; with `triggers` only once one of them comes up.
    ///
    /// # Errors
    ///
    /// [`GrammarEngineError`] when the engine does not take it, or knows no grammars.
    fn grammar(
        &self,
        gbnf: &str,
        triggers: Option<&[GrammarTrigger]>,
    ) -> Result<Box<dyn GrammarMatcher>, GrammarEngineError> {
        let _ = (gbnf, triggers);
        Err(GrammarEngineError::Unsupported)
    }
}

/// The tokens with a meaning of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct SpecialTokens {
    /// Beginning of sequence.
    pub bos: Option<Token>,
    /// End of sequence.
    pub eos: Option<Token>,
    /// End of turn.
    pub eot: Option<Token>,
    /// Separator of two texts.
    pub sep: Option<Token>,
    /// Padding.
    pub pad: Option<Token>,
    /// Line break.
    pub newline: Option<Token>,
    /// Whether the model wants `bos` before the text.
    pub add_bos: bool,
    /// Whether the model wants `eos` after the text.
    pub add_eos: bool,
    /// Whether the model wants `sep` between two texts.
    pub add_sep: bool,
}

/// How to tokenise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenizeOptions {
    /// Add BOS and EOS where the model wants them (default: yes).
    pub add_special: bool,
    /// Read the text of special tokens (`<|im_start|>`) as these tokens (default: yes).
    pub parse_special: bool,
}

impl Default for TokenizeOptions {
    fn default() -> Self {
        Self { add_special: true, parse_special: true }
    }
}
