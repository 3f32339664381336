//! `import`: a BitNet file for bitnet.cpp to one that runs here. Needs no backend.

use std::{fmt, path::PathBuf};

use clap::Args;
use gguf_loader::import::{self, Evidence, ImportOptions, Layout, OutputMatrix};
use serde::Serialize;

use crate::{failure::Failure, interrupt::Interrupt, loading, output::Output};

/// Write a BitNet model with I2_S matrices in a form that runs here, without loss
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader import ggml-model-i2_s.gguf bitnet.gguf
  gguf-loader import ggml-model-i2_s.gguf bitnet.gguf --output-matrix q6_k
  gguf-loader import converted-on-a-mac.gguf bitnet.gguf --layout arm

Not needed to run a model: the other commands import by themselves, into the cache. I2_S files do not say in \
which order their codes stand; when an imported model writes nonsense, force another layout.")]
pub(crate) struct Import {
    /// The model: a GGUF file, or the first part of a split one
    input: PathBuf,
    /// The file to write; one that exists is replaced
    output: PathBuf,
    /// How to store the output matrix: keep, q8_0 or q6_k. Where it is tied, the embeddings are meant
    #[arg(long, value_name = "TYPE", default_value_t)]
    output_matrix: OutputMatrix,
    /// The order of the codes: auto, x86, arm, rows4 or sequential
    #[arg(long, value_name = "LAYOUT", default_value_t)]
    layout: Layout,
}

#[derive(Debug, Serialize)]
struct Report {
    output: PathBuf,
    #[serde(flatten)]
    report: import::Report,
}

impl Import {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        const STEPS: u64 = 1000;
        let Self { input, output: target, output_matrix, layout } = self;
        let interrupt = Interrupt::install()?;
        let options = ImportOptions::default().with_layout(layout).with_output_matrix(output_matrix);
        let bar = loading::progress_bar(output, STEPS, "importing {bar:40} {percent:>3} % (eta {eta})");
        let report = import::import(&input, &target, &options, |fraction| {
            bar.set_position((f64::from(fraction) * STEPS as f64) as u64);
            interrupt.flow()
        });
        bar.finish_and_clear();
        output.result(&Report { output: target, report: report? })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let import::Report { matrices, layout, evidence, output_matrix, bytes_read, bytes_written, .. } = &self.report;
        writeln!(formatter, "{}: {matrices} ternary matrices", self.output.display())?;
        if let (Some(layout), Some(evidence)) = (layout, evidence) {
            let evidence = match evidence {
                Evidence::Forced => "as asked for",
                Evidence::Known => "known from the file",
                _ => "assumed: the file does not say",
            };
            writeln!(formatter, "layout: {layout}, {evidence}")?;
        }
        if let Some(output_matrix) = output_matrix {
            writeln!(formatter, "output matrix: {output_matrix}")?;
        }
        write!(formatter, "{:.1} MB of tensors became {:.1} MB", *bytes_read as f64 / 1e6, *bytes_written as f64 / 1e6)
    }
}
