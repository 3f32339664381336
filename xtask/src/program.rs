//! Our own command-line program as the tests and comparisons see it: natively, or under an emulator.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::process::{ProcessError, capture};

/// How often a program repeats a test before it answers with the mean.
pub(crate) const RUNS: &str = "3";

/// The program, and what stands before it on the command line.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    emulator: Vec<OsString>,
    path: PathBuf,
}

/// The program failed, or said something else than agreed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProgramError {
    #[error("the program failed")]
    Process(#[from] ProcessError),
    #[error("cannot read the JSON of `{subcommand}`")]
    Json {
        subcommand: &'static str,
        #[source]
        source: serde_json::Error,
    },
}

/// What `run --json` says of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Answer {
    /// The engine that ran, by its own account.
    pub(crate) backend: String,
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
}

/// One row of `bench --json`: a prompt (`n_gen` is 0) or a generation (`n_prompt` is 0).
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct BenchRow {
    pub(crate) backend: String,
    pub(crate) n_prompt: u32,
    pub(crate) n_gen: u32,
    pub(crate) tokens_per_second: f64,
}

impl Program {
    /// Runs on this machine's CPU.
    pub(crate) fn native(path: PathBuf) -> Self {
        Self { emulator: Vec::new(), path }
    }

    /// Runs under an emulator: its program and arguments.
    pub(crate) fn under(emulator: Vec<OsString>, path: PathBuf) -> Self {
        Self { emulator, path }
    }

    /// The ids of the backends that the program says it can run here.
    pub(crate) fn supported_backends(&self) -> Result<Vec<String>, ProgramError> {
        let answer = capture(self.command().args(["devices", "--json"]))?;
        supported_backends(&answer).map_err(|source| ProgramError::Json { subcommand: "devices", source })
    }

    /// The id of the backend that the program takes for a model.
    pub(crate) fn winner(&self, model: &Path) -> Result<String, ProgramError> {
        #[derive(Deserialize)]
        struct Selection {
            winner: String,
        }
        let answer = capture(self.command().arg("select").arg(model).arg("--json"))?;
        let selection: Selection =
            serde_json::from_slice(&answer).map_err(|source| ProgramError::Json { subcommand: "select", source })?;
        Ok(selection.winner)
    }

    /// What greedy generation makes of a prompt; without a backend's id the program chooses.
    pub(crate) fn run(
        &self,
        model: &Path,
        backend: Option<&str>,
        prompt: &str,
        tokens: usize,
    ) -> Result<Answer, ProgramError> {
        let mut command = self.command();
        command.arg("run").arg(model).args(["--json", "--prompt", prompt, "--max-tokens", &tokens.to_string()]);
        if let Some(backend) = backend {
            command.args(["--backend", backend]);
        }
        let answer = capture(&mut command)?;
        serde_json::from_slice(&answer).map_err(|source| ProgramError::Json { subcommand: "run", source })
    }

    /// Imports a model in I2_S, packed for x86, into the form that backends load.
    pub(crate) fn import(&self, model: &Path, out: &Path) -> Result<(), ProgramError> {
        capture(self.command().arg("import").arg(model).arg(out).args(["--layout", "x86", "--json"]))?;
        Ok(())
    }

    /// One run of `bench`, each of its tests [`RUNS`] times: the caller repeats and interleaves.
    pub(crate) fn bench(
        &self,
        model: &Path,
        backend: Option<&str>,
        prompt: u32,
        generated: u32,
        threads: usize,
    ) -> Result<Vec<BenchRow>, ProgramError> {
        let mut command = self.command();
        command.arg("bench").arg(model).args(["--json", "-r", RUNS]);
        command.args(["-p", &prompt.to_string(), "-n", &generated.to_string(), "-t", &threads.to_string()]);
        if let Some(backend) = backend {
            command.args(["--backend", backend]);
        }
        let answer = capture(&mut command)?;
        serde_json::from_slice(&answer).map_err(|source| ProgramError::Json { subcommand: "bench", source })
    }

    /// The perplexity of a text, in chunks of `context` tokens.
    pub(crate) fn perplexity(
        &self,
        model: &Path,
        text: &Path,
        context: u32,
        threads: usize,
    ) -> Result<f64, ProgramError> {
        #[derive(Deserialize)]
        struct Report {
            value: f64,
        }
        let mut command = self.command();
        command.arg("perplexity").arg(model).arg("--file").arg(text).arg("--json");
        let answer = capture(command.args(["--ctx", &context.to_string(), "--threads", &threads.to_string()]))?;
        let report: Report = serde_json::from_slice(&answer)
            .map_err(|source| ProgramError::Json { subcommand: "perplexity", source })?;
        Ok(report.value)
    }

    fn command(&self) -> Command {
        let mut command = match self.emulator.split_first() {
            Some((emulator, arguments)) => {
                let mut command = Command::new(emulator);
                command.args(arguments).arg(&self.path);
                command
            }
            None => Command::new(&self.path),
        };
        // A choice forced in the caller's shell would make every leg meaningless.
        command.env_remove("GGUF_LOADER_BACKEND");
        command
    }
}

fn supported_backends(answer: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Devices {
        backends: Vec<Backend>,
    }
    #[derive(Deserialize)]
    struct Backend {
        id: String,
        supported: bool,
    }
    let devices: Devices = serde_json::from_slice(answer)?;
    Ok(devices.backends.into_iter().filter(|backend| backend.supported).map(|backend| backend.id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_supported_backends_are_listed() {
        let answer = br#"{"hardware": {}, "backends": [
            {"id": "cpu-x64", "supported": true, "missing": []},
            {"id": "cpu-haswell", "supported": false, "missing": ["avx2"]},
            {"id": "reference", "supported": true}]}"#;
        assert_eq!(supported_backends(answer).unwrap(), ["cpu-x64", "reference"]);
        assert!(supported_backends(b"{}").is_err());
    }

    #[test]
    fn an_emulator_stands_before_the_program() {
        let program = Program::under(vec!["qemu".into(), "-cpu".into(), "max".into()], "gguf-loader".into());
        let command = program.command();
        let words: Vec<_> = command.get_args().collect();
        assert_eq!(command.get_program(), "qemu");
        assert_eq!(words, ["-cpu", "max", "gguf-loader"]);
    }
}
