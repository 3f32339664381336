//! `cargo xtask demo`: from a fresh clone to a model that answers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TaskResult;
use crate::model;
use crate::process::run;
use crate::setup;
use crate::steps::Steps;
use crate::workspace::Workspace;

/// Options of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What the model is asked.
    #[arg(long, default_value = "What is the capital of France, and what is it known for?")]
    question: String,
    /// How many tokens it may answer with.
    #[arg(long, default_value_t = 96)]
    max_tokens: u32,
}

/// `cargo xtask demo`. The model's text goes to stdout, everything else to stderr.
pub(crate) fn task(workspace: &Workspace, options: &Options) -> TaskResult {
    let mut steps = Steps::default();
    let result = demo(workspace, options, &mut steps);
    eprintln!("\nSteps:\n{}", steps.summary());
    if let Ok(model) = &result {
        eprintln!("Disk: {} in {}", megabytes(disk_usage(workspace.target())), workspace.target().display());
        eprintln!("      {} in {}", megabytes(disk_usage(model)), model.display());
    }
    result.map(drop)
}

fn demo(workspace: &Workspace, options: &Options, steps: &mut Steps) -> TaskResult<PathBuf> {
    let environment = steps.run("set up", || Ok(setup::prepare(workspace)?))?;
    let model = steps.run("fetch the model", || Ok(model::provide(&model::Options::default())?))?;
    steps.run("build", || {
        Ok(run(environment.apply(workspace.cargo("build").args(["--release", "--package", "gguf-loader"])))?)
    })?;
    steps.run("run", || {
        let mut command = Command::new(workspace.program());
        command.arg("run").arg(&model).args(["--prompt", &chat_turn(&options.question)]);
        command.args(["--max-tokens", &options.max_tokens.to_string()]);
        run(&mut command)?;
        println!();
        Ok(())
    })?;
    Ok(model)
}

/// The question in the format that the demo's model was trained on (ChatML).
fn chat_turn(question: &str) -> String {
    format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
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
