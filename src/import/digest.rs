//! What a file holds, in 32 bytes.
//!
//! The digest is BLAKE3 over the BLAKE3 digests of the file's segments, so that several threads can read a file and one
//! thread can digest what it writes. It covers every byte: a cache that is keyed and verified by it cannot serve one
//! model for another, nor a damaged one.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

/// Bytes that are digested on their own.
const SEGMENT: u64 = 16 << 20;

/// The digest of a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Digest(String);

impl Digest {
    /// The digest of the file at `path`, read by as many threads as the process may use. `None` when `progress`, which
    /// gets the bytes read so far, says to stop.
    pub(super) fn of_file(path: &Path, mut progress: impl FnMut(u64) -> bool) -> io::Result<Option<Self>> {
        let length = File::open(path)?.metadata()?.len();
        let segments = length.div_ceil(SEGMENT);
        let threads = thread::available_parallelism().map_or(1, usize::from).min(segments.max(1) as usize);
        let (next, read, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let worker = || -> io::Result<Vec<(u64, blake3::Hash)>> {
            let mut file = File::open(path)?;
            let mut buffer = vec![0; 1 << 20];
            let mut digests = Vec::new();
            loop {
                let segment = next.fetch_add(1, Ordering::Relaxed);
                if segment >= segments || stop.load(Ordering::Relaxed) {
                    return Ok(digests);
                }
                file.seek(SeekFrom::Start(segment * SEGMENT))?;
                let mut rest = (&mut file).take(SEGMENT);
                let mut hasher = blake3::Hasher::new();
                while let count @ 1.. = rest.read(&mut buffer)? {
                    hasher.update(&buffer[..count]);
                    read.fetch_add(count as u64, Ordering::Relaxed);
                }
                digests.push((segment, hasher.finalize()));
            }
        };
        let mut digests = thread::scope(|scope| -> io::Result<Vec<_>> {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
                if !progress(read.load(Ordering::Relaxed)) {
                    stop.store(true, Ordering::Relaxed);
                }
                thread::sleep(std::time::Duration::from_millis(5));
            }
            let mut digests = Vec::with_capacity(segments as usize);
            for worker in workers {
                digests.extend(worker.join().expect("a reader of bytes does not panic")?);
            }
            Ok(digests)
        })?;
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        digests.sort_unstable_by_key(|&(segment, _)| segment);
        Ok(Some(Self::of_segments(digests.iter().map(|(_, digest)| digest), length)))
    }

    /// The digest of small data, such as a key made of several parts.
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).to_hex().to_string())
    }

    /// 64 hexadecimal digits.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn of_segments<'a>(digests: impl Iterator<Item = &'a blake3::Hash>, length: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        for digest in digests {
            hasher.update(digest.as_bytes());
        }
        hasher.update(&length.to_le_bytes());
        Self(hasher.finalize().to_hex().to_string())
    }
}

/// Makes the digest of a file from its bytes in order.
#[derive(Debug, Default)]
pub(super) struct Digester {
    finished: Vec<blake3::Hash>,
    segment: blake3::Hasher,
    length: u64,
}

impl Digester {
    /// Takes the next bytes.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = (SEGMENT - self.length % SEGMENT).min(bytes.len() as u64) as usize;
            self.segment.update(&bytes[..room]);
            self.length += room as u64;
            bytes = &bytes[room..];
            if self.length.is_multiple_of(SEGMENT) {
                self.finished.push(self.segment.finalize());
                self.segment.reset();
            }
        }
    }

    /// The digest, the same as [`Digest::of_file`] of a file with these bytes.
    pub(super) fn finish(mut self) -> Digest {
        if !self.length.is_multiple_of(SEGMENT) {
            self.finished.push(self.segment.finalize());
        }
        Digest::of_segments(self.finished.iter(), self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(bytes: &[u8]) -> Digest {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Digest::of_file(file.path(), |_| true).unwrap().unwrap()
    }

    #[test]
    fn streamed_bytes_have_the_digest_of_the_file() {
        for length in [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 2 * SEGMENT + 77] {
            let bytes: Vec<u8> = (0..length).map(|at| ((at * 31) >> 3) as u8).collect();
            let mut digester = Digester::default();
            bytes.chunks(999_983).for_each(|bytes| digester.update(bytes));
            assert_eq!(digester.finish(), of_file(&bytes), "{length} bytes");
        }
    }

    #[test]
    fn each_byte_and_the_length_count() {
        let bytes = vec![0; SEGMENT as usize + 100];
        let digest = of_file(&bytes);
        for place in [0, SEGMENT as usize - 1, SEGMENT as usize, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[place] = 1;
            assert_ne!(of_file(&changed), digest, "byte {place}");
        }
        assert_ne!(of_file(&bytes[1..]), digest);
    }

    #[test]
    fn reading_can_be_stopped() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(40 * SEGMENT).unwrap();
        assert_eq!(Digest::of_file(file.path(), |_| false).unwrap(), None);
    }
}
