//! The scale of a whole matrix, in a tensor of its own beside it.

use crate::gguf::{Gguf, TensorInfo, TensorType};

/// The tensor that holds the scale of a matrix: `blk.3.attn_q.scale` for `blk.3.attn_q.weight`.
pub(crate) fn scale_name(matrix: &str) -> Option<String> {
    Some(format!("{}.scale", matrix.strip_suffix(".weight")?))
}

/// Whether `tensor` is the scale of a whole matrix.
pub(crate) fn is_scale(gguf: &Gguf, tensor: &TensorInfo) -> bool {
    let Some(stem) = tensor.name.strip_suffix(".scale") else { return false };
    tensor.tensor_type == TensorType::F32 && tensor.elements() == 1 && gguf.tensor(&format!("{stem}.weight")).is_some()
}
