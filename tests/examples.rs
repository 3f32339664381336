//! The examples on SmolLM2: each runs, and prints what it is about.
#![cfg(all(feature = "cpu", feature = "synth", feature = "async"))]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and says why it does nothing")]

use std::{
    path::PathBuf,
    process::{Command, Output},
};

/// The program that cargo has built of an example, beside the tests.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.is_file(), "{} is built with the tests", program.display());
    Command::new(program)
}

fn model() -> Option<PathBuf> {
    let path = std::env::var_os("GGUF_LOADER_TEST_MODEL").map(PathBuf::from).filter(|path| path.is_file());
    if path.is_none() {
        println!("skipped: GGUF_LOADER_TEST_MODEL names no file");
    }
    path
}

/// What an example prints.
fn printed(name: &str, arguments: &[&str]) -> Option<String> {
    let Output { status, stdout, stderr } = example(name).arg(model()?).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{name}: {status}: {stderr}");
    Some(String::from_utf8(stdout).unwrap())
}

#[test]
fn generate() {
    let Some(text) = printed("generate", &["The capital of France is"]) else { return };
    assert!(text.contains("Paris"), "{text}");
}

#[test]
fn sampling() {
    let Some(text) = printed("sampling", &["Once upon a time"]) else { return };
    assert_eq!(text.lines().count(), 5, "{text}");
    let (_, without) = text.lines().last().unwrap().split_once(':').unwrap();
    assert!(without.len() > 20 && !without.contains(['e', 'E']), "{without}");
}

#[test]
fn state() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("beginning.state");
    let Some(first) = printed("state", &[file.to_str().unwrap()]) else { return };
    let again = printed("state", &[file.to_str().unwrap()]).unwrap();
    let turns = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert!(first.contains(" tokens in ") && again.contains(" tokens from "), "{first}{again}");
    assert_eq!(turns(&first), turns(&again));
    assert_ne!(turns(&first)[0], turns(&first)[1]);
}

#[test]
fn stream() {
    let Some(text) = printed("stream", &["The capital of France is"]) else { return };
    assert!(text.contains("Paris"), "{text}");
}

#[test]
fn chat() {
    let Some(text) = printed("chat", &["What is the capital of France?", "And of Italy?"]) else { return };
    assert!(text.contains("Paris") && text.lines().count() >= 2, "{text}");
}

#[test]
fn structured() {
    let Some(text) = printed("structured", &["Ann is 34 years old and happy."]) else { return };
    assert!(text.contains("years old, "), "{text}");
}

#[test]
fn tools() {
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/chat/templates/qwen2.5.jinja");
    let Some(text) = printed("tools", &["What is 17 plus 25?", template]) else { return };
    assert!(text.lines().any(|line| line.starts_with("call: add({")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("result: ")), "{text}");
}

#[test]
fn embeddings() {
    let Some(text) = printed("embeddings", &["A dog", "A cat", "A law"]) else { return };
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn synth_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    assert!(example("synth_model").arg(&path).status().unwrap().success());
    assert!(gguf_loader::gguf::Gguf::open(&path).is_ok());
}
