//! `embed`: texts to vectors.

use std::{fmt, num::NonZeroU32, path::PathBuf};

use clap::{Args, ValueEnum};
use gguf_loader::{
    backend::Pooling,
    embedding::{EmbedError, EmbedOptions, Embedding, Normalisation, Overflow},
};
use serde::Serialize;

use crate::{
    args::{self, BackendArgs, ThreadArgs},
    failure::{Exit, Failure},
    input::Source,
    interrupt::Interrupt,
    loading,
    output::Output,
};

/// Turn texts into vectors, one line of numbers for each
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader embed minilm.gguf --text 'A man is eating.' --text 'Someone has a meal.'
  gguf-loader embed minilm.gguf --file sentences.txt --json
  gguf-loader embed llama.gguf --pooling last --text 'any model will do'

Vectors come in the order of the texts, one for each line of a file, and have length 1. A text that is too long is an error (exit code 7) \
unless --truncate is given; a model that names no pooling is one (exit code 4) without --pooling.")]
pub(crate) struct Embed {
    /// The model: a GGUF file, or the first part of a split one
    model: PathBuf,
    #[command(flatten)]
    texts: TextArgs,
    /// How a text's tokens become its vector [default: what the model's file says]
    #[arg(long, value_name = "HOW")]
    pooling: Option<PoolingArg>,
    /// Write the vectors as the model gives them, not of length 1
    #[arg(long)]
    no_normalise: bool,
    #[command(flatten)]
    length: LengthArgs,
    #[command(flatten)]
    backend: BackendArgs,
    #[command(flatten)]
    threads: ThreadArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct TextArgs {
    /// A text; may be given several times
    #[arg(long, short = 'p', value_name = "TEXT")]
    text: Vec<String>,
    /// A file with a text on each line, an empty one too; - is stdin
    #[arg(long, short, value_name = "FILE")]
    file: Option<Source>,
}

/// What happens to long texts.
#[derive(Debug, Args)]
pub(crate) struct LengthArgs {
    /// Most tokens of a text [default: what the model was trained for, at most 512]
    #[arg(long, value_name = "N")]
    ctx: Option<NonZeroU32>,
    /// Leave out the end of a text that is longer
    #[arg(long)]
    truncate: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PoolingArg {
    Mean,
    Cls,
    Last,
}

impl LengthArgs {
    /// The options that `embed` and `rerank` share.
    pub(crate) fn options(&self, interrupt: &Interrupt) -> EmbedOptions {
        let overflow = if self.truncate { Overflow::Truncate } else { Overflow::Refuse };
        let mut options = EmbedOptions::default().with_overflow(overflow).with_cancel(interrupt.token());
        options.length = self.ctx;
        options
    }
}

/// The lines of a file, empty ones too: a result belongs to the line whose number it has.
pub(crate) fn lines(source: &Source) -> Result<Vec<String>, Failure> {
    let text = source.read_text()?;
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    match lines.is_empty() {
        true => Err(Failure::message(Exit::Input, format!("{source} has no text"))),
        false => Ok(lines),
    }
}

/// Names the line that the text at fault is on, where the texts came from a file.
pub(crate) fn at_line(error: EmbedError, file: Option<&Source>) -> Failure {
    let index = match error {
        EmbedError::Empty { index } | EmbedError::TooLong { index, .. } | EmbedError::NotANumber { index } => {
            Some(index)
        }
        _ => None,
    };
    let failure = Failure::from(error);
    match (file, index) {
        (Some(file), Some(index)) => failure.with_headline(format!("cannot read line {} of {file}", index + 1)),
        _ => failure,
    }
}

#[derive(Debug, Serialize)]
struct Report {
    /// Asked of the running engine itself.
    backend: String,
    pooling: Pooling,
    dimensions: usize,
    embeddings: Vec<Embedding>,
}

impl Embed {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        let texts = match &self.texts.file {
            Some(source) => lines(source)?,
            None => self.texts.text,
        };
        let knobs = args::knobs(self.backend.backend.as_ref(), self.threads.threads);
        let load_options = args::load_options(&knobs)?;
        let interrupt = Interrupt::install()?;
        let model = loading::load(&self.model, &load_options, &interrupt, output)?;
        output.note(model.selection().explain());
        model.tokenizer()?;
        let mut options = self.length.options(&interrupt);
        options.pooling = self.pooling.map(|pooling| match pooling {
            PoolingArg::Mean => Pooling::Mean,
            PoolingArg::Cls => Pooling::Cls,
            PoolingArg::Last => Pooling::Last,
        });
        if self.no_normalise {
            options.normalisation = Normalisation::None;
        }
        let mut embedder = model.embedder(&options)?;
        let embeddings = embedder.embed_all(&texts).map_err(|error| at_line(error, self.texts.file.as_ref()))?;
        output.result(&Report {
            backend: embedder.executed_by(),
            pooling: embedder.pooling(),
            dimensions: embedder.dimensions(),
            embeddings,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for embedding in &self.embeddings {
            let numbers: Vec<String> = embedding.vector.iter().map(f32::to_string).collect();
            writeln!(formatter, "{}", numbers.join(" "))?;
        }
        Ok(())
    }
}
