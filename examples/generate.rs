//! Loads a model on the fastest backend and continues a prompt: `cargo run --release --example generate -- MODEL PROMPT`.

use std::{
    error::Error,
    io::{Write, stderr, stdout},
    num::NonZeroU32,
};

use gguf_loader::{Model, backend::ContextOptions, generation::GenerateRequest};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(prompt)) = (arguments.next(), arguments.next()) else {
        return Err("usage: generate MODEL PROMPT".into());
    };
    let model = Model::load(path)?;
    writeln!(stderr(), "{}", model.selection().explain())?;
    let mut context = model.context(&ContextOptions::default())?;
    let request = GenerateRequest::new(prompt).with_max_tokens(NonZeroU32::new(64).ok_or("64 is above zero")?);
    for piece in context.generate(request)? {
        write!(stdout(), "{}", piece?.text)?;
        stdout().flush()?;
    }
    Ok(())
}
