//! The log of the library and of llama.cpp, on stderr.

use std::io::{self, IsTerminal as _};

use gguf_loader::knobs::{self, Knobs};
use tracing_subscriber::EnvFilter;

use crate::failure::{Exit, Failure};

/// Starts the log with the filter that the environment asks for.
pub(crate) fn start() -> Result<(), Failure> {
    let filter = Knobs::from_environment().log()?;
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        Failure::new(Exit::Usage, &error).with_headline(format!(
            "{} is `{filter}`; allowed: {}",
            knobs::LOG.name,
            knobs::LOG.allowed
        ))
    })?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // They would be printed with a macro that panics when stderr is closed.
        .log_internal_errors(false);
    subscriber.try_init().map_err(|error| Failure::new(Exit::Unexpected, &*error))
}
