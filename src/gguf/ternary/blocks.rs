//! Ternary codes in the blocks that ggml knows: TQ1_0, TQ2_0 and Q2_0, as in ggml's `ggml-common.h`.
//!
//! Each block carries an F16 scale. Here it is always 1.0: the scale of a BitNet matrix is one F32 for the whole tensor,
//! and stands in a tensor of its own, so that nothing is rounded.

use half::f16;

use crate::gguf::TensorType;

/// Appends whole rows of codes, with block scales of 1.0.
pub(crate) type Packer = fn(&[u8], &mut Vec<u8>);

/// Reads whole rows; false when a block's scale is not 1.0.
pub(crate) type Unpacker = fn(&[u8], &mut [u8]) -> bool;

/// The form for rows of this length: TQ2_0, which every ggml backend multiplies with fastest, and Q2_0, whose blocks are
/// smaller, for what does not fit its blocks of 256. `None` when neither fits.
pub(crate) fn type_for_row(row: u64) -> Option<TensorType> {
    [TensorType::TQ2_0, TensorType::Q2_0].into_iter().find(|form| row.is_multiple_of(form.block_elements()))
}

/// How codes are stored as this type; `None` for a type that is not ternary.
pub(crate) fn packer(tensor_type: TensorType) -> Option<Packer> {
    match tensor_type {
        TensorType::TQ1_0 => Some(pack_tq1_0),
        TensorType::TQ2_0 => Some(pack_tq2_0),
        TensorType::Q2_0 => Some(pack_q2_0),
        _ => None,
    }
}

/// How codes of this type are read; `None` for a type that is not ternary.
pub(crate) fn unpacker(tensor_type: TensorType) -> Option<Unpacker> {
    match tensor_type {
        TensorType::TQ1_0 => Some(unpack_tq1_0),
        TensorType::TQ2_0 => Some(unpack_tq2_0),
        TensorType::Q2_0 => Some(unpack_q2_0),
        _ => None,
    }
}

fn one() -> [u8; 2] {
    f16::ONE.to_le_bytes()
}

/// 64 bytes of codes and the scale. Each 32 bytes hold 128 weights in four stripes of 32, the first in the lowest bits.
fn pack_tq2_0(codes: &[u8], packed: &mut Vec<u8>) {
    for block in codes.as_chunks::<256>().0 {
        for half in block.as_chunks::<128>().0 {
            let stripes = half.as_chunks::<32>().0;
            let byte = |at: usize| stripes[0][at] | stripes[1][at] << 2 | stripes[2][at] << 4 | stripes[3][at] << 6;
            packed.extend(std::array::from_fn::<u8, 32, _>(byte));
        }
        packed.extend(one());
    }
}

fn unpack_tq2_0(packed: &[u8], codes: &mut [u8]) -> bool {
    let mut is_unscaled = true;
    for (block, codes) in packed.as_chunks::<66>().0.iter().zip(codes.as_chunks_mut::<256>().0) {
        for (bytes, codes) in block.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<128>().0) {
            for (stripe, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                *codes = bytes.map(|byte| byte >> (2 * stripe) & 3);
            }
        }
        is_unscaled &= block[64..] == one();
    }
    is_unscaled
}

/// The scale and 16 bytes of four neighbours each, the first in the lowest bits.
fn pack_q2_0(codes: &[u8], packed: &mut Vec<u8>) {
    for block in codes.as_chunks::<64>().0 {
        packed.extend(one());
        packed.extend(block.as_chunks::<4>().0.iter().map(|[a, b, c, d]| a | b << 2 | c << 4 | d << 6));
    }
}

fn unpack_q2_0(packed: &[u8], codes: &mut [u8]) -> bool {
    let mut is_unscaled = true;
    for (block, codes) in packed.as_chunks::<18>().0.iter().zip(codes.as_chunks_mut::<64>().0) {
        for (&byte, codes) in block[2..].iter().zip(codes.as_chunks_mut::<4>().0) {
            *codes = [byte & 3, byte >> 2 & 3, byte >> 4 & 3, byte >> 6];
        }
        is_unscaled &= block[..2] == one();
    }
    is_unscaled
}

