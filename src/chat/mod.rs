//! Conversations with a model: its chat template, tools that it calls, sessions that remember.
//!
//! * [`ChatTemplate`] writes conversations the way the model was trained to read them, with the template that comes with
//!   the model. A model without one is an error: no other model's format is guessed.
//! * A [`ChatSession`] is a conversation that goes on: it has the messages and a context, computes only what is new, splits
//!   reasoning and calls from what is said, and gives the parts as they arrive.
//! * A [`Tool`] is declared from a Rust type or a JSON schema; what the model then emits as a call is held to it by a grammar, but
//!   for the few rules that [`ToolChoice::Auto`] names.
//!   A [`Toolbox`] has the functions too, and [`ChatSession::reply_with_tools`] runs them.
//!
//! ```no_run
//! use gguf_loader::{Model, backend::ContextOptions, chat::{ChatSession, Message}};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::load("model.gguf")?;
//! let mut session = ChatSession::new(model.context(&ContextOptions::default())?)?;
//! session.push(Message::system("Answer in one sentence."));
//! println!("{}", session.send("What is a llama?")?.message.content);
//! println!("{}", session.send("And an alpaca?")?.message.content);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod delta;
mod error;
mod message;
mod options;
mod reading;
mod session;
mod template;
mod tool;
mod toolbox;

pub use delta::ReplyEvent;
pub use error::ChatError;
pub use options::ReplyOptions;
pub use reading::ReplyReader;
pub use session::{ChatReply, ChatSession};
pub use template::{ChatPrompt, ChatTemplate};
pub use toolbox::Toolbox;

pub use crate::backend::{
    GrammarTrigger, Message, PromptEnding, ReasoningMarkers, RenderedPrompt, Reply, ReplyError, ReplyGrammar, Role,
    TemplateAbilities, TemplateError, TemplateSource, Tool, ToolCall, ToolChoice,
};
pub use message::{ArgumentsError, UnknownRole};
