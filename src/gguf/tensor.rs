//! Tensor descriptions: parsed, and checked against what ggml asserts.

use std::{collections::HashSet, io::Read, path::Path};

use super::{
    GgufError, TensorProblem, TensorType,
    fork::{self, Meaning},
    layout::{MAX_DIMENSIONS, MAX_TENSOR_NAME_BYTES},
    reader::Reader,
};

/// Least bytes of a description: length, one byte of name, dimension count, one dimension, type, offset.
const LEAST_TENSOR_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// ggml's CPU buffers must begin at a multiple of this (`TENSOR_ALIGNMENT`), and a mapped file's buffer begins at
/// whichever tensor comes first in it: `GGML_ASSERT` in `ggml_backend_cpu_buffer_from_ptr`.
const MAP_ALIGNMENT: u64 = 32;

/// Where one tensor is and how to read it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TensorInfo {
    /// Its name, e.g. `blk.0.attn_q.weight`.
    pub name: String,
    /// Its dimensions in ggml's order: `shape[0]` is the length of a row.
    pub shape: Vec<u64>,
    /// How the elements are stored.
    pub tensor_type: TensorType,
    /// First byte of its data in its part's file.
    pub offset: u64,
    /// Bytes of data.
    pub bytes: u64,
    /// Index of its part in [`Gguf::parts`](super::Gguf::parts).
    pub part: usize,
    /// First byte of its description, for errors.
    #[serde(skip)]
    pub(super) described_at: u64,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        // The reader has checked that the product fits.
        self.shape.iter().product()
    }

    /// Whether it is many matrices in one tensor, as those of a mixture's experts are.
    pub fn is_stacked(&self) -> bool {
        self.shape.get(2).is_some_and(|&count| count > 1)
    }

    /// The transformer block that the tensor belongs to: 7 for `blk.7.ffn_up.weight`.
    pub fn block(&self) -> Option<u32> {
        self.name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
    }

    /// The name without the block and the ending: `ffn_up` for `blk.7.ffn_up.weight`.
    pub(crate) fn stem(&self) -> &str {
        let mut stem = self.name.as_str();
        if self.block().is_some() {
            stem = stem.splitn(3, '.').nth(2).unwrap_or_default();
        }
        stem.rsplit_once('.').map_or(stem, |(stem, _)| stem)
    }

    /// The error for this tensor of the file `path`.
    pub(super) fn error(&self, path: &Path, problem: TensorProblem) -> GgufError {
        GgufError::Tensor { path: path.into(), tensor: self.name.clone(), offset: self.described_at, problem }
    }
}

/// Reads `count` descriptions and places their data: [`TensorInfo::offset`] becomes absolute.
///
/// `architecture` is what the file says; further parts of a split model do not say it.
pub(super) fn read_all<R: Read>(
    reader: &mut Reader<'_, R>,
    count: u64,
    alignment: u64,
    part: usize,
    architecture: Option<&str>,
) -> Result<Vec<TensorInfo>, GgufError> {
    reader.expect(count, LEAST_TENSOR_BYTES, || format!("the list of {count} tensors"))?;
    // A description takes more memory than bytes in the file, so memory grows with what was really read.
    let mut tensors = Vec::with_capacity(count.min(4096) as usize);
    let is_bitnet = architecture.is_some_and(fork::is_bitnet);
    let mut names = HashSet::with_capacity(count.min(4096) as usize);
    for index in 0..count {
        let tensor = read_one(reader, index, part, is_bitnet)?;
        if !names.insert(tensor.name.clone()) {
            return Err(tensor.error(reader.path(), TensorProblem::Duplicate));
        }
        tensors.push(tensor);
    }
    place(reader, &mut tensors, alignment, is_bitnet)?;
    Ok(tensors)
}

