//! The program `gguf-loader`, from outside: what it writes where, and how it ends.
//!
//! The tests pass with any set of backends. What needs a tokenizer, which only llama.cpp's backends bring, is skipped
//! without them and says so.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a helper of a test may panic and print like the test")]

mod bad_files;
mod bad_input;
mod chat;
mod conversation;
#[cfg(target_os = "linux")]
#[path = "../disk/full.rs"]
mod full_disk;
mod interrupts;
mod merge;
mod models;
mod options;
mod results;
mod terminal;
mod text;

use std::{ffi::OsStr, process::Output};

use assert_cmd::{Command, cargo::cargo_bin};
use gguf_loader::{knobs, select::Registry};
use serde_json::Value;

/// A tier on which a prompt of a model in Q4_1 is computed as single tokens are, to the bit: what is computed anew of a text is then
/// what was there before.
const ALIKE: [&str; 2] = ["--backend", if cfg!(target_arch = "x86_64") { "cpu-haswell,cpu-x64" } else { "cpu-armv8" }];

/// The program, without the caller's settings.
fn program() -> Command {
    let mut command = Command::new(cargo_bin!("gguf-loader"));
    for knob in knobs::ALL {
        command.env_remove(knob.name);
    }
    command
}

fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    program().args(arguments).output().unwrap()
}

/// Stdout of a run that must succeed.
#[track_caller]
fn stdout_of(output: Output) -> Vec<u8> {
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The JSON value that a run must write: one, on one line.
#[track_caller]
fn json_of(output: Output) -> Value {
    let stdout = String::from_utf8(stdout_of(output)).unwrap();
    assert_eq!(stdout.matches('\n').count(), 1, "{stdout}");
    serde_json::from_str(&stdout).unwrap()
}

/// Asserts that a run ends with `code`, nothing on stdout, and an error that contains each of `texts`.
#[track_caller]
fn assert_fails(output: &Output, code: i32, texts: &[&str]) {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(stderr.lines().any(|line| line.starts_with("error: ")), "{stderr}");
    for text in texts {
        assert!(stderr.contains(text), "`{text}` is not in: {stderr}");
    }
}

/// Says why a test does nothing.
fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

/// Whether a backend of this name is compiled in.
fn is_compiled(id: &str) -> bool {
    Registry::global().unwrap().ids().any(|compiled| compiled == id)
}

/// The backends that `devices` reports with `supported` being as given.
fn backends(supported: bool) -> Vec<String> {
    let report = json_of(run(["devices", "--json"]));
    let rows = report["backends"].as_array().unwrap();
    let ids = rows.iter().filter(|row| row["supported"] == supported).map(|row| row["id"].as_str().unwrap().to_owned());
    // The tests' models have no ternary weights.
    ids.filter(|id| !id.starts_with("bitnet-")).collect()
}
