//! What a model says, while it says it: content on stdout, reasoning beside it on stderr.

use std::ops::ControlFlow;

use gguf_loader::chat::ReplyEvent;

use crate::{failure::Failure, output::Output};

/// Shows a reply part by part; nothing of it with `--json`, whose result has all of it.
#[derive(Debug)]
pub(crate) struct Speech {
    /// Whether stderr stands in the middle of a line of reasoning.
    thinks: bool,
    written: Result<(), Failure>,
}

impl Speech {
    pub(crate) fn new() -> Self {
        Self { thinks: false, written: Ok(()) }
    }

    /// Shows a part of a reply. Breaks off when nobody reads any more.
    pub(crate) fn show(&mut self, event: &ReplyEvent, output: &mut Output) -> ControlFlow<()> {
        match event {
            ReplyEvent::Content(text) => self.print(text, output),
            ReplyEvent::Reasoning(text) if !output.is_json() => {
                self.thinks = true;
                output.aside(text);
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    /// Writes text that is content.
    pub(crate) fn print(&mut self, text: &str, output: &mut Output) -> ControlFlow<()> {
        if !output.is_json() && !text.is_empty() {
            self.end_reasoning(output);
            self.written = output.bytes(text.as_bytes());
        }
        if self.written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// Ends it, and says whether all of it could be written.
    pub(crate) fn end(mut self, output: &Output) -> Result<(), Failure> {
        self.end_reasoning(output);
        self.written
    }

    fn end_reasoning(&mut self, output: &Output) {
        if std::mem::take(&mut self.thinks) {
            output.note("");
        }
    }
}
