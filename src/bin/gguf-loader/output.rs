//! Where results go: stdout. And where everything else goes: stderr.

use std::{
    fmt::Display,
    io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _},
};

use serde::Serialize;

use crate::failure::{Exit, Failure};

/// The one writer of results.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: BufWriter<StdoutLock<'static>>,
    json: bool,
    quiet: bool,
}

impl Output {
    /// Takes stdout for the life of the program.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { stdout: BufWriter::new(io::stdout().lock()), json, quiet }
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether stderr gets errors only.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Writes a result: its JSON on one line, or its text, ended by a line break.
    pub(crate) fn result<T: Serialize + Display>(&mut self, result: &T) -> Result<(), Failure> {
        if self.json {
            return self.json_line(result);
        }
        let text = result.to_string();
        self.bytes(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
    }

    /// Writes one JSON value and a line break, whatever was asked for.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(value).map_err(|error| Failure::new(Exit::Unexpected, &error))?;
        line.push(b'\n');
        self.bytes(&line)
    }

    /// Writes bytes as they are, so that the reader has them now.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stdout.write_all(bytes).and_then(|()| self.stdout.flush()).map_err(not_written)
    }

    /// Writes a line about the work to stderr, unless `--quiet` forbids it.
    pub(crate) fn note(&self, note: impl Display) {
        if !self.quiet {
            to_stderr(note);
        }
    }

    /// Writes text about the work to stderr as it comes, unless `--quiet` forbids it.
    pub(crate) fn aside(&self, text: &str) {
        if !self.quiet {
            let _ = write!(io::stderr(), "{text}");
        }
    }

    /// Ends the line that streamed text left open on a terminal, so that the next note does not continue it.
    pub(crate) fn end_streamed_line(&self) {
        if !self.quiet && io::stdout().is_terminal() {
            to_stderr("");
        }
    }
}

/// Writes a line to stderr. When that fails there is nobody left to tell.
pub(crate) fn to_stderr(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Nobody reads any more: the reader has what it wanted (`gguf-loader … | head`). Anything else is a failure.
fn not_written(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::closed_pipe(),
        _ => Failure::new(Exit::Unexpected, &error).with_headline("cannot write to stdout"),
    }
}
