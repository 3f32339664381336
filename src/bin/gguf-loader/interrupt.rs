//! Ctrl-C: the first asks the work to stop, the second ends the program.

use std::{
    ops::ControlFlow,
    process,
    sync::{Arc, Mutex, PoisonError},
};

use gguf_loader::backend::CancelToken;

use crate::failure::{Exit, Failure};

/// Whether the user wants the work to stop.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    token: CancelToken,
    /// Whether the program waits for input: there is no work then that could be asked to stop.
    waits: Arc<Mutex<bool>>,
}

impl Interrupt {
    /// Takes over Ctrl-C. Before this, it ends the program as it ends any other.
    pub(crate) fn install() -> Result<Self, Failure> {
        let interrupt = Self { token: CancelToken::new(), waits: Arc::default() };
        let handed_over = interrupt.clone();
        let on_signal = move || {
            if handed_over.token.is_cancelled() {
                process::exit(Exit::Interrupted as i32);
            }
            handed_over.token.cancel();
            if *handed_over.waits.lock().unwrap_or_else(PoisonError::into_inner) {
                Failure::interrupted().report();
                process::exit(Exit::Interrupted as i32);
            }
        };
        ctrlc::set_handler(on_signal).map_err(|error| Failure::new(Exit::Unexpected, &error))?;
        Ok(interrupt)
    }

    /// The token that cancels decodes.
    pub(crate) fn token(&self) -> CancelToken {
        self.token.clone()
    }

    /// Reads input: Ctrl-C ends the program meanwhile.
    pub(crate) fn wait_for<T>(&self, read: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let wait = |waits| *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = waits;
        wait(true);
        // A signal that came before the lock found nobody waiting.
        let read = if self.token.is_cancelled() { Err(Failure::interrupted()) } else { read() };
        wait(false);
        read
    }

    /// Makes the next Ctrl-C the first one again.
    pub(crate) fn reset(&self) {
        self.token.reset();
    }

    /// Whether to go on: for work between decodes.
    pub(crate) fn flow(&self) -> ControlFlow<()> {
        if self.token.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
