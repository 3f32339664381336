//! Element types of tensors: names, ids and block sizes as in ggml's `ggml.h` and `ggml-common.h`.

/// Declares [`TensorType`] and its table.
macro_rules! tensor_types {
    ($($(#[$doc:meta])* $variant:ident, $id:literal, $name:literal, $elements:literal, $bytes:literal, $quantized:literal;)*) => {
        /// How the elements of a tensor are stored.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(non_camel_case_types, reason = "Q4_K and its kin are the names of the field")]
        #[repr(u32)]
        #[non_exhaustive]
        pub enum TensorType {
            $($(#[$doc])* $variant = $id,)*
        }

        impl TensorType {
            /// Every type, by ascending id.
            pub const ALL: &'static [TensorType] = &[$(TensorType::$variant,)*];

            /// The name that llama.cpp's tools print, e.g. `Q4_K`.
            pub fn name(self) -> &'static str {
                match self {
                    $(TensorType::$variant => $name,)*
                }
            }

            /// Elements of a block; a row is a whole number of blocks.
            pub fn block_elements(self) -> u64 {
                match self {
                    $(TensorType::$variant => $elements,)*
                }
            }

            /// Bytes of a block.
            pub fn block_bytes(self) -> u64 {
                match self {
                    $(TensorType::$variant => $bytes,)*
                }
            }

            /// Whether every weight is -1, 0 or 1 times a scale of its block.
            pub fn is_ternary(self) -> bool {
                matches!(self, Self::TQ1_0 | Self::TQ2_0 | Self::Q2_0)
            }

            /// Whether a block holds codes and scales instead of plain numbers.
            pub fn is_quantized(self) -> bool {
                match self {
                    $(TensorType::$variant => $quantized,)*
                }
            }
        }
    };
}

tensor_types! {
    /// 32-bit float.
    F32, 0, "F32", 1, 4, false;
    /// 16-bit float.
    F16, 1, "F16", 1, 2, false;
    /// 4 bits, scale a block of 32.
    Q4_0, 2, "Q4_0", 32, 18, true;
    /// 4 bits, scale and minimum a block of 32.
    Q4_1, 3, "Q4_1", 32, 20, true;
    /// 5 bits, scale a block of 32.
    Q5_0, 6, "Q5_0", 32, 22, true;
    /// 5 bits, scale and minimum a block of 32.
    Q5_1, 7, "Q5_1", 32, 24, true;
    /// 8 bits, scale a block of 32.
    Q8_0, 8, "Q8_0", 32, 34, true;
    /// 8 bits, scale and sum a block of 32.
    Q8_1, 9, "Q8_1", 32, 36, true;
    /// 2 bits, super-blocks of 256.
    Q2_K, 10, "Q2_K", 256, 84, true;
    /// 3 bits, super-blocks of 256.
    Q3_K, 11, "Q3_K", 256, 110, true;
    /// 4 bits, super-blocks of 256.
    Q4_K, 12, "Q4_K", 256, 144, true;
    /// 5 bits, super-blocks of 256.
    Q5_K, 13, "Q5_K", 256, 176, true;
    /// 6 bits, super-blocks of 256.
    Q6_K, 14, "Q6_K", 256, 210, true;
    /// 8 bits, super-blocks of 256.
    Q8_K, 15, "Q8_K", 256, 292, true;
    /// 2.06 bits, codebook.
    IQ2_XXS, 16, "IQ2_XXS", 256, 66, true;
    /// 2.31 bits, codebook.
    IQ2_XS, 17, "IQ2_XS", 256, 74, true;
    /// 3.06 bits, codebook.
    IQ3_XXS, 18, "IQ3_XXS", 256, 98, true;
    /// 1.56 bits, codebook.
    IQ1_S, 19, "IQ1_S", 256, 50, true;
    /// 4 bits, non-linear, blocks of 32.
    IQ4_NL, 20, "IQ4_NL", 32, 18, true;
    /// 3.44 bits, codebook.
    IQ3_S, 21, "IQ3_S", 256, 110, true;
    /// 2.56 bits, codebook.
    IQ2_S, 22, "IQ2_S", 256, 82, true;
    /// 4.25 bits, non-linear, super-blocks of 256.
    IQ4_XS, 23, "IQ4_XS", 256, 136, true;
    /// 8-bit integer.
    I8, 24, "I8", 1, 1, false;
    /// 16-bit integer.
    I16, 25, "I16", 1, 2, false;
    /// 32-bit integer.
    I32, 26, "I32", 1, 4, false;
    /// 64-bit integer.
    I64, 27, "I64", 1, 8, false;
    /// 64-bit float.
    F64, 28, "F64", 1, 8, false;
    /// 1.75 bits, codebook.
    IQ1_M, 29, "IQ1_M", 256, 56, true;
    /// Bfloat16.
    BF16, 30, "BF16", 1, 2, false;
    /// Ternary, 1.69 bits.
    TQ1_0, 34, "TQ1_0", 256, 54, true;
    /// Ternary, 2.06 bits.
    TQ2_0, 35, "TQ2_0", 256, 66, true;
    /// Ternary, 2 bits, one scale a tensor: bitnet.cpp's form, which ggml does not have. See
    /// [`I2sLayout`](super::I2sLayout).
    I2_S, 36, "I2_S", 64, 16, true;
    /// 4-bit float, shared exponent a block of 32 (OCP MX).
    MXFP4, 39, "MXFP4", 32, 17, true;
    /// 4-bit float, E4M3 scales.
    NVFP4, 40, "NVFP4", 64, 36, true;
    /// 1 bit, scale a block of 128.
    Q1_0, 41, "Q1_0", 128, 18, true;
    /// 2 bits, scale a block of 64.
    Q2_0, 42, "Q2_0", 64, 18, true;
}

impl TensorType {
    /// The id in a GGUF file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The type with this id.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|tensor_type| tensor_type.id() == id)
    }

    /// The type with this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|tensor_type| tensor_type.name().eq_ignore_ascii_case(name))
    }

    /// Bits that one element takes, scales included.
    pub fn bits_per_element(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block_elements() as f64
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

impl serde::Serialize for TensorType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
