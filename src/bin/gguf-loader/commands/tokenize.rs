//! `tokenize`: text to token ids.

use std::path::PathBuf;

use clap::Args;
use gguf_loader::{backend::TokenizeOptions, tokenizer::Tokenizer};

use crate::{failure::Failure, input::Source, output::Output};

/// Turn the text on stdin into one JSON array of token ids
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  printf 'Hello world' | gguf-loader tokenize model.gguf
  printf '<|im_start|>' | gguf-loader tokenize model.gguf --no-bos --no-parse-special

Stdin is taken byte for byte: a line break at its end counts. Files that hold only a vocabulary will do. \
Text that is not UTF-8 is an error (exit code 7) that names the byte.")]
pub(crate) struct Tokenize {
    /// The model, or a file with only its vocabulary
    model: PathBuf,
    /// Do not add the tokens that the model wants before and after a text (BOS, EOS)
    #[arg(long)]
    no_bos: bool,
    /// Read the text of special tokens as ordinary text
    #[arg(long)]
    no_parse_special: bool,
}

impl Tokenize {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        let tokenizer = Tokenizer::load(&self.model)?;
        let text = Source::Stdin.read_text()?;
        let options = TokenizeOptions { add_special: !self.no_bos, parse_special: !self.no_parse_special };
        output.json_line(&tokenizer.tokenize(&text, options)?)
    }
}
