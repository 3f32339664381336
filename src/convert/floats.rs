//! Float tensors: read row by row, checked, and written in another type.

use std::io::{self, Read, Write};

use half::{bf16, f16};

use super::{
    ConvertError,
    checkpoint::{Dtype, StoredTensor},
};
use crate::gguf::TensorType;

/// A tensor of floats in a checkpoint.
#[derive(Debug, Clone)]
pub(super) struct Floats {
    tensor: StoredTensor,
    /// Elements of a row.
    row: usize,
}

impl Floats {
    /// Takes a tensor that must be F16, BF16 or F32 and of this shape.
    pub(super) fn new(tensor: StoredTensor, shape: &[u64]) -> Result<Self, ConvertError> {
        tensor.expect_shape(shape)?;
        if !matches!(tensor.dtype, Dtype::F16 | Dtype::Bf16 | Dtype::F32) {
            return Err(tensor.wrong_dtype("F16, BF16 or F32"));
        }
        let row = shape.last().copied().unwrap_or(1) as usize;
        Ok(Self { tensor, row })
    }

    /// Where the tensor is.
    pub(super) fn tensor(&self) -> &StoredTensor {
        &self.tensor
    }

    /// Calls `visit` with each row.
    pub(super) fn for_each_row(&self, mut visit: impl FnMut(&[f32]) -> io::Result<()>) -> io::Result<()> {
        let Self { tensor, row } = self;
        let mut data = tensor.data()?;
        let mut bytes = vec![0; row * tensor.dtype.bytes().unwrap_or(0) as usize];
        let mut values = vec![0.0; *row];
        for number in 0..tensor.shape.iter().rev().skip(1).product::<u64>() {
            data.read_exact(&mut bytes).map_err(|source| tensor.unreadable(source))?;
            decode(tensor.dtype, &bytes, &mut values);
            self.check(number, &values, f32::is_finite)?;
            visit(&values)?;
        }
        Ok(())
    }

    /// Writes the tensor as `tensor_type`: F16, BF16 or F32.
    pub(super) fn write(&self, tensor_type: TensorType, output: &mut dyn Write) -> io::Result<()> {
        let (mut bytes, mut number) = (Vec::new(), 0);
        self.for_each_row(|row| {
            bytes.clear();
            match tensor_type {
                TensorType::F16 => {
                    // F16 ends at 65504: an infinity would spoil every logit without a word.
                    self.check(number, row, |value| f16::from_f32(value).is_finite())?;
                    bytes.extend(row.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()));
                }
                TensorType::BF16 => bytes.extend(row.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes())),
                _ => bytes.extend(row.iter().flat_map(|value| value.to_le_bytes())),
            }
            number += 1;
            output.write_all(&bytes)
        })
    }

    fn check(&self, row: u64, values: &[f32], allowed: impl Fn(f32) -> bool) -> Result<(), ConvertError> {
        let Some(column) = values.iter().position(|&value| !allowed(value)) else { return Ok(()) };
        let (path, tensor) = (self.tensor.path.to_path_buf(), self.tensor.name.clone());
        Err(ConvertError::Value { path, tensor, row, column: column as u64, value: values[column] })
    }
}

/// Reads as many floats as `values` has.
fn decode(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    match dtype {
        Dtype::F16 => {
            let stored = bytes.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32());
            values.iter_mut().zip(stored).for_each(|(value, stored)| *value = stored);
        }
        Dtype::Bf16 => {
            let stored = bytes.as_chunks().0.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32());
            values.iter_mut().zip(stored).for_each(|(value, stored)| *value = stored);
        }
        _ => {
            let stored = bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
            values.iter_mut().zip(stored).for_each(|(value, stored)| *value = stored);
        }
    }
}

/// The one value of a tensor with one element.
pub(super) fn scalar(tensor: &StoredTensor) -> Result<f32, ConvertError> {
    let Some(size @ (2 | 4)) = tensor.dtype.bytes() else { return Err(tensor.wrong_dtype("F16, BF16 or F32")) };
    // transformers writes one dimension of one element; others leave the dimension out.
    if !tensor.shape.is_empty() {
        tensor.expect_shape(&[1])?;
    }
    let mut value = [0.0];
    decode(tensor.dtype, &tensor.read()?[..size as usize], &mut value);
    Ok(value[0])
}
