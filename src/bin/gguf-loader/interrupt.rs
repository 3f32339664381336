//! Ctrl-C: the first asks the work to stop, the second ends the program.

use std::{ops::ControlFlow, process};

use gguf_loader::backend::CancelToken;

use crate::failure::{Exit, Failure};

/// Whether the user wants the work to stop.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(CancelToken);

impl Interrupt {
    /// Takes over Ctrl-C. Before this, it ends the program as it ends any other.
    pub(crate) fn install() -> Result<Self, Failure> {
        let token = CancelToken::new();
        let handed_over = token.clone();
        let on_signal = move || {
            if handed_over.is_cancelled() {
                process::exit(Exit::Interrupted as i32);
            }
            handed_over.cancel();
        };
        ctrlc::set_handler(on_signal).map_err(|error| Failure::new(Exit::Unexpected, &error))?;
        Ok(Self(token))
    }

    /// The token that cancels decodes.
    pub(crate) fn token(&self) -> CancelToken {
        self.0.clone()
    }

    /// Makes the next Ctrl-C the first one again.
    pub(crate) fn reset(&self) {
        self.0.reset();
    }

    /// Whether to go on: for work between decodes.
    pub(crate) fn flow(&self) -> ControlFlow<()> {
        if self.0.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