/// Five weights a byte, as digits of base 3: 160 weights in stripes of 32, 80 in stripes of 16, and 16 in stripes of 4,
/// where the fifth digit is left empty; then the scale.
fn pack_tq1_0(codes: &[u8], packed: &mut Vec<u8>) {
    for block in codes.as_chunks::<256>().0 {
        let (wide, rest) = block.split_at(160);
        let (narrow, last) = rest.split_at(80);
        packed.extend((0..32).map(|at| base_3(std::array::from_fn(|stripe| wide[32 * stripe + at]))));
        packed.extend((0..16).map(|at| base_3(std::array::from_fn(|stripe| narrow[16 * stripe + at]))));
        packed.extend((0..4).map(|at| base_3([last[at], last[at + 4], last[at + 8], last[at + 12], 0])));
        packed.extend(one());
    }
}

/// Five digits as a fraction of 3^5, scaled to 256 and rounded up: each multiplication by 3 carries the next digit out
/// at the top.
fn base_3(digits: [u8; 5]) -> u8 {
    let number = digits.iter().fold(0_u16, |number, &digit| 3 * number + u16::from(digit));
    (number * 256).div_ceil(243) as u8
}

fn unpack_tq1_0(packed: &[u8], codes: &mut [u8]) -> bool {
    let mut is_unscaled = true;
    for (block, codes) in packed.as_chunks::<54>().0.iter().zip(codes.as_chunks_mut::<256>().0) {
        let (wide, rest) = codes.split_at_mut(160);
        let (narrow, last) = rest.split_at_mut(80);
        digits(&block[..32], wide);
        digits(&block[32..48], narrow);
        digits(&block[48..52], last);
        is_unscaled &= block[52..] == one();
    }
    is_unscaled
}

