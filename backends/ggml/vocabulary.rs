//! llama.cpp's tokenizers.

use std::{
    ffi::{CStr, CString, c_char},
    ptr,
    sync::Arc,
};

use llama_cpp_sys_2 as sys;

use super::{
    ENGINE, ffi,
    grammar::LlamaGrammar,
    log::capture_errors,
    model::{RawModel, message},
};
use crate::backend::{
    GrammarEngineError, GrammarMatcher, GrammarTrigger, SpecialTokens, Token, TokenizeOptions, Vocabulary,
    VocabularyError,
};

/// The vocabulary of a loaded model.
#[derive(Debug)]
pub(super) struct LlamaVocabulary {
    model: Arc<RawModel>,
    n_tokens: u32,
    special: SpecialTokens,
    has_tokenizer: bool,
}

impl LlamaVocabulary {
    pub(super) fn new(model: Arc<RawModel>) -> Self {
        // SAFETY: the model is valid.
        let vocab = unsafe { sys::llama_model_get_vocab(model.as_ptr()) };
        let token = |id: sys::llama_token| Token::try_from(id).ok();
        // SAFETY: the vocabulary lives as long as its model.
        let has_tokenizer = unsafe { sys::llama_vocab_type(vocab) } != sys::LLAMA_VOCAB_TYPE_NONE;
        // SAFETY: as above.
        let n_tokens = unsafe { sys::llama_vocab_n_tokens(vocab) };
        let special = SpecialTokens {
            // SAFETY: as above, for each of these.
            bos: token(unsafe { sys::llama_vocab_bos(vocab) }),
            // SAFETY: as above.
            eos: token(unsafe { sys::llama_vocab_eos(vocab) }),
            // SAFETY: as above.
            eot: token(unsafe { sys::llama_vocab_eot(vocab) }),
            // SAFETY: as above.
            sep: token(unsafe { sys::llama_vocab_sep(vocab) }),
            // SAFETY: as above.
            pad: token(unsafe { sys::llama_vocab_pad(vocab) }),
            // SAFETY: as above.
            newline: token(unsafe { sys::llama_vocab_nl(vocab) }),
            // SAFETY: as above.
            add_bos: unsafe { sys::llama_vocab_get_add_bos(vocab) },
            // SAFETY: as above.
            add_eos: unsafe { sys::llama_vocab_get_add_eos(vocab) },
            // SAFETY: as above.
            add_sep: unsafe { sys::llama_vocab_get_add_sep(vocab) },
        };
        Self { model, n_tokens: u32::try_from(n_tokens).unwrap_or(0), special, has_tokenizer }
    }

    fn raw(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is valid; its vocabulary lives as long.
        unsafe { sys::llama_model_get_vocab(self.model.as_ptr()) }
    }

    /// llama.cpp's tokenizer functions assert that there is a tokenizer and that ids are in range.
    fn check(&self, token: Token) -> Result<sys::llama_token, VocabularyError> {
        if !self.has_tokenizer {
            return Err(VocabularyError::NoTokenizer);
        }
        match i32::try_from(token) {
            Ok(id) if token < self.n_tokens => Ok(id),
            _ => Err(VocabularyError::Token { token, n_tokens: self.n_tokens }),
        }
    }
}

impl Vocabulary for LlamaVocabulary {
    fn n_tokens(&self) -> u32 {
        self.n_tokens
    }

    fn special(&self) -> &SpecialTokens {
        &self.special
    }

    fn is_end_of_generation(&self, token: Token) -> bool {
        // SAFETY: the id is in range.
        self.check(token).is_ok_and(|id| unsafe { sys::llama_vocab_is_eog(self.raw(), id) })
    }

