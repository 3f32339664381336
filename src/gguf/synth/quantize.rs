//! `f32` to stored weights.
//!
//! Plain floats, the ternary types and the blocks of 32 follow ggml's reference quantisation bit for bit. The K-quants take the extremes
//! of each group for its scale and minimum, where ggml searches for better ones: valid, a little coarser.

use half::{bf16, f16};

use crate::gguf::{TensorType, quantize::q8_0_block, ternary::blocks};

/// Appends the blocks of a row.
pub(crate) type Encoder = fn(&[f32], &mut Vec<u8>);

/// How rows of this type are stored; `None` for a type that cannot be written.
pub(crate) fn encoder(tensor_type: TensorType) -> Option<Encoder> {
    Some(match tensor_type {
        TensorType::F32 => |row, bytes| bytes.extend(row.iter().flat_map(|value| value.to_le_bytes())),
        TensorType::F16 => |row, bytes| bytes.extend(row.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes())),
        TensorType::BF16 => {
            |row, bytes| bytes.extend(row.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()))
        }
        TensorType::Q8_0 => |row, bytes| each_block(row, bytes, q8_0_block),
        TensorType::Q4_0 => |row, bytes| each_block(row, bytes, q4_0_block),
        TensorType::Q4_1 => |row, bytes| each_block(row, bytes, q4_1_block),
        TensorType::Q5_0 => |row, bytes| each_block(row, bytes, q5_0_block),
        TensorType::Q5_1 => |row, bytes| each_block(row, bytes, q5_1_block),
        TensorType::Q4_K => |row, bytes| each_block(row, bytes, q4_k_block),
        TensorType::Q5_K => |row, bytes| each_block(row, bytes, q5_k_block),
        TensorType::Q6_K => |row, bytes| each_block(row, bytes, q6_k_block),
        TensorType::TQ1_0 => |row, bytes| ternary_row(row, TensorType::TQ1_0, bytes),
        TensorType::TQ2_0 => |row, bytes| ternary_row(row, TensorType::TQ2_0, bytes),
        TensorType::Q2_0 => |row, bytes| ternary_row(row, TensorType::Q2_0, bytes),
        _ => return None,
    })
}

fn each_block<const ELEMENTS: usize>(row: &[f32], bytes: &mut Vec<u8>, encode: fn(&[f32; ELEMENTS], &mut Vec<u8>)) {
    row.as_chunks().0.iter().for_each(|block| encode(block, bytes));
}

fn q4_0_block(block: &[f32; 32], bytes: &mut Vec<u8>) {
    let d = farthest_from_zero(block) / -8.0;
    push_f16(bytes, d);
    let codes = block.map(|value| ((value * inverse(d) + 8.5) as u8).min(15));
    push_nibbles(bytes, &codes);
}

fn q4_1_block(block: &[f32; 32], bytes: &mut Vec<u8>) {
    let (least, most) = extremes(block);
    let d = (most - least) / 15.0;
    push_f16(bytes, d);
    push_f16(bytes, least);
    let codes = block.map(|value| (((value - least) * inverse(d) + 0.5) as u8).min(15));
    push_nibbles(bytes, &codes);
}

fn q5_0_block(block: &[f32; 32], bytes: &mut Vec<u8>) {
    let d = farthest_from_zero(block) / -16.0;
    push_f16(bytes, d);
    let codes = block.map(|value| ((value * inverse(d) + 16.5) as u8).min(31));
    push_fifth_bits(bytes, &codes);
    push_nibbles(bytes, &codes);
}

fn q5_1_block(block: &[f32; 32], bytes: &mut Vec<u8>) {
    let (least, most) = extremes(block);
    let d = (most - least) / 31.0;
    push_f16(bytes, d);
    push_f16(bytes, least);
    let codes = block.map(|value| ((value - least) * inverse(d) + 0.5) as u8);
    push_fifth_bits(bytes, &codes);
    push_nibbles(bytes, &codes);
}

fn q4_k_block(block: &[f32; 256], bytes: &mut Vec<u8>) {
    let codes = push_scales_and_minima(block, bytes, 15);
    codes.as_chunks::<64>().0.iter().for_each(|codes| push_nibbles(bytes, codes));
}

fn q5_k_block(block: &[f32; 256], bytes: &mut Vec<u8>) {
    let codes = push_scales_and_minima(block, bytes, 31);
    let groups = codes.as_chunks::<32>().0;
    bytes
        .extend((0..32).map(|element| (0..8).fold(0, |fifths, group| fifths | (groups[group][element] >> 4) << group)));
    codes.as_chunks::<64>().0.iter().for_each(|codes| push_nibbles(bytes, codes));
}

