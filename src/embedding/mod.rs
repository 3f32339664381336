//! Embeddings: texts to vectors, close in direction where the texts are close in meaning. And [reranking](Reranker).
//!
//! ```no_run
//! use gguf_loader::{Model, embedding::{EmbedOptions, cosine}};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::load("all-MiniLM-L6-v2.gguf")?;
//! let mut embedder = model.embedder(&EmbedOptions::default())?;
//! let vectors = embedder.embed_all(&["A man is eating food.", "Someone has a meal."])?;
//! println!("{:?}", cosine(&vectors[0].vector, &vectors[1].vector));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod error;
mod options;
mod pack;
mod rank;

pub use error::EmbedError;
pub use options::{EmbedOptions, Normalisation, Overflow};
pub use rank::{Ranked, Reranker};

use crate::{
    backend::{BackendEmbedder, Batch, ContextLimits, Pooling, SequenceId, Token, TokenizeOptions},
    model::Model,
    tokenizer::Tokenizer,
};

/// A text as a vector.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Embedding {
    /// As many numbers as [`Embedder::dimensions`].
    pub vector: Vec<f32>,
    /// Tokens that the model read.
    pub tokens: usize,
    /// Whether the text was longer, and [`Overflow::Truncate`] cut it.
    pub truncated: bool,
}

/// Turns texts into vectors. Keeps its model alive; may move between threads.
#[derive(Debug)]
pub struct Embedder {
    engine: Engine,
    pooling: Pooling,
    normalisation: Normalisation,
}

impl Model {
    /// Opens what turns texts into vectors.
    ///
    /// # Errors
    ///
    /// [`EmbedError`]: [`NoPooling`](EmbedError::NoPooling) when neither the file nor the options say how to pool,
    /// [`IsRanking`](EmbedError::IsRanking) for [`Pooling::Rank`], which [`reranker`](Self::reranker) is for.
    pub fn embedder(&self, options: &EmbedOptions) -> Result<Embedder, EmbedError> {
        let pooling = options.pooling.or_else(|| self.default_pooling()).ok_or(EmbedError::NoPooling)?;
        if pooling == Pooling::Rank {
            return Err(EmbedError::IsRanking);
        }
        let engine = Engine::open(self, options, pooling)?;
        Ok(Embedder { engine, pooling, normalisation: options.normalisation })
    }

    /// Opens what tells how well documents answer a query. The options' pooling and normalisation do not matter.
    ///
    /// # Errors
    ///
    /// [`EmbedError`], [`ContextError::NoRanking`](crate::backend::ContextError::NoRanking) in it for a model without a
    /// classification head.
    pub fn reranker(&self, options: &EmbedOptions) -> Result<Reranker, EmbedError> {
        Ok(Reranker::new(self, Engine::open(self, options, Pooling::Rank)?))
    }
}

impl Embedder {
    /// The vector of one text.
    ///
    /// # Errors
    ///
    /// As [`embed_all`](Self::embed_all).
    pub fn embed(&mut self, text: &str) -> Result<Embedding, EmbedError> {
        let embeddings = self.embed_all(&[text])?;
        embeddings.into_iter().next().ok_or(EmbedError::Missing)
    }

    /// The vectors of `texts`, in their order. They are computed in batches that are as full as can be, whatever the
    /// order of long and short ones.
    ///
    /// # Errors
    ///
    /// [`EmbedError`], with the index of the text at fault. No text is computed before all were checked; the embedder
    /// stays usable.
    pub fn embed_all(&mut self, texts: &[impl AsRef<str>]) -> Result<Vec<Embedding>, EmbedError> {
        let tokenizer = self.engine.tokenizer.clone();
        let mut inputs = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let tokens = tokenizer.tokenize(text.as_ref(), TokenizeOptions::default())?;
            inputs.push(self.engine.fit(index, tokens)?);
        }
        let vectors = self.engine.compute(&inputs)?;
        let embeddings = vectors.into_iter().zip(&inputs).map(|(mut vector, input)| {
            if self.normalisation == Normalisation::Unit {
                normalise(&mut vector);
            }
            Embedding { vector, tokens: input.tokens.len(), truncated: input.truncated }
        });
        Ok(embeddings.collect())
    }

    /// Length of the vectors.
    pub fn dimensions(&self) -> usize {
        self.engine.inner.dimensions()
    }

    /// How the states of a text's tokens become its vector.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Longest text in tokens, and the tokens and texts that are computed together.
    pub fn limits(&self) -> &ContextLimits {
        self.engine.inner.limits()
    }

    /// The id of the backend whose code computes the vectors, asked of the running engine itself.
    pub fn executed_by(&self) -> String {
        self.engine.inner.executed_by()
    }
}

