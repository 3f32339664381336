//! From a request to the tokens that begin it.

use super::{
    GenerateError, GenerateRequest, Prompt, Start,
    reasoning::{Grammar, Reasoning},
};
use crate::{
    backend::{RenderedPrompt, Token, TokenizeOptions},
    grammar::Constraint,
    tokenizer::Tokenizer,
};

/// A prompt, ready for a context.
pub(super) struct Prepared {
    pub(super) tokens: Vec<Token>,
    pub(super) constraint: Option<Constraint>,
    /// What the model thinks before it answers, where that is to be told from the answer.
    pub(super) reasoning: Option<Reasoning>,
    /// Special tokens that belong to the text of the answer.
    pub(super) preserved: Vec<Token>,
    pub(super) stops: Vec<String>,
}

/// Special tokens where the text names them, and nothing added.
pub(super) const AS_WRITTEN: TokenizeOptions = TokenizeOptions { add_special: false, parse_special: true };

impl Prepared {
    /// `held`: whether the sequence holds tokens that stay before the prompt.
    pub(super) fn new(tokenizer: &Tokenizer, request: &GenerateRequest, held: bool) -> Result<Self, GenerateError> {
        if request.stops.iter().any(String::is_empty) {
            return Err(GenerateError::EmptyStop);
        }
        let constraint = request.grammar.as_ref().map(|grammar| Constraint::new(tokenizer, grammar)).transpose()?;
        let stops = request.stops.clone();
        let mut prepared = Self { tokens: Vec::new(), constraint, reasoning: None, preserved: Vec::new(), stops };
        match &request.prompt {
            Prompt::Text(text) => {
                let begins = request.start != Start::Continue || !held;
                let options = TokenizeOptions { add_special: begins, ..TokenizeOptions::default() };
                prepared.tokens = tokenizer.tokenize(text, options)?;
            }
            Prompt::Tokens(tokens) => prepared.tokens.clone_from(tokens),
            Prompt::Rendered(rendered) => prepared.read(tokenizer, rendered, request.reasoning_budget)?,
        }
        Ok(prepared)
    }

    fn read(
        &mut self,
        tokenizer: &Tokenizer,
        rendered: &RenderedPrompt,
        budget: Option<u32>,
    ) -> Result<(), GenerateError> {
        let grammar = match &rendered.grammar {
            Some(grammar) if grammar.triggers.is_some() => Grammar::Waits,
            None if self.constraint.is_some() => Grammar::Begins,
            _ => Grammar::Rules,
        };
        if let Some(markers) = &rendered.reasoning
            && (grammar != Grammar::Rules || budget.is_some())
        {
            self.reasoning = Some(Reasoning::new(tokenizer, markers, grammar, budget)?);
        }
        if let Some(of_template) = constraint_of(tokenizer, rendered)? {
            if self.constraint.is_some() {
                return Err(GenerateError::GrammarWithTools);
            }
            self.constraint = Some(of_template);
        }
        self.tokens = tokens_of(tokenizer, &rendered.text)?;
        self.stops.extend(rendered.stops.iter().filter(|stop| !stop.is_empty()).cloned());
        for text in &rendered.preserved {
            // A marker of several tokens is made of plain ones.
            if let [token] = tokenizer.tokenize(text, AS_WRITTEN)?.as_slice() {
                self.preserved.push(*token);
            }
        }
        Ok(())
    }
}

/// The tokens of what a template wrote, with one BOS where the model wants one, whether the template writes it or not.
fn tokens_of(tokenizer: &Tokenizer, text: &str) -> Result<Vec<Token>, GenerateError> {
    let mut tokens = tokenizer.tokenize(text, AS_WRITTEN)?;
    let special = tokenizer.special();
    if let (true, Some(bos)) = (special.add_bos, special.bos)
        && tokens.first() != Some(&bos)
        && !tokens.is_empty()
    {
        tokens.insert(0, bos);
    }
    Ok(tokens)
}

fn constraint_of(tokenizer: &Tokenizer, rendered: &RenderedPrompt) -> Result<Option<Constraint>, GenerateError> {
    let Some(grammar) = &rendered.grammar else { return Ok(None) };
    let mut constraint = Constraint::of_engine(tokenizer, &grammar.gbnf, grammar.triggers.as_deref())?;
    if grammar.triggers.is_none() {
        // This grammar describes the reply from the beginning of the turn, which the prompt has.
        for token in tokenizer.tokenize(&rendered.reply_start, AS_WRITTEN)? {
            constraint.accept(token).map_err(|mismatch| GenerateError::Constraint(mismatch.into()))?;
        }
    }
    Ok(Some(constraint))
}
