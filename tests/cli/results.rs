//! What the commands write that need no tokenizer.

use gguf_loader::{knobs, select::Registry};

use crate::{
    backends, json_of,
    models::{Folder, tiny},
    program, run, stdout_of,
};

/// Every command.
const COMMANDS: [&str; 18] = [
    "run",
    "chat",
    "embed",
    "rerank",
    "devices",
    "select",
    "inspect",
    "import",
    "export",
    "convert",
    "merge-lora",
    "merge",
    "tokenize",
    "detokenize",
    "perplexity",
    "bench",
    "knobs",
    "completions",
];

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn help_documents_every_exit_code() {
    let help = text(stdout_of(run(["--help"])));
    let codes = help.split_once("Exit codes:").unwrap().1;
    for code in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "130"] {
        assert!(codes.lines().any(|line| line.trim().starts_with(&format!("{code}  "))), "{code}: {codes}");
    }
}

/// How a call of a command begins: with the blank, `merge` is not the beginning of `merge-lora`.
fn call(command: &str) -> String {
    format!("gguf-loader {command} ")
}

#[test]
fn no_command_is_missing_from_these_tests_or_from_the_readme() {
    let help = text(stdout_of(run(["--help"])));
    let (_, list) = help.split_once("\nCommands:\n").unwrap();
    let (list, _) = list.split_once("\n\n").unwrap();
    // What a line is too narrow for goes on further to the right.
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let mut listed: Vec<_> = names.filter(|name| !name.is_empty() && *name != "help").collect();
    let mut known = COMMANDS.to_vec();
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known);
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once("\n## Command line\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    for command in COMMANDS {
        let spelt = [call(command), format!("`{command}`")];
        assert!(spelt.iter().any(|spelt| section.contains(spelt.as_str())), "{command}");
    }
}

#[test]
fn help_of_every_command_has_examples() {
    for command in COMMANDS {
        let help = text(stdout_of(run([command, "--help"])));
        let (usage, examples) = help.split_once("\nExamples:\n").unwrap_or_else(|| panic!("no examples: {help}"));
        let is_example = |line: &str| line.starts_with("  ") && format!("{line} ").contains(&call(command));
        assert!(examples.lines().any(is_example) && usage.contains("--json"), "{help}");
    }
}

