//! `perplexity`: how surprised a model is by a text.

use std::{fmt, num::NonZeroU32, path::PathBuf};

use clap::Args;
use gguf_loader::{
    backend::TokenizeOptions,
    perplexity::{self, perplexity},
};
use serde::Serialize;

use crate::{
    args::{self, BackendArgs, ThreadArgs},
    failure::Failure,
    input::Source,
    interrupt::Interrupt,
    loading,
    output::Output,
};

/// Measure the perplexity of a text, as llama.cpp's llama-perplexity does
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader perplexity model.gguf --file wiki.test.raw
  gguf-loader perplexity model.gguf --file text.txt --ctx 256 --json

The text is cut into chunks of the context length; the second half of each chunk counts. A text of fewer \
tokens than two contexts is an error (exit code 7).")]
pub(crate) struct Perplexity {
    /// The model: a GGUF file, or the first part of a split one
    model: PathBuf,
    /// The text; - is stdin
    #[arg(long, short, value_name = "FILE")]
    file: Source,
    /// Tokens of a chunk
    #[arg(long, value_name = "N", default_value = "512")]
    ctx: NonZeroU32,
    #[command(flatten)]
    backend: BackendArgs,
    #[command(flatten)]
    threads: ThreadArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    /// Asked of the running engine itself.
    backend: String,
    context: u32,
    #[serde(flatten)]
    perplexity: perplexity::Perplexity,
}

impl Perplexity {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        let text = self.file.read_text()?;
        let knobs = args::knobs(self.backend.backend.as_ref(), self.threads.threads);
        let load_options = args::load_options(&knobs)?;
        let interrupt = Interrupt::install()?;
        let model = loading::load(&self.model, &load_options, &interrupt, output)?;
        output.note(model.selection().explain());
        let tokens = model.tokenizer()?.tokenize(&text, TokenizeOptions::default())?;
        let mut context = loading::open_context(&model, Some(self.ctx), &interrupt)?;

        let length = context.limits().context;
        let chunks = tokens.len() as u64 / u64::from(length);
        let bar = loading::progress_bar(output, chunks, "chunk {pos} of {len} {bar:40} {msg} (eta {eta})");
        let result = perplexity(&mut context, &tokens, |so_far, _| {
            bar.set_position(so_far.chunks);
            bar.set_message(format!("{:.4}", so_far.value));
            interrupt.flow()
        });
        bar.finish_and_clear();
        output.result(&Report { backend: context.executed_by(), context: length, perplexity: result? })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let perplexity::Perplexity { value, standard_error, tokens, chunks } = self.perplexity;
        write!(
            formatter,
            "perplexity: {value:.4} ± {standard_error:.4} ({tokens} tokens counted in {chunks} chunks of {})",
            self.context
        )
    }
}
