//! `export`: a BitNet file that runs here to one for bitnet.cpp. Needs no backend.

use std::{fmt, path::PathBuf};

use clap::Args;
use gguf_loader::{
    gguf::I2sLayout,
    import::{self, ImportError},
};
use serde::Serialize;

use crate::{failure::Failure, interrupt::Interrupt, loading, output::Output};

/// Write an imported or converted BitNet model with I2_S matrices, for bitnet.cpp, without loss
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader export bitnet.gguf ggml-model-i2_s.gguf
  gguf-loader export bitnet.gguf ggml-model-i2_s.gguf --layout arm

The undoing of `import`. Nothing in an I2_S file tells bitnet.cpp in which order the codes stand: it reads the order of \
the processor that it was built for.")]
pub(crate) struct Export {
    /// The model: a GGUF file, or the first part of a split one
    input: PathBuf,
    /// The file to write; one that exists is replaced
    output: PathBuf,
    /// The order of the codes: x86, arm, rows4 or sequential
    #[arg(long, default_value_t = I2sLayout::X86, value_parser = layout)]
    layout: I2sLayout,
}

#[derive(Debug, Serialize)]
struct Report {
    output: PathBuf,
    layout: I2sLayout,
    matrices: u64,
}

impl Export {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        const STEPS: u64 = 1000;
        const NOTHING: &str = "I2_S is for matrices in TQ1_0, TQ2_0 or Q2_0, or ternary floats; `gguf-loader inspect --tensors` \
                               shows what the file has";
        let Self { input, output: target, layout } = self;
        let interrupt = Interrupt::install()?;
        let bar = loading::progress_bar(output, STEPS, "exporting {bar:40} {percent:>3} % (eta {eta})");
        let report = import::export(&input, &target, layout, |fraction| {
            bar.set_position((f64::from(fraction) * STEPS as f64) as u64);
            interrupt.flow()
        });
        bar.finish_and_clear();
        let report = report.map_err(|error| {
            let is_nothing = matches!(error, ImportError::NotNeeded { .. });
            let failure = Failure::from(error);
            if is_nothing { failure.with_help(NOTHING) } else { failure }
        })?;
        output.result(&Report { output: target, layout, matrices: report.matrices })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} I2_S matrices, layout {}", self.output.display(), self.matrices, self.layout)
    }
}

fn layout(name: &str) -> Result<I2sLayout, String> {
    I2sLayout::from_name(name).ok_or_else(|| format!("`{name}` is none of x86, arm, rows4, sequential"))
}
