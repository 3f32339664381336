//! Ternary weights, and the 8-bit activations that they are multiplied with.
//!
//! A BitLinear layer of BitNet b1.58 (S. Ma et al., arXiv:2402.17764) rounds each token's activations to `int8` with one
//! scale, so that the product with the codes -1, 0 and 1 is a sum of integers, the same in whatever order it is taken.
//! Every ternary matrix is multiplied that way here, in whatever architecture it stands.

use half::f16;

use crate::gguf::TensorType;

/// How the rows of a ternary type are stored. The layouts are those of ggml's `ggml-common.h`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    block_elements: usize,
    block_bytes: usize,
    /// Where in a block its scale is, an F16.
    scale_offset: usize,
    code: ReadCode,
}

/// The code of one element of a block.
type ReadCode = fn(block: &[u8], element: usize) -> i8;

impl Layout {
    /// The layout of this type; `None` when it is not ternary.
    pub(super) fn of(tensor_type: TensorType) -> Option<Self> {
        let (scale_offset, code): (_, ReadCode) = match tensor_type {
            TensorType::TQ1_0 => (52, tq1_0_code),
            TensorType::TQ2_0 => (64, tq2_0_code),
            TensorType::Q2_0 => (0, q2_0_code),
            _ => return None,
        };
        let block_elements = tensor_type.block_elements() as usize;
        Some(Self { block_elements, block_bytes: tensor_type.block_bytes() as usize, scale_offset, code })
    }

    /// Reads whole blocks: their codes, one behind the other, and a scale for each block.
    pub(super) fn read(&self, bytes: &[u8], row: &mut Row) {
        row.codes.clear();
        row.scales.clear();
        for block in bytes.chunks_exact(self.block_bytes) {
            let scale = [block[self.scale_offset], block[self.scale_offset + 1]];
            row.scales.push(f16::from_le_bytes(scale).to_f32());
            row.codes.extend((0..self.block_elements).map(|element| (self.code)(block, element)));
        }
    }
}

/// 240 codes as five digits of base 3 a byte, 16 more as four a byte. A byte is the fraction `value / 3^5` in 256ths:
/// each multiplication by 3 carries one digit, the first one first, into the ninth bit.
fn tq1_0_code(block: &[u8], element: usize) -> i8 {
    let (byte, digit) = match element {
        0..160 => (element % 32, element / 32),
        160..240 => (32 + (element - 160) % 16, (element - 160) / 16),
        _ => (48 + (element - 240) % 4, (element - 240) / 4),
    };
    let fraction = block[byte].wrapping_mul(3_u8.pow(digit as u32));
    ((u16::from(fraction) * 3) >> 8) as i8 - 1
}

/// Two halves of 128 elements in 32 bytes each; elements that lie 32 apart share a byte.
fn tq2_0_code(block: &[u8], element: usize) -> i8 {
    let (half, within) = (element / 128, element % 128);
    two_bits(block[32 * half + within % 32], within / 32)
}

/// After the scale, four neighbouring elements a byte.
fn q2_0_code(block: &[u8], element: usize) -> i8 {
    two_bits(block[2 + element / 4], element % 4)
}

fn two_bits(byte: u8, pair: usize) -> i8 {
    (byte >> (2 * pair) & 0x03).cast_signed() - 1
}

/// A row of weights: codes, and a scale for each block of them.
#[derive(Debug, Default)]
pub(super) struct Row {
    codes: Vec<i8>,
    scales: Vec<f32>,
}

impl Row {
    /// The weights as floats.
    pub(super) fn dequantize(&self, output: &mut [f32]) {
        let block = self.codes.len() / self.scales.len().max(1);
        for (index, (value, &code)) in output.iter_mut().zip(&self.codes).enumerate() {
            *value = self.scales[index / block] * f32::from(code);
        }
    }

    /// The inner product with one token's activations.
    ///
    /// The sum of the blocks is taken in F64, which is exact when all of them have the scale 1: then nothing is rounded
    /// before the integer becomes an F32.
    pub(super) fn dot(&self, activations: &Activations) -> f32 {
        let block = self.codes.len() / self.scales.len().max(1);
        let blocks = self.codes.chunks_exact(block).zip(activations.codes.chunks_exact(block));
        let sum: f64 = blocks
            .zip(&self.scales)
            .map(|((codes, activations), &scale)| f64::from(scale) * f64::from(integer_dot(codes, activations)))
            .sum();
        sum as f32 * activations.scale
    }
}

/// Exact: 2^31 is the product of the largest codes over sixteen million elements.
fn integer_dot(codes: &[i8], activations: &[i8]) -> i32 {
    codes.iter().zip(activations).map(|(&code, &activation)| i32::from(code) * i32::from(activation)).sum()
}

/// One token's activations: the integers nearest to `value / scale`.
#[derive(Debug, PartialEq)]
pub(super) struct Activations {
    codes: Vec<i8>,
    scale: f32,
}

impl Activations {
    /// Rounds to 8 bits: the largest magnitude becomes 127, ties go to the even integer.
    pub(super) fn quantize(values: &[f32]) -> Self {
        /// What the largest magnitude is at least taken for: a row of zeros has a scale too.
        const FLOOR: f32 = 1e-5;
        let largest = values.iter().fold(FLOOR, |largest, value| value.abs().max(largest));
        let scale = largest / 127.0;
        let codes = values.iter().map(|value| (value / scale).round_ties_even().clamp(-128.0, 127.0) as i8).collect();
        Self { codes, scale }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tensor_type: TensorType, bytes: &[u8]) -> Row {
        let mut row = Row::default();
        Layout::of(tensor_type).unwrap().read(bytes, &mut row);
        row
    }

