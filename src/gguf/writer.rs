//! Writes model files: atomically, and without holding streamed tensors in memory.

use std::{
    collections::HashSet,
    fmt,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{
    Metadata, TensorType, Value,
    encode::{Counted, write_string, write_value},
    layout::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_KEY_BYTES, MAX_TENSOR_NAME_BYTES, SplitKey, part_path},
    partial_file::PartialFile,
};

/// A model file in the making.
///
/// ```
/// use gguf_loader::gguf::{Gguf, TensorType, Writer};
///
/// let mut writer = Writer::new();
/// writer.set("general.name", "tiny").set("tokenizer.ggml.scores", vec![0.0_f32, 1.0]);
/// writer.add_tensor("output_norm.weight", &[2], TensorType::F32, vec![0; 8])?;
/// let mut file = Vec::new();
/// writer.write(&mut file)?;
/// assert_eq!(Gguf::parse(&file)?.tensors()[0].name, "output_norm.weight");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Writer {
    version: u32,
    metadata: Metadata,
    tensors: Vec<Tensor>,
    names: HashSet<String>,
}

/// When a split file starts its next part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitLimit {
    /// Most tensors in a part.
    Tensors(usize),
    /// Most bytes of tensor data in a part; a larger tensor gets a part of its own.
    Bytes(u64),
}

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Versions 2 and 3 exist.
    #[error("GGUF version {0} cannot be written, only 2 and 3")]
    Version(u32),
    /// The alignment must be a power of two of at least 8, in a `u32` key.
    #[error("the alignment {0} is not a power of two between 8 and 2^31")]
    Alignment(String),
    /// A key that no reader accepts: empty, over 65535 bytes, or with a NUL.
    #[error("the key `{0}` is empty, too long or contains NUL")]
    Key(String),
    /// A tensor name that no reader accepts: empty, over 63 bytes, or with a NUL.
    #[error("the tensor name `{0}` is empty, longer than 63 bytes or contains NUL")]
    Name(String),
    /// Two tensors of one name.
    #[error("the tensor `{0}` was added twice")]
    Duplicate(String),
    /// Not 1 to 4 dimensions, a dimension of zero, too large, or rows that are not whole blocks.
    #[error("tensor `{name}` of type {tensor_type} cannot have the shape {shape:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its element type.
        tensor_type: TensorType,
        /// The shape that was given.
        shape: Vec<u64>,
    },
    /// Shape and type ask for another number of bytes than were given.
    #[error("tensor `{name}` takes {expected} bytes, {found} were given")]
    Length {
        /// The tensor.
        name: String,
        /// Bytes by shape and type.
        expected: u64,
        /// Bytes that were given.
        found: u64,
    },
    /// A part would hold nothing, or there are more than 65535 parts.
    #[error("the model cannot be split into {0} parts")]
    Split(usize),
    /// The disk is full, or the folder cannot be written. Nothing is left behind.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file; empty for a writer that is not a file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

type Stream = Box<dyn Fn(&mut dyn Write) -> io::Result<()> + Send + Sync>;

enum Data {
    Bytes(Vec<u8>),
    Stream(Stream),
}

struct Tensor {
    name: String,
    shape: Vec<u64>,
    tensor_type: TensorType,
    bytes: u64,
    data: Data,
}

impl Default for Writer {
    fn default() -> Self {
        Self { version: 3, metadata: Metadata::default(), tensors: Vec::new(), names: HashSet::new() }
    }
}

impl Writer {
    /// A version 3 file without keys and tensors, aligned to 32 bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the version: 2 or 3, checked when the file is written.
    pub fn with_version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Sets the alignment of tensor data: a power of two, checked when the file is written.
    ///
    /// ggml maps only files whose tensors stand on multiples of 32 bytes, so less than 32 is for tests.
    pub fn with_alignment(mut self, alignment: u32) -> Self {
        self.set(ALIGNMENT_KEY, alignment);
        self
    }

