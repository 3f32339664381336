//! The digest of a source, remembered.

use std::{
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::super::{ImportError, digest::Digest, unchanged, watch::Progress};
use crate::gguf::{Gguf, Part, partial_file::PartialFile};

/// A file that changed this recently may change again without another time of change: clocks of file systems are coarse.
const SETTLED: Duration = Duration::from_secs(2);

/// A file as the operating system describes it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct State {
    path: PathBuf,
    bytes: u64,
    modified: Option<SystemTime>,
}

/// What is remembered of a model.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Remembered {
    parts: Vec<State>,
    digest: Digest,
}

/// Whether this is the name of a file in which a digest is kept.
pub(super) fn is_memory(name: &str) -> bool {
    name.starts_with("source-") && name.ends_with(".json")
}

/// Whether nobody will ask for what is kept in `memory`: the source is gone, or what it says makes no sense.
pub(super) fn is_forgotten(memory: &Path) -> bool {
    let Ok(bytes) = fs::read(memory) else { return false };
    serde_json::from_slice(&bytes).map_or(true, |remembered: Remembered| {
        remembered.parts.iter().any(|part| part.path.try_exists().is_ok_and(|exists| !exists))
    })
}

/// Whether another process may be at work on the unfinished file `partial`: a digest, moments old.
pub(super) fn is_being_written(partial: &Path) -> bool {
    /// It is a few hundred bytes.
    const WRITTEN: Duration = Duration::from_secs(60);
    let is_digest = partial.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(".source-"));
    let age = fs::metadata(partial).and_then(|metadata| metadata.modified()).map(|modified| modified.elapsed());
    // A time to come counts as now: clocks of file systems differ.
    is_digest && !matches!(age, Ok(Ok(age)) if age > WRITTEN)
}

/// The digest of all parts of `gguf`, as they were when it was opened.
pub(super) fn digest(folder: &Path, gguf: &Gguf, progress: Progress<'_>) -> Result<Digest, ImportError> {
    unchanged(gguf.parts())?;
    let states = gguf.parts().iter().map(|part| state(part).map_err(|source| unreadable(&part.path, source)));
    let states: Vec<State> = states.collect::<Result<_, _>>()?;
    let name = Digest::of_bytes(states[0].path.as_os_str().as_encoded_bytes());
    let memory = folder.join(format!("source-{}.json", &name.as_str()[..32]));
    if let Some(digest) = recall(&memory, &states) {
        return Ok(digest);
    }
    let digest = of_parts(&states, progress)?;
    unchanged(gguf.parts())?;
    let age = |state: &State| state.modified?.elapsed().ok();
    let is_settled = |state: &State| age(state).is_some_and(|age| age > SETTLED);
    if states.iter().all(is_settled) {
        let remembered = Remembered { parts: states, digest: digest.clone() };
        // Without it the source is read again next time.
        if let Err(error) = remember(&memory, &remembered) {
            tracing::debug!(path = %memory.display(), %error, "cannot keep the digest of a source");
        }
    }
    Ok(digest)
}

fn of_parts(states: &[State], progress: Progress<'_>) -> Result<Digest, ImportError> {
    let total = states.iter().map(|state| state.bytes).sum::<u64>().max(1);
    let mut before = 0;
    let mut digests = Vec::with_capacity(states.len());
    for State { path, bytes, .. } in states {
        let go_on =
            |read: u64| progress(((before + read) as f64 / total as f64).min(1.0) as f32) == ControlFlow::Continue(());
        let digest = Digest::of_file(path, go_on).map_err(|source| unreadable(path, source))?;
        digests.push(digest.ok_or(ImportError::Cancelled)?);
        before += bytes;
    }
    let text: Vec<&str> = digests.iter().map(Digest::as_str).collect();
    Ok(Digest::of_bytes(text.join(" ").as_bytes()))
}

fn state(part: &Part) -> io::Result<State> {
    Ok(State { path: part.path.canonicalize()?, bytes: part.bytes, modified: part.modified })
}

fn recall(memory: &Path, states: &[State]) -> Option<Digest> {
    let remembered: Remembered = serde_json::from_slice(&fs::read(memory).ok()?).ok()?;
    (remembered.parts == states).then_some(remembered.digest)
}

fn remember(memory: &Path, remembered: &Remembered) -> io::Result<()> {
    let partial = PartialFile::create(memory)?;
    serde_json::to_writer(partial.file(), remembered)?;
    partial.finish()
}

fn unreadable(path: &Path, source: io::Error) -> ImportError {
    ImportError::Read { path: path.into(), source }
}
