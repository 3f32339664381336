//! Python's pip: the client of the package index, with the machine's own mirrors, proxies and certificates.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::process::{ProcessError, capture, capture_text, run_on_stderr};

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
    /// Upgrade pip: reports came with version 22.2.
    #[error("cannot read the report of pip {}.{}", .version.0, .version.1)]
    Report {
        version: (u32, u32),
        #[source]
        source: serde_json::Error,
    },
    #[error("the report of pip names no file with a SHA-256")]
    NoFile,
    #[error("pip left no file in {}", .0.display())]
    NothingFetched(PathBuf),
    #[error("cannot read {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Where the index keeps a file, and what it must hash to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IndexedFile {
    pub(crate) url: String,
    /// Lower-case hex.
    pub(crate) sha256: String,
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

    /// Asks where the index keeps a wheel, without fetching it.
    pub(crate) fn locate(&self, requirement: &str) -> Result<IndexedFile, PipError> {
        let mut command = self.pip("install");
        command.args(["--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--only-binary", ":all:"]);
        let report = capture(command.args(["--report", "-", requirement]))?;
        parse_report(&report)
            .map_err(|source| PipError::Report { version: self.version, source })?
            .ok_or(PipError::NoFile)
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

/// The file of the first entry of pip's installation report (format version 1); `None` when it has no SHA-256.
fn parse_report(report: &[u8]) -> Result<Option<IndexedFile>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Report {
        install: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        download_info: Download,
    }
    #[derive(Deserialize)]
    struct Download {
        url: String,
        archive_info: Option<Archive>,
    }
    #[derive(Deserialize)]
    struct Archive {
        hashes: Option<Hashes>,
    }
    #[derive(Deserialize)]
    struct Hashes {
        sha256: Option<String>,
    }
    let report: Report = serde_json::from_slice(report)?;
    Ok(report.install.into_iter().next().and_then(|entry| {
        let sha256 = entry.download_info.archive_info?.hashes?.sha256?;
        Some(IndexedFile { url: entry.download_info.url, sha256 })
    }))
}

/// The project in `name==version`.
fn project(requirement: &str) -> &str {
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
    fn the_report_gives_address_and_hash() {
        let report = br#"{"version": "1", "pip_version": "23.2.1", "install": [{"is_direct": false,
            "download_info": {"url": "http://index.example/a-1-py3-none-any.whl",
                              "archive_info": {"hash": "sha256=00ff", "hashes": {"sha256": "00ff"}}},
            "metadata": {"name": "a"}}], "environment": {}}"#;
        let file = IndexedFile { url: "http://index.example/a-1-py3-none-any.whl".into(), sha256: "00ff".into() };
        assert_eq!(parse_report(report).unwrap(), Some(file));
    }

    #[test]
    fn a_report_without_file_or_hash_gives_none() {
        let local = br#"{"install": [{"download_info": {"url": "file:///a", "dir_info": {}}}]}"#;
        assert_eq!(parse_report(local).unwrap(), None);
        assert_eq!(parse_report(br#"{"install": []}"#).unwrap(), None);
        assert!(parse_report(b"WARNING: something else").is_err());
    }

    #[test]
    fn the_project_is_the_name_before_the_version() {
        assert_eq!(project("llama-cpp-python==0.3.36"), "llama-cpp-python");
        assert_eq!(project("cmake>=3.14"), "cmake");
    }
}
