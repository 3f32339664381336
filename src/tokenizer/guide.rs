//! A vocabulary for llguidance, on which grammars run.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc};

use llguidance::{
    ParserFactory,
    earley::SlicedBiasComputer,
    panic_utils,
    toktrie::{ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie},
};

use super::Tokenizer;
use crate::backend::{GrammarEngineError, Token};

/// Longest text of a token that a grammar may use, in bytes. llguidance's tree has no room for much more, and what longer ones
/// write, shorter ones can.
const LONGEST: usize = 255;
/// What may be spent on deriving states of regular expressions, for a mask or for a few dozen tokens without one, in
/// llguidance's own measure: about a second's work.
const FUEL: u64 = 14_000_000;
/// Ways to go on that a parser keeps at one place of a text. A choice between objects has a few for each of their properties.
const MOST_ITEMS: usize = 100_000;
/// And at all places that a mask looks at: about a tenth of a second's work.
const MOST_ITEMS_OF_A_MASK: usize = 2_000_000;
/// States that a grammar may come to have, of one to two kilobytes each.
const MOST_STATES: usize = 100_000;

/// A vocabulary as llguidance reads it: a tree of what its tokens write.
pub(crate) struct Guide {
    /// Makes a parser of each grammar.
    parsers: ParserFactory,
    /// The tokens that may follow the end of a grammar.
    ends: Vec<Token>,
    /// Of each token, whether it writes text.
    writes: Vec<bool>,
}

impl Guide {
    /// What its errors call the engine.
    pub(crate) const ENGINE: &str = "llguidance";

    /// Reads the texts of all tokens. Those that end a reply, and control tokens, write none.
    ///
    /// # Errors
    ///
    /// [`GrammarEngineError`] when llguidance has no room for them.
    pub(crate) fn new(tokenizer: &Tokenizer) -> Result<Self, GrammarEngineError> {
        let tokens = 0..tokenizer.n_tokens();
        let ends: Vec<Token> = tokens.clone().filter(|&token| tokenizer.is_end_of_generation(token)).collect();
        let text = |token: Token| match ends.binary_search(&token) {
            Ok(_) => Vec::new(),
            Err(_) => tokenizer.piece(token, false).ok().filter(|text| text.len() <= LONGEST).unwrap_or_default(),
        };
        let words: Vec<Vec<u8>> = tokens.map(text).collect();
        let parsers = || {
            let mut tree = TokTrie::from(&TokRxInfo::new(tokenizer.n_tokens(), INVALID_TOKEN), &words);
            if !ends.is_empty() {
                tree = tree.with_eos_tokens(&ends);
            }
            // How this tokenizes is of no importance: nothing is, where any spelling is allowed.
            let vocabulary: TokEnv = Arc::new(ApproximateTokEnv::new(tree));
            let slices = SlicedBiasComputer::general_slices();
            ParserFactory::new(&vocabulary, InferenceCapabilities::default(), &slices)
        };
        // It asserts that its tables hold all that is there.
        let parsers = panic_utils::catch_unwind(AssertUnwindSafe(parsers));
        let mut parsers = parsers
            .map_err(|error| GrammarEngineError::Refused { engine: Self::ENGINE, message: error.to_string() })?;
        parsers.quiet();
        let limits = parsers.limits_mut();
        limits.verbose_errors = false;
        limits.step_lexer_fuel = FUEL;
        limits.max_lexer_states = MOST_STATES;
        limits.max_items_in_row = MOST_ITEMS;
        limits.step_max_items = MOST_ITEMS_OF_A_MASK;
        Ok(Self { parsers, ends, writes: words.iter().map(|word| !word.is_empty()).collect() })
    }

    pub(crate) fn parsers(&self) -> &ParserFactory {
        &self.parsers
    }

    pub(crate) fn n_tokens(&self) -> usize {
        self.writes.len()
    }

    /// Whether a token ends a reply.
    pub(crate) fn ends(&self, token: Token) -> bool {
        self.ends.binary_search(&token).is_ok()
    }

    /// Whether a token writes text.
    pub(crate) fn writes(&self, token: Token) -> bool {
        self.writes.get(token as usize).is_some_and(|&writes| writes)
    }
}

impl fmt::Debug for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guide").field("tokens", &self.writes.len()).finish_non_exhaustive()
    }
}
