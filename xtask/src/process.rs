//! Child processes: each is shown before it runs, and a failure names the command and how it ended.

use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

/// A child process that could not be started or did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProcessError {
    /// Install the program, or put its folder on `PATH`.
    #[error("cannot start `{command}`")]
    Start {
        command: String,
        #[source]
        source: io::Error,
    },
    /// The output above, or in the message, says why.
    #[error("`{command}` ended with {status}{}", indented(.stderr))]
    Failed { command: String, status: ExitStatus, stderr: String },
}

/// Runs with the caller's stdin, stdout and stderr.
pub(crate) fn run(command: &mut Command) -> Result<(), ProcessError> {
    show(command);
    let status = command_status(command)?;
    succeeded(command, status)
}

/// Runs with the lines of the child's stdout passed on where `keep` says so.
pub(crate) fn run_filtered(command: &mut Command, mut keep: impl FnMut(&str) -> bool) -> Result<(), ProcessError> {
    show(command);
    let started = command.stdout(Stdio::piped()).spawn();
    let lost = |source| ProcessError::Start { command: line(command), source };
    let mut child = started.map_err(lost)?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut bytes = Vec::new();
        // A test may print what is no UTF-8.
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&bytes);
            if keep(text.trim_end()) {
                print!("{text}");
            }
            bytes.clear();
        }
    }
    let status = child.wait().map_err(lost)?;
    succeeded(command, status)
}

/// Runs with the child's stdout sent to our stderr: for progress that is no result.
pub(crate) fn run_on_stderr(command: &mut Command) -> Result<(), ProcessError> {
    command.stdout(io::stderr());
    run(command)
}

/// Runs without output and returns what the child wrote to stdout; its stderr is part of the error.
pub(crate) fn capture(command: &mut Command) -> Result<Vec<u8>, ProcessError> {
    capture_output(command).map(|output| output.stdout)
}

/// [`capture`] with what the child wrote to stderr, for programs that give results there.
pub(crate) fn capture_output(command: &mut Command) -> Result<Output, ProcessError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| ProcessError::Start { command: line(command), source })?;
    if output.status.success() {
        return Ok(output);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(ProcessError::Failed { command: line(command), status: output.status, stderr })
}

/// [`capture`] for text.
pub(crate) fn capture_text(command: &mut Command) -> Result<String, ProcessError> {
    capture(command).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The status of a child whose failure the caller interprets, with the caller's stdio.
pub(crate) fn command_status(command: &mut Command) -> Result<ExitStatus, ProcessError> {
    command.status().map_err(|source| ProcessError::Start { command: line(command), source })
}

/// Writes the command to stderr as one would type it.
pub(crate) fn show(command: &Command) {
    eprintln!("  $ {}", line(command));
}

/// The first file of this name in the folders of `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    find_program_in(name, &std::env::var_os("PATH")?)
}

/// The first file of this name in a `PATH`-like list of folders.
pub(crate) fn find_program_in(name: &str, path: &OsStr) -> Option<PathBuf> {
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    std::env::split_paths(path).map(|folder| folder.join(&file)).find(|candidate| is_executable(candidate))
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file()
}

fn succeeded(command: &Command, status: ExitStatus) -> Result<(), ProcessError> {
    if status.success() {
        return Ok(());
    }
    Err(ProcessError::Failed { command: line(command), status, stderr: String::new() })
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "-_=+./,:@%".contains(c)) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The last lines of a child's stderr, indented under the message.
fn indented(stderr: &str) -> String {
    const LINES: usize = 20;
    let lines: Vec<&str> = stderr.trim().lines().collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(|line| format!("\n    {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("run");
        command.args(["--prompt", "it's 1 + 1", "", "-p=512"]);
        assert_eq!(line(&command), r"run --prompt 'it'\''s 1 + 1' '' -p=512");
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let error = capture(&mut Command::new("no-such-program-here")).unwrap_err();
        assert_eq!(error.to_string(), "cannot start `no-such-program-here`");
    }

    #[test]
    fn a_failure_shows_the_last_lines_only() {
        let stderr: String = (0..30).map(|n| format!("line {n}\n")).collect();
        let shown = indented(&stderr);
        assert!(!shown.contains("line 9\n") && shown.contains("line 10\n") && shown.ends_with("line 29"));
    }

    #[cfg(unix)]
    #[test]
    fn only_executable_files_are_programs() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cmake"), "").unwrap();
        assert_eq!(find_program_in("cmake", folder.path().as_os_str()), None);
        assert!(find_program_in("sh", OsStr::new("/nowhere:/bin")).is_some());
    }
}
