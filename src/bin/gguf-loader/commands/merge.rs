//! `merge` and `merge-lora`: new models out of old ones. They need no backend.

use std::{fmt, path::PathBuf};

use clap::Args;
use gguf_loader::merge::{MergeReport, merge_lora, merge_models};
use serde::Serialize;

use crate::{context::Scaled, failure::Failure, interrupt::Interrupt, loading, output::Output};

/// Write a model with LoRA adapters' changes in its weights
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader merge-lora model.gguf pirate-model.gguf --lora pirate.gguf
  gguf-loader merge-lora model.gguf out.gguf --lora pirate.gguf=0.8 --lora poet.gguf=0.5

Weights in F32, F16, BF16, Q8_0 and Q6_K keep their type; changed weights in Q4_0, Q4_1, Q5_0, Q5_1, Q4_K and Q5_K become \
Q8_0, and those in other types cannot be changed. `run --lora` applies adapters without a new file.")]
pub(crate) struct MergeLora {
    /// The model: a GGUF file, or the first part of a split one
    model: PathBuf,
    /// The file to write; one that exists is replaced
    output: PathBuf,
    /// An adapter in GGUF, with a scale [default: 1]; may be given again
    #[arg(long, required = true, value_name = "FILE[=SCALE]")]
    lora: Vec<Scaled>,
}

/// Write a mixture of two models of the same shape
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader merge one.gguf other.gguf both.gguf
  gguf-loader merge one.gguf other.gguf mostly-one.gguf --ratio 0.2

Each weight is (1 - ratio) times that of the first model and ratio times that of the second; keys and tokenizer are the \
first one's, and so are the types, as in merge-lora. Below 0 and above 1 a ratio leads away from one of them.")]
pub(crate) struct Merge {
    /// A model: a GGUF file, or the first part of a split one
    one: PathBuf,
    /// A model with the same tensors
    other: PathBuf,
    /// The file to write; one that exists is replaced
    output: PathBuf,
    /// The share of the second model
    #[arg(long, default_value_t = 0.5, value_name = "R", allow_negative_numbers = true)]
    ratio: f32,
}

#[derive(Debug, Serialize)]
struct Report {
    output: PathBuf,
    #[serde(flatten)]
    report: MergeReport,
}

impl MergeLora {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        let adapters: Vec<_> = self.lora.iter().map(|adapter| (&adapter.file, adapter.scale)).collect();
        let interrupt = Interrupt::install()?;
        let bar = loading::fraction_bar(output, "merging {bar:40} {percent:>3} % (eta {eta})");
        let report = merge_lora(&self.model, &adapters, &self.output, |fraction| {
            loading::show(&bar, fraction);
            interrupt.flow()
        });
        bar.finish_and_clear();
        output.result(&Report { output: self.output, report: report? })
    }
}

impl Merge {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        let interrupt = Interrupt::install()?;
        let bar = loading::fraction_bar(output, "merging {bar:40} {percent:>3} % (eta {eta})");
        let report = merge_models(&self.one, &self.other, self.ratio, &self.output, |fraction| {
            loading::show(&bar, fraction);
            interrupt.flow()
        });
        bar.finish_and_clear();
        output.result(&Report { output: self.output, report: report? })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MergeReport { changed, as_q8_0, .. } = self.report;
        write!(formatter, "{}: {changed} tensors changed", self.output.display())?;
        match as_q8_0 {
            0 => Ok(()),
            count => write!(formatter, ", {count} of them stored as Q8_0"),
        }
    }
}
