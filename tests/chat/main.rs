//! Chat: templates against `transformers`, replies, tools, structured output.
//!
//! Templates need a backend that runs them. Without one, the tests that use them say that they were skipped.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the functions that the tests share are tests too")]

mod json;
mod reasoning;
mod session;
mod structured;
mod templates;
mod thought;
mod tools;
mod variables;

use gguf_loader::{
    backend::TemplateSource,
    chat::{ChatTemplate, TemplateError},
};

/// Parses a template; `None`, with a message, when no compiled backend can.
fn parsed(text: &str) -> Option<Result<ChatTemplate, TemplateError>> {
    let source = TemplateSource { text: text.to_owned(), bos: "<s>".to_owned(), eos: "</s>".to_owned() };
    match ChatTemplate::parse(&source) {
        Err(TemplateError::Unsupported) => {
            println!("skipped: no compiled backend runs chat templates");
            None
        }
        result => Some(result),
    }
}
