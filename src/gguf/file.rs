//! [`Gguf`]: a model file, or all parts of one.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    GgufError, KeyProblem, Metadata, SplitProblem, TensorInfo, TensorProblem, Value,
    header::{self, Header},
    layout::{SplitKey, part_path, part_prefix},
    reader::Reader,
    validate,
};

/// A parsed and validated model file, with all parts when it is split.
///
/// Holds the keys and where the tensors are; tensor data stays in the file.
#[derive(Debug, Clone)]
pub struct Gguf {
    version: u32,
    alignment: u64,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    parts: Vec<Part>,
    /// The bytes of a file that was parsed from memory.
    memory: Option<Box<[u8]>>,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Part {
    /// Where it is; `<memory>` for [`Gguf::parse`].
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// When it was written to last, as of when it was opened; `None` in memory, and on file systems that do not say.
    #[serde(skip)]
    pub modified: Option<SystemTime>,
}

impl Part {
    /// Whether the file is still the one that was opened, by its length and the time of its last change.
    pub fn is_unchanged(&self) -> bool {
        fs::metadata(&self.path)
            .is_ok_and(|metadata| metadata.len() == self.bytes && metadata.modified().ok() == self.modified)
    }
}

impl Gguf {
    /// Opens a model file and validates everything but the weights. Of a split model, give the first part.
    ///
    /// # Errors
    ///
    /// [`GgufError`] names the file, the key or tensor, and the byte where it stands.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, GgufError> {
        let path = path.as_ref();
        let (header, part) = open_part(path, 0)?;
        let mut gguf = Self::single(header, part, None)?;
        gguf.open_other_parts()?;
        validate::model(&gguf)?;
        Ok(gguf)
    }

    /// Parses and validates a file in memory, which must be the whole model. The bytes are copied.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); a split model is [`GgufError::Split`].
    pub fn parse(bytes: &[u8]) -> Result<Self, GgufError> {
        let path = PathBuf::from("<memory>");
        let length = bytes.len() as u64;
        let header = header::read(&mut Reader::new(bytes, &path, length), 0)?;
        let gguf = Self::single(header, Part { path, bytes: length, modified: None }, Some(bytes.into()))?;
        let count = gguf.split_number(SplitKey::COUNT)?.unwrap_or(1);
        if count > 1 {
            return Err(gguf.split_error(SplitProblem::Name { count }));
        }
        validate::model(&gguf)?;
        Ok(gguf)
    }

    /// The file, or the first part of a split one; `None` after [`parse`](Self::parse).
    pub fn path(&self) -> Option<&Path> {
        self.memory.is_none().then_some(&self.parts[0].path)
    }

