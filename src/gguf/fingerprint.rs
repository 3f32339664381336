//! What tells one model from another.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{Gguf, GgufError};

/// A digest of a model or an adapter: its architecture, its tensors' names, types and shapes, and samples of their data.
///
/// Two files with the same weights have the same one, whatever else they say and wherever they lie; another fine-tuning or
/// quantisation has another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Bytes that are read at the beginning of a tensor, and as many in its middle.
    const SAMPLE: u64 = 1024;

    pub(crate) fn of(gguf: &Gguf) -> Result<Self, GgufError> {
        let mut digest = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        add(gguf.architecture()?.as_bytes());
        let mut files = Vec::new();
        for part in gguf.parts() {
            let file = File::open(&part.path);
            files.push((file.map_err(|source| unreadable(&part.path, source))?, &part.path));
        }
        let mut tensors: Vec<_> = gguf.tensors().iter().collect();
        tensors.sort_by(|one, other| one.name.cmp(&other.name));
        for tensor in tensors {
            add(tensor.name.as_bytes());
            add(format!("{:?} {:?}", tensor.tensor_type, tensor.shape).as_bytes());
            let Some((file, path)) = files.get_mut(tensor.part) else { continue };
            for from in [0, tensor.bytes / 2] {
                let mut sample = Vec::new();
                file.seek(SeekFrom::Start(tensor.offset + from)).map_err(|source| unreadable(path, source))?;
                let length = Self::SAMPLE.min(tensor.bytes - from);
                file.by_ref().take(length).read_to_end(&mut sample).map_err(|source| unreadable(path, source))?;
                add(&sample);
            }
        }
        Ok(Self::from_digest(&digest))
    }

    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self::from_digest(blake3::Hasher::new().update(bytes))
    }

    fn from_digest(digest: &blake3::Hasher) -> Self {
        Self(digest.finalize().to_hex()[..32].to_owned())
    }

    #[cfg(test)]
    pub(crate) fn of_text(text: &str) -> Self {
        Self(text.to_owned())
    }
}

fn unreadable(path: &Path, source: io::Error) -> GgufError {
    GgufError::Io { path: path.into(), source }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
