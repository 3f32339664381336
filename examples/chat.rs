//! A conversation: `cargo run --release --example chat -- MODEL QUESTION [QUESTION ...]`. Each answer is streamed.

use std::{
    error::Error,
    io::{Write, stderr, stdout},
    num::NonZeroU32,
    ops::ControlFlow,
};

use gguf_loader::{
    Model,
    backend::ContextOptions,
    chat::{ChatSession, Message, ReplyEvent, ReplyOptions},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: chat MODEL QUESTION [QUESTION ...]")?;
    let mut session = ChatSession::new(Model::load(path)?.context(&ContextOptions::default())?)?;
    session.push(Message::system("You are a helpful assistant."));
    let options = ReplyOptions::default().with_max_tokens(NonZeroU32::new(64).ok_or("64 is above zero")?);
    for question in arguments {
        session.push(Message::user(question));
        let reply = session.reply(&options, |event| match event {
            // When nobody reads any more, there is no sense in going on.
            ReplyEvent::Content(text) if write!(stdout(), "{text}").and_then(|()| stdout().flush()).is_err() => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })?;
        writeln!(stdout())?;
        writeln!(stderr(), "{:?}", reply.usage)?;
    }
    Ok(())
}
