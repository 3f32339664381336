//! What a chat template makes of a conversation: `cargo run --release --example template -- MODEL TEMPLATE [KEY=JSON ...]`.
//!
//! TEMPLATE is a file in Jinja. The variables are what it reads beside the messages, e.g. `reasoning_effort="low"` for gpt-oss;
//! whether a model that can reason does has a switch of its own.

use std::{
    error::Error,
    io::{Write, stdout},
};

use gguf_loader::{
    Tokenizer,
    chat::{ChatPrompt, ChatTemplate, Message},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: template MODEL TEMPLATE [KEY=JSON ...]".into());
    };
    // The vocabulary alone: it says what begins and ends a text.
    let source = Tokenizer::load(path)?.template_source(std::fs::read_to_string(file)?);
    let template = ChatTemplate::parse(&source)?;
    let mut prompt = ChatPrompt::new(vec![Message::system("Be brief."), Message::user("What is 2+2?")]);
    for argument in arguments {
        let (name, value) = argument.split_once('=').ok_or("a variable is KEY=JSON")?;
        prompt = prompt.with_argument(name, serde_json::from_str::<serde_json::Value>(value)?);
    }
    for thinking in [true, false] {
        let rendered = template.render(&prompt.clone().with_thinking(thinking))?;
        writeln!(stdout(), "--- thinking: {thinking}\n{}", rendered.text)?;
    }
    writeln!(stdout(), "--- it can express: {:?}", template.abilities())?;
    Ok(())
}
