//! The scales of BitNet matrices, in the form that [`import`](crate::import) and [`convert`](crate::convert) write.

use crate::gguf::{Gguf, GgufError, TensorProblem, fork, ternary::scale::is_scale};

/// Checks the one number that stands beside a matrix of a BitNet model.
///
/// llama.cpp multiplies with whatever is there: every logit becomes NaN, or the matrix counts for nothing, and no one says
/// why. It is the only tensor data that validation reads, four bytes a matrix.
pub(super) fn check(gguf: &Gguf) -> Result<(), GgufError> {
    if !gguf.architecture().is_ok_and(fork::is_bitnet) {
        return Ok(());
    }
    for tensor in gguf.tensors().iter().filter(|tensor| is_scale(gguf, tensor)) {
        let data = gguf.read_tensor(tensor)?;
        let scale = data.first_chunk().map_or(f32::NAN, |&bytes| f32::from_le_bytes(bytes));
        if !(scale.is_finite() && scale > 0.0) {
            let problem = TensorProblem::Scale { found: scale.to_string() };
            return Err(tensor.error(&gguf.parts()[tensor.part].path, problem));
        }
    }
    Ok(())
}