/// The cosine of the angle between two vectors, -1 to 1: 1 is the same direction, 0 at right angles.
/// `None` when their lengths differ, or one of them has no direction: zero, or not finite.
pub fn cosine(left: &[f32], right: &[f32]) -> Option<f32> {
    if left.len() != right.len() {
        return None;
    }
    // In 64 bits: the squares of numbers above 1e19 overflow 32.
    let dot = |left: &[f32], right: &[f32]| -> f64 {
        left.iter().zip(right).map(|(&left, &right)| f64::from(left) * f64::from(right)).sum()
    };
    let cosine = dot(left, right) / (dot(left, left).sqrt() * dot(right, right).sqrt());
    cosine.is_finite().then_some(cosine.clamp(-1.0, 1.0) as f32)
}

/// Scales to length 1. A vector of zeros stays one.
fn normalise(vector: &mut [f32]) {
    let norm = vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
    }
}

/// The tokens of a text, not longer than the model takes.
#[derive(Debug)]
struct Input {
    tokens: Vec<Token>,
    truncated: bool,
}

/// What embedding and ranking share: tokens in, one vector a text out.
#[derive(Debug)]
struct Engine {
    inner: Box<dyn BackendEmbedder>,
    tokenizer: Tokenizer,
    overflow: Overflow,
    batch: Batch,
}

impl Engine {
    fn open(model: &Model, options: &EmbedOptions, pooling: Pooling) -> Result<Self, EmbedError> {
        let tokenizer = model.tokenizer().map_err(|_| EmbedError::NoTokenizer)?.clone();
        let inner = model.open_embedder(&options.context(model.shape().n_ctx_train), pooling)?;
        Ok(Self { inner, tokenizer, overflow: options.overflow, batch: Batch::new() })
    }

    /// Checks the length of text `index`, and cuts it if that was asked for. The last token stays: models are trained
    /// with the one that closes the text.
    fn fit(&self, index: usize, mut tokens: Vec<Token>) -> Result<Input, EmbedError> {
        let limit = self.inner.limits().context as usize;
        if tokens.is_empty() {
            return Err(EmbedError::Empty { index });
        }
        let truncated = tokens.len() > limit;
        if truncated {
            if self.overflow == Overflow::Refuse {
                return Err(EmbedError::TooLong { index, tokens: tokens.len(), limit });
            }
            let special = self.tokenizer.special();
            let last = tokens.last().copied().filter(|&last| Some(last) == special.sep || Some(last) == special.eos);
            tokens.truncate(limit);
            if let (Some(closing), Some(end)) = (last, tokens.last_mut()) {
                *end = closing;
            }
        }
        Ok(Input { tokens, truncated })
    }

    fn compute(&mut self, inputs: &[Input]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let limits = *self.inner.limits();
        let lengths: Vec<usize> = inputs.iter().map(|input| input.tokens.len()).collect();
        let mut vectors = vec![Vec::new(); inputs.len()];
        for indices in pack::pack(&lengths, limits.batch as usize, limits.sequences as usize) {
            self.batch.clear();
            for (sequence, &index) in indices.iter().enumerate() {
                self.batch.extend(&inputs[index].tokens, 0, sequence as SequenceId);
            }
            self.inner.embed(&self.batch)?;
            for (sequence, &index) in indices.iter().enumerate() {
                let vector = self.inner.embedding(sequence as SequenceId).ok_or(EmbedError::Missing)?;
                if vector.iter().any(|value| !value.is_finite()) {
                    return Err(EmbedError::NotANumber { index });
                }
                vectors[index] = vector.to_vec();
            }
        }
        Ok(vectors)
    }
}

#[cfg(test)]
mod tests {
    use super::{cosine, normalise};

    #[test]
    fn cosine_is_that_of_the_angle() {
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), Some(0.0));
        assert_eq!(cosine(&[3.0, 4.0], &[6.0, 8.0]), Some(1.0));
        assert_eq!(cosine(&[1e30, 0.0], &[-1e30, 0.0]), Some(-1.0));
        assert!((cosine(&[1.0, 0.0], &[1.0, 1.0]).unwrap() - 0.5_f32.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn what_has_no_direction_has_no_cosine() {
        assert_eq!(cosine(&[1.0], &[1.0, 0.0]), None);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), None);
        assert_eq!(cosine(&[f32::NAN], &[1.0]), None);
        assert_eq!(cosine(&[], &[]), None);
    }

    #[test]
    fn normalised_vectors_have_length_one_and_zeros_stay() {
        let mut vector = [3e25, -4e25];
        normalise(&mut vector);
        assert_eq!(vector, [0.6, -0.8]);
        let mut zeros = [0.0; 3];
        normalise(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
    }
}
