//! `select`: which backend would run a model, and why not the others.

use std::path::PathBuf;

use clap::Args;
use gguf_loader::{gguf::Gguf, hardware::Hardware, select::choose};

use crate::{
    args::{self, BackendArgs},
    failure::Failure,
    output::Output,
};

/// Show which backend would run a model, how fast each is predicted to be, and why the others cannot
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader select model.gguf
  gguf-loader select model.gguf --backend '!cpu-zen4'
  gguf-loader select model.gguf --json | jq -r .winner

GGUF_LOADER_CALIBRATE=1 measures the backends first, and keeps the measurement for this machine. \
When nothing that is permitted can run the model, that is an error (exit code 4, 5 or 6).")]
pub(crate) struct Select {
    /// The model: a GGUF file, or the first part of a split one
    model: PathBuf,
    #[command(flatten)]
    backend: BackendArgs,
}

impl Select {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        let options = args::knobs(self.backend.backend.as_ref(), None).choose_options()?;
        let profile = Gguf::open(&self.model)?.profile()?;
        output.result(&choose(&Hardware::detect(), &profile, &options)?)
    }
}
