//! What the commands write that need a tokenizer.

use std::path::Path;

use gguf_loader::{
    backend::ContextOptions,
    generation::{Completion, GenerateRequest},
    model::Model,
};

use crate::{
    json_of,
    models::{Folder, can_tokenize},
    program, stdout_of,
};

const PROMPT: &str = "Once upon a time";

fn run(model: &Path, arguments: &[&str]) -> std::process::Output {
    program().arg("run").arg(model).args(["--prompt", PROMPT]).args(arguments).output().unwrap()
}

fn tokenize(model: &Path, arguments: &[&str], text: &str) -> Vec<u8> {
    stdout_of(program().arg("tokenize").arg(model).args(arguments).write_stdin(text).output().unwrap())
}

#[test]
fn stdout_of_run_is_only_the_text_that_the_library_generates() {
    let folder = Folder::new();
    let model = folder.model();
    if !can_tokenize(&model) {
        return;
    }
    let loaded = Model::load(&model).unwrap();
    let mut context = loaded.context(&ContextOptions::default()).unwrap();
    let request = GenerateRequest::new(PROMPT).with_max_tokens(24.try_into().unwrap());
    let Completion { text: expected, tokens, finish, .. } = context.complete(request).unwrap();
    assert!(tokens.len() > 1, "the test needs another seed");

    let output = run(&model, &["--max-tokens", "24"]);
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(String::from_utf8(stdout_of(output)).unwrap(), expected);
    assert!(stderr.lines().any(|line| line == loaded.selection().explain()), "{stderr}");
    assert!(stderr.contains(&format!("generated {} at", tokens.len())), "{stderr}");

    let report = json_of(run(&model, &["--max-tokens", "24", "--json"]));
    assert_eq!(report["text"], expected);
    assert_eq!(report["backend"], loaded.backend());
    assert_eq!(report["tokens"], serde_json::json!(tokens));
    assert_eq!(report["generated_tokens"], tokens.len());
    assert_eq!(report["finish_reason"], serde_json::to_value(finish).unwrap());
    assert!(report["prompt_tokens"].as_u64().unwrap() > 1);
    assert!(report["timings"]["generated_tokens_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn quiet_run_leaves_stderr_empty() {
    let folder = Folder::new();
    let model = folder.model();
    if !can_tokenize(&model) {
        return;
    }
    let output = run(&model, &["--max-tokens", "4", "--quiet"]);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(stdout_of(output), stdout_of(run(&model, &["--max-tokens", "4"])));
}

#[test]
fn prompt_may_come_from_a_file_or_from_stdin() {
    let folder = Folder::new();
    let model = folder.model();
    if !can_tokenize(&model) {
        return;
    }
    let expected = stdout_of(run(&model, &["--max-tokens", "8"]));
    let file = folder.file("prompt.txt", PROMPT);
    let from_file = program().arg("run").arg(&model).args(["--max-tokens", "8", "--prompt-file"]).arg(file).output();
    assert_eq!(stdout_of(from_file.unwrap()), expected);
    let arguments = ["--max-tokens", "8", "--prompt-file", "-"];
    let from_stdin = program().arg("run").arg(&model).args(arguments).write_stdin(PROMPT).output();
    assert_eq!(stdout_of(from_stdin.unwrap()), expected);
}

#[test]
fn tokens_are_one_json_array_and_come_back_as_the_text() {
    let folder = Folder::new();
    let vocabulary = folder.vocabulary();
    if !can_tokenize(&vocabulary) {
        return;
    }
    let text = "a text, with ümlauts 🦙 and a line break\n";
    // Behind BOS, llama.cpp keeps the blank that a SentencePiece tokenizer puts before the first word.
    let tokens = tokenize(&vocabulary, &["--no-bos"], text);
    let ids: Vec<u32> = serde_json::from_slice(&tokens).unwrap();
    let written: Vec<String> = ids.iter().map(u32::to_string).collect();
    assert_eq!(String::from_utf8(tokens.clone()).unwrap(), format!("[{}]\n", written.join(",")));

    let detokenize = |stdin: Vec<u8>, arguments: &[&str]| {
        program().arg("detokenize").arg(&vocabulary).args(arguments).write_stdin(stdin).output().unwrap()
    };
    assert_eq!(stdout_of(detokenize(tokens.clone(), &[])), text.as_bytes());
    assert_eq!(stdout_of(detokenize(written.join(" ").into(), &[])), text.as_bytes());
    let report = json_of(detokenize(tokens, &["--json"]));
    assert_eq!((report["text"].as_str(), report["bytes"].as_array().unwrap().len()), (Some(text), text.len()));
}

#[test]
fn stdin_is_tokenized_byte_for_byte() {
    let folder = Folder::new();
    let vocabulary = folder.vocabulary();
    if !can_tokenize(&vocabulary) {
        return;
    }
    let ids = |text: &str| serde_json::from_slice::<Vec<u32>>(&tokenize(&vocabulary, &[], text)).unwrap();
    let (without, with) = (ids("a"), ids("a\n"));
    assert!(with.len() > without.len() && with.starts_with(&without), "{without:?} {with:?}");
}

#[test]
fn flags_leave_out_bos_and_special_tokens() {
    let folder = Folder::new();
    let vocabulary = folder.vocabulary();
    if !can_tokenize(&vocabulary) {
        return;
    }
    let ids = |arguments: &[&str], text: &str| {
        serde_json::from_slice::<Vec<u32>>(&tokenize(&vocabulary, arguments, text)).unwrap()
    };
    assert_eq!(ids(&[], "a")[0], 1);
    assert_eq!(ids(&["--no-bos"], "a"), ids(&[], "a")[1..]);
    assert!(ids(&["--no-bos"], "</s>").contains(&2));
    assert!(!ids(&["--no-bos", "--no-parse-special"], "</s>").contains(&2));
}

#[test]
fn perplexity_is_that_of_the_library() {
    let folder = Folder::new();
    let model = folder.model();
    if !can_tokenize(&model) {
        return;
    }
    let text = "All work and no play makes a dull model. ".repeat(100);
    let file = folder.file("text.txt", &text);
    let command = |arguments: &[&str]| {
        program().arg("perplexity").arg(&model).arg("--file").arg(&file).args(["--ctx", "256"]).args(arguments).output()
    };
    let report = json_of(command(&["--json"]).unwrap());

    let loaded = Model::load(&model).unwrap();
    let tokens = loaded.tokenizer().unwrap().tokenize(&text, Default::default()).unwrap();
    let mut context = loaded.context(&ContextOptions::default().with_length(256.try_into().unwrap())).unwrap();
    let expected =
        gguf_loader::perplexity::perplexity(&mut context, &tokens, |_, _| std::ops::ControlFlow::Continue(()));
    let expected = expected.unwrap();
    assert!((report["value"].as_f64().unwrap() / expected.value - 1.0).abs() < 1e-3, "{report} {expected:?}");
    assert_eq!(report["tokens"], expected.tokens);
    let human = String::from_utf8(stdout_of(command(&[]).unwrap())).unwrap();
    assert!(human.starts_with("perplexity: "), "{human}");
}

#[test]
fn embed_gives_a_vector_for_each_text_in_order() {
    let folder = Folder::new();
    let model = folder.model();
    if !can_tokenize(&model) || crate::backends(true).iter().all(|id| id == "reference") {
        return;
    }
    let embed = |arguments: &[&str]| program().arg("embed").arg(&model).args(arguments).output().unwrap();
    let file = folder.file("texts.txt", "one text\n\nanother, longer text\n");
    let report = json_of(embed(&["--pooling", "last", "--file", file.to_str().unwrap(), "--json"]));
    let embeddings = report["embeddings"].as_array().unwrap();
    // The empty line has one, too: line n of what comes out belongs to line n of what went in.
    assert_eq!((embeddings.len(), report["pooling"].as_str()), (3, Some("last")));
    let again = json_of(embed(&["--pooling", "last", "--text", "another, longer text", "--json"]));
    assert_eq!(again["embeddings"][0]["tokens"], embeddings[2]["tokens"]);
    let norm = |value: &serde_json::Value| -> f64 {
        value["vector"].as_array().unwrap().iter().map(|number| number.as_f64().unwrap().powi(2)).sum()
    };
    assert!(embeddings.iter().all(|embedding| (norm(embedding) - 1.0).abs() < 1e-4));
    let human = String::from_utf8(stdout_of(embed(&["--pooling", "mean", "--text", "one"]))).unwrap();
    assert_eq!(human.trim().split(' ').count() as u64, report["dimensions"].as_u64().unwrap());

    crate::assert_fails(&embed(&["--text", "one"]), 4, &["names no pooling", "help: name one: --pooling"]);
    let long = ["--pooling", "mean", "--ctx", "4", "--text", "many more words than four tokens hold"];
    crate::assert_fails(&embed(&long), 7, &["text 0 has", "the limit is 4", "--truncate"]);
    let cut = json_of(embed(&[&long[..], &["--truncate", "--json"]].concat()));
    assert_eq!((&cut["embeddings"][0]["tokens"], &cut["embeddings"][0]["truncated"]), (&4.into(), &true.into()));
    let file = folder.file("long.txt", "one\n\nmany more words than four tokens hold\n");
    let in_file = ["--pooling", "mean", "--ctx", "4", "--file", file.to_str().unwrap()];
    crate::assert_fails(&embed(&in_file), 7, &["line 3 of ", "long.txt", "the limit is 4"]);
    let output = program().arg("rerank").arg(&model).args(["--query", "a", "--document", "b"]).output().unwrap();
    crate::assert_fails(&output, 4, &["no classification head"]);
}
