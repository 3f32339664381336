//! Tools: `cargo run --release --example tools -- MODEL QUESTION [TEMPLATE]`. The model calls a function of this program.
//!
//! Its chat template must have a form for calls; TEMPLATE is a file with another one.

use std::{
    error::Error,
    io::{Write, stdout},
    num::NonZeroU32,
    ops::ControlFlow,
};

use gguf_loader::{
    Model,
    backend::ContextOptions,
    chat::{ChatError, ChatSession, ChatTemplate, Message, ReplyOptions, Role, ToolChoice, Toolbox},
};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
struct Sum {
    /// The first number.
    a: f64,
    /// The second number.
    b: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(question)) = (arguments.next(), arguments.next()) else {
        return Err("usage: tools MODEL QUESTION [TEMPLATE]".into());
    };
    let model = Model::load(path)?;
    let tokenizer = model.tokenizer().map_err(|error| error.to_string())?;
    let template = match arguments.next() {
        Some(file) => ChatTemplate::parse(&tokenizer.template_source(std::fs::read_to_string(file)?))?,
        None => ChatTemplate::of(tokenizer)?,
    };
    let mut session = ChatSession::with_template(model.context(&ContextOptions::default())?, template)?;
    let mut toolbox = Toolbox::new().with("add", "Adds two numbers.", |Sum { a, b }| Ok::<_, String>(a + b));
    session.push(Message::user(question));
    let options = ReplyOptions::default()
        .with_tool_choice(ToolChoice::Required)
        .with_max_tokens(NonZeroU32::new(128).ok_or("128 is above zero")?);
    let rounds = NonZeroU32::new(3).ok_or("3 is above zero")?;
    match session.reply_with_tools(&mut toolbox, &options, rounds, |_| ControlFlow::Continue(())) {
        Ok(_) | Err(ChatError::Rounds(_)) => {}
        Err(error) => return Err(error.into()),
    }
    for message in session.messages() {
        for call in &message.tool_calls {
            writeln!(stdout(), "call: {}({})", call.name, call.arguments)?;
        }
        let who = if message.role == Role::Tool { "result" } else { message.role.as_str() };
        if !message.content.is_empty() {
            writeln!(stdout(), "{who}: {}", message.content)?;
        }
    }
    Ok(())
}
