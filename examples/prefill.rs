//! An answer whose beginning is given: `cargo run --release --example prefill -- MODEL QUESTION BEGINNING`.

use std::{
    error::Error,
    io::{Write, stdout},
    ops::ControlFlow,
};

use gguf_loader::{
    Model,
    backend::ContextOptions,
    chat::{ChatSession, Message, ReplyOptions},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(question), Some(beginning)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: prefill MODEL QUESTION BEGINNING".into());
    };
    let mut session = ChatSession::new(Model::load(path)?.context(&ContextOptions::default())?)?;
    session.push(Message::user(question));
    session.push(Message::assistant(beginning));
    // The first part ends after eight tokens; the second one goes on where that stopped, as if nothing had been.
    let short = ReplyOptions::default().with_max_tokens(8.try_into()?);
    let first = session.continue_reply(&short, |_| ControlFlow::Continue(()))?;
    writeln!(stdout(), "{:?}: {}", first.finish, first.message.content)?;
    let rest = session.continue_reply(&short.with_max_tokens(64.try_into()?), |_| ControlFlow::Continue(()))?;
    writeln!(stdout(), "{:?}: {}", rest.finish, rest.message.content)?;
    Ok(())
}
