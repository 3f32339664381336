//! Formats whose blocks of 256 have integer scales within, and one float for all of these.

use gguf_loader::gguf::TensorType::{self, IQ4_XS, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
use half::f16;

use crate::{Weights, block32::NON_LINEAR, random::Random};

pub(crate) const TYPES: [TensorType; 6] = [Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_XS];
pub(crate) const BLOCK: usize = 256;

/// What a format has room for.
struct Room {
    /// Columns that share a scale.
    shared: usize,
    codes: u32,
    /// What is taken from a code.
    offset: i32,
    /// Scales as they are stored, and what is taken from them.
    scales: u32,
    scale_offset: i32,
    /// Minima as they are stored; 1 where there are none.
    minima: u32,
}

fn room(tensor_type: TensorType) -> Room {
    let (shared, codes, offset, scales, scale_offset, minima) = match tensor_type {
        Q2_K => (16, 4, 0, 16, 0, 16),
        Q3_K => (16, 8, 4, 64, 32, 1),
        Q4_K => (32, 16, 0, 64, 0, 64),
        Q5_K => (32, 32, 0, 64, 0, 64),
        Q6_K => (16, 64, 32, 256, 128, 1),
        _ => (32, 16, 0, 64, 32, 1),
    };
    Room { shared, codes, offset, scales, scale_offset, minima }
}

/// Codes, scales and minima as they are stored.
pub(crate) struct Block256 {
    tensor_type: TensorType,
    columns: usize,
    codes: Vec<i32>,
    scales: Vec<i32>,
    minima: Vec<i32>,
    /// For each block, what its scales and its minima are multiplied with.
    factors: Vec<(f32, f32)>,
}

impl Block256 {
    pub(crate) fn random(tensor_type: TensorType, rows: usize, columns: usize, random: &mut Random) -> Self {
        let Room { shared, codes, scales, minima, .. } = room(tensor_type);
        let mut below = |count: usize, bound: u32| (0..count).map(|_| random.below(bound) as i32).collect::<Vec<_>>();
        let n_codes = rows * columns;
        let factor = |code: &i32| [1.0, -1.0, 2.0][*code as usize];
        Self {
            tensor_type,
            columns,
            codes: below(n_codes, codes),
            scales: below(n_codes / shared, scales),
            minima: below(n_codes / shared, minima),
            factors: below(n_codes / BLOCK, 3)
                .iter()
                .zip(&below(n_codes / BLOCK, 3))
                .map(|(d, dmin)| (factor(d), factor(dmin)))
                .collect(),
        }
    }

    /// All codes the smallest, or the largest, with scales of 1 and the largest minima.
    pub(crate) fn extreme(tensor_type: TensorType, rows: usize, columns: usize, largest: bool) -> Self {
        let Room { shared, codes, scale_offset, minima, .. } = room(tensor_type);
        let n_codes = rows * columns;
        Self {
            tensor_type,
            columns,
            codes: vec![if largest { codes as i32 - 1 } else { 0 }; n_codes],
            scales: vec![scale_offset + 1; n_codes / shared],
            minima: vec![minima as i32 - 1; n_codes / shared],
            factors: vec![(1.0, 1.0); n_codes / BLOCK],
        }
    }
}

impl Weights for Block256 {
    fn weight(&self, row: usize, column: usize) -> f64 {
        let Room { shared, offset, scale_offset, .. } = room(self.tensor_type);
        let index = row * self.columns + column;
        let code = match self.tensor_type {
            IQ4_XS => NON_LINEAR[self.codes[index] as usize],
            _ => self.codes[index] - offset,
        };
        let (d, dmin) = self.factors[index / BLOCK];
        let scale = self.scales[index / shared] - scale_offset;
        f64::from(code) * f64::from(scale) * f64::from(d) - f64::from(self.minima[index / shared]) * f64::from(dmin)
    }

    fn stored(&self) -> Vec<u8> {
        let per_block = BLOCK / room(self.tensor_type).shared;
        let mut bytes = Vec::new();
        for (block, codes) in self.codes.chunks(BLOCK).enumerate() {
            let scales = &self.scales[block * per_block..][..per_block];
            let minima = &self.minima[block * per_block..][..per_block];
            let (d, dmin) = self.factors[block];
            let (d, dmin) = (f16::from_f32(d).to_le_bytes(), f16::from_f32(dmin).to_le_bytes());
            // Bits from `first` on of codes, `step` columns apart within stretches of `width`, side by side in bytes.
            let fields = |first: u32, bits: u32, stretch: usize, width: usize| {
                let mut packed = vec![0_u8; BLOCK * bits as usize / 8];
                for (column, &code) in codes.iter().enumerate() {
                    let (which, within) = (column / stretch, column % stretch);
                    let field = (code as u32 >> first & ((1 << bits) - 1)) as u8;
                    packed[which * width + within % width] |= field << (within / width * bits as usize);
                }
                packed
            };
            match self.tensor_type {
                Q2_K => {
                    bytes.extend(scales.iter().zip(minima).map(|(&scale, &minimum)| (scale | minimum << 4) as u8));
                    bytes.extend(fields(0, 2, 128, 32));
                    bytes.extend(d.into_iter().chain(dmin));
                }
                Q3_K => {
                    bytes.extend(fields(2, 1, 256, 32));
                    bytes.extend(fields(0, 2, 128, 32));
                    bytes.extend((0..8).map(|i| (scales[i] & 15 | (scales[i + 8] & 15) << 4) as u8));
                    bytes.extend(
                        (0..4).map(|i| (0..4).fold(0, |byte, k| byte | ((scales[4 * k + i] >> 4) << (2 * k)) as u8)),
                    );
                    bytes.extend(d);
                }
                Q4_K | Q5_K => {
                    bytes.extend(d.into_iter().chain(dmin));
                    bytes.extend((0..4).map(|i| (scales[i] | scales[i + 4] >> 4 << 6) as u8));
                    bytes.extend((0..4).map(|i| (minima[i] | minima[i + 4] >> 4 << 6) as u8));
                    bytes.extend((4..8).map(|i| (scales[i] & 15 | (minima[i] & 15) << 4) as u8));
                    if self.tensor_type == Q5_K {
                        bytes.extend(fields(4, 1, 256, 32));
                    }
                    bytes.extend(fields(0, 4, 64, 32));
                }
                Q6_K => {
                    bytes.extend(fields(0, 4, 128, 64));
                    bytes.extend(fields(4, 2, 128, 32));
                    bytes.extend(scales.iter().map(|&scale| (scale - 128) as i8 as u8));
                    bytes.extend(d);
                }
                _ => {
                    bytes.extend(d);
                    let high = (0..8).fold(0_u16, |bits, i| bits | (scales[i] as u16 >> 4) << (2 * i));
                    bytes.extend(high.to_le_bytes());
                    bytes.extend((0..4).map(|i| (scales[2 * i] & 15 | (scales[2 * i + 1] & 15) << 4) as u8));
                    bytes.extend(fields(0, 4, 32, 16));
                }
            }
        }
        bytes
    }
}
