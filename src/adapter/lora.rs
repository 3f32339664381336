//! LoRA: a product of two narrow matrices beside a wide one. <https://arxiv.org/abs/2106.09685>

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{AdapterError, open, text};
use crate::{
    backend::BackendAdapter,
    gguf::{Fingerprint, Gguf, TensorInfo, TensorType, Value, fork},
    model::Model,
    state::AppliedAdapter,
};

/// A LoRA adapter, loaded for one model. Cheap to clone; keeps the model alive.
#[derive(Debug, Clone)]
pub struct LoraAdapter {
    loaded: Arc<dyn BackendAdapter>,
    weights: Fingerprint,
    matrices: usize,
    alpha: Option<f32>,
}

impl LoraAdapter {
    /// Loads an adapter as llama.cpp's `convert_lora_to_gguf.py` writes them.
    ///
    /// # Errors
    ///
    /// [`AdapterError`]; one that was made for another model is found before the engine sees it.
    pub fn load(model: &Model, path: impl AsRef<Path>) -> Result<Self, AdapterError> {
        let path = path.as_ref();
        let lora = LoraFile::open(path, &Gguf::open(model.engine_path())?)?;
        let weights = Fingerprint::of(&lora.file)?;
        let loaded = model.load_adapter(path)?;
        Ok(Self { loaded, weights, matrices: lora.matrices, alpha: lora.alpha })
    }

    /// How many of the model's matrices it changes.
    pub fn matrices(&self) -> usize {
        self.matrices
    }

    /// What its products are multiplied with, before they are divided by the rank.
    pub fn alpha(&self) -> Option<f32> {
        self.alpha
    }

    pub(super) fn at_scale(&self, scale: f32) -> AppliedAdapter {
        AppliedAdapter { weights: self.weights.clone(), alpha: self.alpha, scale }
    }

    pub(super) fn loaded(&self) -> Arc<dyn BackendAdapter> {
        Arc::clone(&self.loaded)
    }
}

/// An adapter's file, checked against a model's.
#[derive(Debug)]
pub(crate) struct LoraFile {
    pub(crate) file: Gguf,
    pub(crate) alpha: Option<f32>,
    pub(crate) matrices: usize,
}

impl LoraFile {
    pub(crate) fn open(path: &Path, model: &Gguf) -> Result<Self, AdapterError> {
        const EXPECTED: &str = "LoRA adapter";
        let file = open(path, EXPECTED, &[("general.type", "adapter"), ("adapter.type", "lora")])?;
        let not = |problem: &str| AdapterError::NotAnAdapter {
            path: path.to_owned(),
            expected: EXPECTED,
            problem: problem.to_owned(),
        };
        let (adapter, architecture) = (text(&file, "general.architecture").unwrap_or_default(), model.architecture()?);
        if !fork::are_alike(adapter, architecture) {
            let (adapter, model) = (adapter.to_owned(), architecture.to_owned());
            return Err(AdapterError::Architecture { adapter, model });
        }
        let alpha = match file.metadata().get("adapter.lora.alpha") {
            None => None,
            Some(Value::F32(alpha)) if alpha.is_finite() => Some(*alpha),
            Some(_) => return Err(not("`adapter.lora.alpha` is no finite number of 32 bits")),
        };
        if file.metadata().get("adapter.alora.invocation_tokens").is_some() {
            return Err(not("it is one that certain tokens activate, which this program does not do"));
        }
        if file.parts().len() > 1 {
            return Err(not("it is split"));
        }
        let matrices = check(&file, model)?;
        Ok(Self { file, alpha, matrices })
    }

    /// What the product of its matrices is multiplied with, at a scale of 1.
    pub(crate) fn factor(&self, rank: u64) -> f32 {
        // No alpha, and one of 0, mean that the product is taken as it is.
        self.alpha.filter(|alpha| *alpha != 0.0).map_or(1.0, |alpha| alpha / rank as f32)
    }
}

/// Checks every tensor against the one that it changes; the number of pairs.
fn check(adapter: &Gguf, model: &Gguf) -> Result<usize, AdapterError> {
    let mut pairs: BTreeMap<&str, [Option<&TensorInfo>; 2]> = BTreeMap::new();
    for tensor in adapter.tensors() {
        let wrong = |problem: &str| AdapterError::Tensor { tensor: tensor.name.clone(), problem: problem.to_owned() };
        let (base, place) = if let Some(base) = tensor.name.strip_suffix(".lora_a") {
            (base, 0)
        } else if let Some(base) = tensor.name.strip_suffix(".lora_b") {
            (base, 1)
        } else {
            return Err(wrong("only matrices that end in .lora_a and .lora_b can be applied"));
        };
        if !matches!(tensor.tensor_type, TensorType::F32 | TensorType::F16 | TensorType::BF16 | TensorType::Q8_0) {
            return Err(wrong("it is not in F32, F16, BF16 or Q8_0"));
        }
        pairs.entry(base).or_default()[place] = Some(tensor);
    }
    for (base, pair) in &pairs {
        let any = pair[0].or(pair[1]).map_or_else(String::new, |tensor| tensor.name.clone());
        let wrong = |problem: String| AdapterError::Tensor { tensor: any.clone(), problem };
        let [Some(a), Some(b)] = pair else { return Err(wrong("the other half of the pair is missing".to_owned())) };
        let Some(weights) = model.tensor(base) else { return Err(wrong(format!("there is no `{base}`"))) };
        // Shapes are given fastest first: weights have [inputs, outputs].
        let dimension = |tensor: &TensorInfo, index: usize| tensor.shape.get(index).copied().unwrap_or(1);
        let (inputs, outputs) = (dimension(weights, 0), dimension(weights, 1));
        let is_embedding = base.ends_with("token_embd.weight");
        let (wide, narrow) =
            if is_embedding { (dimension(a, 1), dimension(a, 0)) } else { (dimension(a, 0), dimension(a, 1)) };
        let (from, to) = if is_embedding { (outputs, inputs) } else { (inputs, outputs) };
        let stacked = (2..4).all(|index| {
            dimension(a, index) == dimension(weights, index) && dimension(b, index) == dimension(weights, index)
        });
        if weights.shape.len() < 2 || !base.ends_with(".weight") {
            return Err(wrong(format!("`{base}` is no matrix")));
        }
        if wide != from || dimension(b, 1) != to || narrow != dimension(b, 0) || narrow == 0 || !stacked {
            let (a, b, weights) = (&a.shape, &b.shape, &weights.shape);
            return Err(wrong(format!("it has the shapes {a:?} and {b:?}, and `{base}` has {weights:?}")));
        }
    }
    Ok(pairs.len())
}