    /// The format's version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The alignment of tensor data in bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// The keys; of a split model those of the first part.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors of all parts, in the order of the files.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The files; one unless the model is split.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&index| &self.tensors[index])
    }

    /// Reads the data of one tensor as it is stored.
    ///
    /// # Errors
    ///
    /// [`GgufError::Io`] when the file cannot be read any more.
    ///
    /// # Panics
    ///
    /// When `tensor` is of another model and names a part that this one does not have.
    pub fn read_tensor(&self, tensor: &TensorInfo) -> Result<Vec<u8>, GgufError> {
        let path = &self.parts[tensor.part].path;
        let read = || -> io::Result<Vec<u8>> {
            let mut data = vec![0; usize::try_from(tensor.bytes).map_err(io::Error::other)?];
            match &self.memory {
                Some(bytes) => {
                    let mut source = io::Cursor::new(bytes);
                    source.set_position(tensor.offset);
                    source.read_exact(&mut data)?;
                }
                None => {
                    let mut file = File::open(path)?;
                    file.seek(SeekFrom::Start(tensor.offset))?;
                    file.read_exact(&mut data)?;
                }
            }
            Ok(data)
        };
        read().map_err(|source| GgufError::Io { path: path.clone(), source })
    }

    /// `general.architecture`.
    ///
    /// # Errors
    ///
    /// [`GgufError::MissingKey`] for a file that is not a model, [`GgufError::Key`] for another type.
    pub fn architecture(&self) -> Result<&str, GgufError> {
        self.metadata.str("general.architecture")
    }

    /// The error for a tensor that must be there.
    pub(super) fn missing_tensor(&self, tensor: &str) -> GgufError {
        GgufError::MissingTensor { path: self.parts[0].path.clone(), tensor: tensor.to_owned() }
    }

    fn single(header: Header, part: Part, memory: Option<Box<[u8]>>) -> Result<Self, GgufError> {
        let Header { version, alignment, metadata, tensors } = header;
        let mut gguf = Self {
            version,
            alignment,
            metadata,
            tensors: Vec::new(),
            index: HashMap::with_capacity(tensors.len()),
            parts: vec![part],
            memory,
        };
        gguf.add_tensors(tensors)?;
        Ok(gguf)
    }

    fn add_tensors(&mut self, tensors: Vec<TensorInfo>) -> Result<(), GgufError> {
        for tensor in tensors {
            if self.index.insert(tensor.name.clone(), self.tensors.len()).is_some() {
                return Err(tensor.error(&self.parts[tensor.part].path, TensorProblem::Duplicate));
            }
            self.tensors.push(tensor);
        }
        Ok(())
    }

    fn open_other_parts(&mut self) -> Result<(), GgufError> {
        let count = self.split_number(SplitKey::COUNT)?.unwrap_or(1);
        let number = self.split_number(SplitKey::NUMBER)?.unwrap_or(0);
        let path = self.parts[0].path.clone();
        if number != 0 {
            let first =
                part_prefix(&path, number, count).map_or_else(PathBuf::new, |prefix| part_path(&prefix, 0, count));
            return Err(self.split_error(SplitProblem::NotFirst { number: number.saturating_add(1), count, first }));
        }
        if count <= 1 {
            return Ok(());
        }
        let Some(prefix) = part_prefix(&path, 0, count) else {
            return Err(self.split_error(SplitProblem::Name { count }));
        };
        for number in 1..count {
            let part = part_path(&prefix, number, count);
            let (header, part) = match open_part(&part, number.into()) {
                Err(GgufError::NotFound { path: missing }) => {
                    let problem = SplitProblem::Missing { number: number + 1, count, first: path };
                    return Err(GgufError::Split { path: missing, problem });
                }
                other => other?,
            };
            // llama.cpp asserts that the key is a `u16`.
            let found = match header.metadata.get(SplitKey::NUMBER) {
                Some(&Value::U16(found)) => found,
                Some(_) => return Err(not_u16(&header.metadata, SplitKey::NUMBER)),
                None => return Err(GgufError::MissingKey { path: part.path, key: SplitKey::NUMBER.into() }),
            };
            if found != number {
                let problem = SplitProblem::Number { found: u64::from(found) + 1, expected: number + 1 };
                return Err(GgufError::Split { path: part.path, problem });
            }
            self.parts.push(part);
            self.add_tensors(header.tensors)?;
        }
        let expected = self.metadata.u64(SplitKey::TENSORS)?;
        let found = self.tensors.len() as u64;
        if expected != found {
            return Err(self.split_error(SplitProblem::Tensors { found, expected }));
        }
        Ok(())
    }

    fn split_number(&self, key: &str) -> Result<Option<u16>, GgufError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(&Value::U16(value)) => Ok(Some(value)),
            Some(_) => Err(not_u16(&self.metadata, key)),
        }
    }

    fn split_error(&self, problem: SplitProblem) -> GgufError {
        GgufError::Split { path: self.parts[0].path.clone(), problem }
    }
}

fn not_u16(metadata: &Metadata, key: &str) -> GgufError {
    let found = metadata.get(key).map_or_else(String::new, |value| value.type_name().into_owned());
    metadata.problem(key, KeyProblem::Type { expected: "u16", found })
}

fn open_part(path: &Path, part: usize) -> Result<(Header, Part), GgufError> {
    /// A vocabulary is a few megabytes of short strings.
    const BUFFER: usize = 1 << 18;
    let metadata = regular_file(path)?;
    let length = metadata.len();
    let file = File::open(path).map_err(|source| io_error(path, source))?;
    let mut reader = Reader::new(BufReader::with_capacity(BUFFER, file), path, length);
    let header = header::read(&mut reader, part)?;
    Ok((header, Part { path: path.into(), bytes: length, modified: metadata.modified().ok() }))
}

/// What the system says of an ordinary file. Asked before it is opened: opening a pipe waits for a writer.
fn regular_file(path: &Path) -> Result<fs::Metadata, GgufError> {
    let metadata = fs::metadata(path).map_err(|source| io_error(path, source))?;
    if metadata.is_dir() {
        return Err(GgufError::Directory { path: path.into() });
    }
    if !metadata.is_file() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "not an ordinary file");
        return Err(GgufError::Io { path: path.into(), source });
    }
    Ok(metadata)
}

fn io_error(path: &Path, source: io::Error) -> GgufError {
    let path = path.to_path_buf();
    match source.kind() {
        // A path through a file, such as `model.gguf/x`, is as missing as any other.
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => GgufError::NotFound { path },
        io::ErrorKind::PermissionDenied => GgufError::PermissionDenied { path },
        _ => GgufError::Io { path, source },
    }
}
