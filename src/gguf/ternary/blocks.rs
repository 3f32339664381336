//! Ternary codes to the blocks of TQ1_0, TQ2_0 and Q2_0: the layouts of ggml's `ggml-common.h` and `ggml-quants.c`.
//!
//! Every block has a scale of its own, an F16. Here it is 1: the scale of a BitNet matrix stands in a tensor beside it.

use half::f16;

use crate::gguf::TensorType;

/// Appends whole rows of codes, with block scales of 1.0.
pub(crate) type Packer = fn(&[u8], &mut Vec<u8>);

/// The type in which rows of this many weights are kept: TQ2_0 where it fits, for its scales take the least and stock
/// llama.cpp has kernels for it; else Q2_0; `None` where no block divides them.
pub(crate) fn type_for_row(row: u64) -> Option<TensorType> {
    [TensorType::TQ2_0, TensorType::Q2_0].into_iter().find(|form| row.is_multiple_of(form.block_elements()))
}

/// How codes are stored as this type; `None` for a type that is not ternary.
pub(crate) fn packer(tensor_type: TensorType) -> Option<Packer> {
    match tensor_type {
        TensorType::TQ1_0 => Some(|codes, bytes| codes.as_chunks().0.iter().for_each(|codes| tq1_0(codes, bytes))),
        TensorType::TQ2_0 => Some(|codes, bytes| codes.as_chunks().0.iter().for_each(|codes| tq2_0(codes, bytes))),
        TensorType::Q2_0 => Some(|codes, bytes| codes.as_chunks().0.iter().for_each(|codes| q2_0(codes, bytes))),
        _ => None,
    }
}

/// Five codes a byte over 240 codes, four a byte over the last 16, and the scale.
///
/// Codes that share a byte lie 32 apart in the first 160, 16 apart in the next 80 and 4 apart at the end.
fn tq1_0(codes: &[u8; 256], bytes: &mut Vec<u8>) {
    for (start, stride, digits) in [(0, 32, 5), (160, 16, 5), (240, 4, 4)] {
        bytes.extend((0..stride).map(|lane| {
            let digit = |index: usize| if index < digits { codes[start + index * stride + lane] } else { 0 };
            // A fraction of 3^5 in 256ths, rounded up: times 3 it carries its next digit into the ninth bit.
            let value = (0..5).fold(0_u16, |value, index| 3 * value + u16::from(digit(index)));
            (value * 256).div_ceil(243) as u8
        }));
    }
    bytes.extend(f16::ONE.to_le_bytes());
}

/// Four codes a byte, 32 apart, the first in the low bits; in two halves of 128 codes; and the scale.
fn tq2_0(codes: &[u8; 256], bytes: &mut Vec<u8>) {
    for half in codes.as_chunks::<128>().0 {
        bytes.extend(std::array::from_fn::<u8, 32, _>(|lane| {
            half[lane] | half[lane + 32] << 2 | half[lane + 64] << 4 | half[lane + 96] << 6
        }));
    }
    bytes.extend(f16::ONE.to_le_bytes());
}

/// The scale, and four neighbouring codes a byte, the first in the low bits.
fn q2_0(codes: &[u8; 64], bytes: &mut Vec<u8>) {
    bytes.extend(f16::ONE.to_le_bytes());
    bytes.extend(codes.as_chunks::<4>().0.iter().map(|&[a, b, c, d]| a | b << 2 | c << 4 | d << 6));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(tensor_type: TensorType, codes: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        packer(tensor_type).unwrap()(codes, &mut bytes);
        assert_eq!(bytes.len() as u64, tensor_type.block_bytes());
        bytes
    }

    /// Weights of zero but for these.
    fn codes<const N: usize>(elements: &[(usize, u8)]) -> [u8; N] {
        let mut codes = [1; N];
        elements.iter().for_each(|&(element, code)| codes[element] = code);
        codes
    }

    #[test]
    fn tq2_0_shares_a_byte_among_codes_that_lie_32_apart() {
        let bytes = pack(TensorType::TQ2_0, &codes::<256>(&[(3, 2), (35, 0), (99, 2), (128, 0), (255, 2)]));
        // Element 3 in bits 0-1, 35 in 2-3, 67 in 4-5, 99 in 6-7.
        assert_eq!(bytes[3], 0b10_01_00_10);
        assert_eq!(bytes[32], 0b01_01_01_00);
        assert_eq!(bytes[63], 0b10_01_01_01);
        assert_eq!(bytes[4], 0b01_01_01_01);
        assert_eq!(bytes[64..], [0x00, 0x3c]);
    }

    #[test]
    fn q2_0_shares_a_byte_among_neighbours() {
        let bytes = pack(TensorType::Q2_0, &codes::<64>(&[(0, 2), (1, 0), (3, 2), (63, 0)]));
        assert_eq!(bytes[..2], [0x00, 0x3c]);
        assert_eq!(bytes[2], 0b10_01_00_10);
        assert_eq!(bytes[17], 0b00_01_01_01);
    }

    #[test]
    fn tq1_0_stores_five_digits_as_a_fraction() {
        let bytes = pack(TensorType::TQ1_0, &codes::<256>(&[(0, 2), (32, 0), (96, 2), (244, 2)]));
        // Digits 2 0 1 2 1: 2 * 81 + 1 * 9 + 2 * 3 + 1 = 178, and 178 * 256 / 243 = 187.5.
        assert_eq!(bytes[0], 188);
        // Digits 1 1 1 1 1: 121, 127.5.
        assert_eq!((bytes[1], bytes[32]), (128, 128));
        // Elements 240, 244, 248, 252 and an empty digit: 1 * 81 + 2 * 27 + 1 * 9 + 1 * 3 = 147, 154.9.
        assert_eq!(bytes[48], 155);
        assert_eq!(bytes[52..], [0x00, 0x3c]);
    }

    #[test]
    fn rows_take_the_type_whose_blocks_divide_them() {
        assert_eq!(type_for_row(2560), Some(TensorType::TQ2_0));
        assert_eq!(type_for_row(320), Some(TensorType::Q2_0));
        assert_eq!(type_for_row(96), None);
    }
}
