//! Python's pip: the client of the package index, with the machine's own mirrors, proxies and certificates.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::index::Settings;
use crate::process::{ProcessError, capture_text, run_on_stderr};

/// An interpreter that has pip.
#[derive(Debug)]
pub(crate) struct Pip {
    python: PathBuf,
    version: (u32, u32),
}

/// pip could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PipError {
    #[error("pip failed")]
    Process(#[from] ProcessError),
    #[error("pip left no file in {}", .0.display())]
    NothingFetched(PathBuf),
    #[error("cannot read {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// What to take of a project: its wheel or its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Wheel,
    Source,
}

impl Pip {
    /// The first of `$PYTHON`, `python3` and `python` that has pip.
    pub(crate) fn find() -> Option<Self> {
        let named = std::env::var_os("PYTHON").map(PathBuf::from);
        let usual = ["python3", "python"].map(PathBuf::from);
        named.into_iter().chain(usual).find_map(|python| {
            let answer = capture_text(Command::new(&python).args(["-m", "pip", "--version"])).ok()?;
            Some(Self { version: parse_version(&answer)?, python })
        })
    }

    /// The pip of this interpreter, whether it has one or not.
    #[cfg(test)]
    pub(crate) fn of(python: &str) -> Self {
        Self { python: python.into(), version: (23, 0) }
    }

    /// Fetches one requirement, without what it depends on, into an empty folder; returns the file.
    /// pip checks the file against the hash of the index, and shows its progress.
    pub(crate) fn download(&self, requirement: &str, form: Form, folder: &Path) -> Result<PathBuf, PipError> {
        let mut command = self.pip("download");
        command.args(["--no-deps", "--disable-pip-version-check"]);
        match form {
            Form::Wheel => command.args(["--only-binary", ":all:"]),
            Form::Source => command.args(["--no-binary", project(requirement)]),
        };
        if self.version >= (25, 1) {
            // A connection that breaks off goes on where it stopped.
            command.args(["--resume-retries", "20"]);
        }
        run_on_stderr(command.arg("--dest").arg(folder).arg(requirement))?;
        only_file(folder)
    }

    /// How pip was set up: by its files and the environment.
    pub(crate) fn settings(&self) -> Result<Settings, PipError> {
        Ok(Settings::parse(&capture_text(self.pip("config").arg("list"))?))
    }

    fn pip(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.args(["-m", "pip", subcommand]);
        command
    }
}

/// The version in `pip 23.2.1 from /usr/lib/... (python 3.11)`.
fn parse_version(answer: &str) -> Option<(u32, u32)> {
    let mut numbers = answer.strip_prefix("pip ")?.split_whitespace().next()?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The project in `name==version`.
pub(crate) fn project(requirement: &str) -> &str {
    requirement.split(['=', '<', '>', '~', '!']).next().unwrap_or(requirement)
}

fn only_file(folder: &Path) -> Result<PathBuf, PipError> {
    let failed = |source| PipError::Read { path: folder.to_owned(), source };
    let mut entries = folder.read_dir().map_err(failed)?;
    match entries.next() {
        Some(entry) => entry.map(|entry| entry.path()).map_err(failed),
        None => Err(PipError::NothingFetched(folder.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_pip_prints() {
        assert_eq!(parse_version("pip 23.2.1 from /usr/lib/python3/pip (python 3.11)"), Some((23, 2)));
        assert_eq!(parse_version("pip 26.3 from /x (python 3.14)"), Some((26, 3)));
        assert_eq!(parse_version("python: No module named pip"), None);
    }

    #[test]
    fn the_project_is_the_name_before_the_version() {
        assert_eq!(project("llama-cpp-python==0.3.36"), "llama-cpp-python");
        assert_eq!(project("cmake>=3.14"), "cmake");
    }
}
