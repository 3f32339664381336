//! I2_S, the form of bitnet.cpp: codes of a whole tensor, then its scale.
//!
//! The data takes a quarter of a byte a weight and [`I2S_TRAILER_BYTES`]: an F32 scale and padding. The type id says
//! nothing about the order of the codes, which depends on the program that wrote the file: [`I2sLayout`].

use std::fmt;

/// Bytes behind the codes: the scale, and padding of any content.
pub(crate) const I2S_TRAILER_BYTES: u64 = 32;

/// The order of the codes in an I2_S tensor.
///
/// Known from `quantize_i2_s` in bitnet.cpp's `src/ggml-bitnet-mad.cpp`, which compiles to one of the first three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum I2sLayout {
    /// Blocks of 128 weights in 32 bytes: weight `j` in byte `j % 32`, at bit `6 - 2 * (j / 32)`. Written on x86, by the
    /// Python converters on any machine, and in the files that Microsoft publishes.
    X86,
    /// Blocks of 64 weights in 16 bytes: weight `j` in byte `j % 16`, at bit `6 - 2 * (j / 16)`. Written on ARM.
    Arm,
    /// Four rows at once: byte `c` holds column `c` of all four, the first in the highest bits. Written on x86 by
    /// builds of 2026 without `ACT_PARALLEL`.
    Rows4,
    /// Four neighbours a byte, the first in the lowest bits. Written by converters that do not follow bitnet.cpp.
    Sequential,
}

impl I2sLayout {
    /// Every layout.
    pub const ALL: [Self; 4] = [Self::X86, Self::Arm, Self::Rows4, Self::Sequential];

    /// The lower-case name, e.g. `rows4`.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86",
            Self::Arm => "arm",
            Self::Rows4 => "rows4",
            Self::Sequential => "sequential",
        }
    }

    /// The layout with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layout| layout.name() == name)
    }

    /// A row must be a multiple of this many weights.
    pub fn row_multiple(self) -> u64 {
        match self {
            Self::X86 => 128,
            Self::Arm => 64,
            Self::Rows4 => 1,
            Self::Sequential => 4,
        }
    }

    /// The rows of a tensor must be a multiple of this.
    pub fn rows_multiple(self) -> u64 {
        if self == Self::Rows4 { 4 } else { 1 }
    }

    /// Reads whole rows of `row` weights: one code a byte, row after row, from a quarter as many bytes.
    ///
    /// The number of rows must be a multiple of [`rows_multiple`](Self::rows_multiple), and `row` one of
    /// [`row_multiple`](Self::row_multiple); what goes beyond is left as it is.
    pub(crate) fn unpack(self, packed: &[u8], row: usize, codes: &mut [u8]) {
        match self {
            Self::X86 => unpack_striped::<32>(packed, codes),
            Self::Arm => unpack_striped::<16>(packed, codes),
            Self::Rows4 => {
                for (packed, codes) in packed.chunks_exact(row).zip(codes.chunks_exact_mut(4 * row)) {
                    unpack_stripes(packed, codes);
                }
            }
            Self::Sequential => {
                for (&byte, codes) in packed.iter().zip(codes.as_chunks_mut::<4>().0) {
                    *codes = [byte & 3, byte >> 2 & 3, byte >> 4 & 3, byte >> 6];
                }
            }
        }
    }

    /// The inverse of [`unpack`](Self::unpack): appends a quarter as many bytes as there are codes.
    pub(crate) fn pack(self, codes: &[u8], row: usize, packed: &mut Vec<u8>) {
        match self {
            Self::X86 => codes.as_chunks::<128>().0.iter().for_each(|codes| pack_stripes(codes, packed)),
            Self::Arm => codes.as_chunks::<64>().0.iter().for_each(|codes| pack_stripes(codes, packed)),
            Self::Rows4 => codes.chunks_exact(4 * row).for_each(|codes| pack_stripes(codes, packed)),
            Self::Sequential => {
                packed.extend(codes.as_chunks::<4>().0.iter().map(|[a, b, c, d]| a | b << 2 | c << 4 | d << 6));
            }
        }
    }
}

impl fmt::Display for I2sLayout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What stands behind the codes of a tensor.
pub(crate) fn i2s_trailer(scale: f32) -> [u8; I2S_TRAILER_BYTES as usize] {
    let mut trailer = [0; I2S_TRAILER_BYTES as usize];
    trailer[..4].copy_from_slice(&scale.to_le_bytes());
    trailer
}

/// Blocks of `BYTES` bytes, each four stripes of `BYTES` weights.
fn unpack_striped<const BYTES: usize>(packed: &[u8], codes: &mut [u8]) {
    for (packed, codes) in packed.as_chunks::<BYTES>().0.iter().zip(codes.chunks_exact_mut(4 * BYTES)) {
        unpack_stripes(packed, codes);
    }
}

