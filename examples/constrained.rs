//! Text that keeps a form: `cargo run --release --example constrained -- MODEL`. A regular expression, a grammar in GBNF, JSON.
//!
//! `structured` has values of a Rust type.

use std::{
    error::Error,
    io::{Write, stdout},
};

use gguf_loader::{Model, backend::ContextOptions, generation::GenerateRequest, grammar::Grammar};

/// A move in chess, short or long.
const MOVE: &str = r#"
root ::= piece? [a-h] [1-8] ("-" [a-h] [1-8])?
piece ::= [KQRBN]
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: constrained MODEL")?;
    let mut context = Model::load(path)?.context(&ContextOptions::default())?;
    let asked = [
        ("regex", "The French Revolution began on the day (ISO 8601) ", Grammar::regex(r"1[0-9]{3}-[01]\d-[0-3]\d")?),
        ("GBNF", "White's best first move in chess is ", Grammar::gbnf(MOVE)?),
        ("JSON", "The three primary colours as a JSON array: ", Grammar::json()),
    ];
    for (name, prompt, grammar) in asked {
        let request = GenerateRequest::new(prompt).with_grammar(grammar).with_max_tokens(64.try_into()?);
        let completion = context.complete(request)?;
        writeln!(stdout(), "{name}: {} ({:?})", completion.text, completion.finish)?;
    }
    Ok(())
}
