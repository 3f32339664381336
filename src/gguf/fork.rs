//! Element types of forks of ggml: which fork, and what to do instead.
//!
//! Forks number their types as they like, so an id may be unknown here, or mean something else than it does upstream.
//! The ids come from the forks' `ggml.h`.

use super::TensorType;

/// Architectures of BitNet b1.58 models: llama.cpp's own (the first releases of 2024), and the two names under which
/// Microsoft published 2B-4T.
pub(crate) const BITNET_ARCHITECTURES: [&str; 3] = ["bitnet", "bitnet-25", "bitnet-b1.58"];

/// Whether a model of this architecture may have matrices in I2_S.
pub(crate) fn is_bitnet(architecture: &str) -> bool {
    BITNET_ARCHITECTURES.contains(&architecture)
}

/// Whether an adapter for one of these architectures can be one for a model of the other: the three names of BitNet stand for
/// the same tensors.
pub(crate) fn are_alike(one: &str, other: &str) -> bool {
    one == other || is_bitnet(one) && is_bitnet(other)
}

/// Where an element type that ggml does not have is known from.
pub(super) fn origin(id: u32) -> &'static str {
    match id {
        4 | 5 => "Q4_2 or Q4_3, which ggml removed in 2023; convert the original model again",
        31..=33 => "Q4_0 repacked for ARM, which ggml now does at load; quantise to Q4_0",
        36 => {
            "I2_S of bitnet.cpp, which is read only in BitNet models (bitnet-b1.58, bitnet-25, bitnet), or IQ4_NL \
             repacked for ARM; convert the original model again"
        }
        37 => "I8_S of bitnet.cpp, or IQ4_NL repacked for ARM; fetch the model as I2_S",
        38 => "TL1 of bitnet.cpp, or IQ4_NL repacked for ARM; fetch the model as I2_S, or convert the original again",
        97 => "Q8_0_X4 of ik_llama.cpp, which only that fork reads",
        134 | 135 | 335 => "IQ1_BN or IQ2_BN of ik_llama.cpp; fetch the model as I2_S, or convert the original again",
        142 | 143 => {
            "IQ2_TN or IQ1_TN of an old ik_llama.cpp, or a type of another fork; fetch the model as I2_S, or convert \
             the original again"
        }
        98..=199 => "which only forks have (ik_llama.cpp numbers its types from 97); quantise with llama.cpp",
        200..=399 => "which only ik_llama.cpp has (its repacked types); quantise with llama.cpp",
        _ => "which does not exist; the file is damaged or newer than this program",
    }
}

/// What `tensor_type` means in a BitNet model if not what it means upstream, where that is likely or certain.
///
/// Upstream's types are of no use to a BitNet model here, but for Q2_0, which only the data's size tells apart.
pub(super) fn meaning_in_bitnet(tensor_type: TensorType) -> Option<Meaning> {
    const TL1: &str = "TL1 of bitnet.cpp (releases of 2026); fetch the model as I2_S, or convert the original again";
    const TL2: &str = "TL2 of bitnet.cpp; fetch the model as I2_S, or convert the original again";
    match tensor_type {
        TensorType::MXFP4 => Some(Meaning::Certain(TL2)),
        TensorType::Q1_0 => Some(Meaning::Certain(TL1)),
        TensorType::Q2_0 => Some(Meaning::IfMisfitting(TL2)),
        _ => None,
    }
}

/// A fork's type under an id that upstream has given to another.
pub(super) enum Meaning {
    /// No BitNet model has upstream's type.
    Certain(&'static str),
    /// Upstream's type is possible; the fork's has another number of bytes.
    IfMisfitting(&'static str),
}