#[test]
fn version_is_that_of_the_package() {
    let version = text(stdout_of(run(["--version"])));
    assert_eq!(version.trim(), concat!("gguf-loader ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn devices_lists_every_compiled_backend_and_what_it_lacks() {
    let report = json_of(run(["devices", "--json"]));
    let rows = report["backends"].as_array().unwrap();
    let ids: Vec<_> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, Registry::global().unwrap().ids().collect::<Vec<_>>());
    for row in rows {
        assert_eq!(row["supported"] == true, row["reason"].is_null(), "{row}");
        assert_eq!(row["supported"] == true, !row["devices"].as_array().unwrap().is_empty(), "{row}");
    }
    assert!(report["threads"]["threads"].as_u64().unwrap() > 0);
    assert!(report["hardware"]["cpu"]["features"].is_array());

    let human = text(stdout_of(run(["devices"])));
    assert!(ids.iter().all(|id| human.contains(id)) && human.contains("threads by default"), "{human}");
}

#[test]
fn select_names_the_winner_and_every_candidate_with_a_prediction_or_a_reason() {
    let folder = Folder::new();
    let report = json_of(program().arg("select").arg(folder.model()).arg("--json").output().unwrap());
    let candidates = report["candidates"].as_array().unwrap();
    assert_eq!(report["winner"], candidates[0]["id"]);
    assert_eq!(candidates.len(), Registry::global().unwrap().len());
    for candidate in candidates {
        assert!(candidate.get("device").is_some(), "{candidate}");
        assert_ne!(
            candidate["predicted_tokens_per_second"].is_f64(),
            candidate["ineligible"].is_string(),
            "{candidate}"
        );
    }
    let human = text(stdout_of(program().arg("select").arg(folder.model()).output().unwrap()));
    assert!(human.starts_with(report["winner"].as_str().unwrap()), "{human}");
}

#[test]
fn inspect_shows_keys_storage_and_memory() {
    let folder = Folder::new();
    let model = folder.model();
    let report = json_of(program().arg("inspect").arg(&model).args(["--ctx", "1024", "--json"]).output().unwrap());
    assert_eq!(report["metadata"]["llama.embedding_length"], tiny().shape.n_embd);
    assert_eq!(report["metadata"]["tokenizer.ggml.tokens"].as_array().unwrap().len(), tiny().shape.n_vocab as usize);
    assert_eq!(report["quantization"]["layers"].as_array().unwrap().len(), 2);
    assert!(report["quantization"]["bits_per_weight"].as_f64().unwrap() > 8.5);
    // Keys and values of 2 layers, 2 heads of 64 each, 2 bytes an entry.
    assert_eq!(report["memory"]["kv_cache"], 1024 * 2 * 2 * (2 * 64) * 2);
    assert!(report.get("tensors").is_none());

    let human = text(stdout_of(program().arg("inspect").arg(&model).output().unwrap()));
    assert!(human.contains("general.architecture = \"llama\"") && human.contains("bits each"), "{human}");
    assert!(human.lines().all(|line| line.chars().count() < 200), "{human}");
    assert!(!human.contains("blk.0.attn_q.weight"));
}

#[test]
fn inspect_lists_tensors_when_asked() {
    let folder = Folder::new();
    let model = folder.model();
    let report = json_of(program().arg("inspect").arg(&model).args(["--tensors", "--json"]).output().unwrap());
    let names: Vec<_> = report["tensors"].as_array().unwrap().iter().map(|tensor| tensor["name"].clone()).collect();
    assert!(names.contains(&"blk.0.attn_q.weight".into()), "{names:?}");
    let human = text(stdout_of(program().arg("inspect").arg(&model).arg("--tensors").output().unwrap()));
    assert!(human.contains("blk.0.attn_q.weight"), "{human}");
}

#[test]
fn bench_gives_a_row_for_each_test_and_proves_which_backend_ran() {
    let folder = Folder::new();
    let model = folder.model();
    for id in backends(true) {
        let arguments = ["--backend", &id, "-p", "16", "-n", "4", "-t", "1", "-r", "3", "--json"];
        let rows = json_of(program().arg("bench").arg(&model).args(arguments).output().unwrap());
        let rows = rows.as_array().unwrap();
        let tests: Vec<_> = rows.iter().map(|row| (row["n_prompt"].as_u64(), row["n_gen"].as_u64())).collect();
        assert_eq!(tests, [(Some(16), Some(0)), (Some(0), Some(4))]);
        for row in rows {
            assert_eq!(
                (&row["backend"], &row["executed_by"], &row["threads"]),
                (&id.as_str().into(), &row["backend"], &1.into())
            );
            let samples: Vec<f64> =
                row["samples"].as_array().unwrap().iter().map(|speed| speed.as_f64().unwrap()).collect();
            let mean = samples.iter().sum::<f64>() / 3.0;
            assert!(samples.len() == 3 && samples.iter().all(|&speed| speed > 0.0), "{row}");
            assert!((row["tokens_per_second"].as_f64().unwrap() / mean - 1.0).abs() < 1e-9, "{row}");
            assert!(row["stddev"].as_f64().unwrap() >= 0.0);
        }
    }
}

#[test]
fn bench_leaves_out_a_test_of_no_tokens() {
    let folder = Folder::new();
    for (arguments, test) in [(["-p", "0", "-n", "3"], "tg3"), (["-p", "8", "-n", "0"], "pp8")] {
        let output = program().arg("bench").arg(folder.model()).args(arguments).args(["-r", "1"]).output().unwrap();
        let table = text(stdout_of(output));
        assert_eq!(table.lines().count(), 2, "{table}");
        assert!(table.contains(test), "{table}");
    }
}

#[test]
fn bench_all_takes_what_can_run_but_the_reference_and_asserts_on_it() {
    let folder = Folder::new();
    let model = folder.model();
    let bench = |arguments: &[&str]| {
        program()
            .arg("bench")
            .arg(&model)
            .args(["-p", "8", "-n", "0", "-r", "1", "--json"])
            .args(arguments)
            .output()
            .unwrap()
    };
    let expected: Vec<String> = backends(true).into_iter().filter(|id| id != "reference").collect();
    if expected.is_empty() {
        crate::assert_fails(&bench(&["--backend", "all"]), 5, &["--backend reference"]);
        // The only backend is the choice and the fastest.
        let rows = json_of(bench(&["--backend", "reference", "--assert"]));
        assert_eq!(rows.as_array().unwrap().len(), 1);
        return;
    }
    let rows = json_of(bench(&["--backend", "all"]));
    let mut measured: Vec<_> =
        rows.as_array().unwrap().iter().map(|row| row["backend"].as_str().unwrap().to_owned()).collect();
    measured.sort();
    assert_eq!(measured, expected);
    // The slow one is measured because it is named, and the choice because of the assertion. On a tiny model and a busy
    // machine either may win: the exit code follows the measured rows.
    if crate::is_compiled("reference") {
        let output = bench(&["--backend", "reference", "--assert"]);
        let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let speed = |is_reference: bool| {
            let mut rows = rows.as_array().unwrap().iter();
            let row = rows.find(|row| (row["backend"] == "reference") == is_reference);
            row.unwrap()["tokens_per_second"].as_f64().unwrap()
        };
        let expected = if speed(false) < 0.95 * speed(true) { 8 } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{rows}");
    }
}

#[test]
fn knobs_shows_every_variable_with_its_value() {
    let rows = json_of(program().args(["knobs", "--json"]).env("GGUF_LOADER_THREADS", "3").output().unwrap());
    let rows = rows.as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, knobs::ALL.iter().map(|knob| knob.name).collect::<Vec<_>>());
    for row in rows {
        let expected = if row["name"] == "GGUF_LOADER_THREADS" { "3".into() } else { serde_json::Value::Null };
        assert_eq!(row["value"], expected);
        assert!(row["default"].is_string() && row["help"].is_string(), "{row}");
    }
    let human = text(stdout_of(program().arg("knobs").env("GGUF_LOADER_THREADS", "3").output().unwrap()));
    assert!(human.contains("GGUF_LOADER_THREADS=3") && human.contains("GGUF_LOADER_BACKEND is not set"), "{human}");
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = text(stdout_of(run(["completions", shell])));
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{script}");
        let report = json_of(run(["completions", shell, "--json"]));
        assert_eq!((report["shell"].as_str(), report["script"].as_str()), (Some(shell), Some(&*script)));
    }
}

#[test]
fn closed_stdout_ends_quietly() {
    for arguments in [&["devices"][..], &["knobs", "--json"], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = std::process::Command::new(program().get_program());
        let output = command.args(arguments).stdout(writer).stderr(std::process::Stdio::piped()).spawn();
        let output = output.unwrap().wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.is_empty()), (Some(0), true), "{output:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn full_disk_behind_stdout_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = std::process::Command::new(program().get_program())
        .arg("knobs")
        .stdout(full)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    crate::assert_fails(&output, 1, &["cannot write to stdout", "caused by: "]);
}
