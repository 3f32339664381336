//! Two continuations of one beginning, and the beginning kept in a file: `cargo run --release --example state -- MODEL FILE`.
//!
//! The first run writes FILE; further ones go on from it without reading the text again.

use std::{
    error::Error,
    io::{Write, stdout},
};

use gguf_loader::{
    Model,
    backend::{ContextOptions, SequenceEdit},
    generation::{GenerateRequest, Start},
    state::State,
};

const BEGINNING: &str = "The lighthouse keeper had not spoken to anyone for three weeks when, on a clear morning,";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: state MODEL FILE".into());
    };
    let model = Model::load(path)?;
    // The two share what they have in common.
    let options = ContextOptions::default().with_sequences(2.try_into()?).with_shared_cache(true);
    let mut context = model.context(&options)?;
    if std::path::Path::new(&file).exists() {
        let restored = context.restore(&State::read(&file)?)?;
        writeln!(stdout(), "{} tokens from {file}", restored.kept_tokens)?;
    } else {
        context.complete(GenerateRequest::new(BEGINNING).with_max_tokens(1.try_into()?))?;
        context.save()?.write(&file)?;
        writeln!(stdout(), "{} tokens in {file}", context.tokens(0).len())?;
    }
    context.edit(SequenceEdit::Copy { from: 0, to: 1 })?;
    for (sequence, turn) in [(0, " a ship"), (1, " a letter")] {
        let request = GenerateRequest::new(turn).with_start(Start::Continue).with_sequence(sequence);
        let completion = context.complete(request.with_max_tokens(24.try_into()?))?;
        writeln!(stdout(), "...{turn}{}", completion.text.replace('\n', " "))?;
    }
    Ok(())
}
