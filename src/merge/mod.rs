//! New models out of old ones: an adapter's changes, or another model's weights, written into a file.
//!
//! Both stream: one tensor is in memory at a time. A weight keeps its type where this program writes that type as ggml does (F32,
//! F16, BF16, Q8_0, Q6_K); from Q4_0, Q4_1, Q5_0, Q5_1, Q4_K and Q5_K, changed weights become Q8_0, and [`MergeReport`] says how
//! many. Weights in other types, among them ternary ones, which a change would make something else, cannot be changed.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! use gguf_loader::merge::{merge_lora, merge_models};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let go_on = |_| ControlFlow::Continue(());
//! merge_lora("model.gguf", &[("pirate.gguf", 0.8)], "pirate-model.gguf", go_on)?;
//! merge_models("one.gguf", "other.gguf", 0.5, "both.gguf", go_on)?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod alike;
mod error;
mod output;
mod weights;

use std::{ops::ControlFlow, path::Path, sync::Arc};

pub use error::MergeError;

use crate::{
    adapter::LoraFile,
    gguf::{Gguf, ternary::scale::is_scale},
};
use output::Output;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct MergeReport {
    /// Tensors that were changed.
    pub changed: usize,
    /// Those of them that were stored in another type than before: Q8_0.
    pub as_q8_0: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
}

/// Writes `model` with LoRA adapters' changes in its weights, each with a scale, to `output`, which appears when it is complete.
///
/// `progress` gets the fraction done, from 0 to 1; when it breaks, the merge ends with [`MergeError::Cancelled`].
///
/// # Errors
///
/// [`MergeError`]; then nothing is left of the output.
pub fn merge_lora<P: AsRef<Path>>(
    model: impl AsRef<Path>,
    adapters: &[(P, f32)],
    output: impl AsRef<Path>,
    progress: impl FnMut(f32) -> ControlFlow<()>,
) -> Result<MergeReport, MergeError> {
    let gguf = Arc::new(Gguf::open(model)?);
    let mut loras = Vec::new();
    for (path, scale) in adapters {
        if !scale.is_finite() {
            return Err(MergeError::Ratio(*scale));
        }
        loras.push((LoraFile::open(path.as_ref(), &gguf)?, *scale));
    }
    let loras = Arc::new(loras);
    let mut merged = Output::new(&gguf);
    loras.iter().for_each(|(lora, _)| merged.read_too(&lora.file));
    for index in 0..gguf.tensors().len() {
        let name = &gguf.tensors()[index].name;
        if loras.iter().any(|(lora, _)| lora.file.tensor(&format!("{name}.lora_a")).is_some()) {
            let loras = Arc::clone(&loras);
            // An adapter's product is added to what an engine has multiplied with the scale.
            let unit = weights::scale_beside(&gguf, &gguf.tensors()[index])?;
            merged.change(index, move |tensor, weights| {
                loras.iter().try_for_each(|(lora, scale)| weights::add_lora(lora, scale / unit, tensor, weights))
            })?;
        } else {
            merged.copy(index)?;
        }
    }
    merged.write(output.as_ref(), progress)
}

/// Writes `1 - ratio` times the weights of `one` and `ratio` times those of `other` to `output`. The keys, and so the tokenizer,
/// are those of `one`; the models must be alike in what their weights mean: hyperparameters, and the texts of tokens.
///
/// # Errors
///
/// As [`merge_lora`].
pub fn merge_models(
    one: impl AsRef<Path>,
    other: impl AsRef<Path>,
    ratio: f32,
    output: impl AsRef<Path>,
    progress: impl FnMut(f32) -> ControlFlow<()>,
) -> Result<MergeReport, MergeError> {
    if !ratio.is_finite() {
        return Err(MergeError::Ratio(ratio));
    }
    let (one, other) = (Arc::new(Gguf::open(one)?), Arc::new(Gguf::open(other)?));
    alike::check(&one, &other)?;
    let mut merged = Output::new(&one);
    merged.read_too(&other);
    for (index, tensor) in one.tensors().iter().enumerate() {
        if is_scale(&one, tensor) {
            // What a weight stands for is its product with the scale: that is what is mixed, and the scale stays.
            merged.copy(index)?;
            continue;
        }
        let (other, scale) = (Arc::clone(&other), weights::scale_beside(&one, tensor)?);
        merged.change(index, move |tensor, weights| weights::blend(&other, ratio, scale, tensor, weights))?;
    }
    merged.write(output.as_ref(), progress)
}