    /// A block of `bytes` bytes that are all `filling`, but for these.
    fn block<const N: usize>(filling: u8, bytes: &[(usize, u8)]) -> [u8; N] {
        let mut block = [filling; N];
        bytes.iter().for_each(|&(index, byte)| block[index] = byte);
        block
    }

    /// The elements whose code is not zero.
    fn nonzero(row: &Row) -> Vec<(usize, i8)> {
        row.codes.iter().copied().enumerate().filter(|&(_, code)| code != 0).collect()
    }

    #[test]
    fn tq2_0_has_elements_that_lie_32_apart_in_a_byte() {
        // 0b01010101 is four zeros. Scale 0x4000 is 2.
        let row = read(
            TensorType::TQ2_0,
            &block::<66>(0x55, &[(3, 0b10_01_00_10), (32, 0b01_01_01_00), (64, 0), (65, 0x40)]),
        );
        assert_eq!(nonzero(&row), [(3, 1), (35, -1), (99, 1), (128, -1)]);
        assert_eq!(row.scales, [2.0]);
    }

    #[test]
    fn q2_0_has_neighbours_in_a_byte_and_a_fourth_code() {
        let row = read(TensorType::Q2_0, &block::<18>(0x55, &[(0, 0), (1, 0x38), (2, 0b11_01_00_10), (17, 0x15)]));
        assert_eq!(nonzero(&row), [(0, 1), (1, -1), (3, 2), (63, -1)]);
        assert_eq!(row.scales, [0.5]);
    }

    #[test]
    fn tq1_0_has_five_digits_in_a_byte() {
        // 128: digits 1 1 1 1 1. 188: 2 0 1 2 1. 255: 2 2 2 2 2. 155: 1 2 1 1 0.
        let bytes = [(0, 188), (47, 255), (48, 155), (52, 0), (53, 0x3c)];
        let row = read(TensorType::TQ1_0, &block::<54>(128, &bytes));
        let expected = [(0, 1), (32, -1), (96, 1), (175, 1), (191, 1), (207, 1), (223, 1), (239, 1), (244, 1)];
        assert_eq!(nonzero(&row), expected);
        assert_eq!(row.scales, [1.0]);
    }

    #[test]
    fn what_the_library_packs_is_read_back() {
        let stored: Vec<u8> = (0..768_u32).map(|index| (index * index * 7919 % 2003 % 3) as u8).collect();
        let codes: Vec<i8> = stored.iter().map(|code| code.cast_signed() - 1).collect();
        for tensor_type in [TensorType::TQ1_0, TensorType::TQ2_0, TensorType::Q2_0] {
            let mut bytes = Vec::new();
            crate::gguf::ternary::blocks::packer(tensor_type).unwrap()(&stored, &mut bytes);
            let row = read(tensor_type, &bytes);
            assert_eq!(row.codes, codes, "{tensor_type}");
            assert!(row.scales.iter().all(|&scale| scale == 1.0), "{tensor_type}");
        }
    }

    #[test]
    fn weights_are_scale_times_code() {
        let row = read(TensorType::Q2_0, &[block::<18>(0x55, &[(0, 0), (1, 0x38), (2, 0b10)]), [0; 18]].concat());
        let mut weights = [f32::NAN; 128];
        row.dequantize(&mut weights);
        assert_eq!(weights[..5], [0.5, -0.5, -0.5, -0.5, 0.0]);
        assert_eq!(weights[64], 0.0);
    }

    #[test]
    fn activations_round_half_to_even() {
        // The scale is 1/127 in binary digits that divide evenly: 127 / 127 = 1.
        let activations = Activations::quantize(&[127.0, -127.0, 0.5, 1.5, 2.5, -0.5, -3.5, 0.0]);
        assert_eq!(activations.scale, 1.0);
        assert_eq!(activations.codes, [127, -127, 0, 2, 2, 0, -4, 0]);
    }

    #[test]
    fn activations_near_zero_have_the_floor_as_their_largest() {
        let activations = Activations::quantize(&[1e-6, -5e-6, 0.0]);
        assert_eq!(activations.scale, 1e-5 / 127.0);
        assert_eq!(activations.codes, [13, -64, 0]);
    }

    #[test]
    fn product_is_integers_times_both_scales() {
        // Two blocks with scales 0.5 and 2; the first 64 codes are -1, of the others the first two are 1 and -1.
        let blocks = [block::<18>(0x00, &[(1, 0x38)]), block::<18>(0x55, &[(0, 0), (1, 0x40), (2, 0b01_01_00_10)])];
        let row = read(TensorType::Q2_0, &blocks.concat());
        let mut values = [0.0; 128];
        (values[0], values[63], values[64], values[65]) = (254.0, 2.0, 20.0, -40.0);
        // The scale is 2: codes 127, 1, 10, -20. 0.5 * -(127 + 1) + 2 * (10 + 20) = -4, times 2.
        assert_eq!(row.dot(&Activations::quantize(&values)), -8.0);
    }

    #[test]
    fn longest_rows_do_not_wrap() {
        // 6912 times 127: far over the 32767 at which a sum in 16 bits wraps.
        let bytes = block::<66>(0b10_10_10_10, &[(64, 0), (65, 0x3c)]).repeat(27);
        let row = read(TensorType::TQ2_0, &bytes);
        assert_eq!(row.dot(&Activations::quantize(&[127.0; 6912])), 6912.0 * 127.0);
    }
}
