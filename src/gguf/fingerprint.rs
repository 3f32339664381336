//! What tells one model from another.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{Gguf, GgufError};

/// A digest of a model or an adapter: its architecture and hyperparameters, its tensors' names, types and shapes, and samples
/// of their data.
///
/// Two files with the same weights and hyperparameters have the same one, whatever their names and tokenizers say and wherever
/// they lie. Of data up to 8 MiB every byte counts. Of more, a kilobyte counts of each 8192th part: another training or
/// quantisation changes some of them, and so does every change that is as long as such a part. A change of a few weights may not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    pub(crate) fn of(gguf: &Gguf) -> Result<Self, GgufError> {
        let mut digest = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        let architecture = gguf.architecture()?;
        add(architecture.as_bytes());
        let mut hyperparameters: Vec<_> =
            gguf.metadata().iter().filter(|(key, _)| is_below(key, architecture)).collect();
        hyperparameters.sort_by_key(|(key, _)| *key);
        for (key, value) in hyperparameters {
            add(format!("{key} {value:?}").as_bytes());
        }
        let mut files = Vec::new();
        for part in gguf.parts() {
            let file = File::open(&part.path);
            files.push((file.map_err(|source| unreadable(&part.path, source))?, &part.path));
        }
        let mut tensors: Vec<_> = gguf.tensors().iter().collect();
        tensors.sort_by(|one, other| one.name.cmp(&other.name));
        let stride = stride(tensors.iter().map(|tensor| tensor.bytes).sum());
        let mut sample = Vec::new();
        for tensor in tensors {
            add(tensor.name.as_bytes());
            add(format!("{:?} {:?}", tensor.tensor_type, tensor.shape).as_bytes());
            let Some((file, path)) = files.get_mut(tensor.part) else { continue };
            for from in (0..tensor.bytes).step_by(stride) {
                sample.clear();
                file.seek(SeekFrom::Start(tensor.offset + from)).map_err(|source| unreadable(path, source))?;
                let length = SAMPLE.min(tensor.bytes - from);
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

/// Bytes that are read at once.
const SAMPLE: u64 = 1024;

/// How often that is done, about: 10 ms of a file that the system has in memory.
const SAMPLES: u64 = 8192;

/// Bytes from the beginning of one sample to that of the next.
fn stride(bytes: u64) -> usize {
    usize::try_from((bytes / SAMPLES).max(SAMPLE)).unwrap_or(usize::MAX)
}

/// Whether `key` is one of an architecture's hyperparameters.
fn is_below(key: &str, architecture: &str) -> bool {
    key.strip_prefix(architecture).is_some_and(|rest| rest.starts_with('.'))
}

fn unreadable(path: &Path, source: io::Error) -> GgufError {
    GgufError::Io { path: path.into(), source }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
#[cfg(feature = "synth")]
mod tests {
    use super::*;
    use crate::gguf::{Writer, synth::SyntheticModel};

    /// The fingerprint of a small model after `change` of its keys, and of the bytes of its tensors.
    fn changed(keys: impl FnOnce(&mut Writer), bytes: impl Fn(&str, &mut [u8])) -> Fingerprint {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        SyntheticModel::tiny().write_file(&path).unwrap();
        let model = Gguf::open(&path).unwrap();
        let mut writer = Writer::new();
        model.metadata().iter().for_each(|(key, value)| _ = writer.set(key, value.clone()));
        keys(&mut writer);
        for tensor in model.tensors() {
            let mut data = model.read_tensor(tensor).unwrap();
            bytes(&tensor.name, &mut data);
            writer.add_tensor(&tensor.name, &tensor.shape, tensor.tensor_type, data).unwrap();
        }
        let path = folder.path().join("changed.gguf");
        writer.write_file(&path).unwrap();
        Fingerprint::of(&Gguf::open(&path).unwrap()).unwrap()
    }

    #[test]
    fn names_make_no_difference_and_hyperparameters_and_weights_do() {
        let same = changed(|_| {}, |_, _| {});
        assert_eq!(changed(|writer| _ = writer.set("general.name", "another name"), |_, _| {}), same);
        assert_ne!(changed(|writer| _ = writer.set("llama.rope.freq_base", 77_777.0_f32), |_, _| {}), same);
        for place in 0..8 {
            let change = |name: &str, bytes: &mut [u8]| {
                if name == "blk.1.ffn_up.weight" {
                    bytes[place * bytes.len() / 8] ^= 1;
                }
            };
            assert_ne!(changed(|_| {}, change), same, "at {place} eighths");
        }
    }

    #[test]
    fn samples_lie_close_enough_and_are_not_too_many() {
        for bytes in [1_u64, 1 << 20, 8 << 20, 2 << 30, 1 << 40] {
            let stride = stride(bytes) as u64;
            assert!(bytes.div_ceil(stride) <= SAMPLES + 1);
            assert!(stride <= SAMPLE.max(bytes.div_ceil(SAMPLES)));
        }
    }
}
