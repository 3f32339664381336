//! `inspect`: what a model file holds. Needs no backend.

use std::{num::NonZeroU32, path::PathBuf};

use clap::Args;
use gguf_loader::gguf::{Gguf, MemoryEstimate, Metadata, Part, Quantization, TensorInfo};
use serde::Serialize;

use crate::{failure::Failure, output::Output};

mod text;

/// Show what a model file holds: keys, how the weights are stored, the memory that it takes to run
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader inspect model.gguf
  gguf-loader inspect model.gguf --tensors
  gguf-loader inspect model.gguf --json | jq '.quantization.bits_per_weight'

Any valid GGUF file will do: vocabularies, adapters, architectures that no backend runs. The text shortens \
long values; --json has them in full.")]
pub(crate) struct Inspect {
    /// The model: a GGUF file, or the first part of a split one
    model: PathBuf,
    /// List the tensors
    #[arg(long)]
    tensors: bool,
    /// Estimate the memory for this many tokens of context [default: what the model was trained for, at most 4096]
    #[arg(long, value_name = "N")]
    ctx: Option<NonZeroU32>,
}

impl Inspect {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        let gguf = Gguf::open(&self.model)?;
        let report = Report {
            architecture: gguf.architecture().ok(),
            version: gguf.version(),
            alignment: gguf.alignment(),
            parts: gguf.parts(),
            metadata: gguf.metadata(),
            quantization: gguf.quantization(),
            memory: self.memory(&gguf),
            tensors: self.tensors.then(|| gguf.tensors()),
        };
        output.result(&report)
    }

    /// `None` for a file that cannot be run: no weights, or not a model.
    fn memory(&self, gguf: &Gguf) -> Option<Memory> {
        /// The length of a context that nobody named.
        const LENGTH: u32 = 4096;
        let profile = gguf.profile().ok().filter(|profile| !profile.vocabulary_only)?;
        let context = self.ctx.map_or(profile.n_ctx_train.min(LENGTH), NonZeroU32::get);
        let estimate = gguf.memory(context, 1);
        Some(Memory { context, estimate, total: estimate.total() })
    }
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    architecture: Option<&'a str>,
    version: u32,
    alignment: u64,
    parts: &'a [Part],
    metadata: &'a Metadata,
    quantization: Quantization,
    memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<&'a [TensorInfo]>,
}

/// What it takes to run one conversation.
#[derive(Debug, Serialize)]
struct Memory {
    /// Tokens of context.
    context: u32,
    #[serde(flatten)]
    estimate: MemoryEstimate,
    total: u64,
}
