//! The arguments: the commands, and the options that several of them share.

use std::{ffi::OsString, num::NonZeroU32};

use clap::{Args, Parser, Subcommand};
use gguf_loader::{
    knobs::{self, KnobError, Knobs},
    model::LoadOptions,
    select::Policy,
};

use crate::commands::{
    bench::Bench,
    chat::Chat,
    completions::Completions,
    convert::Convert,
    detokenize::Detokenize,
    devices::Devices,
    embed::Embed,
    export::Export,
    import::Import,
    inspect::Inspect,
    knobs::KnobsTable,
    merge::{Merge, MergeLora},
    perplexity::Perplexity,
    rerank::Rerank,
    run::Run,
    select::Select,
    tokenize::Tokenize,
};

/// The codes of [`Exit`](crate::failure::Exit), for people.
const EXIT_CODES: &str = "\
Exit codes:
    0  success, also when the reader of stdout closed it
    1  unexpected failure
    2  usage: an argument or an environment variable makes no sense
    3  file: missing, unreadable, a folder, no GGUF, truncated, damaged, cannot be written
    4  model: architecture or tensor type not supported, no weights, no tokenizer
    5  backend: not known, not compiled in, not usable on this machine, denied
    6  memory: the weights or the context do not fit
    7  input: not UTF-8, empty, longer than the context, too short to measure, no token of the model
    8  bench --assert: the automatic choice is not the fastest
  130  interrupted by Ctrl-C

Errors are text on stderr, with --json too; stdout then has no result.";

const EXAMPLES: &str = "\
Examples:
  gguf-loader run model.gguf --prompt 'The capital of France is' --max-tokens 32
  gguf-loader chat model.gguf
  gguf-loader devices
  gguf-loader select model.gguf --json
  gguf-loader bench model.gguf --backend all --assert
  gguf-loader completions bash > ~/.local/share/bash-completion/completions/gguf-loader";

/// Loads GGUF models and runs them with the fastest code that this machine can execute.
#[derive(Debug, Parser)]
#[command(
    name = "gguf-loader",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}")
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Write the result as one JSON value on a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Write nothing but errors to stderr
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<Run>),
    Chat(Box<Chat>),
    Devices(Devices),
    Select(Select),
    Inspect(Inspect),
    Import(Import),
    Export(Export),
    Convert(Convert),
    MergeLora(MergeLora),
    Merge(Merge),
    Tokenize(Tokenize),
    Detokenize(Detokenize),
    Perplexity(Perplexity),
    Embed(Embed),
    Rerank(Rerank),
    Bench(Bench),
    Knobs(KnobsTable),
    Completions(Completions),
}

/// Which backend runs the model.
#[derive(Debug, Args)]
pub(crate) struct BackendArgs {
    /// Which backends may run: auto, ID, ID,ID (the first that can) or !ID,!ID (all others); wins over
    /// GGUF_LOADER_BACKEND
    #[arg(long, value_name = "POLICY")]
    pub(crate) backend: Option<Policy>,
}

/// How many threads compute.
#[derive(Debug, Args)]
pub(crate) struct ThreadArgs {
    /// Compute threads, at least 1; wins over GGUF_LOADER_THREADS [default: the physical cores that may be used]
    #[arg(long, short, value_name = "N")]
    pub(crate) threads: Option<NonZeroU32>,
}

/// The knobs of the environment, where an argument that was given stands in the place of its variable.
pub(crate) fn knobs(backend: Option<&Policy>, threads: Option<NonZeroU32>) -> Knobs {
    let given = |name: &str| {
        let text = match name {
            _ if name == knobs::BACKEND.name => backend?.to_string(),
            _ if name == knobs::THREADS.name => threads?.to_string(),
            _ => return None,
        };
        Some(OsString::from(text))
    };
    Knobs::from_source(|name| given(name).or_else(|| std::env::var_os(name)))
}

/// How to load a model as those knobs say: the backends that may run it, and the threads of its contexts.
pub(crate) fn load_options(knobs: &Knobs) -> Result<LoadOptions, KnobError> {
    let mut options = LoadOptions::default().with_choose(knobs.choose_options()?);
    options.threads = knobs.threads()?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn definition_of_the_arguments_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_stand_in_the_place_of_their_variables() {
        let knobs = knobs(Some(&Policy::Named("reference".into())), NonZeroU32::new(3));
        assert_eq!(knobs.backend().unwrap(), Policy::Named("reference".into()));
        assert_eq!(knobs.threads().unwrap(), NonZeroU32::new(3));
    }
}
