//! SHA-256 of files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// A file as it must be: its size in bytes and its SHA-256 in lower-case hex.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) size: u64,
    pub(crate) sha256: &'static str,
}

impl Expected {
    /// Whether the file exists and is exactly this one. The size is compared first: it costs nothing.
    pub(crate) fn is(&self, path: &Path) -> io::Result<bool> {
        match path.metadata() {
            Ok(meta) if meta.is_file() && meta.len() == self.size => Ok(sha256(path)? == self.sha256),
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// SHA-256 of a file in lower-case hex.
pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    let mut hash = HashingWriter::new(io::sink());
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hash.finish().1)
}

/// Passes bytes on and hashes them on the way.
pub(crate) struct HashingWriter<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> HashingWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    /// The writer, and the SHA-256 of what went through it.
    pub(crate) fn finish(self) -> (W, String) {
        let hex = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        (self.inner, hex)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Copies with a progress bar on stderr (drawn on a terminal only) and returns the SHA-256 of what was copied.
pub(crate) fn copy_with_progress(
    source: &mut impl Read,
    target: impl Write,
    size: u64,
    what: &str,
) -> io::Result<String> {
    let bar = progress_bar(size, what);
    let mut target = HashingWriter::new(target);
    io::copy(&mut bar.wrap_read(source), &mut target)?;
    target.flush()?;
    bar.finish_and_clear();
    Ok(target.finish().1)
}

/// A bar for `size` bytes on stderr, drawn on a terminal only.
pub(crate) fn progress_bar(size: u64, what: &str) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(size);
    if let Ok(style) = indicatif::ProgressStyle::with_template("  {msg} [{wide_bar}] {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    bar.with_message(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of FIPS 180-2, appendix B.1.
    const ABC: Expected =
        Expected { size: 3, sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" };

    #[test]
    fn only_the_very_same_bytes_are_the_expected_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(!ABC.is(&path).unwrap(), "missing");
        for (bytes, is) in [("abc", true), ("ab", false), ("abd", false), ("abcd", false)] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(ABC.is(&path).unwrap(), is, "{bytes}");
        }
        assert!(!ABC.is(folder.path()).unwrap(), "a folder");
    }

    #[test]
    fn a_copy_is_complete_and_hashed() {
        let mut copy = Vec::new();
        let hex = copy_with_progress(&mut &b"abc"[..], &mut copy, 3, "copying").unwrap();
        assert_eq!((copy.as_slice(), hex.as_str()), (&b"abc"[..], ABC.sha256));
    }
}
