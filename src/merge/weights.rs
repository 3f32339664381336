//! What is done to weights.

use crate::{
    adapter::LoraFile,
    gguf::{
        Gguf, GgufError, TensorInfo, dequantize,
        ternary::scale::{is_scale, scale_name},
    },
};

/// The weights of a tensor, as floats; `None` for a type that cannot be read.
pub(super) fn read(gguf: &Gguf, tensor: &TensorInfo) -> Option<Result<Vec<f32>, GgufError>> {
    let decode = dequantize::decoder(tensor.tensor_type)?;
    Some(gguf.read_tensor(tensor).map(|bytes| {
        let mut weights = vec![0.0; usize::try_from(tensor.elements()).unwrap_or(0)];
        decode(&bytes, &mut weights);
        weights
    }))
}

fn read_again(gguf: &Gguf, tensor: &TensorInfo) -> Result<Vec<f32>, GgufError> {
    // The type was looked at before: see `alike` and `LoraFile`.
    read(gguf, tensor).unwrap_or_else(|| Ok(Vec::new()))
}

/// What an engine multiplies the products of a matrix with: one number beside it, as BitNet's have. 1 where there is none.
pub(super) fn scale_beside(gguf: &Gguf, tensor: &TensorInfo) -> Result<f32, GgufError> {
    let beside = scale_name(&tensor.name).and_then(|name| gguf.tensor(&name)).filter(|scale| is_scale(gguf, scale));
    match beside.and_then(|scale| read(gguf, scale)) {
        Some(scale) => Ok(scale?.first().copied().unwrap_or(1.0)),
        None => Ok(1.0),
    }
}

/// Adds an adapter's product to the weights of `tensor`, if it changes them.
pub(super) fn add_lora(lora: &LoraFile, scale: f32, tensor: &TensorInfo, weights: &mut [f32]) -> Result<(), GgufError> {
    let find = |half: &str| lora.file.tensor(&format!("{}.{half}", tensor.name));
    let (Some(a), Some(b)) = (find("lora_a"), find("lora_b")) else { return Ok(()) };
    let rank = b.shape[0] as usize;
    let factor = scale * lora.factor(b.shape[0]);
    let (a, b) = (read_again(&lora.file, a)?, read_again(&lora.file, b)?);
    let (inputs, outputs) = (tensor.shape[0] as usize, tensor.shape[1] as usize);
    // An embedding is looked up, and its halves have changed places: A has a row for each token, B one for each element.
    let is_embedding = tensor.name.ends_with("token_embd.weight");
    let stacked = matrices_of(tensor);
    let (of_a, of_b) = (a.chunks_exact(a.len() / stacked), b.chunks_exact(b.len() / stacked));
    for ((weights, a), b) in weights.chunks_exact_mut(inputs * outputs).zip(of_a).zip(of_b) {
        for (output, row) in weights.chunks_exact_mut(inputs).enumerate() {
            for at in 0..rank {
                if is_embedding {
                    let share = factor * a[output * rank + at];
                    row.iter_mut().enumerate().for_each(|(input, weight)| *weight += share * b[input * rank + at]);
                } else {
                    let share = factor * b[output * rank + at];
                    let a = &a[at * inputs..][..inputs];
                    row.iter_mut().zip(a).for_each(|(weight, a)| *weight += share * a);
                }
            }
        }
    }
    Ok(())
}

/// Matrices that are stacked in a tensor: one, but for experts.
fn matrices_of(tensor: &TensorInfo) -> usize {
    tensor.shape.iter().skip(2).product::<u64>().max(1) as usize
}

/// `1 - ratio` times the weights, and `ratio` times those of the same tensor of `other`, in units of `scale`.
pub(super) fn blend(
    other: &Gguf,
    ratio: f32,
    scale: f32,
    tensor: &TensorInfo,
    weights: &mut [f32],
) -> Result<(), GgufError> {
    let Some(theirs) = other.tensor(&tensor.name) else { return Ok(()) };
    let unit = scale_beside(other, theirs)? / scale;
    let theirs = read_again(other, theirs)?;
    weights.iter_mut().zip(&theirs).for_each(|(weight, theirs)| *weight += ratio * (unit * theirs - *weight));
    Ok(())
}
