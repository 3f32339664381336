//! A text longer than the context: `cargo run --release --example shift -- MODEL PROMPT`. What is oldest is forgotten, but for the
//! beginning.

use std::{
    error::Error,
    io::{Write, stdout},
};

use gguf_loader::{
    Model,
    backend::ContextOptions,
    generation::{GenerateRequest, WhenFull},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(prompt)) = (arguments.next(), arguments.next()) else {
        return Err("usage: shift MODEL PROMPT".into());
    };
    let mut context = Model::load(path)?.context(&ContextOptions::default().with_length(64.try_into()?))?;
    for when_full in [WhenFull::Stop, WhenFull::Shift { keep: 8 }] {
        let request = GenerateRequest::new(prompt.as_str()).with_stop_at_end(false).with_when_full(when_full);
        let completion = context.complete(request.with_max_tokens(160.try_into()?))?;
        let (tokens, limit) = (completion.tokens.len(), context.limits().context);
        writeln!(stdout(), "{when_full:?}: {tokens} tokens in a context of {limit}, {:?}", completion.finish)?;
    }
    Ok(())
}
