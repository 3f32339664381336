//! `convert`: a BitNet checkpoint to a GGUF file. Needs no backend.

use std::{fmt, path::PathBuf};

use clap::Args;
use gguf_loader::convert::{self, ConvertOptions, Embedding, Weights};
use serde::Serialize;

use crate::{failure::Failure, interrupt::Interrupt, loading, output::Output};

/// Write a BitNet checkpoint, as Hugging Face stores it, as a GGUF file
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader convert bitnet-b1.58-2B-4T bitnet.gguf
  gguf-loader convert bitnet-b1.58-2B-4T-bf16 bitnet.gguf --embedding bf16

The folder holds config.json, tokenizer.json and model.safetensors (or its shards with their index); packed weights \
and master weights will both do. The codes and scales of the file are those that the model computes with when it \
runs in transformers.")]
pub(crate) struct Convert {
    /// The folder of the checkpoint
    folder: PathBuf,
    /// The file to write; one that exists is replaced
    output: PathBuf,
    /// How to store the embedding, and the output matrix where there is one beside it: f16, bf16 or f32
    #[arg(long, value_name = "TYPE", default_value_t)]
    embedding: Embedding,
}

#[derive(Debug, Serialize)]
struct Report {
    output: PathBuf,
    #[serde(flatten)]
    report: convert::Report,
}

impl Convert {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        const STEPS: u64 = 1000;
        let Self { folder, output: target, embedding } = self;
        let interrupt = Interrupt::install()?;
        let options = ConvertOptions::default().with_embedding(embedding);
        let bar = loading::progress_bar(output, STEPS, "converting {bar:40} {percent:>3} % (eta {eta})");
        let report = convert::convert(&folder, &target, &options, |fraction| {
            bar.set_position((f64::from(fraction) * STEPS as f64) as u64);
            interrupt.flow()
        });
        bar.finish_and_clear();
        output.result(&Report { output: target, report: report? })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let convert::Report { architecture, weights, matrices, tokens, pre_tokenizer, chat_template, bytes, .. } =
            &self.report;
        let weights = match weights {
            Weights::Packed => "packed weights",
            _ => "master weights, rounded",
        };
        let template = if *chat_template { "with" } else { "without" };
        writeln!(formatter, "{}: {architecture}, {:.1} MB of tensors", self.output.display(), *bytes as f64 / 1e6)?;
        writeln!(formatter, "ternary matrices: {matrices}, from {weights}")?;
        write!(formatter, "tokenizer: {tokens} tokens, {pre_tokenizer}, {template} a chat template")
    }
}
