//! Control vectors: directions in the hidden state. <https://arxiv.org/abs/2310.01405>

use std::path::Path;

use super::{AdapterError, open};
use crate::gguf::TensorType;

/// A control vector: a direction for some of a model's blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlVector {
    /// The block, from 1, and its direction.
    directions: Vec<(u32, Vec<f32>)>,
}

impl ControlVector {
    /// Loads a file as llama.cpp's `llama-cvector-generator` and the `repeng` package write them: tensors `direction.1`,
    /// `direction.2`, ... in F32.
    ///
    /// # Errors
    ///
    /// [`AdapterError`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, AdapterError> {
        let path = path.as_ref();
        let file = open(path, "control vector", &[])?;
        let mut directions = Vec::new();
        for tensor in file.tensors() {
            let wrong =
                |problem: &str| AdapterError::Tensor { tensor: tensor.name.clone(), problem: problem.to_owned() };
            let block = tensor.name.strip_prefix("direction.").and_then(|block| block.parse().ok());
            let block =
                block.filter(|block| *block > 0).ok_or_else(|| wrong("it is no `direction.1`, `direction.2`, ..."))?;
            if tensor.tensor_type != TensorType::F32 || tensor.shape.iter().skip(1).any(|size| *size != 1) {
                return Err(wrong("it is no row of F32"));
            }
            let bytes = file.read_tensor(tensor)?;
            let (numbers, _) = bytes.as_chunks();
            let numbers: Vec<f32> = numbers.iter().map(|number| f32::from_le_bytes(*number)).collect();
            if !numbers.iter().all(|number| number.is_finite()) {
                return Err(wrong("it has numbers that are not finite"));
            }
            directions.push((block, numbers));
        }
        if directions.is_empty() {
            let (path, expected) = (path.to_owned(), "control vector");
            return Err(AdapterError::NotAnAdapter { path, expected, problem: "it has no directions".to_owned() });
        }
        Ok(Self { directions })
    }

    /// The blocks that it has a direction for.
    pub fn blocks(&self) -> impl Iterator<Item = u32> {
        self.directions.iter().map(|(block, _)| *block)
    }

    /// Adds its directions to rows of which the first is block 1's.
    pub(super) fn add_to(&self, rows: &mut [f32], width: u32, scale: f32) -> Result<(), AdapterError> {
        for (block, direction) in &self.directions {
            let row = rows.chunks_exact_mut(width as usize).nth(*block as usize - 1);
            let fitting = row.filter(|row| row.len() == direction.len());
            let row = fitting.ok_or_else(|| AdapterError::Tensor {
                tensor: format!("direction.{block}"),
                problem: format!(
                    "it has {} numbers, and the model needs {width} for the blocks that it has",
                    direction.len()
                ),
            })?;
            row.iter_mut().zip(direction).for_each(|(sum, number)| *sum += scale * number);
        }
        Ok(())
    }
}
