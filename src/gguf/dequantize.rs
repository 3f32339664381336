//! Stored weights to `f32`. The layouts are those of ggml's `ggml-common.h`.
//!
//! A block starts with its scale (`d`, F16), the types with a minimum have it next (`m`); the codes follow. Codes of
//! 4 bits share a byte with one that lies half a block (or half a group) further on: low nibble first.

use half::{bf16, f16};

use super::TensorType;

/// Reads whole blocks into as many floats as they hold.
pub(crate) type Decoder = fn(&[u8], &mut [f32]);

/// How rows of this type are read; `None` for another type.
pub(crate) fn decoder(tensor_type: TensorType) -> Option<Decoder> {
    Some(match tensor_type {
        TensorType::F32 => f32_row,
        TensorType::F16 => f16_row,
        TensorType::BF16 => bf16_row,
        TensorType::Q8_0 => q8_0_row,
        TensorType::Q4_0 => q4_0_row,
        TensorType::Q4_1 => q4_1_row,
        TensorType::Q5_0 => q5_0_row,
        TensorType::Q5_1 => q5_1_row,
        TensorType::Q4_K => q4_k_row,
        TensorType::Q5_K => q5_k_row,
        TensorType::Q6_K => q6_k_row,
        _ => return None,
    })
}

fn f32_row(bytes: &[u8], row: &mut [f32]) {
    for (value, &stored) in row.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *value = f32::from_le_bytes(stored);
    }
}

fn f16_row(bytes: &[u8], row: &mut [f32]) {
    for (value, &stored) in row.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *value = f16::from_le_bytes(stored).to_f32();
    }
}

fn bf16_row(bytes: &[u8], row: &mut [f32]) {
    for (value, &stored) in row.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *value = bf16::from_le_bytes(stored).to_f32();
    }
}

fn q8_0_row(bytes: &[u8], row: &mut [f32]) {
    for (block, out) in blocks::<34, 32>(bytes, row) {
        let d = scale(block, 0);
        for (value, &code) in out.iter_mut().zip(&block[2..]) {
            *value = d * f32::from(code.cast_signed());
        }
    }
}

fn q4_0_row(bytes: &[u8], row: &mut [f32]) {
    for (block, out) in blocks::<18, 32>(bytes, row) {
        let d = scale(block, 0);
        let (low, high) = out.split_at_mut(16);
        for ((low, high), &codes) in low.iter_mut().zip(high).zip(&block[2..]) {
            *low = d * (f32::from(codes & 0x0f) - 8.0);
            *high = d * (f32::from(codes >> 4) - 8.0);
        }
    }
}

fn q4_1_row(bytes: &[u8], row: &mut [f32]) {
    for (block, out) in blocks::<20, 32>(bytes, row) {
        let (d, m) = (scale(block, 0), scale(block, 2));
        let (low, high) = out.split_at_mut(16);
        for ((low, high), &codes) in low.iter_mut().zip(high).zip(&block[4..]) {
            *low = d * f32::from(codes & 0x0f) + m;
            *high = d * f32::from(codes >> 4) + m;
        }
    }
}

fn q5_0_row(bytes: &[u8], row: &mut [f32]) {
    for (block, out) in blocks::<22, 32>(bytes, row) {
        let d = scale(block, 0);
        for (value, code) in out.iter_mut().zip(five_bit_codes(&block[2..])) {
            *value = d * (f32::from(code) - 16.0);
        }
    }
}

fn q5_1_row(bytes: &[u8], row: &mut [f32]) {
    for (block, out) in blocks::<24, 32>(bytes, row) {
        let (d, m) = (scale(block, 0), scale(block, 2));
        for (value, code) in out.iter_mut().zip(five_bit_codes(&block[4..])) {
            *value = d * f32::from(code) + m;
        }
    }
}

/// 32 codes: four bytes with the fifth bits, in the order of the elements, then sixteen with the nibbles.
fn five_bit_codes(bytes: &[u8]) -> [u8; 32] {
    let (fifths, nibbles) = bytes.split_at(4);
    std::array::from_fn(|element| {
        let byte = nibbles[element % 16];
        let nibble = if element < 16 { byte & 0x0f } else { byte >> 4 };
        nibble | ((fifths[element / 8] >> (element % 8)) & 1) << 4
    })
}

/// Super-block: `d`, `dmin`, 12 bytes with eight scales and eight minima of 6 bits, 128 bytes of nibbles.
fn q4_k_row(bytes: &[u8], row: &mut [f32]) {
    for (block, out) in blocks::<144, 256>(bytes, row) {
        let (d, dmin) = (scale(block, 0), scale(block, 2));
        let (scales, minima) = six_bit_pairs(&block[4..16]);
        for (pair, nibbles) in block[16..].as_chunks::<32>().0.iter().enumerate() {
            for (half, shift) in [(0, 0), (1, 4)] {
                let group = 2 * pair + half;
                let (d, m) = (d * f32::from(scales[group]), dmin * f32::from(minima[group]));
                for (value, &codes) in out[32 * group..].iter_mut().zip(nibbles) {
                    *value = d * f32::from((codes >> shift) & 0x0f) - m;
                }
            }
        }
    }
}

