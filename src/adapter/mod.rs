//! LoRA adapters and control vectors: small files that change what a model says.
//!
//! An adapter is checked against the model's own tensors before an engine sees it: one of another model is an error that names
//! the tensor. Each context has its own, with scales; several work at once.
//!
//! ```no_run
//! use gguf_loader::{Model, adapter::LoraAdapter, backend::ContextOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::load("model.gguf")?;
//! let pirate = LoraAdapter::load(&model, "pirate.gguf")?;
//! let mut context = model.context(&ContextOptions::default())?;
//! context.set_adapters(&[(&pirate, 0.8)])?;
//! println!("{}", context.complete("Good morning!")?.text);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod control;
mod error;
mod lora;

pub use control::ControlVector;
pub use error::AdapterError;
pub use lora::LoraAdapter;
pub(crate) use lora::LoraFile;

use std::{ops::RangeInclusive, path::Path, sync::Arc};

use crate::{
    backend::{AdapterEngineError, BackendAdapter, Directions, SequenceEdit},
    context::Context,
    gguf::{Fingerprint, Gguf, Value},
};

impl Context {
    /// Applies these adapters, each with a scale (1 as it was trained, 0 not at all), and no others; none takes all away. The scales
    /// of one that is named more than once add up.
    ///
    /// What the sequences hold was computed without them, or with others: it is forgotten.
    ///
    /// # Errors
    ///
    /// [`AdapterError`] when an adapter was loaded for another model, or the backend takes none.
    pub fn set_adapters(&mut self, adapters: &[(&LoraAdapter, f32)]) -> Result<(), AdapterError> {
        if let Some(&(_, scale)) = adapters.iter().find(|(_, scale)| !scale.is_finite()) {
            return Err(AdapterError::Scale(scale));
        }
        // An engine takes each one once.
        let mut loaded: Vec<(Arc<dyn BackendAdapter>, f32)> = Vec::new();
        for (adapter, scale) in adapters {
            let adapter = adapter.loaded();
            match loaded.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &adapter)) {
                Some((_, sum)) => *sum += scale,
                None => loaded.push((adapter, *scale)),
            }
        }
        let done = self.backend_mut().set_adapters(&loaded);
        match done {
            Ok(()) => self.applied_mut().set_adapters(adapters.iter().map(|(adapter, scale)| adapter.at_scale(*scale))),
            Err(AdapterEngineError::Refused { .. }) => self.applied_mut().set_adapters([]),
            Err(_) => {}
        }
        self.forget_after(done)
    }

    /// Adds control vectors, each with a scale, to the hidden state after these blocks (default: all that there are); none takes
    /// them away.
    ///
    /// What the sequences hold was computed without them, or with others: it is forgotten.
    ///
    /// # Errors
    ///
    /// [`AdapterError`] when a vector does not fit the model, or the backend takes none.
    pub fn set_control_vectors(
        &mut self,
        vectors: &[(&ControlVector, f32)],
        blocks: Option<RangeInclusive<u32>>,
    ) -> Result<(), AdapterError> {
        let shape = *self.model().shape();
        let last = shape.n_layer.saturating_sub(1);
        let blocks = blocks.unwrap_or(1..=last);
        if !vectors.is_empty() && (*blocks.start() < 1 || blocks.is_empty() || *blocks.end() > last) {
            return Err(AdapterError::Blocks { from: *blocks.start(), to: *blocks.end(), last });
        }
        let mut rows = vec![0.0; shape.n_embd as usize * last as usize];
        for (vector, scale) in vectors {
            if !scale.is_finite() {
                return Err(AdapterError::Scale(*scale));
            }
            vector.add_to(&mut rows, shape.n_embd, *scale)?;
        }
        let directions = Directions { rows, first: *blocks.start(), last: *blocks.end() };
        let directions = (!vectors.is_empty()).then_some(directions);
        let done = self.backend_mut().set_directions(directions.as_ref());
        match done {
            Ok(()) => self.applied_mut().set_directions(directions.as_ref().map(fingerprint)),
            Err(AdapterEngineError::Refused { .. }) => self.applied_mut().set_directions(None),
            Err(_) => {}
        }
        self.forget_after(done)
    }

    /// Empties the sequences, whose contents were computed with what was applied before a change.
    fn forget_after(&mut self, change: Result<(), AdapterEngineError>) -> Result<(), AdapterError> {
        if matches!(change, Ok(()) | Err(AdapterEngineError::Refused { .. })) {
            self.edit(SequenceEdit::Clear)?;
        }
        Ok(change?)
    }
}

fn fingerprint(directions: &Directions) -> Fingerprint {
    let blocks = [directions.first, directions.last].into_iter().flat_map(u32::to_le_bytes);
    let rows = directions.rows.iter().flat_map(|number| number.to_le_bytes());
    Fingerprint::of_bytes(&blocks.chain(rows).collect::<Vec<_>>())
}

/// A text among the keys; `None` when there is none, or it is no text.
fn text<'a>(file: &'a Gguf, key: &str) -> Option<&'a str> {
    file.metadata().get(key).and_then(Value::as_str)
}

/// Opens a file whose keys must have these texts.
fn open(path: &Path, expected: &'static str, keys: &[(&str, &str)]) -> Result<Gguf, AdapterError> {
    let file = Gguf::open(path)?;
    for (key, wanted) in keys {
        let found = text(&file, key);
        if found != Some(*wanted) {
            let problem = match found {
                Some(found) => format!("`{key}` is `{found}` and not `{wanted}`"),
                None => format!("it has no text `{key}`"),
            };
            return Err(AdapterError::NotAnAdapter { path: path.to_owned(), expected, problem });
        }
    }
    Ok(file)
}
