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

/// Tokens after which the engine's fuel is filled up.
const TOKENS_OF_A_TANK: u32 = 64;

/// A grammar that follows a text.
pub(super) struct Guided {
    guide: Arc<Guide>,
    matcher: Matcher,
    /// Tokens since the last mask. What llguidance may spend on deriving states is filled up by masks alone, and a model that
    /// needs none, because it keeps to the grammar by itself, would come to the end of it in a long text.
    since_mask: u32,
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
            None => Ok(Self { guide, matcher, since_mask: TOKENS_OF_A_TANK }),
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
            true => {
                self.since_mask = 0;
                self.matcher.compute_mask_or_eos().ok()
            }
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
        if self.since_mask == TOKENS_OF_A_TANK {
            self.since_mask = 0;
            // On a copy, which draws on the same tank: what is too much for a mask may be little for a token.
            let _ = self.matcher.clone().compute_mask_or_eos();
        }
        self.since_mask += 1;
        if !self.allows(token) {
            return Err(GrammarMismatch(token));
        }
        // Where nothing can follow, it has come to its end by itself.
        if self.guide.ends(token) && self.matcher.is_stopped() {
            return Ok(());
        }
        self.matcher.consume_token(token).map_err(|_| GrammarMismatch(token))
    }

    fn failure(&self) -> Option<GrammarEngineError> {
        // That no token fits is no failure of the engine's.
        let nothing_fits = StopReason::NoExtensionBias.to_string();
        let message = self.matcher.get_error().filter(|message| !message.contains(&nothing_fits))?;
        Some(GrammarEngineError::GaveUp { engine: Guide::ENGINE, message: first_line(&message) })
    }
}

impl fmt::Debug for Guided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guided").field("guide", &self.guide).finish_non_exhaustive()
    }
}

fn refused(message: String) -> GrammarEngineError {
    GrammarEngineError::Refused { engine: Guide::ENGINE, message: first_line(&message) }
}

