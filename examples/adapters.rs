//! A model with and without a LoRA adapter, and with the adapter merged into it:
//! `cargo run --release --example adapters -- MODEL ADAPTER [PROMPT]`.

use std::{
    env::temp_dir,
    error::Error,
    fs,
    io::{Write, stdout},
    ops::ControlFlow,
    path::Path,
};

use gguf_loader::{
    Context, Model, adapter::LoraAdapter, backend::ContextOptions, generation::GenerateRequest, merge::merge_lora,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: adapters MODEL ADAPTER [PROMPT]".into());
    };
    let prompt = arguments.next().unwrap_or_else(|| "The sea is".to_owned());

    let model = Model::load(&path)?;
    let adapter = LoraAdapter::load(&model, &file)?;
    let mut context = model.context(&ContextOptions::default())?;
    for scale in [0.0, 0.5, 1.0] {
        // What the context held was computed with another scale, and is forgotten.
        context.set_adapters(&[(&adapter, scale)])?;
        writeln!(stdout(), "at {scale:.1}: {}", continuation(&mut context, &prompt)?)?;
    }

    let merged = temp_dir().join(format!("adapters-example-{}.gguf", std::process::id()));
    merge_lora(&path, &[(&file, 1.0)], &merged, |_| ControlFlow::Continue(()))?;
    let text = fresh_continuation(&merged, &prompt);
    fs::remove_file(&merged)?;
    writeln!(stdout(), "merged: {}", text?)?;
    Ok(())
}

fn fresh_continuation(model: &Path, prompt: &str) -> Result<String, Box<dyn Error>> {
    continuation(&mut Model::load(model)?.context(&ContextOptions::default())?, prompt)
}

fn continuation(context: &mut Context, prompt: &str) -> Result<String, Box<dyn Error>> {
    let request = GenerateRequest::new(prompt).with_max_tokens(24.try_into()?);
    Ok(context.complete(request)?.text.replace('\n', " "))
}