/// As Q4_K, with 32 bytes of fifth bits before the nibbles: bit `group` of byte `element`.
fn q5_k_row(bytes: &[u8], row: &mut [f32]) {
    for (block, out) in blocks::<176, 256>(bytes, row) {
        let (d, dmin) = (scale(block, 0), scale(block, 2));
        let (scales, minima) = six_bit_pairs(&block[4..16]);
        let fifths = &block[16..48];
        for (pair, nibbles) in block[48..].as_chunks::<32>().0.iter().enumerate() {
            for (half, shift) in [(0, 0), (1, 4)] {
                let group = 2 * pair + half;
                let (d, m) = (d * f32::from(scales[group]), dmin * f32::from(minima[group]));
                for ((value, &codes), &fifth) in out[32 * group..].iter_mut().zip(nibbles).zip(fifths) {
                    let code = (codes >> shift) & 0x0f | ((fifth >> group) & 1) << 4;
                    *value = d * f32::from(code) - m;
                }
            }
        }
    }
}

/// Eight scales and eight minima in 12 bytes: the first four of each in the low 6 bits of bytes 0 to 7; of the other
/// four the low nibbles in bytes 8 to 11 and the upper 2 bits on top of bytes 0 to 7.
fn six_bit_pairs(packed: &[u8]) -> ([u8; 8], [u8; 8]) {
    let unpack = |of_minima: usize| {
        std::array::from_fn(|group| match group {
            0..4 => packed[group + 4 * of_minima] & 0x3f,
            _ => (packed[group + 4] >> (4 * of_minima)) & 0x0f | (packed[group - 4 + 4 * of_minima] >> 6) << 4,
        })
    };
    (unpack(0), unpack(1))
}

/// Super-block: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed scales, `d`; in two halves of 128
/// elements, each four groups of 32 that share the bytes of their bit pairs.
fn q6_k_row(bytes: &[u8], row: &mut [f32]) {
    for (block, out) in blocks::<210, 256>(bytes, row) {
        let d = scale(block, 208);
        for (half, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
            let (nibbles, pairs) = (&block[64 * half..], &block[128 + 32 * half..]);
            let scales = &block[192 + 8 * half..];
            for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let nibbles = &nibbles[32 * (group % 2)..][..32];
                for (element, value) in out.iter_mut().enumerate() {
                    let low = nibbles[element] >> (4 * (group / 2)) & 0x0f;
                    let high = pairs[element] >> (2 * group) & 0x03;
                    let scale = scales[2 * group + element / 16].cast_signed();
                    *value = d * f32::from(scale) * (f32::from(low | high << 4) - 32.0);
                }
            }
        }
    }
}

/// Pairs each block of `BYTES` bytes with the `ELEMENTS` floats that it becomes.
fn blocks<'a, const BYTES: usize, const ELEMENTS: usize>(
    bytes: &'a [u8],
    row: &'a mut [f32],
) -> impl Iterator<Item = (&'a [u8; BYTES], &'a mut [f32; ELEMENTS])> {
    bytes.as_chunks().0.iter().zip(row.as_chunks_mut().0)
}

/// The F16 at byte `offset` of a block.
fn scale(block: &[u8], offset: usize) -> f32 {
    f16::from_le_bytes([block[offset], block[offset + 1]]).to_f32()
}

#[cfg(all(test, feature = "synth"))]
mod tests {
    use super::*;
    use crate::gguf::synth::quantize::encoder;

    /// The largest error of a weight in relation to the largest weight: half a step, or a whole one where the largest
    /// positive weight has no code.
    const ERRORS: &[(TensorType, f32)] = &[
        (TensorType::F32, 0.0),
        (TensorType::F16, 0.0005),
        (TensorType::BF16, 0.004),
        (TensorType::Q8_0, 0.004),
        (TensorType::Q4_0, 0.126),
        (TensorType::Q4_1, 0.068),
        (TensorType::Q5_0, 0.063),
        (TensorType::Q5_1, 0.033),
        (TensorType::Q4_K, 0.085),
        (TensorType::Q5_K, 0.05),
        (TensorType::Q6_K, 0.033),
    ];

    #[test]
    fn decoded_weights_are_near_what_was_encoded() {
        // Between -1 and 1, without a pattern that a wrong order of elements could keep.
        let weights: Vec<f32> =
            (0_u32..1024).map(|index| (index * index * 7919 % 2003) as f32 / 1001.0 - 1.0).collect();
        for &(tensor_type, largest_error) in ERRORS {
            let (encode, decode) = (encoder(tensor_type).unwrap(), decoder(tensor_type).unwrap());
            let mut bytes = Vec::new();
            encode(&weights, &mut bytes);
            assert_eq!(bytes.len() as u64, 1024 / tensor_type.block_elements() * tensor_type.block_bytes());
            let mut decoded = vec![f32::NAN; weights.len()];
            decode(&bytes, &mut decoded);
            for (index, (weight, decoded)) in weights.iter().zip(&decoded).enumerate() {
                let error = (weight - decoded).abs();
                assert!(error <= largest_error, "{tensor_type} element {index}: {weight} became {decoded}");
            }
        }
    }

    #[test]
    fn every_type_that_can_be_read_is_tested() {
        let tested = |tensor_type| ERRORS.iter().any(|&(tested, _)| tested == tensor_type);
        for &tensor_type in TensorType::ALL {
            assert_eq!(decoder(tensor_type).is_some(), tested(tensor_type), "{tensor_type}");
        }
    }
}
