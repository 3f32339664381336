//! llama.cpp's grammars over a model's vocabulary.

use std::{
    ffi::{CString, c_char},
    ptr::{self, NonNull},
    sync::Arc,
};

use llama_cpp_sys_2 as sys;

use super::{ENGINE, chat::Answer, ffi, model::RawModel};
use crate::backend::{GrammarEngineError, GrammarMatcher, GrammarMismatch, GrammarTrigger, Token};

/// Owner of a `gl_grammar`, which reads the model's vocabulary.
#[derive(Debug)]
pub(super) struct LlamaGrammar {
    raw: NonNull<ffi::Grammar>,
    n_tokens: u32,
    /// Keeps the vocabulary alive.
    _model: Arc<RawModel>,
}

// SAFETY: the grammar's state belongs to this owner alone; the vocabulary is only read.
unsafe impl Send for LlamaGrammar {}

impl LlamaGrammar {
    pub(super) fn new(
        model: Arc<RawModel>,
        n_tokens: u32,
        gbnf: &str,
        triggers: Option<&[GrammarTrigger]>,
    ) -> Result<Self, GrammarEngineError> {
        let refused = |message: String| GrammarEngineError::Refused { engine: ENGINE, message };
        let text = |text: &str| CString::new(text).map_err(|error| refused(error.to_string()));
        let gbnf = text(gbnf)?;
        let patterns = triggers.unwrap_or_default().iter().map(pattern);
        let patterns = patterns.map(|pattern| text(&pattern)).collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<*const c_char> = patterns.iter().map(|pattern| pattern.as_ptr()).collect();
        // SAFETY: the model is valid.
        let vocab = unsafe { sys::llama_model_get_vocab(model.as_ptr()) };
        let (lazy, count) = (triggers.is_some(), pointers.len());
        let mut error = ptr::null_mut();
        // SAFETY: the strings are NUL-terminated and outlive the call, as does the list of `count` of them.
        let raw = unsafe { ffi::gl_grammar_new(vocab, gbnf.as_ptr(), lazy, pointers.as_mut_ptr(), count, &mut error) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { raw, n_tokens, _model: model }),
            None => Err(refused(Answer(error).failure())),
        }
    }

    /// llama.cpp looks tokens up without a check.
    fn id(&self, token: Token) -> Option<sys::llama_token> {
        i32::try_from(token).ok().filter(|_| token < self.n_tokens)
    }
}

impl Drop for LlamaGrammar {
    fn drop(&mut self) {
        // SAFETY: the pointer came from gl_grammar_new, and nothing else frees it.
        unsafe { ffi::gl_grammar_free(self.raw.as_ptr()) };
    }
}

impl GrammarMatcher for LlamaGrammar {
    fn allows(&mut self, token: Token) -> bool {
        // SAFETY: the grammar is valid, and the id in range.
        self.id(token).is_some_and(|id| unsafe { ffi::gl_grammar_allows(self.raw.as_ptr(), id) })
    }

    fn mask(&mut self, logits: &mut [f32]) -> usize {
        let count = i32::try_from(logits.len()).ok().filter(|_| logits.len() == self.n_tokens as usize);
        let Some(count) = count else {
            logits.fill(f32::NEG_INFINITY);
            return 0;
        };
        // SAFETY: the grammar is valid, and there is one logit for each token.
        let allowed = unsafe { ffi::gl_grammar_mask(self.raw.as_ptr(), logits.as_mut_ptr(), count) };
        usize::try_from(allowed).unwrap_or(0)
    }

    fn accept(&mut self, token: Token) -> Result<(), GrammarMismatch> {
        // SAFETY: the grammar is valid, and the id in range.
        let accepted = self.id(token).is_some_and(|id| unsafe { ffi::gl_grammar_accept(self.raw.as_ptr(), id) });
        if accepted { Ok(()) } else { Err(GrammarMismatch(token)) }
    }
}

/// A trigger as llama.cpp takes it: a regular expression of C++'s.
fn pattern(trigger: &GrammarTrigger) -> String {
    match trigger {
        GrammarTrigger::Word(word) => {
            let special = |c: char| r".^$|()*+?[]{}\".contains(c);
            word.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
        }
        GrammarTrigger::Pattern(pattern) => pattern.clone(),
        GrammarTrigger::PatternFull(pattern) => {
            let inner = pattern.strip_prefix('^').unwrap_or(pattern);
            format!("^{}$", inner.strip_suffix('$').unwrap_or(inner))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_characters_of_a_word_mean_nothing_else() {
        assert_eq!(pattern(&GrammarTrigger::Word("[TOOL_CALLS]|(".to_owned())), r"\[TOOL_CALLS\]\|\(");
    }
}
