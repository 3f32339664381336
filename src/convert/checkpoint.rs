//! The weights of a checkpoint: safetensors files and their index.
//!
//! A safetensors file is a `u64` length, as many bytes of JSON (`{name: {dtype, shape, data_offsets}}`), and the data, to
//! which the offsets refer. <https://github.com/huggingface/safetensors#format>

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use super::{ConvertError, json};

/// Most bytes of header that the safetensors library reads.
const HEADER_LIMIT: u64 = 100_000_000;

/// All tensors of a checkpoint, until they are taken.
#[derive(Debug)]
pub(super) struct Checkpoint {
    /// The one file, or the folder of the shards.
    path: PathBuf,
    tensors: BTreeMap<String, StoredTensor>,
}

/// Where a tensor is.
#[derive(Debug, Clone)]
pub(super) struct StoredTensor {
    pub(super) path: Arc<Path>,
    pub(super) name: String,
    pub(super) dtype: Dtype,
    /// Rows first: the last dimension is the length of a row.
    pub(super) shape: Vec<u64>,
    offset: u64,
    bytes: u64,
}

/// The element types of safetensors that a BitNet checkpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Dtype {
    U8,
    F16,
    #[serde(rename = "BF16")]
    Bf16,
    F32,
    /// One of the others.
    #[serde(other)]
    Other,
}

impl Dtype {
    /// Bytes of an element, where they are known.
    pub(super) fn bytes(self) -> Option<u64> {
        match self {
            Self::U8 => Some(1),
            Self::F16 | Self::Bf16 => Some(2),
            Self::F32 => Some(4),
            Self::Other => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::U8 => "U8",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F32 => "F32",
            Self::Other => "of another type",
        }
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Description {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl Checkpoint {
    /// Reads the headers of `model.safetensors`, or of all files that `model.safetensors.index.json` names.
    pub(super) fn open(folder: &Path) -> Result<Self, ConvertError> {
        let single = folder.join("model.safetensors");
        let index_path = folder.join("model.safetensors.index.json");
        let index = if single.exists() { None } else { json::read_optional::<Index>(&index_path)? };
        let Some(index) = index else {
            let tensors = read_header(&single)?;
            return Ok(Self { path: single, tensors });
        };
        let damaged = |problem: String| ConvertError::Damaged { path: index_path.clone(), problem };
        let mut shards = BTreeMap::new();
        for name in index.weight_map.values().collect::<BTreeSet<_>>() {
            // A path that leads out of the folder is none of the checkpoint's files.
            if Path::new(name).file_name().is_none_or(|file| file != name.as_str()) {
                return Err(damaged(format!("`{name}` is not the name of a file")));
            }
            shards.insert(name.clone(), read_header(&folder.join(name))?);
        }
        let mut tensors = BTreeMap::new();
        for (tensor, file) in &index.weight_map {
            let stored = shards.get_mut(file).and_then(|shard| shard.remove(tensor));
            let stored = stored.ok_or_else(|| damaged(format!("`{tensor}` is not in {file}")))?;
            tensors.insert(tensor.clone(), stored);
        }
        Ok(Self { path: folder.to_path_buf(), tensors })
    }

    /// Takes a tensor that must be there.
    pub(super) fn take(&mut self, name: &str) -> Result<StoredTensor, ConvertError> {
        self.take_optional(name)
            .ok_or_else(|| ConvertError::MissingTensor { path: self.path.clone(), tensor: name.to_owned() })
    }

    /// Takes a tensor that may be there.
    pub(super) fn take_optional(&mut self, name: &str) -> Option<StoredTensor> {
        self.tensors.remove(name)
    }

    /// Makes sure that nothing is left but what can be computed from the configuration.
    pub(super) fn finish(self) -> Result<(), ConvertError> {
        match self.tensors.into_values().find(|tensor| !tensor.name.ends_with(".rotary_emb.inv_freq")) {
            Some(tensor) => Err(ConvertError::UnknownTensor { path: tensor.path.to_path_buf(), tensor: tensor.name }),
            None => Ok(()),
        }
    }
}

impl StoredTensor {
    /// Makes sure that it has this shape.
    pub(super) fn expect_shape(&self, expected: &[u64]) -> Result<(), ConvertError> {
        if self.shape == expected {
            return Ok(());
        }
        let (path, tensor) = (self.path.to_path_buf(), self.name.clone());
        Err(ConvertError::Shape { path, tensor, found: self.shape.clone(), expected: expected.to_vec() })
    }

    /// The error for a tensor that must be `expected`.
    pub(super) fn wrong_dtype(&self, expected: &'static str) -> ConvertError {
        let (path, tensor) = (self.path.to_path_buf(), self.name.clone());
        ConvertError::Dtype { path, tensor, found: self.dtype.name().to_owned(), expected }
    }

    /// The error for data that cannot be read.
    pub(super) fn unreadable(&self, source: io::Error) -> ConvertError {
        ConvertError::Read { path: self.path.to_path_buf(), source }
    }

    /// The data, from its first byte on.
    pub(super) fn data(&self) -> Result<impl Read + use<>, ConvertError> {
        const BUFFER: usize = 1 << 20;
        let open = || -> io::Result<_> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.offset))?;
            Ok(BufReader::with_capacity(BUFFER, file).take(self.bytes))
        };
        open().map_err(|source| self.unreadable(source))
    }

    /// All of the data.
    pub(super) fn read(&self) -> Result<Vec<u8>, ConvertError> {
        let mut bytes = vec![0; usize::try_from(self.bytes).map_err(|error| self.unreadable(io::Error::other(error)))?];
        self.data()?.read_exact(&mut bytes).map_err(|source| self.unreadable(source))?;
        Ok(bytes)
    }
}

/// The tensors of one file.
fn read_header(path: &Path) -> Result<BTreeMap<String, StoredTensor>, ConvertError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ConvertError::Missing { path: path.into() },
        _ => ConvertError::Read { path: path.into(), source },
    };
    let damaged = |problem: String| ConvertError::Damaged { path: path.into(), problem };
    let mut file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let mut size = [0; 8];
    if length < size.len() as u64 {
        return Err(damaged(format!("it has {length} bytes")));
    }
    file.read_exact(&mut size).map_err(unreadable)?;
    let size = u64::from_le_bytes(size);
    if size > HEADER_LIMIT || size > length - 8 {
        return Err(damaged(format!("a header of {size} bytes in a file of {length}")));
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).map_err(unreadable)?;
    let not_json = |source| ConvertError::Json { path: path.into(), source };
    let mut entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header).map_err(not_json)?;
    entries.remove("__metadata__");

    let (start, shared) = (8 + size, Arc::<Path>::from(path));
    let mut tensors = BTreeMap::new();
    for (name, entry) in entries {
        let Description { dtype, shape, data_offsets: (first, end) } =
            serde_json::from_value(entry).map_err(not_json)?;
        let Some(bytes) = end.checked_sub(first).filter(|_| end <= length - start) else {
            return Err(damaged(format!("`{name}` ends beyond the file")));
        };
        let elements = shape.iter().try_fold(1_u64, |product, &size| product.checked_mul(size));
        let expected = dtype.bytes().map(|size| elements.and_then(|elements| elements.checked_mul(size)));
        if expected.is_some_and(|expected| expected != Some(bytes)) {
            return Err(damaged(format!("`{name}` has {bytes} bytes for the shape {shape:?}")));
        }
        let offset = start + first;
        let tensor = StoredTensor { path: Arc::clone(&shared), name: name.clone(), dtype, shape, offset, bytes };
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}