    fn tokenize(&self, text: &str, options: TokenizeOptions, tokens: &mut Vec<Token>) -> Result<(), VocabularyError> {
        if !self.has_tokenizer {
            return Err(VocabularyError::NoTokenizer);
        }
        let length = i32::try_from(text.len()).map_err(|_| VocabularyError::TooLong(text.len()))?;
        // A token covers at least a byte of text, except for the two that are added around it; when that guess is wrong
        // (a normaliser may lengthen the text) the answer says how many there are.
        let mut ids: Vec<sys::llama_token> = vec![0; text.len() + 2];
        for _ in 0..2 {
            let capacity = i32::try_from(ids.len()).map_err(|_| VocabularyError::TooLong(text.len()))?;
            let (count, errors) = capture_errors(|| {
                // SAFETY: text and `ids` are valid for the lengths given.
                unsafe {
                    ffi::gl_tokenize(
                        self.raw(),
                        text.as_ptr().cast::<c_char>(),
                        length,
                        ids.as_mut_ptr(),
                        capacity,
                        options.add_special,
                        options.parse_special,
                    )
                }
            });
            match count {
                ffi::EXCEPTION => return Err(failed(errors)),
                needed if needed < 0 => ids.resize(needed.unsigned_abs() as usize, 0),
                count => {
                    tokens.extend(ids[..count as usize].iter().map(|&id| id as Token));
                    return Ok(());
                }
            }
        }
        Err(failed("the number of tokens changed between two calls".to_owned()))
    }

    fn append_piece(&self, token: Token, special: bool, bytes: &mut Vec<u8>) -> Result<(), VocabularyError> {
        /// Longer than nearly every piece, so that one call does.
        const USUAL: usize = 64;
        let id = self.check(token)?;
        fill(bytes, USUAL, |buffer, capacity| {
            // SAFETY: the id is in range and the buffer valid for its capacity.
            unsafe { ffi::gl_token_to_piece(self.raw(), id, buffer, capacity, special) }
        })
    }

    fn detokenize(&self, tokens: &[Token], special: bool, bytes: &mut Vec<u8>) -> Result<(), VocabularyError> {
        let ids = tokens.iter().map(|&token| self.check(token)).collect::<Result<Vec<_>, _>>()?;
        let count = i32::try_from(ids.len()).map_err(|_| VocabularyError::TooLong(ids.len()))?;
        fill(bytes, ids.len() * 8 + 16, |buffer, capacity| {
            // SAFETY: the ids are in range, and both buffers valid for their lengths.
            unsafe { ffi::gl_detokenize(self.raw(), ids.as_ptr(), count, buffer, capacity, special) }
        })
    }

    fn grammar(
        &self,
        gbnf: &str,
        triggers: Option<&[GrammarTrigger]>,
    ) -> Result<Box<dyn GrammarMatcher>, GrammarEngineError> {
        if !self.has_tokenizer {
            return Err(GrammarEngineError::Unsupported);
        }
        Ok(Box::new(LlamaGrammar::new(self.model.clone(), self.n_tokens, gbnf, triggers)?))
    }

    fn chat_template(&self, variant: Option<&str>) -> Option<String> {
        let variant = variant.map(CString::new).transpose().ok()?;
        let name = variant.as_ref().map_or(ptr::null(), |name| name.as_ptr());
        // SAFETY: the model is valid, and the name null or a NUL-terminated string that outlives the call.
        let text = unsafe { sys::llama_model_chat_template(self.model.as_ptr(), name) };
        if text.is_null() {
            return None;
        }
        // SAFETY: it is a NUL-terminated string that lives as long as the model.
        let text = unsafe { CStr::from_ptr(text) };
        // llama.cpp looks the key up in a map, which does not throw; a key that is not UTF-8 is no template.
        text.to_str().ok().map(str::to_owned)
    }
}

/// Appends what `write` writes: it returns the number of bytes, or minus the number that it needs.
fn fill(
    bytes: &mut Vec<u8>,
    usual: usize,
    mut write: impl FnMut(*mut c_char, i32) -> i32,
) -> Result<(), VocabularyError> {
    let start = bytes.len();
    let mut room = usual;
    for _ in 0..2 {
        bytes.resize(start + room, 0);
        let capacity = i32::try_from(room).map_err(|_| VocabularyError::TooLong(room))?;
        match write(bytes[start..].as_mut_ptr().cast::<c_char>(), capacity) {
            ffi::EXCEPTION => break,
            needed if needed < 0 => room = needed.unsigned_abs() as usize,
            written => {
                bytes.truncate(start + written as usize);
                return Ok(());
            }
        }
    }
    bytes.truncate(start);
    Err(failed(String::new()))
}

fn failed(log: String) -> VocabularyError {
    VocabularyError::Failed { engine: ENGINE, message: message(log) }
}
