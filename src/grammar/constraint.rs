//! A grammar at work: choosing tokens that it allows.

use super::{Grammar, characters::WholeCharacters, guided::Guided};
use crate::{
    backend::{GrammarEngineError, GrammarMatcher, GrammarMismatch, GrammarTrigger, Token},
    sampling::{ChooseToken, SampleError},
    tokenizer::Tokenizer,
};

/// A grammar that follows a text, token by token.
#[derive(Debug)]
pub struct Constraint {
    matcher: Box<dyn GrammarMatcher>,
    /// Refusals after which it is cheaper to ask about all tokens at once than to choose once more.
    patience: u32,
    /// The logits, less those of the tokens that were refused.
    left: Vec<f32>,
    /// Tokens that would set the grammar to work here, and do not fit it.
    misfits: Vec<Token>,
}

impl Constraint {
    /// Holds the model of `tokenizer` to `grammar`, from the first token on.
    ///
    /// Grammars run on llguidance, and on llama.cpp's engine, for which a mask takes milliseconds, those that llguidance would
    /// not read as they are meant (rules in GBNF that use themselves, or name tokens) or finds too large.
    ///
    /// # Errors
    ///
    /// [`GrammarEngineError`] when no engine takes the grammar.
    pub fn new(tokenizer: &Tokenizer, grammar: &Grammar) -> Result<Self, GrammarEngineError> {
        let Some(lark) = grammar.to_lark() else {
            return Self::of_engine(tokenizer, grammar.as_gbnf(), None);
        };
        match tokenizer.guide().and_then(|guide| Guided::new(guide, &lark)) {
            Ok(matcher) => Ok(Self::of_matcher(Box::new(matcher), 1)),
            Err(error) => {
                tracing::debug!(%error, "another engine takes the grammar");
                Self::of_engine(tokenizer, grammar.as_gbnf(), None)
            }
        }
    }

    /// A grammar of the engine that reads the vocabulary; with `triggers` only once one of them comes up.
    pub(crate) fn of_engine(
        tokenizer: &Tokenizer,
        gbnf: &str,
        triggers: Option<&[GrammarTrigger]>,
    ) -> Result<Self, GrammarEngineError> {
        let matcher = WholeCharacters::new(tokenizer.grammar(gbnf, triggers)?, tokenizer.fragments());
        Ok(Self::of_matcher(Box::new(matcher), 8))
    }

    fn of_matcher(matcher: Box<dyn GrammarMatcher>, patience: u32) -> Self {
        Self { matcher, patience, left: Vec::new(), misfits: Vec::new() }
    }

    /// Chooses a token that the grammar allows.
    ///
    /// The chooser is asked first and the grammar then, because most of what a model prefers is allowed, and to ask about one
    /// token costs next to nothing. What is refused is taken away and the chooser asked again. That changes no distribution:
    /// among the tokens that are left, the odds stay what they were. Only after some refusals are all others checked.
    ///
    /// # Errors
    ///
    /// [`ConstraintError`].
    pub fn choose(&mut self, logits: &[f32], chooser: &mut dyn ChooseToken) -> Result<Token, ConstraintError> {
        let first = chooser.choose(logits)?;
        if self.allows(first) {
            return Ok(first);
        }
        self.left.clear();
        self.left.extend_from_slice(logits);
        for index in 0..self.misfits.len() {
            self.refuse(self.misfits[index]);
        }
        self.refuse(first);
        for _ in 1..self.patience {
            let Some(token) = self.again(chooser)? else { break };
            if self.allows(token) {
                return Ok(token);
            }
            self.refuse(token);
        }
        if self.matcher.mask(&mut self.left) == 0 {
            return Err(self.matcher.failure().map_or(ConstraintError::NothingAllowed, ConstraintError::Engine));
        }
        self.again(chooser)?.ok_or(ConstraintError::NothingAllowed)
    }

    /// Goes on behind `token`.
    ///
    /// # Errors
    ///
    /// [`GrammarMismatch`] when the grammar does not allow it here. That can happen to a token that was
    /// [chosen](Self::choose) where the grammar waits for something that sets it to work; choose again, and it will be another
    /// one.
    pub fn accept(&mut self, token: Token) -> Result<(), GrammarMismatch> {
        if let Err(mismatch) = self.matcher.accept(token) {
            self.misfits.push(token);
            return Err(mismatch);
        }
        self.misfits.clear();
        Ok(())
    }

    fn allows(&mut self, token: Token) -> bool {
        !self.misfits.contains(&token) && self.matcher.allows(token)
    }

