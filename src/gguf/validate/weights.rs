//! Element types that ggml's CPU operators compute with.

use crate::gguf::{Gguf, GgufError, TensorInfo, TensorProblem, TensorType, fork};

/// Checks the type of every weight.
///
/// ggml's `type_traits_cpu` has no dot product for plain integers, F64 and the types of activations: a matrix of them
/// calls a null pointer. Element-wise operators take F32 beside F32 hidden states and abort for anything else.
///
/// I2_S is none of ggml's types. It passes where [`import`](crate::import) can transcode it, and nowhere else.
pub(super) fn check(gguf: &Gguf) -> Result<(), GgufError> {
    let is_bitnet = gguf.architecture().is_ok_and(fork::is_bitnet);
    for tensor in gguf.tensors() {
        let Some(expected) = misplaced_i2_s(tensor, is_bitnet).or_else(|| offence(tensor)) else { continue };
        let problem = TensorProblem::Type { tensor_type: tensor.tensor_type, expected };
        return Err(tensor.error(&gguf.parts()[tensor.part].path, problem));
    }
    Ok(())
}

fn misplaced_i2_s(tensor: &TensorInfo, is_bitnet: bool) -> Option<&'static str> {
    let is_matrix = tensor.block().is_some() && tensor.name.ends_with(".weight") && tensor.shape.len() == 2;
    match tensor.tensor_type {
        TensorType::I2_S if !is_bitnet => Some(
            "which is read only in BitNet models (bitnet-b1.58, bitnet-25, bitnet); convert the original model again",
        ),
        TensorType::I2_S if !is_matrix => Some("which only the matrices of a block may have"),
        _ => None,
    }
}

fn offence(tensor: &TensorInfo) -> Option<&'static str> {
    // ggml_compute_forward_ssm_conv and _ssm_scan read floats; tables that are added, and factors, are element-wise.
    let element = tensor.stem().rsplit('.').next().unwrap_or_default();
    let is_element_wise = matches!(element, "ssm_a" | "ssm_d" | "token_types")
        || element.starts_with("ssm_conv1d")
        || element.starts_with("time_mix_lerp_")
        || element.starts_with("channel_mix_lerp_")
        || tensor.stem().ends_with("shortconv.conv");
    if is_element_wise && tensor.tensor_type != TensorType::F32 {
        return Some("which must be F32 here");
    }
    // Other endings are adapters, tables of integers and what llama.cpp does not load.
    if !(tensor.name.ends_with(".weight") || tensor.name.ends_with(".bias") || tensor.name.ends_with(".scale")) {
        return None;
    }
    let is_vector = tensor.shape.iter().skip(1).all(|&size| size == 1);
    let is_norm = tensor.stem().ends_with("_norm");
    if is_vector || is_norm {
        // One column is still a matrix to multiply with.
        let is_column = !is_norm && tensor.shape.len() > 1;
        let allowed = tensor.tensor_type == TensorType::F32 || is_column;
        return (!allowed).then_some("a norm, bias or scale must be F32");
    }
    let is_table = tensor.stem().ends_with("tid2eid");
    let has_dot_product = match tensor.tensor_type {
        TensorType::I8 | TensorType::I16 | TensorType::I64 | TensorType::F64 => false,
        TensorType::Q8_1 | TensorType::Q8_K => false,
        TensorType::I32 => is_table,
        _ => true,
    };
    (!has_dot_product).then_some("with which ggml cannot multiply; quantise the model again")
}
