//! Ternary matrices in the forms of GGUF files, written from the formats' descriptions for these tests alone.

use gguf_loader::gguf::TensorType;
use half::f16;

use crate::random::Random;

/// Codes (the weight plus one), and a scale for each block.
pub(crate) struct Weights {
    pub(crate) tensor_type: TensorType,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    codes: Vec<u8>,
    scales: Vec<f32>,
}

impl Weights {
    /// Random codes, of the fourth one only if `four_codes` and the type can store it; random powers of two for scales, one
    /// for all unless `scale_of_block`. Kernels keep three codes and one scale in a form of its own, as BitNet has them.
    pub(crate) fn random(
        tensor_type: TensorType,
        rows: usize,
        columns: usize,
        four_codes: bool,
        scale_of_block: bool,
        random: &mut Random,
    ) -> Self {
        let codes = if four_codes && tensor_type != TensorType::TQ1_0 { 4 } else { 3 };
        let one = random.below(3);
        let mut scale = || [0.5, 1.0, 2.0][if scale_of_block { random.below(3) } else { one } as usize];
        let blocks = rows * columns / tensor_type.block_elements() as usize;
        let scales = (0..blocks).map(|_| scale()).collect();
        let codes = (0..rows * columns).map(|_| random.below(codes) as u8).collect();
        Self { tensor_type, rows, columns, codes, scales }
    }

    /// With another code as the last weight.
    pub(crate) fn ending_with(mut self, code: u8) -> Self {
        *self.codes.last_mut().expect("a weight") = code;
        self
    }

    /// The same code everywhere, with scale 1.
    pub(crate) fn of_code(tensor_type: TensorType, rows: usize, columns: usize, code: u8) -> Self {
        let blocks = rows * columns / tensor_type.block_elements() as usize;
        Self { tensor_type, rows, columns, codes: vec![code; rows * columns], scales: vec![1.0; blocks] }
    }

    /// The products with `input`, exactly.
    pub(crate) fn times(&self, input: &[f32]) -> Vec<f64> {
        let block = self.tensor_type.block_elements() as usize;
        let of_block = |(codes, (inputs, &scale)): (&[u8], (&[f32], &f32))| {
            let sum: i64 = codes.iter().zip(inputs).map(|(&code, &x)| (i64::from(code) - 1) * x as i64).sum();
            sum as f64 * f64::from(scale)
        };
        let rows = self.codes.chunks(self.columns).zip(self.scales.chunks(self.columns / block));
        rows.map(|(codes, scales)| codes.chunks(block).zip(input.chunks(block).zip(scales)).map(of_block).sum())
            .collect()
    }

    /// As a GGUF file stores them.
    pub(crate) fn stored(&self) -> Vec<u8> {
        let block = self.tensor_type.block_elements() as usize;
        let mut bytes = Vec::new();
        for (codes, &scale) in self.codes.chunks(block).zip(&self.scales) {
            let scale = f16::from_f32(scale).to_le_bytes();
            match self.tensor_type {
                // 64 weights: the scale, then four to a byte, the first in the lowest bits.
                TensorType::Q2_0 => {
                    bytes.extend(scale);
                    bytes.extend(codes.chunks(4).map(|four| four.iter().rev().fold(0, |byte, code| byte << 2 | code)));
                }
                // 256 weights: in each half of 128, byte i has weights i, i + 32, i + 64 and i + 96.
                TensorType::TQ2_0 => {
                    for half in codes.chunks(128) {
                        bytes.extend((0..32).map(|i| (0..4).rev().fold(0, |byte, j| byte << 2 | half[i + 32 * j])));
                    }
                    bytes.extend(scale);
                }
                // 256 weights: 32 bytes with five digits of base 3 each, 16 with five, 4 with four.
                TensorType::TQ1_0 => {
                    bytes.extend(digits(&codes[..160], 32));
                    bytes.extend(digits(&codes[160..240], 16));
                    bytes.extend(digits(&codes[240..], 4));
                    bytes.extend(scale);
                }
                other => panic!("{other} is not ternary"),
            }
        }
        bytes
    }
}

/// A matrix in Q6_K: weights of `d * scale * (code - 32)`, with a scale for each 16 and d for each 256.
pub(crate) struct SixBit {
    pub(crate) columns: usize,
    codes: Vec<u8>,
    scales: Vec<i8>,
    d: Vec<f32>,
}

impl SixBit {
    pub(crate) fn random(rows: usize, columns: usize, random: &mut Random) -> Self {
        let weights = rows * columns;
        Self {
            columns,
            codes: (0..weights).map(|_| random.below(64) as u8).collect(),
            scales: (0..weights / 16).map(|_| (random.below(256) as i32 - 128) as i8).collect(),
            d: (0..weights / 256).map(|_| [0.25, 0.5, 1.0][random.below(3) as usize]).collect(),
        }
    }

    /// The same code and scale everywhere.
    pub(crate) fn of_code(rows: usize, columns: usize, code: u8, scale: i8) -> Self {
        let weights = rows * columns;
        let (codes, scales) = (vec![code; weights], vec![scale; weights / 16]);
        Self { columns, codes, scales, d: vec![1.0; weights / 256] }
    }

    pub(crate) fn rows(&self) -> usize {
        self.codes.len() / self.columns
    }

    /// The products with `input`, and the sums of the magnitudes that go into each.
    pub(crate) fn times(&self, input: &[f32]) -> Vec<(f64, f64)> {
        let weight = |index: usize| {
            let integer = i64::from(self.scales[index / 16]) * (i64::from(self.codes[index]) - 32);
            integer as f64 * f64::from(self.d[index / 256])
        };
        let row = |row: usize| {
            let terms = input.iter().enumerate().map(|(column, &x)| weight(row * self.columns + column) * f64::from(x));
            terms.fold((0.0, 0.0), |(sum, magnitude), term| (sum + term, magnitude + term.abs()))
        };
        (0..self.codes.len() / self.columns).map(row).collect()
    }

    /// As a GGUF file stores them: low nibbles, high bits, scales, d.
    pub(crate) fn stored(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (block, codes) in self.codes.chunks(256).enumerate() {
            // In each half of 128, byte i of 64 has the low bits of weights i and i + 64.
            for half in codes.chunks(128) {
                bytes.extend((0..64).map(|i| half[i] & 15 | (half[i + 64] & 15) << 4));
            }
            // And byte i of 32 the high bits of weights i, i + 32, i + 64 and i + 96.
            for half in codes.chunks(128) {
                bytes.extend((0..32).map(|i| (0..4).rev().fold(0, |byte, j| byte << 2 | half[i + 32 * j] >> 4)));
            }
            bytes.extend(self.scales[block * 16..][..16].iter().map(|&scale| scale.cast_unsigned()));
            bytes.extend(f16::from_f32(self.d[block]).to_le_bytes());
        }
        bytes
    }
}

/// Byte i has the codes i, i + `bytes`, i + 2 `bytes` and so on as digits, the first the most significant; with fewer than
/// five the last is 0. The number is stored as a fraction of 243 in 256ths, rounded up.
fn digits(codes: &[u8], bytes: usize) -> Vec<u8> {
    let byte = |i: usize| {
        let digit = |place: usize| codes.get(i + place * bytes).copied().map_or(0, u16::from);
        let number = (0..5).fold(0, |number, place| number * 3 + digit(place));
        (number * 256).div_ceil(243) as u8
    };
    (0..bytes).map(byte).collect()
}
