//! The log of the library and of llama.cpp, on stderr.

use std::io::{self, IsTerminal as _};

use gguf_loader::knobs::{self, Knobs};
use tracing_subscriber::EnvFilter;

use crate::failure::{Exit, Failure};

/// Starts the log with the filter that the environment asks for. Where it asks for none, `quiet` leaves errors only.
pub(crate) fn start(quiet: bool) -> Result<(), Failure> {
    let knobs = Knobs::from_environment();
    let filter = if quiet && knobs.value(&knobs::LOG).is_none() { "error".to_owned() } else { knobs.log()? };
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
