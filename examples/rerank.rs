//! Documents in the order in which they answer a question:
//! `cargo run --release --example rerank -- MODEL QUESTION DOCUMENT DOCUMENT...`.
//!
//! A model that was made to rank reads the question and a document together. With any other one the vectors of the two are
//! compared, which is faster, less good, and all that it can do.

use std::{
    error::Error,
    io::{Write, stdout},
};

use gguf_loader::{
    Model,
    backend::{ContextError, Pooling},
    embedding::{EmbedError, EmbedOptions, cosine},
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, question, documents @ ..] = arguments.as_slice() else {
        return Err("usage: rerank MODEL QUESTION DOCUMENT DOCUMENT...".into());
    };
    let model = Model::load(path)?;
    let (way, scores) = match model.reranker(&EmbedOptions::default()) {
        Ok(mut reranker) => {
            let ranked = reranker.rank(question, documents)?;
            ("by the model", ranked.iter().map(|ranked| (ranked.index, ranked.score)).collect())
        }
        Err(EmbedError::Context(ContextError::NoRanking)) => ("by embeddings", compare(&model, question, documents)?),
        Err(error) => return Err(error.into()),
    };
    writeln!(stdout(), "{way}:")?;
    for (index, score) in scores {
        writeln!(stdout(), "{score:7.4}  {}", documents[index])?;
    }
    Ok(())
}

/// The documents and how close they are to the question, the closest first.
fn compare(model: &Model, question: &str, documents: &[String]) -> Result<Vec<(usize, f32)>, Box<dyn Error>> {
    let pooling = model.default_pooling().unwrap_or(Pooling::Mean);
    let mut embedder = model.embedder(&EmbedOptions::default().with_pooling(pooling))?;
    let question = embedder.embed(question)?;
    let mut scores = Vec::new();
    for (index, document) in embedder.embed_all(documents)?.iter().enumerate() {
        scores.push((index, cosine(&question.vector, &document.vector).ok_or("a vector has no direction")?));
    }
    scores.sort_by(|(_, left), (_, right)| right.total_cmp(left));
    Ok(scores)
}
