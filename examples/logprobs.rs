//! How likely a model finds a text, token by token, and what it would rather have read:
//! `cargo run --release --example logprobs -- MODEL TEXT`.

use std::{
    error::Error,
    io::{Write, stdout},
};

use gguf_loader::{
    Model,
    backend::ContextOptions,
    generation::{GenerateRequest, Origin},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(text)) = (arguments.next(), arguments.next()) else {
        return Err("usage: logprobs MODEL TEXT".into());
    };
    let model = Model::load(path)?;
    let tokenizer = model.tokenizer().map_err(|error| error.to_string())?;
    let mut context = model.context(&ContextOptions::default())?;
    // The prompt is echoed, each of its tokens with its log-probability; one token more says what would follow.
    let request = GenerateRequest::new(text).with_logprobs(1).with_echo(true).with_max_tokens(1.try_into()?);
    let mut sum = 0.0;
    for piece in context.generate(request)? {
        let piece = piece?;
        // Nothing comes before the first token of a text.
        let Some(logprobs) = piece.logprobs else { continue };
        let likeliest = tokenizer.detokenize(&[logprobs.top[0].token], true)?;
        let likeliest = String::from_utf8_lossy(&likeliest).into_owned();
        let who = if piece.origin == Origin::Prompt { "read" } else { "next" };
        writeln!(stdout(), "{who} {:8.3} {:?}, likeliest {likeliest:?}", logprobs.logprob, piece.text)?;
        sum += if piece.origin == Origin::Prompt { logprobs.logprob } else { 0.0 };
    }
    writeln!(stdout(), "all of it: {sum:.3}")?;
    Ok(())
}