/// The inverse of [`base_3`], for stripes of as many codes as there are bytes: what is left of a byte after the digits of
/// the stripes before is multiplied by 3, as `dequantize_row_tq1_0` of ggml does it.
fn digits(bytes: &[u8], codes: &mut [u8]) {
    let mut power = 1_u8;
    for codes in codes.chunks_exact_mut(bytes.len()) {
        for (code, byte) in codes.iter_mut().zip(bytes) {
            *code = ((3 * u16::from(byte.wrapping_mul(power))) >> 8) as u8;
        }
        power *= 3;
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn packed(tensor_type: TensorType, codes: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        packer(tensor_type).unwrap()(codes, &mut packed);
        packed
    }

    #[test]
    fn tq2_0_stands_in_stripes_of_32_lowest_bits_first() {
        let mut codes = [1; 256];
        codes[3] = 2;
        codes[32 + 3] = 0;
        codes[128 + 96] = 2;
        let mut expected = [0x55; 66];
        expected[3] = 0b01_01_00_10;
        expected[32] = 0b10_01_01_01;
        // 1.0 as F16 is 0x3c00.
        expected[64..].copy_from_slice(&[0x00, 0x3c]);
        assert_eq!(packed(TensorType::TQ2_0, &codes), expected);
    }

    #[test]
    fn q2_0_stands_in_order_behind_its_scale() {
        let mut codes = [1; 64];
        codes[0] = 2;
        codes[5] = 0;
        let mut expected = [0x55; 18];
        expected[..2].copy_from_slice(&[0x00, 0x3c]);
        expected[2] = 0b01_01_01_10;
        expected[3] = 0b01_01_00_01;
        assert_eq!(packed(TensorType::Q2_0, &codes), expected);
    }

    #[test]
    fn tq1_0_holds_five_digits_of_base_3_a_byte() {
        let mut codes = [0; 256];
        // Digits 2 1 0 0 0: (2 * 81 + 27) * 256 / 243 = 199.1, rounded up.
        codes[7] = 2;
        codes[32 + 7] = 1;
        // 2 2 2 2 2 = 242: 242 * 256 / 243 = 254.9, rounded up.
        (0..5).for_each(|stripe| codes[160 + 16 * stripe + 9] = 2);
        // 0 0 0 1 and the empty digit: 3 * 256 / 243 = 3.2, rounded up.
        codes[240 + 12 + 1] = 1;
        let mut expected = [0; 54];
        (expected[7], expected[32 + 9], expected[48 + 1]) = (200, 255, 4);
        expected[52..].copy_from_slice(&[0x00, 0x3c]);
        assert_eq!(packed(TensorType::TQ1_0, &codes), expected);
    }

    #[test]
    fn tq1_0_is_read_as_ggml_reads_it() {
        let mut block = [0; 54];
        // 3 * 128 is 1 * 256 and 128 again: the digit 1, five times.
        block[0] = 128;
        // 3 * 200 is 2 * 256 and 88, 3 * 88 is 256 and 8; what then remains, 24, 72 and 216, stays below 256.
        block[31] = 200;
        // 2 * 256 and 238, 2 and 202, 2 and 94, 1 and 26, 0 and 78.
        block[32 + 15] = 250;
        // 1 and 44, 0 and 132, 1 and 140, 1 and 164; the fifth digit, a 1, is not looked at.
        block[48 + 3] = 100;
        block[52..].copy_from_slice(&[0x00, 0x3c]);
        let mut codes = [9; 256];
        assert!(unpack_tq1_0(&block, &mut codes));
        let mut expected = [0; 256];
        for (stripe, digits) in [[1, 2], [1, 1], [1, 0], [1, 0], [1, 0]].into_iter().enumerate() {
            (expected[32 * stripe], expected[32 * stripe + 31]) = (digits[0], digits[1]);
        }
        (0..5).for_each(|stripe| expected[160 + 16 * stripe + 15] = [2, 2, 2, 1, 0][stripe]);
        (0..4).for_each(|stripe| expected[240 + 4 * stripe + 3] = [1, 0, 1, 1][stripe]);
        assert_eq!(codes, expected);
    }

    #[test]
    fn rows_get_the_largest_blocks_that_fit() {
        assert_eq!(type_for_row(2560), Some(TensorType::TQ2_0));
        assert_eq!(type_for_row(8640), Some(TensorType::Q2_0));
        assert_eq!(type_for_row(96), None);
    }

    proptest! {
        #[test]
        fn codes_come_back(codes in vec(0..=3_u8, 512)) {
            for tensor_type in [TensorType::TQ1_0, TensorType::TQ2_0, TensorType::Q2_0] {
                // Base 3 has no digit for the code that no weight has.
                let most = if tensor_type == TensorType::TQ1_0 { 2 } else { 3 };
                let codes: Vec<u8> = codes.iter().map(|&code| code.min(most)).collect();
                let mut again = vec![9; codes.len()];
                prop_assert!(unpacker(tensor_type).unwrap()(&packed(tensor_type, &codes), &mut again));
                prop_assert_eq!(&again, &codes);
            }
        }

        #[test]
        fn another_block_scale_is_noticed(block in 0..2_usize, byte in 0..2_usize, change in 1..=255_u8) {
            let forms = [
                (TensorType::TQ1_0, 54 * block + 52),
                (TensorType::TQ2_0, 66 * block + 64),
                (TensorType::Q2_0, 18 * block),
            ];
            for (tensor_type, scale) in forms {
                let mut bytes = packed(tensor_type, &[1; 512]);
                bytes[scale + byte] ^= change;
                prop_assert!(!unpacker(tensor_type).unwrap()(&bytes, &mut [0; 512]));
            }
        }
    }
}