/// Four stripes of as many weights as there are bytes; the first stripe stands in the highest bits.
fn unpack_stripes(packed: &[u8], codes: &mut [u8]) {
    for (stripe, codes) in codes.chunks_exact_mut(packed.len()).enumerate() {
        let shift = 6 - 2 * stripe;
        for (code, &byte) in codes.iter_mut().zip(packed) {
            *code = byte >> shift & 3;
        }
    }
}

fn pack_stripes(codes: &[u8], packed: &mut Vec<u8>) {
    let (upper, lower) = codes.split_at(codes.len() / 2);
    let ((first, second), (third, fourth)) = (upper.split_at(upper.len() / 2), lower.split_at(lower.len() / 2));
    let pairs = first.iter().zip(second).zip(third.iter().zip(fourth));
    packed.extend(pairs.map(|((a, b), (c, d))| a << 6 | b << 4 | c << 2 | d));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One weight that is not zero, in a field of zeros (code 1, which is bits 01 everywhere: 0x55).
    fn packed_with(layout: I2sLayout, weights: usize, row: usize, place: usize, code: u8) -> Vec<u8> {
        let mut codes = vec![1; weights];
        codes[place] = code;
        let mut packed = Vec::new();
        layout.pack(&codes, row, &mut packed);
        packed
    }

    /// Byte and value by hand, from the rule in the layout's documentation.
    #[track_caller]
    fn check(layout: I2sLayout, weights: usize, row: usize, place: usize, code: u8, byte: usize, value: u8) {
        let mut expected = vec![0x55; weights / 4];
        expected[byte] = value;
        let packed = packed_with(layout, weights, row, place, code);
        assert_eq!(packed, expected, "{layout}, weight {place}");
        let mut codes = vec![9; weights];
        layout.unpack(&expected, row, &mut codes);
        let mut wanted = vec![1; weights];
        wanted[place] = code;
        assert_eq!(codes, wanted, "{layout}, weight {place}");
    }

    #[test]
    fn x86_spreads_128_weights_over_32_bytes() {
        // 01 01 01 01 with one pair made 10 (+1) or 00 (-1).
        check(I2sLayout::X86, 256, 256, 0, 2, 0, 0b10_01_01_01);
        check(I2sLayout::X86, 256, 256, 31, 0, 31, 0b00_01_01_01);
        check(I2sLayout::X86, 256, 256, 32, 2, 0, 0b01_10_01_01);
        check(I2sLayout::X86, 256, 256, 70, 2, 6, 0b01_01_10_01);
        check(I2sLayout::X86, 256, 256, 127, 0, 31, 0b01_01_01_00);
        check(I2sLayout::X86, 256, 256, 128 + 33, 2, 32 + 1, 0b01_10_01_01);
    }

    #[test]
    fn arm_spreads_64_weights_over_16_bytes() {
        check(I2sLayout::Arm, 128, 128, 0, 2, 0, 0b10_01_01_01);
        check(I2sLayout::Arm, 128, 128, 16, 2, 0, 0b01_10_01_01);
        check(I2sLayout::Arm, 128, 128, 47, 0, 15, 0b01_01_00_01);
        check(I2sLayout::Arm, 128, 128, 63, 2, 15, 0b01_01_01_10);
        check(I2sLayout::Arm, 128, 128, 64 + 20, 0, 16 + 4, 0b01_00_01_01);
    }

    #[test]
    fn rows4_puts_a_column_of_four_rows_into_a_byte() {
        // Rows of 5: a length that no other layout takes.
        check(I2sLayout::Rows4, 40, 5, 0, 2, 0, 0b10_01_01_01);
        check(I2sLayout::Rows4, 40, 5, 5, 2, 0, 0b01_10_01_01);
        check(I2sLayout::Rows4, 40, 5, 3 * 5 + 4, 0, 4, 0b01_01_01_00);
        check(I2sLayout::Rows4, 40, 5, 6 * 5 + 2, 2, 5 + 2, 0b01_01_10_01);
    }

    #[test]
    fn sequential_puts_four_neighbours_into_a_byte_lowest_bits_first() {
        check(I2sLayout::Sequential, 16, 8, 0, 2, 0, 0b01_01_01_10);
        check(I2sLayout::Sequential, 16, 8, 3, 0, 0, 0b00_01_01_01);
        check(I2sLayout::Sequential, 16, 8, 9, 2, 2, 0b01_01_10_01);
    }

    #[test]
    fn code_three_survives_unpacking_so_that_it_can_be_refused() {
        for layout in I2sLayout::ALL {
            let mut codes = vec![0; 512];
            layout.unpack(&packed_with(layout, 512, 128, 300, 3), 128, &mut codes);
            assert_eq!(super::super::first_invalid(&codes), Some(300), "{layout}");
        }
    }

    #[test]
    fn names_are_read_back() {
        for layout in I2sLayout::ALL {
            assert_eq!(I2sLayout::from_name(layout.name()), Some(layout));
            assert_eq!(serde_json::to_value(layout).unwrap(), layout.name());
        }
    }
}
