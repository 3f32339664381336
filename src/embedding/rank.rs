//! Reranking: how well documents answer a query.

use super::{EmbedError, Engine, Overflow};
use crate::{
    backend::{ContextLimits, Token, TokenizeOptions},
    model::Model,
};

/// Special tokens in a query or a document are text.
const TEXT: TokenizeOptions = TokenizeOptions { add_special: false, parse_special: false };

/// A document's place.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Ranked {
    /// The document's index in what was given.
    pub index: usize,
    /// The model's score: more is better. Its scale is the model's own: a logit of most, a probability of some.
    pub score: f32,
    /// Tokens that the model read, the query's included.
    pub tokens: usize,
    /// Whether the document was longer, and [`Overflow::Truncate`] cut it.
    pub truncated: bool,
}

/// Orders documents by how well they answer a query: reads both together, better and slower than comparing embeddings.
#[derive(Debug)]
pub struct Reranker {
    engine: Engine,
    /// What the model wants to read instead of two texts with separators.
    template: Option<String>,
}

impl Reranker {
    pub(super) fn new(model: &Model, engine: Engine) -> Self {
        Self { engine, template: model.rerank_template() }
    }

    /// The documents, the best first; of equal ones, the one that was given first.
    ///
    /// # Errors
    ///
    /// [`EmbedError`], with the index of the document at fault. With [`Overflow::Truncate`] the end of a document is
    /// left out; a query that leaves no room for one is too long all the same.
    pub fn rank(&mut self, query: &str, documents: &[impl AsRef<str>]) -> Result<Vec<Ranked>, EmbedError> {
        let limit = self.engine.inner.limits().context as usize;
        let query = self.engine.tokenizer.tokenize(query, TEXT)?;
        let mut inputs = Vec::with_capacity(documents.len());
        for (index, document) in documents.iter().enumerate() {
            let Pair { mut tokens, document } = self.pair(&query, document.as_ref())?;
            if document.is_empty() {
                return Err(EmbedError::Empty { index });
            }
            let excess = tokens.len().saturating_sub(limit);
            if excess > 0 {
                let cuts = self.engine.overflow == Overflow::Truncate && excess < document.len();
                if !cuts {
                    return Err(EmbedError::TooLong { index, tokens: tokens.len(), limit });
                }
                tokens.drain(document.end - excess..document.end);
            }
            inputs.push(super::Input { tokens, truncated: excess > 0 });
        }
        let scores = self.engine.compute(&inputs)?;
        let mut ranked = Vec::with_capacity(inputs.len());
        for (index, (scores, input)) in scores.iter().zip(&inputs).enumerate() {
            let &score = scores.first().ok_or(EmbedError::Missing)?;
            ranked.push(Ranked { index, score, tokens: input.tokens.len(), truncated: input.truncated });
        }
        // A stable sort: equal scores keep their order.
        ranked.sort_by(|left, right| right.score.total_cmp(&left.score));
        Ok(ranked)
    }

    /// Longest query and document together in tokens, and the tokens and pairs that are computed together.
    pub fn limits(&self) -> &ContextLimits {
        self.engine.inner.limits()
    }

    /// The id of the backend whose code computes the scores, asked of the running engine itself.
    pub fn executed_by(&self) -> String {
        self.engine.inner.executed_by()
    }

    /// Query and document as the model wants to read them: in its own template, or with the separators of its
    /// vocabulary, as llama-server puts them together.
    fn pair(&self, query: &[Token], document: &str) -> Result<Pair, EmbedError> {
        let tokenizer = &self.engine.tokenizer;
        if let Some(template) = &self.template {
            // The template's own special tokens count.
            let special = TokenizeOptions { add_special: false, parse_special: true };
            let mut tokens: Vec<Token> =
                tokenizer.special().bos.filter(|_| tokenizer.special().add_bos).into_iter().collect();
            let mut place = 0..0;
            for piece in pieces(template) {
                let first = tokens.len();
                match piece {
                    "{query}" => tokens.extend_from_slice(query),
                    "{document}" => {
                        tokens.extend(tokenizer.tokenize(document, TEXT)?);
                        place = first..tokens.len();
                    }
                    other => tokens.extend(tokenizer.tokenize(other, special)?),
                }
            }
            return Ok(Pair { tokens, document: place });
        }
        let special = tokenizer.special();
        let given = |wanted: bool, token: Option<Token>| token.filter(|_| wanted);
        let end = given(special.add_eos, special.eos.or(special.sep));
        let mut tokens = Vec::new();
        tokens.extend(given(special.add_bos, special.bos));
        tokens.extend_from_slice(query);
        tokens.extend(end);
        tokens.extend(given(special.add_sep, special.sep));
        let first = tokens.len();
        tokens.extend(tokenizer.tokenize(document, TEXT)?);
        let document = first..tokens.len();
        // BERT closes with the separator, others with the end of the sequence.
        tokens.extend(end.or(given(special.add_sep, special.sep)));
        Ok(Pair { tokens, document })
    }
}

/// The tokens of a query and a document, and where the document is.
struct Pair {
    tokens: Vec<Token>,
    document: std::ops::Range<usize>,
}

/// A template cut at its places, which are pieces of their own.
fn pieces(template: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = template;
    let next = |text: &str| {
        let place = |name: &'static str| text.find(name).map(|start| (start, name.len()));
        [place("{query}"), place("{document}")].into_iter().flatten().min()
    };
    while let Some((start, length)) = next(rest) {
        pieces.extend([&rest[..start], &rest[start..start + length]]);
        rest = &rest[start + length..];
    }
    pieces.push(rest);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn a_template_is_cut_at_its_places_in_any_order() {
        assert_eq!(pieces("<q>{query}</q>{document}."), ["<q>", "{query}", "</q>", "{document}", "."]);
        assert_eq!(pieces("{document}{query}"), ["{document}", "{query}"]);
        assert_eq!(pieces("{none} {"), ["{none} {"]);
    }
}