/// The head of a Q4_K or Q5_K super-block, and the codes of its eight groups of 32.
fn push_scales_and_minima(block: &[f32; 256], bytes: &mut Vec<u8>, largest_code: u8) -> [u8; 256] {
    let groups = block.as_chunks::<32>().0;
    // What is stored is how far the minimum lies below zero; it cannot lie above.
    let offsets: [f32; 8] = std::array::from_fn(|group| -extremes(&groups[group]).0.min(0.0));
    let steps: [f32; 8] =
        std::array::from_fn(|group| (extremes(&groups[group]).1 + offsets[group]).max(0.0) / f32::from(largest_code));
    let (d, steps) = six_bit_codes(&steps);
    let (dmin, offsets) = six_bit_codes(&offsets);
    push_f16(bytes, d);
    push_f16(bytes, dmin);
    // The first four of each stand in the low 6 bits of bytes 0 to 7; of the other four the low nibbles in bytes
    // 8 to 11 and the upper 2 bits on top of bytes 0 to 7.
    bytes.extend((0..4).map(|group| steps[group] | (steps[group + 4] >> 4) << 6));
    bytes.extend((0..4).map(|group| offsets[group] | (offsets[group + 4] >> 4) << 6));
    bytes.extend((4..8).map(|group| steps[group] & 0x0f | (offsets[group] & 0x0f) << 4));

    let (d, dmin) = (f16::from_f32(d).to_f32(), f16::from_f32(dmin).to_f32());
    std::array::from_fn(|element| {
        let step = d * f32::from(steps[element / 32]);
        let offset = dmin * f32::from(offsets[element / 32]);
        ((block[element] + offset) * inverse(step)).round().clamp(0.0, f32::from(largest_code)) as u8
    })
}

/// Numbers that are not negative as a scale and codes of 6 bits.
fn six_bit_codes(values: &[f32; 8]) -> (f32, [u8; 8]) {
    let d = values.iter().copied().fold(0.0, f32::max) / 63.0;
    (d, values.map(|value| (value * inverse(d)).round().min(63.0) as u8))
}

fn q6_k_block(block: &[f32; 256], bytes: &mut Vec<u8>) {
    let groups = block.as_chunks::<16>().0;
    let steps: [f32; 16] = std::array::from_fn(|group| farthest_from_zero(&groups[group]) / -32.0);
    let d = farthest_from_zero(&steps) / -128.0;
    let scales = steps.map(|step| (step * inverse(d)).round().clamp(-128.0, 127.0) as i8);
    let stored_d = f16::from_f32(d).to_f32();
    let codes: [u8; 256] = std::array::from_fn(|element| {
        let step = stored_d * f32::from(scales[element / 16]);
        ((block[element] * inverse(step)).round().clamp(-32.0, 31.0) + 32.0) as u8
    });
    // Halves of 128: the nibbles of elements 0 to 63 share bytes with those of 64 to 127, and the bit pairs of
    // elements that are 32 apart share a byte.
    let halves = codes.as_chunks::<128>().0;
    for half in halves {
        bytes.extend((0..64).map(|element| half[element] & 0x0f | (half[element + 64] & 0x0f) << 4));
    }
    for half in halves {
        bytes.extend((0..32).map(|element| {
            (0..4).fold(0, |pairs, quarter| pairs | (half[element + 32 * quarter] >> 4) << (2 * quarter))
        }));
    }
    bytes.extend(scales.map(i8::cast_unsigned));
    push_f16(bytes, d);
}

/// The largest magnitude of a block is its scale: a row of -1, 0 and 1 is stored without loss, with scales of 1.
fn ternary_row(row: &[f32], tensor_type: TensorType, bytes: &mut Vec<u8>) {
    let Some(pack) = blocks::packer(tensor_type) else { return };
    for block in row.chunks_exact(tensor_type.block_elements() as usize) {
        let d = farthest_from_zero(block).abs();
        let codes: Vec<u8> = block.iter().map(|value| ((value * inverse(d)).round() + 1.0) as u8).collect();
        let start = bytes.len();
        pack(&codes, bytes);
        // The packed scale is 1: Q2_0 begins with it, the others end with it.
        let scale = if tensor_type == TensorType::Q2_0 { start } else { bytes.len() - 2 };
        bytes[scale..scale + 2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    }
}

/// `1 / scale`, or zero for a block of zeros.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The value of the largest magnitude, with its sign; the first of several.
fn farthest_from_zero(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |farthest: f32, &value| if value.abs() > farthest.abs() { value } else { farthest })
}

fn extremes(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(least, most), &value| (least.min(value), most.max(value)))
}

fn push_f16(bytes: &mut Vec<u8>, value: f32) {
    bytes.extend(f16::from_f32(value).to_le_bytes());
}

/// The low nibbles of the first half of `codes` share bytes with those of the second.
fn push_nibbles(bytes: &mut Vec<u8>, codes: &[u8]) {
    let (low, high) = codes.split_at(codes.len() / 2);
    bytes.extend(low.iter().zip(high).map(|(low, high)| low & 0x0f | (high & 0x0f) << 4));
}

/// The fifth bits of 32 codes, the first in the lowest bit.
fn push_fifth_bits(bytes: &mut Vec<u8>, codes: &[u8; 32]) {
    let fifths =
        codes.iter().enumerate().fold(0_u32, |fifths, (element, code)| fifths | u32::from(code >> 4) << element);
    bytes.extend(fifths.to_le_bytes());
}
