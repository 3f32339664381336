//! What a model says when its thoughts are pushed in a direction: `cargo run --release --example control -- MODEL VECTOR [PROMPT]`.
//!
//! VECTOR is a control vector, as llama.cpp's `llama-cvector-generator` and the Python package `repeng` write them. It is added to
//! what the model holds in mind after each block, forwards or backwards, more or less.

use std::{
    error::Error,
    io::{Write, stdout},
};

use gguf_loader::{Model, adapter::ControlVector, backend::ContextOptions, generation::GenerateRequest};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: control MODEL VECTOR [PROMPT]".into());
    };
    let prompt = arguments.next().unwrap_or_else(|| "I feel".to_owned());

    let mut context = Model::load(path)?.context(&ContextOptions::default())?;
    let vector = ControlVector::load(file)?;
    writeln!(stdout(), "blocks: {:?}", vector.blocks().collect::<Vec<_>>())?;
    for scale in [0.0, 1.0, -1.0] {
        // Some blocks only would be `Some(10..=20)`. What the context held was computed without it, and is forgotten.
        context.set_control_vectors(&[(&vector, scale)], None)?;
        let request = GenerateRequest::new(&prompt).with_max_tokens(24.try_into()?);
        let text = context.complete(request)?.text;
        writeln!(stdout(), "at {scale:.1}: {}", text.replace('\n', " "))?;
    }
    Ok(())
}
