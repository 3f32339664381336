//! A value of a Rust type out of a model: `cargo run --release --example structured -- MODEL TEXT`.

use std::{
    error::Error,
    io::{Write, stdout},
    num::NonZeroU32,
};

use gguf_loader::{
    Model,
    backend::ContextOptions,
    chat::{ChatSession, Message, ReplyOptions},
};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
struct Person {
    #[schemars(length(max = 40))]
    name: String,
    age: Option<u8>,
    mood: Mood,
}

#[derive(Debug, Deserialize, JsonSchema)]
enum Mood {
    Happy,
    Sad,
    Unknown,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(text)) = (arguments.next(), arguments.next()) else {
        return Err("usage: structured MODEL TEXT".into());
    };
    let mut session = ChatSession::new(Model::load(path)?.context(&ContextOptions::default())?)?;
    session.push(Message::user(format!("Who is this about? Answer in JSON.\n\n{text}")));
    let options = ReplyOptions::default().with_max_tokens(NonZeroU32::new(200).ok_or("200 is above zero")?);
    let person: Person = session.reply_as(&options)?;
    let Person { name, age, mood } = person;
    writeln!(stdout(), "{name}, {} years old, {mood:?}", age.map_or("some".to_owned(), |age| age.to_string()))?;
    Ok(())
}
