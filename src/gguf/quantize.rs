//! Floats as files store them, and the two block types in which an output matrix is worth having.

use half::{bf16, f16, slice::HalfFloatSliceExt};

use super::TensorType;

/// Reads stored floats, one for each number of the slice.
pub(crate) type FloatDecoder = fn(&[u8], &mut [f32]);

/// Appends the blocks of a row.
pub(crate) type BlockEncoder = fn(&[f32], &mut Vec<u8>);

/// How floats of this type are read; `None` for a type of blocks.
pub(crate) fn float_decoder(tensor_type: TensorType) -> Option<FloatDecoder> {
    Some(match tensor_type {
        TensorType::F32 => |bytes, values| {
            for (value, &stored) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(stored);
            }
        },
        TensorType::F16 => |bytes, values| {
            // In vectors: the conversion asks for the CPU's features once a call.
            let mut stored = [f16::ZERO; 1024];
            for (bytes, values) in bytes.chunks(2 * stored.len()).zip(values.chunks_mut(stored.len())) {
                let stored = &mut stored[..values.len()];
                for (stored, &bytes) in stored.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *stored = f16::from_le_bytes(bytes);
                }
                stored.convert_to_f32_slice(values);
            }
        },
        TensorType::BF16 => |bytes, values| {
            for (value, &stored) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = bf16::from_le_bytes(stored).to_f32();
            }
        },
        _ => return None,
    })
}

/// How rows are stored as Q8_0 or Q6_K; `None` for other types.
pub(crate) fn block_encoder(tensor_type: TensorType) -> Option<BlockEncoder> {
    match tensor_type {
        TensorType::Q8_0 => Some(|row, bytes| row.as_chunks().0.iter().for_each(|block| q8_0_block(block, bytes))),
        TensorType::Q6_K => Some(|row, bytes| row.as_chunks().0.iter().for_each(|block| q6_k_block(block, bytes))),
        _ => None,
    }
}

/// Q8_0 as ggml's reference writes it, bit for bit: an F16 scale and 32 signed codes.
pub(crate) fn q8_0_block(block: &[f32; 32], bytes: &mut Vec<u8>) {
    let largest = block.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    let d = largest / 127.0;
    let inverse = inverse(d);
    bytes.extend(f16::from_f32(d).to_le_bytes());
    bytes.extend(block.iter().map(|value| ((value * inverse).round() as i8).cast_unsigned()));
}

/// Q6_K: sixteen groups of 16 codes from -32 to 31, a signed scale each, an F16 scale for all.
///
/// Each group's scale is searched for the least error, weighted by the square of the value, as ggml does.
fn q6_k_block(block: &[f32; 256], bytes: &mut Vec<u8>) {
    let groups = block.as_chunks::<16>().0;
    let steps: [f32; 16] = std::array::from_fn(|group| best_step(&groups[group]));
    let farthest =
        steps.iter().fold(0.0, |farthest: f32, &step| if step.abs() > farthest.abs() { step } else { farthest });
    let d = farthest / -128.0;
    let scales = steps.map(|step| nearest(step * inverse(d)).clamp(-128.0, 127.0));
    let stored_d = f16::from_f32(d).to_f32();
    let mut codes = [0_u8; 256];
    for ((codes, group), scale) in codes.as_chunks_mut::<16>().0.iter_mut().zip(groups).zip(scales) {
        let inverse = inverse(stored_d * scale);
        *codes = group.map(|value| (quantised(value * inverse) + 32.0) as u8);
    }
    push_q6_k(&codes, scales, d, bytes);
}

/// Halves of 128: the nibbles of elements 0 to 63 share bytes with those of 64 to 127, and the upper bit pairs of elements
/// that are 32 apart share a byte.
fn push_q6_k(codes: &[u8; 256], scales: [f32; 16], d: f32, bytes: &mut Vec<u8>) {
    let halves = codes.as_chunks::<128>().0;
    for half in halves {
        bytes.extend((0..64).map(|element| half[element] & 0x0f | (half[element + 64] & 0x0f) << 4));
    }
    for half in halves {
        let pair = |element: usize, quarter: usize| (half[element + 32 * quarter] >> 4) << (2 * quarter);
        bytes.extend((0..32).map(|element| (0..4).fold(0, |pairs, quarter| pairs | pair(element, quarter))));
    }
    bytes.extend(scales.map(|scale| (scale as i8).cast_unsigned()));
    bytes.extend(f16::from_f32(d).to_le_bytes());
}

/// The step between codes that fits a group best.
///
/// The candidates put the value farthest from zero at -32, or up to a code beside it. For the codes that a candidate
/// gives, the best step is a quotient of sums (least squares), and so is how much error it leaves.
fn best_step(group: &[f32; 16]) -> f32 {
    /// ggml takes a group for zero below this.
    const ZERO: f32 = 1e-15;
    /// Tenths of a code beside -32. The plain candidate first: a later one must be better, not equal.
    const CANDIDATES: [f32; 19] =
        [0.0, -9.0, -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
    let farthest = group.iter().fold(0.0, |far: f32, &value| if value.abs() > far.abs() { value } else { far });
    if farthest.abs() < ZERO {
        return 0.0;
    }
    // All candidates at once, value by value: lanes of vectors, and the same sums on every CPU.
    let inverses = CANDIDATES.map(|tenths| -(32.0 + 0.1 * tenths) / farthest);
    let (mut along, mut square) = ([0.0; CANDIDATES.len()], [0.0; CANDIDATES.len()]);
    for &value in group {
        let weight = value * value;
        for ((along, square), inverse) in along.iter_mut().zip(&mut square).zip(inverses) {
            let code = quantised(inverse * value);
            *along += weight * value * code;
            *square += weight * code * code;
        }
    }
    let mut best = (0.0, 0.0);
    for (along, square) in along.into_iter().zip(square) {
        if square > 0.0 && along * along > best.0 * square {
            let step = along / square;
            best = (step * along, step);
        }
    }
    best.1
}

/// A code of Q6_K.
fn quantised(value: f32) -> f32 {
    nearest(value).clamp(-32.0, 31.0)
}

/// The nearest whole number, the even one of two, for magnitudes below 2^22: two additions, which the compiler makes
/// vectors of on every CPU, where `round_ties_even` is a call without SSE4.1.
fn nearest(value: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT) - SHIFT
}

/// `1 / scale`, or zero for a block of zeros.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}