    /// Sets a key. Keys are written in the order in which they were first set.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) -> &mut Self {
        self.metadata.set(key, value.into(), 0);
        self
    }

    /// Adds a tensor with its data as ggml stores it; `shape[0]` is the length of a row.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when name, shape or length are not possible.
    pub fn add_tensor(
        &mut self,
        name: impl Into<String>,
        shape: &[u64],
        tensor_type: TensorType,
        data: Vec<u8>,
    ) -> Result<(), WriteError> {
        let found = data.len() as u64;
        let tensor = self.checked(name.into(), shape, tensor_type, Data::Bytes(data))?;
        if tensor.bytes != found {
            return Err(WriteError::Length { name: tensor.name, expected: tensor.bytes, found });
        }
        self.push(tensor);
        Ok(())
    }

    /// Adds a tensor whose data `stream` produces each time that the file is written.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when name or shape are not possible; a stream of another length fails in [`write`](Self::write).
    pub fn add_tensor_with(
        &mut self,
        name: impl Into<String>,
        shape: &[u64],
        tensor_type: TensorType,
        stream: impl Fn(&mut dyn Write) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<(), WriteError> {
        let tensor = self.checked(name.into(), shape, tensor_type, Data::Stream(Box::new(stream)))?;
        self.push(tensor);
        Ok(())
    }

    /// Writes the file.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; then `output` may hold a part of the file.
    pub fn write(&self, output: impl Write) -> Result<(), WriteError> {
        self.write_part(&self.metadata, &self.tensors, output)
    }

    /// Writes the file beside `path` and moves it there when it is complete and on disk.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; then `path` is what it was before, and nothing else is left.
    pub fn write_file(&self, path: impl AsRef<Path>) -> Result<(), WriteError> {
        self.write_partial(&self.metadata, &self.tensors, path.as_ref())?.finish().map_err(|source| at(path, source))
    }

    /// Writes the model in parts `<prefix>-00001-of-0000N.gguf`, and returns their paths.
    ///
    /// As with llama.cpp's `gguf-split`, the first part holds all keys.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; as long as not all parts are complete, none appears.
    pub fn write_split(&self, prefix: impl AsRef<Path>, limit: SplitLimit) -> Result<Vec<PathBuf>, WriteError> {
        let parts = self.split(limit);
        let count = u16::try_from(parts.len()).map_err(|_| WriteError::Split(parts.len()))?;
        let total = i32::try_from(self.tensors.len()).map_err(|_| WriteError::Split(parts.len()))?;
        let mut written = Vec::with_capacity(parts.len());
        for (number, tensors) in (0..count).zip(parts) {
            let mut metadata = if number == 0 { self.metadata.clone() } else { Metadata::default() };
            if let Some(alignment) = self.metadata.get(ALIGNMENT_KEY) {
                metadata.set(ALIGNMENT_KEY, alignment.clone(), 0);
            }
            metadata.set(SplitKey::NUMBER, number.into(), 0);
            metadata.set(SplitKey::COUNT, count.into(), 0);
            metadata.set(SplitKey::TENSORS, total.into(), 0);
            let path = part_path(prefix.as_ref(), number, count);
            written.push((self.write_partial(&metadata, tensors, &path)?, path));
        }
        written
            .into_iter()
            .map(|(partial, path)| match partial.finish() {
                Ok(()) => Ok(path),
                Err(source) => Err(at(path, source)),
            })
            .collect()
    }

    fn checked(&self, name: String, shape: &[u64], tensor_type: TensorType, data: Data) -> Result<Tensor, WriteError> {
        if name.is_empty() || name.len() > MAX_TENSOR_NAME_BYTES || name.contains('\0') {
            return Err(WriteError::Name(name));
        }
        if self.names.contains(&name) {
            return Err(WriteError::Duplicate(name));
        }
        let shape = shape.to_vec();
        match tensor_type.bytes_of(&shape) {
            Some(bytes) => Ok(Tensor { name, shape, tensor_type, bytes, data }),
            None => Err(WriteError::Shape { name, tensor_type, shape }),
        }
    }

    fn push(&mut self, tensor: Tensor) {
        self.names.insert(tensor.name.clone());
        self.tensors.push(tensor);
    }

    /// The tensors of each part; a model without tensors has one part.
    fn split(&self, limit: SplitLimit) -> Vec<&[Tensor]> {
        let mut parts = Vec::new();
        let mut start = 0;
        let mut bytes = 0_u64;
        for (index, tensor) in self.tensors.iter().enumerate() {
            let full = match limit {
                SplitLimit::Tensors(most) => index - start >= most.max(1),
                SplitLimit::Bytes(most) => index > start && bytes.saturating_add(tensor.bytes) > most,
            };
            if full {
                parts.push(&self.tensors[start..index]);
                start = index;
                bytes = 0;
            }
            bytes = bytes.saturating_add(tensor.bytes);
        }
        parts.push(&self.tensors[start..]);
        parts
    }

    fn alignment(&self) -> Result<u64, WriteError> {
        match self.metadata.get(ALIGNMENT_KEY) {
            None => Ok(DEFAULT_ALIGNMENT),
            Some(&Value::U32(alignment)) if alignment.is_power_of_two() && alignment >= 8 => Ok(alignment.into()),
            Some(other) => Err(WriteError::Alignment(other.to_string())),
        }
    }

    fn write_partial(&self, metadata: &Metadata, tensors: &[Tensor], path: &Path) -> Result<PartialFile, WriteError> {
        let partial = PartialFile::create(path).map_err(|source| at(path, source))?;
        let mut output = BufWriter::with_capacity(1 << 20, partial.file());
        self.write_part(metadata, tensors, &mut output)
            .and_then(|()| output.flush().map_err(|source| at("", source)))
            .map_err(|error| match error {
                WriteError::Io { source, .. } => at(path, source),
                other => other,
            })?;
        drop(output);
        Ok(partial)
    }

    fn write_part(&self, metadata: &Metadata, tensors: &[Tensor], output: impl Write) -> Result<(), WriteError> {
        if !matches!(self.version, 2 | 3) {
            return Err(WriteError::Version(self.version));
        }
        let bad_key = |key: &str| key.is_empty() || key.len() as u64 > MAX_KEY_BYTES || key.contains('\0');
        if let Some((key, _)) = metadata.iter().find(|(key, _)| bad_key(key)) {
            return Err(WriteError::Key(key.to_owned()));
        }
        let alignment = self.alignment()?;
        let mut output = Counted::new(output);
        self.write_header(metadata, tensors, alignment, &mut output).map_err(|source| at("", source))?;
        for tensor in tensors {
            output.pad(alignment).map_err(|source| at("", source))?;
            let start = output.written();
            match &tensor.data {
                Data::Bytes(bytes) => output.write_all(bytes),
                Data::Stream(stream) => stream(&mut output),
            }
            .map_err(|source| at("", source))?;
            let found = output.written() - start;
            if found != tensor.bytes {
                return Err(WriteError::Length { name: tensor.name.clone(), expected: tensor.bytes, found });
            }
        }
        output.pad(alignment).and_then(|()| output.flush()).map_err(|source| at("", source))
    }

    fn write_header(
        &self,
        metadata: &Metadata,
        tensors: &[Tensor],
        alignment: u64,
        output: &mut impl Write,
    ) -> io::Result<()> {
        output.write_all(&MAGIC)?;
        output.write_all(&self.version.to_le_bytes())?;
        output.write_all(&(tensors.len() as u64).to_le_bytes())?;
        output.write_all(&(metadata.len() as u64).to_le_bytes())?;
        for (key, value) in metadata.iter() {
            write_string(key.as_bytes(), output)?;
            output.write_all(&value.value_type().id().to_le_bytes())?;
            write_value(value, output)?;
        }
        let mut offset = 0_u64;
        for tensor in tensors {
            write_string(tensor.name.as_bytes(), output)?;
            output.write_all(&(tensor.shape.len() as u32).to_le_bytes())?;
            tensor.shape.iter().try_for_each(|size| output.write_all(&size.to_le_bytes()))?;
            output.write_all(&tensor.tensor_type.id().to_le_bytes())?;
            output.write_all(&offset.to_le_bytes())?;
            offset = offset.saturating_add(tensor.bytes).next_multiple_of(alignment);
        }
        Ok(())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tensor")
            .field("name", &self.name)
            .field("shape", &self.shape)
            .field("tensor_type", &self.tensor_type)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

fn at(path: impl AsRef<Path>, source: io::Error) -> WriteError {
    WriteError::Io { path: path.as_ref().to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> Writer {
        let mut writer = Writer::new();
        writer.set("a", 7_u8);
        writer.add_tensor("t", &[2], TensorType::F32, vec![1; 8]).unwrap();
        writer
    }

    #[test]
    fn bytes_are_those_of_the_specification() {
        let mut file = Vec::new();
        writer().write(&mut file).unwrap();
        let mut expected = b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
        expected.extend_from_slice(b"\x01\0\0\0\0\0\0\0a\0\0\0\0\x07");
        expected.extend_from_slice(b"\x01\0\0\0\0\0\0\0t\x01\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0");
        expected.extend_from_slice(&[0; 8]);
        expected.resize(expected.len().next_multiple_of(32), 0);
        expected.extend_from_slice(&[1; 8]);
        expected.resize(expected.len().next_multiple_of(32), 0);
        assert_eq!(file, expected);
    }

    #[test]
    fn a_stream_of_another_length_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer();
        writer.add_tensor_with("short", &[4], TensorType::F32, |output| output.write_all(&[0; 15])).unwrap();
        let error = writer.write_file(folder.path().join("model.gguf")).unwrap_err();
        assert!(matches!(error, WriteError::Length { expected: 16, found: 15, .. }), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, "old").unwrap();
        let mut failing = writer();
        failing.add_tensor_with("bad", &[1], TensorType::F32, |_| Err(io::Error::other("no"))).unwrap();
        assert!(matches!(failing.write_file(&path).unwrap_err(), WriteError::Io { path: at, .. } if at == path));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        writer().write_file(&path).unwrap();
        assert_eq!(&std::fs::read(&path).unwrap()[..4], b"GGUF");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn impossible_tensors_are_refused() {
        let mut writer = writer();
        let mut add = |name: &str, shape: &[u64], bytes: usize| {
            writer.add_tensor(name, shape, TensorType::Q4_0, vec![0; bytes]).unwrap_err()
        };
        assert!(matches!(add("t", &[32], 18), WriteError::Duplicate(_)));
        assert!(matches!(add(&"n".repeat(64), &[32], 18), WriteError::Name(_)));
        assert!(matches!(add("row", &[33], 18), WriteError::Shape { .. }));
        assert!(matches!(add("none", &[], 18), WriteError::Shape { .. }));
        assert!(matches!(add("huge", &[1 << 32, 1 << 32], 18), WriteError::Shape { .. }));
        assert!(matches!(add("long", &[32], 19), WriteError::Length { expected: 18, found: 19, .. }));
    }

    #[test]
    fn parts_hold_at_most_what_the_limit_says() {
        let mut writer = Writer::new();
        for index in 0..5 {
            writer.add_tensor(format!("t{index}"), &[2], TensorType::F32, vec![0; 8]).unwrap();
        }
        let sizes = |limit| writer.split(limit).iter().map(|part| part.len()).collect::<Vec<_>>();
        assert_eq!(sizes(SplitLimit::Tensors(2)), [2, 2, 1]);
        assert_eq!(sizes(SplitLimit::Bytes(20)), [2, 2, 1]);
        assert_eq!(sizes(SplitLimit::Bytes(1)), [1, 1, 1, 1, 1]);
    }
}
