//! Ternary matrices: from a checkpoint's two forms to codes and one scale.

use std::{
    io::{self, Write},
    sync::OnceLock,
};

use super::{
    ConvertError, Weights,
    checkpoint::{Checkpoint, Dtype, StoredTensor},
    config::ScaleMeaning,
    floats::{Floats, scalar},
};
use crate::gguf::{
    TensorType,
    ternary::{blocks, first_invalid},
};

/// Codes that share a byte of a packed matrix.
const STRIPES: u64 = 4;

/// A ternary matrix of a checkpoint.
#[derive(Debug)]
pub(super) struct Matrix {
    source: Source,
    columns: usize,
    /// The blocks that it is written in.
    pub(super) tensor_type: TensorType,
}

#[derive(Debug)]
enum Source {
    Packed { codes: StoredTensor, scale: f32 },
    Master { weights: Floats, scale: OnceLock<f32> },
}

impl Matrix {
    /// Takes `<name>.weight` of `rows` outputs and `columns` inputs, and `<name>.weight_scale` where it is packed.
    pub(super) fn take(
        checkpoint: &mut Checkpoint,
        name: &str,
        [rows, columns]: [u64; 2],
        meaning: ScaleMeaning,
    ) -> Result<Self, ConvertError> {
        let weight = checkpoint.take(&format!("{name}.weight"))?;
        let Some(tensor_type) = blocks::type_for_row(columns) else {
            let (path, tensor) = (weight.path.to_path_buf(), weight.name);
            return Err(ConvertError::Row { path, tensor, row: columns });
        };
        let source = if weight.dtype == Dtype::U8 {
            // Where four does not divide the rows, the stripes would not be of one length.
            let stripe = if rows.is_multiple_of(STRIPES) { rows / STRIPES } else { 0 };
            weight.expect_shape(&[stripe, columns])?;
            let scale = read_scale(&checkpoint.take(&format!("{name}.weight_scale"))?, meaning)?;
            Source::Packed { codes: weight, scale }
        } else {
            Source::Master { weights: Floats::new(weight, &[rows, columns])?, scale: OnceLock::new() }
        };
        Ok(Self { source, columns: columns as usize, tensor_type })
    }

    /// The form in which it was found.
    pub(super) fn form(&self) -> Weights {
        match self.source {
            Source::Packed { .. } => Weights::Packed,
            Source::Master { .. } => Weights::Master,
        }
    }

    /// The error for a matrix that is not in the `expected` form.
    pub(super) fn unexpected_form(&self, expected: Weights) -> ConvertError {
        let tensor = match &self.source {
            Source::Packed { codes, .. } => codes,
            Source::Master { weights, .. } => weights.tensor(),
        };
        tensor.wrong_dtype(match expected {
            Weights::Packed => "U8, as the matrices of a packed checkpoint",
            Weights::Master => "F16, BF16 or F32, as the matrices before it",
        })
    }

    /// What a code of 1 stands for.
    pub(super) fn scale(&self) -> io::Result<f32> {
        match &self.source {
            Source::Packed { scale, .. } => Ok(*scale),
            Source::Master { weights, scale } => match scale.get() {
                Some(scale) => Ok(*scale),
                None => mean_magnitude(weights).map(|mean| *scale.get_or_init(|| mean)),
            },
        }
    }

    /// Writes the codes in blocks.
    pub(super) fn write(&self, output: &mut dyn Write) -> io::Result<()> {
        let Some(pack) = blocks::packer(self.tensor_type) else {
            return Err(io::Error::other("the type of a ternary matrix is not ternary"));
        };
        let mut bytes = Vec::new();
        let mut write = |codes: &[u8]| {
            bytes.clear();
            pack(codes, &mut bytes);
            output.write_all(&bytes)
        };
        match &self.source {
            Source::Packed { codes, .. } => self.write_packed(codes, &mut write),
            Source::Master { weights, .. } => {
                let inverse = 1.0 / self.scale()?;
                let mut codes = vec![0; self.columns];
                weights.for_each_row(|row| {
                    round_row(row, inverse, &mut codes);
                    write(&codes)
                })
            }
        }
    }

    /// Packed rows lie in four stripes, one behind the other: row `r` of stripe `s` is in bits `2s` and `2s + 1` of the
    /// bytes of row `r` (`unpack_weights` in transformers' `integrations/bitnet.py`). A code is the weight plus one.
    fn write_packed(&self, tensor: &StoredTensor, write: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let packed = tensor.read()?;
        let mut codes = vec![0; self.columns];
        for stripe in 0..STRIPES {
            for (row, packed) in packed.chunks_exact(self.columns).enumerate() {
                codes.iter_mut().zip(packed).for_each(|(code, byte)| *code = byte >> (2 * stripe) & 3);
                if let Some(column) = first_invalid(&codes) {
                    let row = stripe * tensor.shape[0] + row as u64;
                    let (path, tensor) = (tensor.path.to_path_buf(), tensor.name.clone());
                    return Err(ConvertError::Code { path, tensor, row, column: column as u64 }.into());
                }
                write(&codes)?;
            }
        }
        Ok(())
    }
}

/// What a code of 1 stands for, of a packed matrix.
fn read_scale(tensor: &StoredTensor, meaning: ScaleMeaning) -> Result<f32, ConvertError> {
    let stored = scalar(tensor)?;
    let scale = match meaning {
        ScaleMeaning::Factor => stored,
        ScaleMeaning::Divisor => 1.0 / stored,
    };
    if stored.is_finite() && stored > 0.0 && scale.is_finite() {
        return Ok(scale);
    }
    let (path, tensor) = (tensor.path.to_path_buf(), tensor.name.clone());
    Err(ConvertError::Scale { path, tensor, scale: stored })
}

/// The scale of master weights: the mean of their magnitudes (`WeightQuant` in transformers' `integrations/bitnet.py`,
/// and equation 3 of arXiv:2402.17764). Summed in F64, as PyTorch's pairwise sums in F32 come near to it.
fn mean_magnitude(weights: &Floats) -> io::Result<f32> {
    /// What a matrix of zeros has.
    const FLOOR: f32 = 1e-5;
    let (mut sum, mut count) = (0.0, 0_u64);
    weights.for_each_row(|row| {
        sum += row.iter().map(|&weight| f64::from(weight.abs())).sum::<f64>();
        count += row.len() as u64;
        Ok(())
    })?;
    Ok(((sum / count as f64) as f32).max(FLOOR))
}

/// Rounds as training does: multiplied with the inverse of the scale, ties to even.
fn round_row(row: &[f32], inverse: f32, codes: &mut [u8]) {
    for (code, weight) in codes.iter_mut().zip(row) {
        *code = ((weight * inverse).round_ties_even().clamp(-1.0, 1.0) + 1.0) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn master_weights_round_to_the_nearest_code_and_halves_to_zero() {
        let mut codes = [9; 8];
        // With the scale 2: -4 -1.1 -1 -0.9 0 1 1.1 100 are -2 -0.55 -0.5 -0.45 0 0.5 0.55 50 steps.
        round_row(&[-4.0, -1.1, -1.0, -0.9, 0.0, 1.0, 1.1, 100.0], 0.5, &mut codes);
        assert_eq!(codes, [0, 0, 1, 1, 1, 1, 2, 2]);
    }
}
