//! What the type of the KV cache and the form of attention change: `cargo run --release --example cache -- MODEL TEXT`.
//!
//! A smaller type holds a longer text in the same memory, and tells words apart a little less well. The figure is the mean
//! log-probability of the text's tokens: the nearer to zero, the better.

use std::{
    error::Error,
    io::{Write, stdout},
};

use gguf_loader::{
    Model,
    backend::{CacheType, ContextOptions},
    generation::GenerateRequest,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(text)) = (arguments.next(), arguments.next()) else {
        return Err("usage: cache MODEL TEXT".into());
    };
    let model = Model::load(path)?;
    let mut plain = ContextOptions::default();
    plain.flash_attention = Some(false);
    let with = |cache_type| ContextOptions::default().with_cache_type(cache_type);
    let all = [
        ("f16, matrix of scores", plain),
        ("f16, flash attention", with(CacheType::F16)),
        ("q8_0, flash attention", with(CacheType::Q8_0)),
        ("q4_0, flash attention", with(CacheType::Q4_0)),
    ];
    for (name, options) in all {
        let mut context = model.context(&options)?;
        let request = GenerateRequest::new(text.as_str()).with_logprobs(0).with_echo(true);
        let pieces = context.generate(request.with_max_tokens(1.try_into()?))?.collect::<Result<Vec<_>, _>>()?;
        let logprobs: Vec<f32> = pieces.iter().filter_map(|piece| Some(piece.logprobs.as_ref()?.logprob)).collect();
        writeln!(stdout(), "{name}: {:.4}", logprobs.iter().sum::<f32>() / logprobs.len() as f32)?;
    }
    Ok(())
}
