//! BitNet files that no engine reads as they are, made into files that run.
//!
//! bitnet.cpp stores ternary matrices as I2_S, a form that upstream ggml does not have. [`import`] writes the same
//! model with the same keys and names, its matrices as TQ2_0 (or as Q2_0 where a row does not fit blocks of 256), and
//! the scale of each as an F32 tensor of one element beside it:
//!
//! ```text
//! blk.3.attn_q.weight  I2_S     ->  blk.3.attn_q.weight  TQ2_0, every block scale 1.0
//!   codes, scale                    blk.3.attn_q.scale   F32, one element
//! ```
//!
//! Nothing is lost: the codes and the scale are the same, bit for bit, and [`export`] writes the I2_S file again.
//! Matrices that are ternary but stored as floats (F32, F16, BF16), as bitnet.cpp's own converter writes them first,
//! are imported and exported too. Where a matrix with a scale of its own has one beside it too, the product of both
//! is kept, or nothing is written if F32 does not hold that.
//!
//! [`Model::load`](crate::Model::load) imports by itself, into a [`Cache`].
//!
//! # Which order the codes have
//!
//! I2_S files do not say in which of four orders their codes stand ([`I2sLayout`]), and every
//! order gives valid weights. [`Layout::Auto`] knows the files that Microsoft publishes and those that [`export`] wrote;
//! for others it assumes, logs a warning, and says so in [`Report::evidence`]. When a model writes nonsense, that is
//! the first thing to force.
#![forbid(unsafe_code)]

mod cache;
mod digest;
mod error;
mod layout;
mod matrix;
mod output_matrix;
mod plan;
mod watch;

use std::{ops::ControlFlow, path::Path};

use crate::gguf::{Gguf, I2sLayout, Part, TensorType};

pub use cache::{Cache, Imported};
pub use error::{CacheError, ImportError};
pub use layout::{Evidence, Layout, UnknownLayout};
pub use output_matrix::{OutputMatrix, UnknownOutputMatrix};

use plan::Plan;

/// How to import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct ImportOptions {
    /// The order of the codes in I2_S matrices.
    pub layout: Layout,
    /// How the output matrix is stored.
    pub output_matrix: OutputMatrix,
}

impl ImportOptions {
    /// Sets the order of the codes.
    pub fn with_layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// Sets how the output matrix is stored.
    pub fn with_output_matrix(mut self, output_matrix: OutputMatrix) -> Self {
        self.output_matrix = output_matrix;
        self
    }
}

/// What an import or export did.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// Matrices that were transcoded.
    pub matrices: u64,
    /// The order of the codes that was read from I2_S matrices; `None` when there were none.
    pub layout: Option<I2sLayout>,
    /// Where that order is known from.
    pub evidence: Option<Evidence>,
    /// Name of the output matrix's type, e.g. `F16`; `None` in a file without one.
    pub output_matrix: Option<String>,
    /// Bytes of tensors that were read.
    pub bytes_read: u64,
    /// Bytes of tensors that were written.
    pub bytes_written: u64,
}

/// Whether a file must be imported before an engine can run it.
pub fn is_needed(gguf: &Gguf) -> bool {
    gguf.tensors().iter().any(|tensor| tensor.tensor_type == TensorType::I2_S)
}

/// Writes the model `input` to `output` in a form that engines run. Streams: memory does not grow with the model.
///
/// `progress` gets the fraction done, from 0 to 1; when it breaks, the import ends with [`ImportError::Cancelled`].
/// `output` appears when it is complete.
///
/// # Errors
///
/// [`ImportError`]; then `input` is untouched, and of the output nothing is left.
pub fn import(
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    options: &ImportOptions,
    mut progress: impl FnMut(f32) -> ControlFlow<()>,
) -> Result<Report, ImportError> {
    let input = input.as_ref();
    let plan = Plan::import(&Gguf::open(input)?, options, &mut progress)?;
    let report = plan.write_file(output.as_ref(), &mut progress)?;
    warn_if_assumed(input, &report);
    Ok(report)
}

/// The inverse of [`import`]: writes `input` with its ternary matrices as I2_S, for bitnet.cpp.
///
/// The layout must be the one that the reader expects: [`I2sLayout::X86`] for most. It is noted in the file, so that
/// [`Layout::Auto`] knows it.
///
/// # Errors
///
/// As [`import`].
pub fn export(
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    layout: I2sLayout,
    mut progress: impl FnMut(f32) -> ControlFlow<()>,
) -> Result<Report, ImportError> {
    Plan::export(&Gguf::open(input)?, layout, &mut progress)?.write_file(output.as_ref(), &mut progress)
}

/// Fails when a file is not the one any more that was opened.
fn unchanged(parts: &[Part]) -> Result<(), ImportError> {
    match parts.iter().find(|part| !part.is_unchanged()) {
        None => Ok(()),
        Some(part) => Err(ImportError::Changed { path: part.path.clone() }),
    }
}

/// Another layout would have given a valid model too, one that writes nonsense.
fn warn_if_assumed(path: &Path, report: &Report) {
    if let (Some(layout), Some(Evidence::Assumed)) = (report.layout, report.evidence) {
        let path = path.display();
        tracing::warn!(%path, %layout, "the file does not say in which layout its I2_S matrices are: one was assumed");
    }
}