    /// The choice among what is left; `None` when that is nothing.
    fn again(&self, chooser: &mut dyn ChooseToken) -> Result<Option<Token>, SampleError> {
        match chooser.choose(&self.left) {
            Ok(token) if self.left.get(token as usize).is_some_and(|&logit| logit > f32::NEG_INFINITY) => {
                Ok(Some(token))
            }
            Ok(_) | Err(SampleError::NothingLeft) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn refuse(&mut self, token: Token) {
        if let Some(logit) = self.left.get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Why no token could be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// The logits give no choice, grammar or not.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// No token of the vocabulary continues the text as the grammar asks.
    #[error("the vocabulary has no token that the grammar allows here")]
    NothingAllowed,
    /// The engine does not go on: what it would have to keep in mind is more than it can.
    #[error(transparent)]
    Engine(GrammarEngineError),
    /// A token does not fit: what set the grammar to work cannot be continued.
    #[error(transparent)]
    Mismatch(#[from] GrammarMismatch),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::likeliest;

    /// Allows the tokens of a list.
    #[derive(Debug)]
    struct Allows(Vec<Token>);

    impl GrammarMatcher for Allows {
        fn allows(&mut self, token: Token) -> bool {
            self.0.contains(&token)
        }

        fn mask(&mut self, logits: &mut [f32]) -> usize {
            (0..)
                .zip(logits.iter_mut())
                .filter(|(token, _)| !self.0.contains(token))
                .for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
            logits.iter().filter(|logit| logit.is_finite()).count()
        }

        fn accept(&mut self, _token: Token) -> Result<(), GrammarMismatch> {
            Ok(())
        }
    }

    fn chosen(allowed: &[Token], logits: &[f32]) -> Result<Token, ConstraintError> {
        let mut constraint = Constraint::of_matcher(Box::new(Allows(allowed.to_vec())), 8);
        constraint.choose(logits, &mut likeliest)
    }

    #[test]
    fn the_likeliest_of_what_is_allowed_is_chosen_wherever_it_stands() {
        let logits: Vec<f32> = (0..50).map(|token| -(token as f32)).collect();
        for allowed in 0..50 {
            assert_eq!(chosen(&[49, allowed], &logits), Ok(allowed));
        }
        assert_eq!(chosen(&[], &logits), Err(ConstraintError::NothingAllowed));
        assert_eq!(chosen(&[1], &[0.0, f32::NAN]), Err(SampleError::NotANumber.into()));
    }

    #[test]
    fn a_choice_by_chance_keeps_the_odds_of_what_is_allowed() {
        // Tokens 0 to 9 with odds 1 to 10, of which 2 and 5 are allowed: odds 3 to 6.
        let logits: Vec<f32> = (1..=10).map(|odds| (odds as f32).ln()).collect();
        let mut state = 1_u64;
        let mut chooser = |logits: &[f32]| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let odds: Vec<f64> = logits.iter().map(|logit| f64::from(logit.exp())).collect();
            let mut left = (state >> 11) as f64 / (1_u64 << 53) as f64 * odds.iter().sum::<f64>();
            let chosen = odds.iter().position(|odds| {
                left -= odds;
                left < 0.0
            });
            chosen.map(|token| token as Token)
        };
        let mut constraint = Constraint::of_matcher(Box::new(Allows(vec![2, 5])), 8);
        let draws = 20_000;
        let fives = (0..draws).filter(|_| constraint.choose(&logits, &mut chooser) == Ok(5)).count();
        // Six standard deviations of a binomial distribution with p = 2/3.
        let (expected, deviation) = (draws as f64 * 2.0 / 3.0, (draws as f64 * 2.0 / 9.0).sqrt());
        assert!((fives as f64 - expected).abs() < 6.0 * deviation, "{fives} of {draws}");
    }

    /// Begins anywhere with `trigger`, and goes on with digits.
    #[cfg(all(feature = "synth", feature = "cpu"))]
    fn lazy(trigger: &str) -> (Tokenizer, Constraint) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vocabulary.gguf");
        crate::gguf::synth::SyntheticModel::tiny().vocabulary_only().write_file(&path).unwrap();
        let tokenizer = Tokenizer::load(&path).unwrap();
        let gbnf = format!("root ::= \"{trigger}\" [0-9]+");
        let triggers = [GrammarTrigger::Word(trigger.to_owned())];
        let constraint = Constraint::of_engine(&tokenizer, &gbnf, Some(&triggers)).unwrap();
        (tokenizer, constraint)
    }

    #[cfg(all(feature = "synth", feature = "cpu"))]
    #[test]
    fn a_token_that_sets_a_grammar_to_work_and_does_not_fit_is_not_chosen_again() {
        let (tokenizer, mut constraint) = lazy("th");
        let token = |text: &str| {
            let found =
                (0..tokenizer.n_tokens()).find(|&token| tokenizer.piece(token, false).unwrap() == text.as_bytes());
            found.unwrap()
        };
        // `the` has the trigger and a letter that may not follow, ` th` has it alone, and `o` has nothing to do with it.
        let (the, th, o, seven) = (token(" the"), token(" th"), token("o"), token("7"));
        let mut logits = vec![-100.0; tokenizer.n_tokens() as usize];
        for (place, token) in [the, th, o].into_iter().enumerate() {
            logits[token as usize] = -(place as f32);
        }
        constraint.accept(o).unwrap();
        assert_eq!(constraint.choose(&logits, &mut likeliest), Ok(the));
        assert_eq!(constraint.accept(the), Err(GrammarMismatch(the)));
        assert_eq!(constraint.choose(&logits, &mut likeliest), Ok(th));
        constraint.accept(th).unwrap();
        // Now it rules.
        assert!(!constraint.allows(the) && !constraint.allows(o) && constraint.allows(seven));
        assert_eq!(
            constraint.choose(&logits, &mut likeliest).map(|token| tokenizer.piece(token, false).unwrap().len()),
            Ok(1)
        );
        constraint.accept(seven).unwrap();
    }
}
