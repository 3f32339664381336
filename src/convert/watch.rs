//! A writer that reports progress and can be stopped.

use std::{
    io::{self, Write},
    ops::ControlFlow,
};

use super::ConvertError;

/// Bytes between two reports.
const STEP: u64 = 1 << 20;

/// What is told how far the work is, from 0 to 1, and may stop it.
pub(super) type Progress<'a> = &'a mut dyn FnMut(f32) -> ControlFlow<()>;

/// Passes bytes on to a writer.
pub(super) struct Watched<'a, W> {
    output: W,
    progress: Progress<'a>,
    /// Bytes that will be written, about.
    expected: u64,
    written: u64,
    next_report: u64,
}

impl<'a, W: Write> Watched<'a, W> {
    /// Watches the writing of about `expected` bytes.
    pub(super) fn new(output: W, expected: u64, progress: Progress<'a>) -> Self {
        Self { output, progress, expected: expected.max(1), written: 0, next_report: 0 }
    }
}

impl<W: Write> Write for Watched<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written >= self.next_report {
            self.next_report = self.written + STEP;
            let fraction = (self.written as f64 / self.expected as f64).min(1.0);
            if (self.progress)(fraction as f32).is_break() {
                return Err(ConvertError::Cancelled.into());
            }
        }
        let count = self.output.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
