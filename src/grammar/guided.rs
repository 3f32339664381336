//! Grammars on llguidance, which answers for a whole vocabulary within microseconds.

use std::{fmt, sync::Arc, thread};

use llguidance::{
    Matcher,
    api::{StopReason, TopLevelGrammar},
};

use super::lark::Lark;
use crate::{
    backend::{GrammarEngineError, GrammarMatcher, GrammarMismatch, Token},
    tokenizer::Guide,
};

/// A grammar that follows a text.
pub(super) struct Guided {
    guide: Arc<Guide>,
    matcher: Matcher,
}

impl Guided {
    /// # Errors
    ///
    /// [`GrammarEngineError`] when llguidance finds the grammar too large.
    pub(super) fn new(guide: Arc<Guide>, lark: &Lark) -> Result<Self, GrammarEngineError> {
        /// What llguidance's reader of grammars takes of the stack for a rule within a rule, at most, without optimisation.
        const OF_A_RULE: usize = 64 << 10;
        let compile = || Matcher::new(guide.parsers().create_parser(TopLevelGrammar::from_lark(lark.text.clone())));
        // It recurses: on a stack of its own, no depth overflows the caller's.
        let matcher = thread::scope(|scope| {
            let reader = thread::Builder::new().stack_size((lark.depth + 16) * OF_A_RULE);
            let reader = reader.spawn_scoped(scope, compile).map_err(|error| refused(error.to_string()))?;
            reader.join().map_err(|_| refused("it panicked".to_owned()))
        })?;
        match matcher.get_error() {
            None => Ok(Self { guide, matcher }),
            Some(message) => Err(refused(message)),
        }
    }

    /// Whether the text may end here.
    fn may_end(&mut self) -> bool {
        self.matcher.is_accepting().unwrap_or(false)
    }
}

impl GrammarMatcher for Guided {
    fn allows(&mut self, token: Token) -> bool {
        if self.guide.ends(token) {
            return self.may_end();
        }
        self.guide.writes(token) && self.matcher.validate_tokens(&[token]).is_ok_and(|valid| valid == 1)
    }

    fn mask(&mut self, logits: &mut [f32]) -> usize {
        let allowed = match logits.len() == self.guide.n_tokens() {
            true => self.matcher.compute_mask_or_eos().ok(),
            false => None,
        };
        let Some(allowed) = allowed else {
            logits.fill(f32::NEG_INFINITY);
            return 0;
        };
        let mut left = 0;
        for (logits, bits) in logits.chunks_mut(u32::BITS as usize).zip(allowed.as_slice()) {
            for (place, logit) in logits.iter_mut().enumerate() {
                if bits >> place & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
                left += usize::from(*logit > f32::NEG_INFINITY);
            }
        }
        left
    }

    fn accept(&mut self, token: Token) -> Result<(), GrammarMismatch> {
        if !self.allows(token) {
            return Err(GrammarMismatch(token));
        }
        self.matcher.consume_token(token).map_err(|_| GrammarMismatch(token))
    }

    fn failure(&self) -> Option<GrammarEngineError> {
        // That no token fits is no failure of the engine's.
        let nothing_fits = StopReason::NoExtensionBias.to_string();
        self.matcher.get_error().filter(|message| !message.contains(&nothing_fits)).map(refused)
    }
}

impl fmt::Debug for Guided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guided").field("guide", &self.guide).finish_non_exhaustive()
    }
}

fn refused(message: String) -> GrammarEngineError {
    GrammarEngineError::Refused { engine: "llguidance", message }
}

