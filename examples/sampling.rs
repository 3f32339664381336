//! Choosing tokens: `cargo run --release --example sampling -- MODEL PROMPT`. Presets, a chain, and a step of one's own.

use std::{
    error::Error,
    io::{Write, stdout},
};

use gguf_loader::{
    Model, Tokenizer,
    backend::{ContextOptions, Token},
    generation::GenerateRequest,
    sampling::{Candidates, LogitProcessor, Pick, SamplerStep, Sampling},
};

/// Takes out every token with the letter e.
struct WithoutE(Tokenizer);

impl LogitProcessor for WithoutE {
    fn process(&mut self, candidates: &mut Candidates) {
        let has_e = |token: Token| {
            let piece = self.0.detokenize(&[token], false).unwrap_or_default();
            piece.iter().any(|byte| byte.eq_ignore_ascii_case(&b'e'))
        };
        candidates.retain(|candidate| !has_e(candidate.token));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(prompt)) = (arguments.next(), arguments.next()) else {
        return Err("usage: sampling MODEL PROMPT".into());
    };
    let model = Model::load(path)?;
    let mut context = model.context(&ContextOptions::default())?;
    let tokenizer = model.tokenizer().map_err(|error| error.to_string())?.clone();
    let own = Sampling::new(Pick::MirostatV2 { tau: 4.0, eta: 0.1 })
        .then(SamplerStep::Penalties { last: 64, repetition: 1.1, frequency: 0.0, presence: 0.0 })
        .then(SamplerStep::Temperature { temperature: 0.9 });
    // The hundred likeliest first: to look at each token of the vocabulary would take a while.
    let without_e = Sampling::greedy().then(SamplerStep::TopK { k: 100 }).then_custom(WithoutE(tokenizer));
    let samplings = [
        ("greedy", Sampling::greedy()),
        ("balanced", Sampling::balanced()),
        ("creative", Sampling::creative()),
        ("own chain", own),
        ("without e", without_e),
    ];
    for (name, sampling) in samplings {
        let request = GenerateRequest::new(prompt.as_str()).with_sampling(sampling).with_max_tokens(24.try_into()?);
        let completion = context.complete(request)?;
        writeln!(stdout(), "{name} (seed {}):{}", completion.seed, completion.text.replace('\n', " "))?;
    }
    Ok(())
}
