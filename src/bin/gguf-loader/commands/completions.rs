//! `completions`: scripts that complete the arguments in a shell.

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};
use serde::Serialize;

use crate::{args::Cli, failure::Failure, output::Output};

/// Write a script that completes commands and options in a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader completions bash > ~/.local/share/bash-completion/completions/gguf-loader
  gguf-loader completions fish > ~/.config/fish/completions/gguf-loader.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Serialize)]
struct Report {
    shell: String,
    script: String,
}

impl Completions {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        // Into memory: `generate` panics when a writer fails.
        let mut script = Vec::new();
        generate(self.shell, &mut Cli::command(), "gguf-loader", &mut script);
        if output.is_json() {
            let script = String::from_utf8_lossy(&script).into_owned();
            return output.json_line(&Report { shell: self.shell.to_string(), script });
        }
        output.bytes(&script)
    }
}
