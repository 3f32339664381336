//! Which of some texts is closest in meaning to the first: `cargo run --release --example embeddings -- MODEL TEXT TEXT...`.
//!
//! A model that was made for embeddings says how its tokens are pooled; of others the last token is taken.

use std::{
    error::Error,
    io::{Write, stdout},
};

use gguf_loader::{
    Model,
    backend::Pooling,
    embedding::{EmbedOptions, cosine},
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, texts @ ..] = arguments.as_slice() else { return Err("usage: embeddings MODEL TEXT TEXT...".into()) };
    let model = Model::load(path)?;
    let pooling = model.default_pooling().unwrap_or(Pooling::Last);
    let mut embedder = model.embedder(&EmbedOptions::default().with_pooling(pooling))?;
    let embeddings = embedder.embed_all(texts)?;
    let Some((first, others)) = embeddings.split_first() else { return Err("give at least one text".into()) };
    for (text, other) in texts.iter().skip(1).zip(others) {
        match cosine(&first.vector, &other.vector) {
            Some(cosine) => writeln!(stdout(), "{cosine:7.4}  {text}")?,
            None => writeln!(stdout(), "no direction  {text}")?,
        }
    }
    Ok(())
}
