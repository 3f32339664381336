//! Formats whose blocks of 32 have one scale.

use gguf_loader::gguf::TensorType::{self, IQ4_NL, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use half::f16;

use crate::{Weights, random::Random};

pub(crate) const TYPES: [TensorType; 6] = [Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL];
pub(crate) const BLOCK: usize = 32;

/// The weights that the codes of IQ4_NL and IQ4_XS stand for.
pub(crate) const NON_LINEAR: [i32; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Codes as they are stored, with a scale and a minimum for each block.
pub(crate) struct Block32 {
    tensor_type: TensorType,
    columns: usize,
    codes: Vec<i32>,
    scales: Vec<f32>,
    minima: Vec<f32>,
}

/// How many codes there are.
fn codes(tensor_type: TensorType) -> u32 {
    match tensor_type {
        Q8_0 => 255,
        Q5_0 | Q5_1 => 32,
        _ => 16,
    }
}

fn has_minimum(tensor_type: TensorType) -> bool {
    [Q4_1, Q5_1].contains(&tensor_type)
}

impl Block32 {
    pub(crate) fn random(tensor_type: TensorType, rows: usize, columns: usize, random: &mut Random) -> Self {
        let blocks = rows * columns / BLOCK;
        let least = if tensor_type == Q8_0 { -127 } else { 0 };
        let mut one_of = |values: [f32; 3]| values[random.below(3) as usize];
        let scales = (0..blocks).map(|_| one_of([0.5, 1.0, -2.0])).collect();
        let minima =
            (0..blocks).map(|_| if has_minimum(tensor_type) { one_of([-4.0, 0.5, 8.0]) } else { 0.0 }).collect();
        let codes = (0..rows * columns).map(|_| random.below(codes(tensor_type)) as i32 + least).collect();
        Self { tensor_type, columns, codes, scales, minima }
    }

    /// All codes the smallest, or the largest.
    pub(crate) fn extreme(tensor_type: TensorType, rows: usize, columns: usize, largest: bool) -> Self {
        let most = codes(tensor_type) as i32 - 1;
        let code = match (tensor_type, largest) {
            (Q8_0, true) => 127,
            (Q8_0, false) => -128,
            (_, true) => most,
            (_, false) => 0,
        };
        let blocks = rows * columns / BLOCK;
        let (scales, minima) = (vec![1.0; blocks], vec![0.0; blocks]);
        Self { tensor_type, columns, codes: vec![code; rows * columns], scales, minima }
    }

    /// What a code stands for, before scale and minimum.
    fn integer(&self, index: usize) -> i32 {
        match self.tensor_type {
            Q4_0 => self.codes[index] - 8,
            Q5_0 => self.codes[index] - 16,
            IQ4_NL => NON_LINEAR[self.codes[index] as usize],
            _ => self.codes[index],
        }
    }
}

impl Weights for Block32 {
    fn weight(&self, row: usize, column: usize) -> f64 {
        let index = row * self.columns + column;
        let (scale, minimum) = (self.scales[index / BLOCK], self.minima[index / BLOCK]);
        f64::from(self.integer(index)) * f64::from(scale) + f64::from(minimum)
    }

    fn stored(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (codes, (&scale, &minimum)) in self.codes.chunks(BLOCK).zip(self.scales.iter().zip(&self.minima)) {
            bytes.extend(f16::from_f32(scale).to_le_bytes());
            if has_minimum(self.tensor_type) {
                bytes.extend(f16::from_f32(minimum).to_le_bytes());
            }
            if self.tensor_type == Q8_0 {
                bytes.extend(codes.iter().map(|&code| code as i8 as u8));
                continue;
            }
            if [Q5_0, Q5_1].contains(&self.tensor_type) {
                let high = (0..BLOCK).fold(0_u32, |bits, column| bits | (codes[column] as u32 >> 4) << column);
                bytes.extend(high.to_le_bytes());
            }
            // Byte i has columns i and i + 16.
            bytes.extend((0..16).map(|i| (codes[i] & 15) as u8 | ((codes[i + 16] & 15) as u8) << 4));
        }
        bytes
    }
}
