//! `gguf-loader`: the library on the command line.
//!
//! Each command is one file under `commands` and does one thing with the public API: it reads its arguments, calls the
//! library, and hands a report to [`output::Output`]. What can go wrong becomes a [`failure::Failure`].
//!
//! * Results go to stdout, everything else to stderr. When the reader of stdout goes away, the program ends quietly.
//! * `--json` makes the result one JSON value on a line of its own. Errors stay text on stderr: a program reads the exit
//!   code, which is one of [`failure::Exit`], and shows the text to its user.
//! * Ctrl-C stops a load or a decode where it is; what was printed stays. A second Ctrl-C ends the program at once. At a terminal
//!   a conversation goes on after the first.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod context;
mod failure;
mod input;
mod interrupt;
mod loading;
mod log;
mod output;
mod sampling;
mod speech;
mod structure;
mod template;
mod timings;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser as _;
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    // Ends the program with `Exit::Usage` when the arguments make no sense.
    let cli = Cli::parse();
    let mut output = Output::new(cli.json, cli.quiet);
    match run(cli.command, &mut output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command, output: &mut Output) -> Result<(), Failure> {
    log::start(output.is_quiet())?;
    match command {
        Command::Run(command) => command.execute(output),
        Command::Chat(command) => command.execute(output),
        Command::Devices(command) => command.execute(output),
        Command::Select(command) => command.execute(output),
        Command::Inspect(command) => command.execute(output),
        Command::Import(command) => command.execute(output),
        Command::Export(command) => command.execute(output),
        Command::Convert(command) => command.execute(output),
        Command::MergeLora(command) => command.execute(output),
        Command::Merge(command) => command.execute(output),
        Command::Tokenize(command) => command.execute(output),
        Command::Detokenize(command) => command.execute(output),
        Command::Perplexity(command) => command.execute(output),
        Command::Embed(command) => command.execute(output),
        Command::Rerank(command) => command.execute(output),
        Command::Bench(command) => command.execute(output),
        Command::Knobs(command) => command.execute(output),
        Command::Completions(command) => command.execute(output),
    }
}
