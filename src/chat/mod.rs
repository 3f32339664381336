//! Conversations with a model: its chat template, tools that it calls, sessions that remember.
//!
//! * [`ChatTemplate`] writes conversations the way the model was trained to read them, with the template that comes with
//!   the model. A model without one is an error: no other model's format is guessed.
#![forbid(unsafe_code)]

mod message;
mod template;
mod tool;

pub use template::{ChatPrompt, ChatTemplate};

pub use crate::backend::{
    GrammarTrigger, Message, PromptEnding, RenderedPrompt, Reply, ReplyError, ReplyGrammar, Role, TemplateAbilities,
    TemplateError, TemplateSource, Tool, ToolCall, ToolChoice,
};
pub use message::{ArgumentsError, UnknownRole};
