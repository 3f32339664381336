//! What sets apart the architectures that this backend runs.

/// An architecture. All are Llama's graph with a few differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    /// H. Touvron et al., arXiv:2302.13971.
    Llama,
    /// `bitnet`: the first BitNet b1.58 models as llama.cpp runs them, with SiLU. S. Ma et al., arXiv:2402.17764.
    BitNet,
    /// `bitnet-b1.58` and `bitnet-25`: BitNet b1.58 2B-4T, with the squared ReLU. S. Ma et al., arXiv:2504.12285.
    BitNetB158,
}

/// Which elements of a head RoPE turns together, of `n` that it turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RopePairs {
    /// 0 and 1, 2 and 3, …
    Neighbours,
    /// 0 and n/2, 1 and n/2 + 1, …: the way of GPT-NeoX and of Hugging Face's checkpoints.
    Halves,
}

impl Architecture {
    /// The one that `general.architecture` names.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "llama" => Some(Self::Llama),
            "bitnet" => Some(Self::BitNet),
            "bitnet-b1.58" | "bitnet-25" => Some(Self::BitNetB158),
            _ => None,
        }
    }

    /// Whether norms stand before the last matrix of attention and of the feed-forward network.
    pub(super) fn has_sub_norms(self) -> bool {
        self != Self::Llama
    }

    /// Which elements RoPE turns together.
    pub(super) fn rope_pairs(self) -> RopePairs {
        match self {
            Self::Llama => RopePairs::Neighbours,
            Self::BitNet | Self::BitNetB158 => RopePairs::Halves,
        }
    }

    /// What the gate of the feed-forward network goes through.
    pub(super) fn activation(self) -> fn(f32) -> f32 {
        match self {
            Self::Llama | Self::BitNet => |x| x / (1.0 + (-x).exp()),
            Self::BitNetB158 => |x| x.max(0.0).powi(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_are_silu_and_the_squared_relu() {
        let silu = Architecture::BitNet.activation();
        // x times the logistic function: 2 / (1 + e^-2).
        assert!((silu(2.0) - 1.761_594).abs() < 1e-6 && (silu(-2.0) + 0.238_406).abs() < 1e-6);
        let squared_relu = Architecture::BitNetB158.activation();
        assert_eq!([-3.0, -0.0, 0.5, 3.0].map(squared_relu), [0.0, 0.0, 0.25, 9.0]);
    }

    #[test]
    fn both_names_of_2b_4t_mean_the_same_graph() {
        assert_eq!(Architecture::from_name("bitnet-25"), Some(Architecture::BitNetB158));
        assert_eq!(Architecture::from_name("bitnet-b1.58"), Some(Architecture::BitNetB158));
        assert_eq!(Architecture::from_name("bitnet-b1"), None);
    }
}
