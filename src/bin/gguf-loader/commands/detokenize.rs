//! `detokenize`: token ids to bytes.

use std::path::PathBuf;

use clap::Args;
use gguf_loader::{backend::Token, tokenizer::Tokenizer};
use serde::Serialize;

use crate::{
    failure::{Exit, Failure},
    input::Source,
    output::Output,
};

/// Turn the token ids on stdin into their bytes, without a line break at the end
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  echo '[504, 3575, 282]' | gguf-loader detokenize model.gguf
  printf 'Hello' | gguf-loader tokenize model.gguf | gguf-loader detokenize model.gguf

Stdin is a JSON array, or ids between blanks. The bytes need not be UTF-8: tokens may be a part of a \
character. With --json the result is an object of the text, with U+FFFD for what is no UTF-8, and the bytes.")]
pub(crate) struct Detokenize {
    /// The model, or a file with only its vocabulary
    model: PathBuf,
    /// Write the text of control tokens too
    #[arg(long)]
    special: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    text: String,
    bytes: Vec<u8>,
}

impl Detokenize {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        let tokenizer = Tokenizer::load(&self.model)?;
        let tokens = parse(&Source::Stdin.read_text()?)?;
        let bytes = tokenizer.detokenize(&tokens, self.special)?;
        if output.is_json() {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            return output.json_line(&Report { text, bytes });
        }
        output.bytes(&bytes)
    }
}

fn parse(text: &str) -> Result<Vec<Token>, Failure> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(|error| {
            Failure::new(Exit::Input, &error).with_headline("stdin is not a JSON array of token ids")
        });
    }
    let parse = |word: &str| {
        word.parse().map_err(|error| {
            Failure::new(Exit::Input, &error).with_headline(format!("`{word}` on stdin is not a token id"))
        })
    };
    text.split_whitespace().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn ids_are_a_json_array_or_words() {
        for text in ["[1, 22,333]\n", "1 22\n333", " 1\t22 333 "] {
            assert_eq!(parse(text).unwrap(), [1, 22, 333], "{text}");
        }
        assert!(parse("").unwrap().is_empty());
        assert!(parse("[]").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_id_is_an_error() {
        for text in ["[1, -2]", "[1", "1 two", "-1", "4294967296", "1,2", "[1.5]"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