fn read_one<R: Read>(
    reader: &mut Reader<'_, R>,
    index: u64,
    part: usize,
    is_bitnet: bool,
) -> Result<TensorInfo, GgufError> {
    let described_at = reader.position();
    let path = reader.path();
    let name = read_name(reader, index)?;
    let error = |problem| GgufError::Tensor { path: path.into(), tensor: name.clone(), offset: described_at, problem };
    let what = || format!("the description of tensor `{name}`");
    let dimensions = reader.u32(what)?;
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        return Err(error(TensorProblem::Dimensions(dimensions)));
    }
    let mut shape = Vec::with_capacity(dimensions as usize);
    for _ in 0..dimensions {
        shape.push(reader.u64(what)?);
    }
    let id = reader.u32(what)?;
    let offset = reader.u64(what)?;
    let Some(tensor_type) = TensorType::from_id(id) else {
        return Err(error(TensorProblem::UnknownType { id, origin: fork::origin(id) }));
    };
    // Of a further part the architecture is not known: `validate` sees the whole model.
    if tensor_type == TensorType::I2_S && !is_bitnet && part == 0 {
        return Err(error(TensorProblem::UnknownType { id, origin: fork::origin(id) }));
    }
    if is_bitnet && let Some(Meaning::Certain(origin)) = fork::meaning_in_bitnet(tensor_type) {
        return Err(error(TensorProblem::UnknownType { id, origin }));
    }
    let Some(bytes) = tensor_type.bytes_of(&shape) else {
        let row = shape[0];
        let whole_rows = row.is_multiple_of(tensor_type.block_elements());
        return Err(error(if whole_rows {
            TensorProblem::Shape(shape)
        } else {
            TensorProblem::Row { row, tensor_type }
        }));
    };
    Ok(TensorInfo { name, shape, tensor_type, offset, bytes, part, described_at })
}

fn read_name<R: Read>(reader: &mut Reader<'_, R>, index: u64) -> Result<String, GgufError> {
    let offset = reader.position();
    let path = reader.path();
    let error = |tensor: String, problem| GgufError::Tensor { path: path.into(), tensor, offset, problem };
    let what = || format!("the name of tensor {index}");
    let length = reader.u64(what)?;
    if length == 0 {
        return Err(error(format!("#{index}"), TensorProblem::EmptyName));
    }
    if length > MAX_TENSOR_NAME_BYTES as u64 {
        return Err(error(format!("#{index}"), TensorProblem::LongName(length)));
    }
    reader.expect(length, 1, what)?;
    let mut bytes = Vec::new();
    reader.append(length as usize, &mut bytes)?;
    match String::from_utf8(bytes) {
        Ok(name) if !name.contains('\0') => Ok(name),
        Ok(name) => Err(error(name.escape_debug().to_string(), TensorProblem::NameNotText)),
        Err(not_text) => {
            Err(error(String::from_utf8_lossy(not_text.as_bytes()).into_owned(), TensorProblem::NameNotText))
        }
    }
}

/// ggml requires each tensor to begin where the one before it ends, padded: no gap, no overlap, no other order.
fn place<R: Read>(
    reader: &Reader<'_, R>,
    tensors: &mut [TensorInfo],
    alignment: u64,
    is_bitnet: bool,
) -> Result<(), GgufError> {
    let path = reader.path();
    // The header ends below `HEADER_LIMIT`, so this cannot overflow.
    let data = reader.position().next_multiple_of(alignment);
    let mut expected = 0_u64;
    for index in 0..tensors.len() {
        let (before, rest) = tensors.split_at_mut(index);
        let tensor = &mut rest[0];
        if tensor.offset != expected {
            // The tensor before has another length than its type says: the type may be a fork's.
            if is_bitnet
                && let Some(before) = before.last()
                && let Some(Meaning::IfMisfitting(origin)) = fork::meaning_in_bitnet(before.tensor_type)
            {
                let problem = TensorProblem::UnknownType { id: before.tensor_type.id(), origin };
                return Err(before.error(path, problem));
            }
            return Err(tensor.error(path, TensorProblem::Offset { found: tensor.offset, expected }));
        }
        let end = expected.checked_add(tensor.bytes).filter(|&end| end < i64::MAX as u64 - data - alignment);
        let Some(end) = end else {
            return Err(tensor.error(path, TensorProblem::Overflow));
        };
        tensor.offset += data;
        if !tensor.offset.is_multiple_of(MAP_ALIGNMENT) {
            return Err(tensor.error(path, TensorProblem::Misaligned(tensor.offset)));
        }
        if data + end > reader.length() {
            return Err(GgufError::Truncated {
                path: path.into(),
                what: format!("the data of tensor `{}`", tensor.name),
                offset: tensor.offset,
                needed: tensor.bytes,
                available: reader.length().saturating_sub(tensor.offset),
            });
        }
        expected = end.next_multiple_of(alignment);
    }
    Ok(())
}
