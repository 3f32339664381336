//! The numbers and names of the format that reader and writer share.

use std::path::{Path, PathBuf};

use super::{TensorType, ternary::I2S_TRAILER_BYTES};

/// First bytes of every file.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";

/// Key of the alignment of tensor data.
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";

/// Alignment of tensor data in files without [`ALIGNMENT_KEY`].
pub(super) const DEFAULT_ALIGNMENT: u64 = 32;

/// Longest key, by the specification.
pub(super) const MAX_KEY_BYTES: u64 = 65535;

/// Longest tensor name: ggml's `GGML_MAX_NAME` less the NUL.
pub(super) const MAX_TENSOR_NAME_BYTES: usize = 63;

/// Most dimensions of a tensor: `GGML_MAX_DIMS`.
pub(super) const MAX_DIMENSIONS: u32 = 4;

/// The keys of a split model.
pub(super) struct SplitKey;

impl SplitKey {
    /// Which part this is, from 0; `u16`.
    pub(super) const NUMBER: &str = "split.no";
    /// Number of parts; `u16`.
    pub(super) const COUNT: &str = "split.count";
    /// Tensors in all parts; `i32`.
    pub(super) const TENSORS: &str = "split.tensors.count";
}

/// Where part `number` (from 0) of `count` lies: `<prefix>-00001-of-00003.gguf`.
pub(super) fn part_path(prefix: &Path, number: u16, count: u16) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(part_suffix(number, count));
    path.into()
}

/// The prefix of a path that ends like part `number` (from 0) of `count`.
pub(super) fn part_prefix(path: &Path, number: u16, count: u16) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(&part_suffix(number, count))?;
    Some(path.with_file_name(name))
}

fn part_suffix(number: u16, count: u16) -> String {
    format!("-{:05}-of-{count:05}.gguf", u32::from(number) + 1)
}

impl TensorType {
    /// Bytes of a tensor of this shape; `None` when the shape is not possible: not 1 to 4 dimensions, one of them
    /// zero, over 2^63 elements or bytes, or rows that are not whole blocks.
    ///
    /// More than the blocks for I2_S alone, which has a scale behind them.
    pub fn bytes_of(self, shape: &[u64]) -> Option<u64> {
        let limit = i64::MAX as u64;
        if shape.is_empty() || shape.len() > MAX_DIMENSIONS as usize || shape.contains(&0) {
            return None;
        }
        let elements = shape.iter().try_fold(1_u64, |product, &size| product.checked_mul(size))?;
        if elements > limit || !shape[0].is_multiple_of(self.block_elements()) {
            return None;
        }
        let blocks = (elements / self.block_elements()).checked_mul(self.block_bytes())?;
        let trailer = if self == Self::I2_S { I2S_TRAILER_BYTES } else { 0 };
        blocks.checked_add(trailer).filter(|&bytes| bytes <= limit)
    }
}
