//! Which token comes next: what the sampling, a grammar and the model's reasoning say to it together.

use super::{GenerateError, reasoning::Reasoning};
use crate::{
    backend::Token,
    grammar::Constraint,
    sampling::{ChooseToken, SamplerChain},
    tokenizer::Tokenizer,
};

/// Chooses the tokens of one reply.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) tokenizer: Tokenizer,
    pub(super) chain: SamplerChain,
    pub(super) constraint: Option<Constraint>,
    pub(super) reasoning: Option<Reasoning>,
    pub(super) stop_at_end: bool,
}

impl Choice {
    /// Takes the next token; `None` where the reply ends.
    pub(super) fn next(&mut self, logits: &[f32]) -> Result<Option<Token>, GenerateError> {
        loop {
            let token = self.propose(logits)?;
            // Nothing follows a grammar's end.
            if (self.stop_at_end || self.constraint.is_some()) && self.tokenizer.is_end_of_generation(token) {
                return Ok(None);
            }
            if self.take(token)? {
                self.chain.accept(token);
                return Ok(Some(token));
            }
        }
    }

    fn propose(&mut self, logits: &[f32]) -> Result<Token, GenerateError> {
        if let Some(reasoning) = &mut self.reasoning {
            if let Some(token) = reasoning.forced() {
                return Ok(token);
            }
            if reasoning.suspends_grammar() {
                return reasoning.choose(logits, &mut self.chain);
            }
        }
        match &mut self.constraint {
            Some(constraint) => Ok(constraint.choose(logits, &mut self.chain)?),
            None => Ok(self.chain.choose(logits)?),
        }
    }

    /// Goes on behind `token`, unless that sets a grammar to work and does not fit it: then it is not chosen again.
    fn take(&mut self, token: Token) -> Result<bool, GenerateError> {
        let Some(reasoning) = &mut self.reasoning else {
            return Ok(self.constraint.as_mut().is_none_or(|constraint| constraint.accept(token).is_ok()));
        };
        if !reasoning.suspends_grammar()
            && let Some(constraint) = &mut self.constraint
            && constraint.accept(token).is_err()
        {
            if reasoning.forced() == Some(token) {
                reasoning.give_up();
            }
            return Ok(false);
        }
        for &token in reasoning.accept(token)? {
            if let Some(constraint) = &mut self.constraint {
                constraint.accept(token).map_err(|mismatch| GenerateError::Constraint(mismatch.into()))?;
            }
        }
        Ok(true)
    }
}
