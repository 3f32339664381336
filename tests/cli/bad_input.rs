//! Arguments, variables and input that cannot be used.

use std::path::Path;

use crate::{
    assert_fails, backends, is_compiled, json_of,
    models::{Folder, can_tokenize},
    program, run, skip, stdout_of,
};

fn select(model: &Path, backend: &str) -> std::process::Output {
    program().arg("select").arg(model).args(["--json", "--backend", backend]).output().unwrap()
}

#[test]
fn backend_that_is_not_compiled_in_is_an_error_with_a_proposal() {
    let folder = Folder::new();
    let model = folder.model();
    assert_fails(&select(&model, "cpu-zen44"), 5, &["no backend `cpu-zen44`", "did you mean `cpu-zen4`?"]);
    for command in ["run", "bench", "perplexity"] {
        let mut program = program();
        program.arg(command).arg(&model).env("GGUF_LOADER_BACKEND", "cpu-zen44");
        match command {
            "run" => program.args(["--prompt", "x"]),
            "perplexity" => program.args(["--file", "-"]),
            _ => &mut program,
        };
        assert_fails(&program.output().unwrap(), 5, &["no backend `cpu-zen44`", "help: "]);
    }
}

#[test]
fn backend_that_this_cpu_cannot_run_is_an_error_that_names_what_is_missing() {
    let Some(id) = backends(false).into_iter().next() else {
        return skip("every compiled backend can run on this machine");
    };
    let report = json_of(run(["devices", "--json"]));
    let row = report["backends"].as_array().unwrap().iter().find(|row| row["id"] == id.as_str()).unwrap();
    let reason = row["reason"].as_str().unwrap();
    let folder = Folder::new();
    assert_fails(&select(&folder.model(), &id), 5, &[&format!("`{id}` cannot run"), reason, "help: "]);
}

#[test]
fn denying_every_backend_leaves_none() {
    let denied: Vec<String> = backends(true).iter().map(|id| format!("!{id}")).collect();
    let folder = Folder::new();
    assert_fails(&select(&folder.model(), &denied.join(",")), 5, &["no backend that"]);
}

#[test]
fn argument_wins_over_its_variable() {
    let folder = Folder::new();
    let model = folder.model();
    let id = backends(true).remove(0);
    let mut program = program();
    program.arg("select").arg(&model).args(["--json", "--backend", &id]);
    let report = json_of(program.env("GGUF_LOADER_BACKEND", "nonsense, of course").output().unwrap());
    assert_eq!((report["winner"].as_str(), report["policy"].as_str()), (Some(&*id), Some(&*id)));
}

#[test]
fn zero_threads_are_a_usage_error() {
    let folder = Folder::new();
    let model = folder.model();
    let bench = || {
        let mut program = program();
        program.arg("bench").arg(&model).args(["-p", "8", "-n", "0", "-r", "1"]);
        program
    };
    assert_fails(&bench().args(["--threads", "0"]).output().unwrap(), 2, &["--threads", "non-zero"]);
    let output = bench().env("GGUF_LOADER_THREADS", "0").output().unwrap();
    assert_fails(&output, 2, &["GGUF_LOADER_THREADS is `0`", "a whole number above 0"]);
    stdout_of(bench().args(["-t", "1"]).env("GGUF_LOADER_THREADS", "0").output().unwrap());
}

#[test]
fn more_threads_than_any_machine_has_are_a_usage_error() {
    let folder = Folder::new();
    let output = program().arg("bench").arg(folder.model()).args(["-p", "8", "-t", "1000000"]).output().unwrap();
    assert_fails(&output, 2, &["1000000 threads"]);
}

#[test]
fn arguments_that_make_no_sense_are_usage_errors() {
    for arguments in [
        &["run", "model.gguf"][..],
        &["run", "model.gguf", "--prompt", "x", "--prompt-file", "y"],
        &["run", "model.gguf", "--prompt", "x", "--max-tokens", "0"],
        &["select", "model.gguf", "--backend", "a,!b"],
        &["bench", "model.gguf", "-p", "0", "-n", "0"],
        &["perplexity", "model.gguf"],
        &["completions", "cobol"],
        &["no-such-command"],
    ] {
        assert_fails(&run(arguments), 2, &[]);
    }
}

#[test]
fn log_filter_that_makes_no_sense_is_a_usage_error() {
    let output = program().arg("knobs").env("GGUF_LOADER_LOG", "[").output().unwrap();
    assert_fails(&output, 2, &["GGUF_LOADER_LOG is `[`", "caused by: "]);
}

#[test]
fn invalid_utf8_names_the_byte() {
    let output = program().args(["run", "x.gguf", "--prompt-file", "-"]).write_stdin(*b"ab\xffc").output().unwrap();
    assert_fails(&output, 7, &["stdin is not valid UTF-8: byte 2 is 0xff", "help: "]);

    let folder = Folder::new();
    let vocabulary = folder.vocabulary();
    if can_tokenize(&vocabulary) {
        let output = program().arg("tokenize").arg(&vocabulary).write_stdin(*b"ab\xffc").output().unwrap();
        assert_fails(&output, 7, &["stdin is not valid UTF-8: byte 2 is 0xff"]);
    }
}

#[test]
fn missing_prompt_file_is_a_file_error() {
    assert_fails(
        &run(["run", "x.gguf", "--prompt-file", "no/such/file"]),
        3,
        &["cannot read no/such/file", "caused by: "],
    );
}

#[test]
fn context_beyond_the_memory_is_a_memory_error() {
    if !is_compiled("reference") {
        return skip("the reference backend is not compiled in");
    }
    let folder = Folder::new();
    let arguments = ["--backend", "reference", "-p", "4000000000", "-n", "0"];
    let output = program().arg("bench").arg(folder.model()).args(arguments).output().unwrap();
    assert_fails(&output, 6, &["not enough memory for the context", "help: "]);
}

#[test]
fn prompt_longer_than_the_context_says_both_lengths() {
    let folder = Folder::new();
    let model = folder.model();
    if !can_tokenize(&model) {
        return;
    }
    let prompt = "a long text ".repeat(200);
    let output = program().arg("run").arg(&model).args(["--ctx", "256", "--prompt", &prompt]).output().unwrap();
    assert_fails(&output, 7, &["the prompt has", "the context holds 256", "--ctx"]);
}

#[test]
fn text_too_short_for_a_perplexity_says_how_much_is_needed() {
    let folder = Folder::new();
    let model = folder.model();
    if !can_tokenize(&model) {
        return;
    }
    let output = program().arg("perplexity").arg(&model).args(["--file", "-"]).write_stdin("short").output().unwrap();
    assert_fails(&output, 7, &["at least 1024 are needed", "help: "]);
}

#[test]
fn what_is_no_token_is_an_input_error() {
    let folder = Folder::new();
    let model = folder.vocabulary();
    if !can_tokenize(&model) {
        return;
    }
    for (stdin, text) in
        [("[1, 2", "not a JSON array"), ("1 two", "`two` on stdin is not a token id"), ("[512]", "token 512 is not in")]
    {
        let output = program().arg("detokenize").arg(&model).write_stdin(stdin).output().unwrap();
        assert_fails(&output, 7, &[text]);
    }
}
