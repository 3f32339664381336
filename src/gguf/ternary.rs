//! Ternary codes to the blocks of TQ1_0, TQ2_0 and Q2_0: the layouts of ggml's `ggml-common.h` and `ggml-quants.c`.
//!
//! A code is -1, 0 or 1; what is stored is the code plus one.

use half::f16;

use super::TensorType;

/// The type in which a BitNet matrix with rows of `columns` weights is kept; `None` where no block divides them.
///
/// TQ2_0 where it fits: its scales take the least, and stock llama.cpp has kernels for it.
pub(crate) fn type_for_rows_of(columns: u64) -> Option<TensorType> {
    [TensorType::TQ2_0, TensorType::Q2_0]
        .into_iter()
        .find(|tensor_type| columns > 0 && columns.is_multiple_of(tensor_type.block_elements()))
}

/// Appends the block of these codes, of which there are as many as a block has elements.
pub(crate) type BlockPacker = fn(codes: &[i8], scale: f16, bytes: &mut Vec<u8>);

/// How blocks of this type are packed; `None` for a type that is not ternary.
pub(crate) fn packer(tensor_type: TensorType) -> Option<BlockPacker> {
    match tensor_type {
        TensorType::TQ1_0 => Some(pack_tq1_0),
        TensorType::TQ2_0 => Some(pack_tq2_0),
        TensorType::Q2_0 => Some(pack_q2_0),
        _ => None,
    }
}

/// Five codes a byte over 240 codes, four a byte over the last 16, and the scale.
///
/// Codes that share a byte lie 32 apart in the first 160, 16 apart in the next 80 and 4 apart at the end.
fn pack_tq1_0(codes: &[i8], scale: f16, bytes: &mut Vec<u8>) {
    for (start, stride, digits) in [(0, 32, 5), (160, 16, 5), (240, 4, 4)] {
        bytes.extend((0..stride).map(|lane| {
            let digit = |index: usize| if index < digits { stored(codes[start + index * stride + lane]) } else { 0 };
            // A fraction of 3^5 in 256ths, rounded up: times 3 it carries its next digit into the ninth bit.
            let value = (0..5).fold(0_u16, |value, index| 3 * value + u16::from(digit(index)));
            (value * 256).div_ceil(243) as u8
        }));
    }
    bytes.extend(scale.to_le_bytes());
}

/// Four codes a byte, 32 apart, the first in the low bits; in two halves of 128 codes; and the scale.
fn pack_tq2_0(codes: &[i8], scale: f16, bytes: &mut Vec<u8>) {
    for half in codes.as_chunks::<128>().0 {
        bytes.extend((0..32).map(|lane| {
            stored(half[lane])
                | stored(half[lane + 32]) << 2
                | stored(half[lane + 64]) << 4
                | stored(half[lane + 96]) << 6
        }));
    }
    bytes.extend(scale.to_le_bytes());
}

/// The scale, and four neighbouring codes a byte, the first in the low bits.
fn pack_q2_0(codes: &[i8], scale: f16, bytes: &mut Vec<u8>) {
    bytes.extend(scale.to_le_bytes());
    bytes.extend(
        codes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&[a, b, c, d]| stored(a) | stored(b) << 2 | stored(c) << 4 | stored(d) << 6),
    );
}

fn stored(code: i8) -> u8 {
    (code + 1).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(tensor_type: TensorType, codes: &[i8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        packer(tensor_type).unwrap()(codes, f16::ONE, &mut bytes);
        assert_eq!(bytes.len() as u64, tensor_type.block_bytes());
        bytes
    }

    /// Zeros but for these elements.
    fn codes<const N: usize>(elements: &[(usize, i8)]) -> [i8; N] {
        let mut codes = [0; N];
        elements.iter().for_each(|&(element, code)| codes[element] = code);
        codes
    }

    #[test]
    fn tq2_0_shares_a_byte_among_codes_that_lie_32_apart() {
        let bytes = pack(TensorType::TQ2_0, &codes::<256>(&[(3, 1), (35, -1), (99, 1), (128, -1), (255, 1)]));
        // Element 3 in bits 0-1, 35 in 2-3, 67 in 4-5, 99 in 6-7: 2 | 0 << 2 | 1 << 4 | 2 << 6.
        assert_eq!(bytes[3], 0b10_01_00_10);
        assert_eq!(bytes[32], 0b01_01_01_00);
        assert_eq!(bytes[63], 0b10_01_01_01);
        assert_eq!(bytes[4], 0b01_01_01_01);
        assert_eq!(bytes[64..], [0x00, 0x3c]);
    }

    #[test]
    fn q2_0_shares_a_byte_among_neighbours() {
        let bytes = pack(TensorType::Q2_0, &codes::<64>(&[(0, 1), (1, -1), (3, 1), (63, -1)]));
        assert_eq!(bytes[..2], [0x00, 0x3c]);
        assert_eq!(bytes[2], 0b10_01_00_10);
        assert_eq!(bytes[17], 0b00_01_01_01);
    }

    #[test]
    fn tq1_0_stores_five_digits_as_a_fraction() {
        let bytes = pack(TensorType::TQ1_0, &codes::<256>(&[(0, 1), (32, -1), (64, 0), (96, 1), (128, 0), (244, 1)]));
        // Digits 2 0 1 2 1: 2 * 81 + 1 * 9 + 2 * 3 + 1 = 178, and 178 * 256 / 243 = 187.5.
        assert_eq!(bytes[0], 188);
        // Digits 1 1 1 1 1: 121, 127.5.
        assert_eq!((bytes[1], bytes[32]), (128, 128));
        // Elements 240, 244, 248, 252 and a zero: 1 * 81 + 2 * 27 + 1 * 9 + 1 * 3 = 147, 154.9.
        assert_eq!(bytes[48], 155);
        assert_eq!(bytes[52..], [0x00, 0x3c]);
    }

    #[test]
    fn rows_take_the_type_whose_blocks_divide_them() {
        assert_eq!(type_for_rows_of(2560), Some(TensorType::TQ2_0));
        assert_eq!(type_for_rows_of(320), Some(TensorType::Q2_0));
        assert_eq!(type_for_rows_of(96), None);
        assert_eq!(type_for_rows_of(0), None);
    }
}