/// Behind it comes what only its developers read.
fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
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
        let lark = grammar.to_lark().unwrap_or_else(|| panic!("not in Lark:\n{}", grammar.as_gbnf()));
        Guided::new(tokenizer.guide().unwrap(), &lark).unwrap()
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
        let lots = &mut Lots(1);
        let one_of_all = |tokens: &[Token]| tokens[lots.below(tokens.len())];
        let ends = both_allow_the_same_where(&tokenizer, grammar, 12, one_of_all);
        assert!(ends > 0, "no text came to its end:\n{}", grammar.as_gbnf());
    }

    /// The same for some texts whose tokens are chosen by `choose`. Returns how many came to an end.
    fn both_allow_the_same_where(
        tokenizer: &Tokenizer,
        grammar: &Grammar,
        texts: u32,
        mut choose: impl FnMut(&[Token]) -> Token,
    ) -> u32 {
        let mut ends = 0;
        for _ in 0..texts {
            let mut ours = guided(tokenizer, grammar);
            let mut theirs = of_llama_cpp(tokenizer, grammar);
            let mut text = Vec::new();
            for _ in 0..24 {
                let tokens = allowed(tokenizer, &mut ours);
                let written = String::from_utf8_lossy(&text);
                assert_eq!(tokens, allowed(tokenizer, &mut theirs), "after `{written}` of\n{}", grammar.as_gbnf());
                let token = choose(&tokens);
                if tokenizer.is_end_of_generation(token) {
                    ends += 1;
                    break;
                }
                ours.accept(token).unwrap();
                theirs.accept(token).unwrap();
                text.extend(tokenizer.piece(token, false).unwrap());
            }
        }
        ends
    }

    /// Numbers by chance, the same every time.
    struct Lots(u64);

    impl Lots {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 33) as usize % bound
        }
    }

    /// A schema that may refer to `n`.
    fn random_schema(lots: &mut Lots, depth: u32) -> serde_json::Value {
        let kinds = if depth == 0 { 7 } else { 11 };
        match lots.below(kinds) {
            0 => json!({}),
            1 => json!({ "type": "integer", "minimum": 0, "maximum": 10 + lots.below(90) }),
            2 => json!({ "type": ["boolean", "null"] }),
            3 => json!({ "type": "string", "maxLength": lots.below(2) }),
            4 => json!({ "enum": [[1, "a:"], { "a": { "b": 1 }, "n": [] }, "ab", 12] }),
            5 => json!({ "type": "object", "additionalProperties": false }),
            6 | 7 => json!({ "$ref": "#/$defs/n" }),
            8 => json!({ "type": "array", "items": random_schema(lots, depth - 1), "maxItems": 1 + lots.below(2) }),
            9 => {
                let schemas: Vec<_> = (0..2 + lots.below(2)).map(|_| random_schema(lots, depth - 1)).collect();
                json!({ "anyOf": schemas })
            }
            _ => {
                let (mut properties, mut required) = (serde_json::Map::new(), Vec::new());
                for name in ["a", "ab", "n"] {
                    if lots.below(3) > 0 {
                        properties.insert(name.to_owned(), random_schema(lots, depth - 1));
                        required.extend((lots.below(3) == 0).then_some(name));
                    }
                }
                json!({ "type": "object", "properties": properties, "required": required })
            }
        }
    }

    /// Writes `text`, which ends what `grammar` allows, and compares with llama.cpp's engine at each step what may come next.
    fn both_allow_the_same_along(grammar: &Grammar, text: &str) {
        let tokenizer = tokenizer();
        let (mut ours, mut theirs) = (guided(&tokenizer, grammar), of_llama_cpp(&tokenizer, grammar));
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let tokens = allowed(&tokenizer, &mut ours);
            let written = &text[..text.len() - rest.len()];
            assert_eq!(tokens, allowed(&tokenizer, &mut theirs), "after `{written}` of\n{}", grammar.as_gbnf());
            let piece = |&token: &Token| tokenizer.piece(token, false).unwrap();
            let fits = tokens.iter().filter(|token| !piece(token).is_empty() && rest.starts_with(&piece(token)));
            let token =
                *fits.max_by_key(|token| piece(token).len()).unwrap_or_else(|| panic!("stuck after `{written}`"));
            ours.accept(token).unwrap();
            theirs.accept(token).unwrap();
            rest = &rest[piece(&token).len()..];
        }
        assert!(ours.may_end(), "`{text}`");
    }

    #[test]
    fn rules_mean_what_they_mean_to_llama_cpp() {
        for gbnf in [
            r#"root ::= "a"? [b-d]{2,3} ("x" | "yz")* [^a-z]"#,
            r#"root ::= "ab"{2,3} "" ("" | "c"?) x+ x{0,2}
               x ::= [\x41-\u0043\]\\-] | "th" "e"?"#,
            r#"root ::= [à-ÿ]{1,2} .{1,2} "🦙"? [^\U0001F000-\U0001FFFF]"#,
            r#"root ::= "\n" [ \t]* ("\"" | [\r\n] [^\n])?"#,
            r#"root ::= "ab" "cd" "" | "abcd" x{0,0} "e"{0}
               x ::= "x"
               y ::= "(" y? ")""#,
            r#"x ::= "a"
               root ::= x "b"
               x ::= "c" | "th" | "1""#,
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
        // A leaf is told from a node only by what comes behind what both begin with.
        let leaf_or_node = json!({ "$ref": "#/$defs/n", "$defs": { "n": { "anyOf": [
            { "type": "object", "properties": { "v": { "type": "integer", "maximum": 20 } }, "required": ["v"] },
            { "type": "object", "properties": { "v": { "type": "boolean" }, "n": { "$ref": "#/$defs/n" } }, "required": ["n"] },
            { "type": "array", "items": { "$ref": "#/$defs/n" }, "maxItems": 1 },
            { "const": { "v": [1, { "v": 2 }], "x": "1" } }] } } });
        let anything_in_it = json!({ "type": "object", "properties": {
            "t": { "enum": ["o", "of", { "t": 1 }] }, "a": {}, "p": { "type": "string", "pattern": "^[,{]{0,2}$" },
            "m": { "type": "object", "additionalProperties": { "type": "integer" } } }, "required": ["t"] });
        // Of these objects one has room for blanks twice in a row, the other for members between them.
        let object = |a: serde_json::Value, b: u32| json!({ "type": "object", "properties": { "a": a, "b": { "const": b } }, "required": ["a", "b"] });
        let blanks = json!({ "anyOf": [
            object(json!({ "type": "object", "additionalProperties": false }), 1), object(json!({ "type": "object" }), 2)] });
        for (schema, text) in [
            (person, r#"{"name": "the", "age": 12, "friends": [7, "of"]}"#),
            (tree, r#"{ "v": 12, "l": {"r": {}}, "r": {"v": 1}}"#),
            (leaf_or_node.clone(), r#"{"v": true, "n": [{"v": 12}]}"#),
            (leaf_or_node, r#"{"n": {"v":[1,{"v":2}],"x":"1"} }"#),
            (anything_in_it.clone(), r#"{"t": {"t":1}, "a": [{"t": -1.5e3}, null, "t\"", []], "p": ",{"}"#),
            (blanks, "{\"a\":{ \n},\"b\":2}"),
            (anything_in_it, r#"{"t": "of", "a": {}, "m": {"the": 0, ":": 1}}"#),
        ] {
            let grammar = Grammar::json_schema(&schema).unwrap();
            both_allow_the_same(&grammar);
            both_allow_the_same_along(&grammar, text);
        }
        both_allow_the_same(&Grammar::json());
    }

    #[test]
    fn random_schemas_that_use_themselves_mean_what_they_mean_to_llama_cpp() {
        let tokenizer = tokenizer();
        let lots = &mut Lots(7);
        // Most of what is allowed within a text, or between two lexemes, leads nowhere new.
        let leads_on = |&token: &Token| match tokenizer.piece(token, false).unwrap().as_slice() {
            [byte] => br#"{}[],:"0123456789abn"#.contains(byte),
            _ => false,
        };
        // As many as proptest's own variable says: an emulator takes its time.
        let wanted = std::env::var("PROPTEST_CASES").map_or(150, |cases| cases.parse().unwrap());
        let (mut grammars, mut ends) = (0, 0);
        while grammars < wanted {
            let choices: Vec<_> = (0..2 + lots.below(2)).map(|_| random_schema(lots, 2)).collect();
            let schema = json!({ "$ref": "#/$defs/n", "$defs": { "n": { "anyOf": choices } } });
            // Some ask for themselves without end, or begin with themselves.
            let Ok(grammar) = Grammar::json_schema(&schema) else { continue };
            grammars += 1;
            ends += both_allow_the_same_where(&tokenizer, &grammar, 5, |tokens| {
                let leading: Vec<Token> = tokens.iter().copied().filter(leads_on).collect();
                let among = if leading.is_empty() || lots.below(5) == 0 { tokens } else { &leading };
                among[lots.below(among.len())]
            });
        }
        assert!(ends > wanted, "{ends} texts of {wanted} grammars came to their ends");
    }

    #[test]
    fn a_choice_between_many_objects_is_followed() {
        let tokenizer = tokenizer();
        let many = |object: usize| {
            let names = (0..26).map(|name| (format!("p{object}x{name}"), json!({ "type": "string" })));
            json!({ "type": "object", "properties": serde_json::Map::from_iter(names) })
        };
        let mut objects: Vec<_> = (0..26).map(many).collect();
        objects.push(json!({ "type": "object", "properties": { "x": {} } }));
        let mut matcher = guided(&tokenizer, &Grammar::json_schema(&json!({ "anyOf": objects })).unwrap());
        assert!(matcher.mask(&mut vec![0.0; tokenizer.n_tokens() as usize]) > 0);
        for byte in br#"{"p25x0":"","p25x25":""}"# {
            let spells = |&token: &Token| tokenizer.piece(token, false).unwrap() == [*byte];
            let token = (0..tokenizer.n_tokens()).find(spells).unwrap();
            assert_eq!(matcher.accept(token), Ok(()), "`{}`: {:?}", char::from(*byte), matcher.failure());
        }
        assert!(matcher.may_end());
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
    fn the_end_is_accepted_where_it_is_allowed() {
        let tokenizer = tokenizer();
        let text = |text: &str| {
            (0..tokenizer.n_tokens()).find(|&token| tokenizer.piece(token, false).unwrap() == text.as_bytes()).unwrap()
        };
        let end = (0..tokenizer.n_tokens()).find(|&token| tokenizer.is_end_of_generation(token)).unwrap();
        for (gbnf, may_end) in [("root ::= \"7\"", true), ("root ::= \"7\" \"o\"?", true), ("root ::= \"7o\"", false)] {
            let mut matcher = guided(&tokenizer, &Grammar::gbnf(gbnf).unwrap());
            assert_eq!(matcher.accept(end), Err(GrammarMismatch(end)));
            matcher.accept(text("7")).unwrap();
            assert_eq!((matcher.allows(end), matcher.accept(end).is_ok()), (may_end, may_end), "{gbnf}");
        }
    }

    #[test]
    fn a_text_that_needs_no_mask_may_be_long() {
        let tokenizer = tokenizer();
        let letter = (0..tokenizer.n_tokens()).find(|&token| tokenizer.piece(token, false).unwrap() == b"o").unwrap();
        // A state for each letter, which is derived when it comes.
        let mut matcher =
            guided(&tokenizer, &Grammar::gbnf("root ::= (([a-z]{1,40} | [m-z]{3,60}) \"o\"){1,300}").unwrap());
        for place in 0..800 {
            assert!(matcher.allows(letter), "letter {place}: {:?}", matcher.failure());
            matcher.accept(letter).unwrap();
        }
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
