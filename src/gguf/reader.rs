//! Reads numbers and strings, and never more than the file can hold.

use std::{io::Read, path::Path};

use super::GgufError;

/// Most bytes of header. The largest vocabularies with their merges take about 20 MB.
pub(super) const HEADER_LIMIT: u64 = 1 << 30;

/// A little-endian source of known length that knows where it stands.
pub(super) struct Reader<'p, R> {
    source: R,
    path: &'p Path,
    position: u64,
    length: u64,
}

impl<'p, R: Read> Reader<'p, R> {
    /// Reads `source`, which has `length` bytes; errors name `path`.
    pub(super) fn new(source: R, path: &'p Path, length: u64) -> Self {
        Self { source, path, position: 0, length }
    }

    /// The file, for errors.
    pub(super) fn path(&self) -> &'p Path {
        self.path
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Length of the whole file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Checks that `count` items of at least `size` bytes can follow. Called before anything is allocated for them.
    pub(super) fn expect(&self, count: u64, size: u64, what: impl FnOnce() -> String) -> Result<(), GgufError> {
        let needed = count.saturating_mul(size);
        let available = self.length.saturating_sub(self.position);
        if needed > available {
            let path = self.path.to_path_buf();
            return Err(GgufError::Truncated { path, what: what(), offset: self.position, needed, available });
        }
        if self.position.saturating_add(needed) > HEADER_LIMIT {
            let path = self.path.to_path_buf();
            return Err(GgufError::HeaderTooLarge { path, offset: self.position, limit: HEADER_LIMIT });
        }
        Ok(())
    }

    /// The next `N` bytes.
    pub(super) fn bytes<const N: usize>(&mut self, what: impl FnOnce() -> String) -> Result<[u8; N], GgufError> {
        self.expect(1, N as u64, what)?;
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// The next four bytes as an integer.
    pub(super) fn u32(&mut self, what: impl FnOnce() -> String) -> Result<u32, GgufError> {
        self.bytes(what).map(u32::from_le_bytes)
    }

    /// The next eight bytes as an integer.
    pub(super) fn u64(&mut self, what: impl FnOnce() -> String) -> Result<u64, GgufError> {
        self.bytes(what).map(u64::from_le_bytes)
    }

    /// Appends `count` bytes to `buffer`, which must have passed [`expect`](Self::expect).
    pub(super) fn append(&mut self, count: usize, buffer: &mut Vec<u8>) -> Result<(), GgufError> {
        let start = buffer.len();
        buffer.resize(start + count, 0);
        self.fill(&mut buffer[start..])
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), GgufError> {
        // The length was checked: a short read here means that the file shrank meanwhile.
        self.source.read_exact(bytes).map_err(|source| GgufError::Io { path: self.path.to_path_buf(), source })?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}