#[cfg(test)]
#[cfg(all(feature = "synth", feature = "cpu"))]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        grammar::{Grammar, characters::WholeCharacters, gbnf},
        tokenizer::Tokenizer,
    };

    fn tokenizer() -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vocabulary.gguf");
        crate::gguf::synth::SyntheticModel::tiny().vocabulary_only().write_file(&path).unwrap();
        Tokenizer::load(&path).unwrap()
    }

    fn guided(tokenizer: &Tokenizer, grammar: &Grammar) -> Guided {
        Guided::new(tokenizer.guide().unwrap(), &grammar.to_lark().unwrap()).unwrap()
    }

    fn of_llama_cpp(tokenizer: &Tokenizer, grammar: &Grammar) -> WholeCharacters {
        WholeCharacters::new(tokenizer.grammar(grammar.as_gbnf(), None).unwrap(), tokenizer.fragments())
    }

    /// The tokens that a grammar allows, of those that end the text or write something; for llama.cpp a NUL does neither.
    fn allowed(tokenizer: &Tokenizer, matcher: &mut dyn GrammarMatcher) -> Vec<Token> {
        let mut logits = vec![0.0; tokenizer.n_tokens() as usize];
        matcher.mask(&mut logits);
        let counts = |token: Token| {
            tokenizer.is_end_of_generation(token)
                || !matches!(tokenizer.piece(token, false).unwrap().as_slice(), [] | [b'\0'])
        };
        let allowed: Vec<Token> =
            (0..tokenizer.n_tokens()).filter(|&token| logits[token as usize] == 0.0 && counts(token)).collect();
        for token in (0..tokenizer.n_tokens()).filter(|&token| counts(token)) {
            assert_eq!(matcher.allows(token), allowed.contains(&token), "token {token} alone and among all");
        }
        allowed
    }

    /// Writes at random what `grammar` allows, and compares with llama.cpp's engine at each step what that is.
    fn both_allow_the_same(grammar: &Grammar) {
        let tokenizer = tokenizer();
        let mut state = 1_u64;
        let mut ends = 0;
        for _ in 0..12 {
            let mut ours = guided(&tokenizer, grammar);
            let mut theirs = of_llama_cpp(&tokenizer, grammar);
            let mut text = Vec::new();
            for _ in 0..24 {
                let tokens = allowed(&tokenizer, &mut ours);
                let written = String::from_utf8_lossy(&text);
                assert_eq!(tokens, allowed(&tokenizer, &mut theirs), "after `{written}` of\n{}", grammar.as_gbnf());
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let token = tokens[(state >> 33) as usize % tokens.len()];
                if tokenizer.is_end_of_generation(token) {
                    ends += 1;
                    break;
                }
                ours.accept(token).unwrap();
                theirs.accept(token).unwrap();
                text.extend(tokenizer.piece(token, false).unwrap());
            }
        }
        assert!(ends > 0, "no text came to its end:\n{}", grammar.as_gbnf());
    }

    #[test]
    fn rules_mean_what_they_mean_to_llama_cpp() {
        for gbnf in [
            r#"root ::= "a"? [b-d]{2,3} ("x" | "yz")* [^a-z]"#,
            r#"root ::= "ab"{2,3} "" ("" | "c"?) x+ x{0,2}
               x ::= [\x41-\u0043\]\\-] | "th" "e"?"#,
            r#"root ::= [à-ÿ]{1,2} .{1,2} "🦙"? [^\U0001F000-\U0001FFFF]"#,
            r#"root ::= "\n" [ \t]* ("\"" | [\r\n] [^\n])?"#,
            r#"root ::= (a | b){2} | a{2}{0,1} "!"
               a ::= "1" | "12"
               b ::= "123" | [0-9] [0-9]"#,
        ] {
            both_allow_the_same(&Grammar::gbnf(gbnf).unwrap());
        }
    }

    #[test]
    fn json_means_what_it_means_to_llama_cpp() {
        let person = json!({ "type": "object", "properties": {
            "name": { "type": "string", "maxLength": 3 }, "age": { "type": "integer", "minimum": 0, "maximum": 120 },
            "friends": { "type": "array", "items": { "enum": ["the", "of", 7, null] }, "maxItems": 2 } },
            "required": ["age"], "additionalProperties": false });
        let tree = json!({ "type": "object", "properties": {
            "v": { "enum": [1, 12, "x"] }, "l": { "$ref": "#" }, "r": { "$ref": "#" } },
            "additionalProperties": false });
        both_allow_the_same(&Grammar::json_schema(&person).unwrap());
        both_allow_the_same(&Grammar::json_schema(&tree).unwrap());
        both_allow_the_same(&Grammar::json());
    }

    #[test]
    fn what_lark_would_read_otherwise_is_left_to_llama_cpp() {
        let borders = Grammar::gbnf("root ::= word | word root\nword ::= [a-z]+").unwrap();
        assert!(borders.to_lark().is_none());
        assert!(Grammar::gbnf("root ::= <[3]>").unwrap().to_lark().is_none());
        assert!(Grammar::gbnf("root ::= [a-z]+").unwrap().to_lark().is_some());
        assert!(Grammar::json().to_lark().is_some());
    }

    #[test]
    fn rules_within_rules_overflow_no_stack() {
        let chain = |length: usize| {
            let rules = (1..length).map(|rule| format!("r{rule} ::= \"a\" r{} | \"b\"\n", rule + 1));
            format!("root ::= r1\n{}r{length} ::= \"c\"", rules.collect::<String>())
        };
        let tokenizer = tokenizer();
        let mut longest = guided(&tokenizer, &Grammar::gbnf(chain(3999)).unwrap());
        assert!(!allowed(&tokenizer, &mut longest).is_empty());
        assert!(Grammar::gbnf(chain(4000)).unwrap().to_lark().is_none());
    }

    #[test]
    fn a_mask_counts_what_was_allowed_before() {
        let tokenizer = tokenizer();
        let mut digits = guided(&tokenizer, &Grammar::gbnf("root ::= [0-9]").unwrap());
        let mut logits = vec![0.0; tokenizer.n_tokens() as usize];
        let left = digits.mask(&mut logits);
        assert_eq!(left, logits.iter().filter(|logit| logit.is_finite()).count());
        assert_eq!(digits.mask(&mut logits), left);
        let one = logits.iter().position(|logit| logit.is_finite()).unwrap();
        logits[one] = f32::NEG_INFINITY;
        assert_eq!(digits.mask(&mut logits), left - 1);
        assert_eq!(digits.mask(&mut [0.0; 3]), 0);
        assert_eq!(digits.failure(), None);
    }

    #[test]
    fn rules_that_are_written_by_no_token_are_no_failure() {
        let tokenizer = tokenizer();
        let nothing = gbnf::parse(r#"root ::= "a" [\uD800-\uDFFF]"#).unwrap();
        let mut nothing = Guided::new(tokenizer.guide().unwrap(), &Lark::new(&nothing, false).unwrap()).unwrap();
        let mut logits = vec![0.0; tokenizer.n_tokens() as usize];
        assert_eq!(nothing.mask(&mut logits), 0);
        assert_eq!(nothing.failure(), None);
    }
}
