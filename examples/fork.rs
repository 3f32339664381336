//! One conversation that goes on in two ways at once: `cargo run --release --example fork -- MODEL QUESTION ONE OTHER`.

use std::{
    error::Error,
    io::{Write, stdout},
    num::NonZeroU32,
    ops::ControlFlow,
    thread,
};

use gguf_loader::{
    Model,
    backend::ContextOptions,
    chat::{ChatError, ChatReply, ChatSession, Message, ReplyOptions},
};

fn ask(session: &mut ChatSession, question: &str) -> Result<ChatReply, ChatError> {
    session.push(Message::user(question));
    let options = ReplyOptions::default().with_max_tokens(NonZeroU32::new(24).expect("24 is above zero"));
    session.reply(&options, |_| ControlFlow::Continue(()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, question, one, other] = arguments.as_slice() else {
        return Err("usage: fork MODEL QUESTION ONE OTHER".into());
    };
    let model = Model::load(path)?;
    let options = ContextOptions::default().with_length(1024.try_into()?);
    let mut session = ChatSession::new(model.context(&options)?)?;
    writeln!(stdout(), "{question} {}", ask(&mut session, question)?.message.content)?;
    // It takes over what is computed. To go on in one way after the other, a copy of the messages is enough.
    let mut fork = session.fork(model.context(&options)?)?;
    let replies = thread::scope(|scope| {
        let theirs = scope.spawn(|| ask(&mut fork, other));
        [ask(&mut session, one), theirs.join().expect("it does not panic")]
    });
    for (question, reply) in [one, other].into_iter().zip(replies) {
        let reply = reply?;
        writeln!(stdout(), "{question} ({} tokens kept) {}", reply.usage.reused_tokens, reply.message.content)?;
    }
    Ok(())
}
