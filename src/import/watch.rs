//! Work that reports how far it is and can be stopped: reading that makes a plan, and a writer that knows what it wrote.

use std::{
    io::{self, Write},
    ops::ControlFlow,
};

use super::{
    ImportError,
    digest::{Digest, Digester},
};

/// Bytes between two reports.
const STEP: u64 = 1 << 20;

/// What is told how far the work is, from 0 to 1, and may stop it.
pub(super) type Progress<'a> = &'a mut dyn FnMut(f32) -> ControlFlow<()>;

/// Counts bytes that are read before the first is written.
pub(super) struct Reading<'a> {
    progress: Progress<'a>,
    /// Bytes that will be read.
    expected: u64,
    /// The share of the whole work that they are.
    share: f32,
    read: u64,
}

impl<'a> Reading<'a> {
    /// Watches the reading of `expected` bytes, a `share` of the work.
    pub(super) fn new(expected: u64, share: f32, progress: Progress<'a>) -> Self {
        Self { progress, expected: expected.max(1), share, read: 0 }
    }

    /// Notes that so many more were read.
    pub(super) fn add(&mut self, bytes: u64) -> Result<(), ImportError> {
        self.read += bytes;
        let fraction = (self.read as f64 / self.expected as f64).min(1.0) as f32;
        match (self.progress)(self.share * fraction) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ImportError::Cancelled),
        }
    }
}

/// Passes bytes on to a writer.
pub(super) struct Watched<'a, W> {
    output: W,
    progress: Progress<'a>,
    /// Bytes that will be written, about.
    expected: u64,
    written: u64,
    reported: u64,
    digester: Digester,
}

impl<'a, W: Write> Watched<'a, W> {
    /// Watches the writing of about `expected` bytes.
    pub(super) fn new(output: W, expected: u64, progress: Progress<'a>) -> Self {
        Self { output, progress, expected: expected.max(1), written: 0, reported: 0, digester: Digester::default() }
    }

    /// The digest and the number of all bytes that were written.
    pub(super) fn finish(self) -> (Digest, u64) {
        (self.digester.finish(), self.written)
    }
}

impl<W: Write> Write for Watched<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written == 0 || self.written - self.reported >= STEP {
            self.reported = self.written;
            let fraction = (self.written as f64 / self.expected as f64).min(1.0);
            if (self.progress)(fraction as f32).is_break() {
                return Err(io::Error::other(ImportError::Cancelled));
            }
        }
        let count = self.output.write(bytes)?;
        self.digester.update(&bytes[..count]);
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
