//! `chat` and the options of `run` that choose tokens and hold them to a form, on SmolLM2.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{assert_fails, json_of, program, stdout_of};

fn model() -> Option<PathBuf> {
    let path = std::env::var_os("GGUF_LOADER_TEST_MODEL").map(PathBuf::from).filter(|path| path.is_file());
    if path.is_none() {
        eprintln!("skipped: GGUF_LOADER_TEST_MODEL names no file");
    }
    let can = path.as_ref().is_some_and(|path| crate::models::can_tokenize(path));
    path.filter(|_| can)
}

fn run(model: &PathBuf, arguments: &[&str]) -> std::process::Output {
    program().arg("run").arg(model).args(["--threads", "1"]).args(arguments).output().unwrap()
}

fn chat(model: &PathBuf, arguments: &[&str], input: &str) -> std::process::Output {
    program().arg("chat").arg(model).args(["--threads", "1"]).args(arguments).write_stdin(input).output().unwrap()
}

fn lines_of(output: std::process::Output) -> Vec<Value> {
    let stdout = String::from_utf8(stdout_of(output)).unwrap();
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn each_line_gets_a_reply_that_knows_the_ones_before() {
    let Some(model) = model() else { return };
    let options = ["--json", "--preset", "greedy", "-n", "24"];
    let replies = lines_of(chat(&model, &options, "My name is Ann. What is your name?\n\nWhat is my name?\n"));
    assert_eq!(replies.len(), 2, "{replies:?}");
    let number = |reply: &Value, key: &str| reply[key].as_u64().unwrap();
    let said = number(&replies[0], "prompt_tokens") + number(&replies[0], "generated_tokens");
    assert!(number(&replies[1], "prompt_tokens") > said, "{replies:?}");
    assert!(number(&replies[1], "reused_tokens") >= said - 1, "what was said before is kept: {replies:?}");

    let text = stdout_of(chat(&model, &["--preset", "greedy", "-n", "24"], "My name is Ann. What is your name?\n"));
    assert_eq!(String::from_utf8(text).unwrap().trim_end(), replies[0]["content"].as_str().unwrap().trim_end());
}

#[test]
fn a_conversation_is_saved_loaded_forked_and_taken_back() {
    let Some(model) = model() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("talk.json");
    let (file, greedy) = (file.to_str().unwrap(), ["--json", "--preset", "greedy", "-n", "12"]);
    let input = format!(
        "/system Be brief.\nName a colour.\n/fork\nName another.\n/back\n/save {file}\n/retry\nName a fruit.\n/undo\n/save {file}.2\n/quit\nnever\n"
    );
    let first = lines_of(chat(&model, &[&greedy[..], &crate::ALIKE].concat(), &input));
    assert_eq!(first.len(), 4, "a reply to each question, and one again: {first:?}");
    assert_eq!(first[0]["content"], first[2]["content"], "the same question, greedily");
    let read = |name: &str| -> Value { serde_json::from_str(&std::fs::read_to_string(name).unwrap()).unwrap() };
    let expected = json!({"messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": first[0]["content"]},
    ]});
    assert_eq!(read(file), expected);
    assert_eq!(read(&format!("{file}.2")), expected, "what was taken back is gone");

    let loaded = lines_of(chat(&model, &[&greedy[..], &["--load", file]].concat(), "Name another.\n"));
    assert_eq!(loaded[0]["content"], first[1]["content"], "what follows the fork follows the file");
}

#[test]
fn a_command_that_makes_no_sense_ends_a_script_and_says_why() {
    let Some(model) = model() else { return };
    assert_fails(&chat(&model, &[], "/nonsense\n"), 2, &["there is no command /nonsense", "/help"]);
    assert_fails(&chat(&model, &[], "/load nowhere.json\n"), 3, &["nowhere.json"]);
    assert_fails(&chat(&model, &[], "/undo\n"), 7, &["nothing to take back"]);
    assert_fails(&chat(&model, &["--template", "nowhere.jinja"], "a\n"), 3, &["nowhere.jinja"]);
    let output = program().arg("chat").arg(&model).write_stdin(&b"\xff\n"[..]).output().unwrap();
    assert_fails(&output, 7, &["UTF-8"]);
}

#[test]
fn a_model_without_a_template_cannot_chat_and_is_told_one() {
    let folder = crate::models::Folder::new();
    let model = folder.model();
    if !crate::models::can_tokenize(&model) {
        return;
    }
    assert_fails(&chat(&model, &[], "a\n"), 4, &["no chat template", "--template"]);
    let template = folder.path().join("own.jinja");
    std::fs::write(&template, "{% for m in messages %}{{ m.content }}{% endfor %}").unwrap();
    let arguments = ["--template", template.to_str().unwrap(), "-n", "3", "--json"];
    assert_eq!(lines_of(chat(&model, &arguments, "the fox\n"))[0]["generated_tokens"], 3);
    let asked = ["--chat", "--prompt", "the fox", "-n", "3", "--json"];
    assert_fails(&run(&model, &asked), 4, &["no chat template", "--template"]);
    let own = ["--template", template.to_str().unwrap()];
    let answer = json_of(run(&model, &[&asked[..], &own].concat()));
    // The template writes nothing beside the message.
    assert_eq!(answer["tokens"], json_of(run(&model, &[&asked[1..], &["--quiet"]].concat()))["tokens"]);
    assert_fails(&run(&model, &[&asked[1..], &own].concat()), 2, &["--chat"]);
    std::fs::write(&template, "{% for %}").unwrap();
    assert_fails(&chat(&model, &arguments, "a\n"), 4, &["template"]);
    assert_fails(&run(&model, &[&asked[..], &own].concat()), 4, &["template"]);
}

#[test]
fn run_samples_as_it_is_told() {
    let Some(model) = model() else { return };
    let tokens = |options: &[&str]| {
        json_of(run(&model, &[&["--prompt", "Once upon a time", "-n", "16", "--json"], options].concat()))["tokens"]
            .clone()
    };
    let greedy = tokens(&[]);
    assert_eq!(tokens(&["--temperature", "0"]), greedy);
    assert_eq!(tokens(&["--top-k", "1"]), greedy);
    let sampled = tokens(&["--temp", "1.5", "--seed", "5"]);
    assert_ne!(sampled, greedy);
    assert_eq!(tokens(&["--temp", "1.5", "--seed", "5"]), sampled);
    // The same chain, spelt out.
    let chain = r#"{"steps": [{"top_k": {"k": 40}}, {"top_p": {"p": 0.95, "min_keep": 1}}, {"min_p": {"p": 0.05, "min_keep": 1}},
        {"temperature": {"temperature": 1.5}}], "pick": "distribution"}"#;
    assert_eq!(tokens(&["--sampler-chain", chain, "--seed", "5"]), sampled);
    let first = greedy[0].as_u64().unwrap();
    assert_ne!(tokens(&["--top-k", "1", "--logit-bias", &format!("{first}=-inf")])[0], greedy[0]);

    assert_fails(&run(&model, &["-p", "a", "--top-p", "1.5"]), 2, &["top-p is 1.5", "0 to 1"]);
    assert_fails(&run(&model, &["-p", "a", "--logit-bias", "nonsense"]), 2, &["TOKEN=BIAS"]);
    assert_fails(&run(&model, &["-p", "a", "--sampler-chain", "{\"stepz\": []}"]), 2, &["stepz"]);
    assert_fails(&run(&model, &["-p", "a", "--sampler-chain", "{}", "--top-k", "3"]), 2, &["--sampler-chain"]);
}

#[test]
fn run_holds_the_text_to_a_form() {
    let Some(model) = model() else { return };
    let text = |options: &[&str]| {
        let answer = json_of(run(&model, &[&["--prompt", "The answer:", "-n", "60", "--json"], options].concat()));
        answer["text"].as_str().unwrap().to_owned()
    };
    assert!(["yes", "no"].contains(&text(&["--regex", "(yes|no)"]).as_str()));
    assert!(["a1", "b1"].contains(&text(&["--grammar", "root ::= [ab] \"1\""]).as_str()));
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["n"],
        "additionalProperties": false});
    let value: Value = serde_json::from_str(&text(&["--json-schema", &schema.to_string()])).unwrap();
    assert!((1..=9).contains(&value["n"].as_i64().unwrap()), "{value}");

    assert_fails(&run(&model, &["-p", "a", "--regex", "("]), 2, &["regular expression"]);
    assert_fails(&run(&model, &["-p", "a", "--json-schema", "{"]), 2, &["JSON schema"]);
    assert_fails(&run(&model, &["-p", "a", "--json-schema", r#"{"not": {}}"#]), 2, &["not"]);
    assert_fails(&run(&model, &["-p", "a", "--grammar", "root ::= x"]), 2, &["grammar"]);
    assert_fails(&run(&model, &["-p", "a", "--grammar-file", "nowhere.gbnf"]), 3, &["nowhere.gbnf"]);
    assert_fails(&run(&model, &["-p", "a", "--regex", "a", "--any-json"]), 2, &["cannot be used with"]);
}

#[test]
fn run_stops_echoes_shifts_and_tells_log_probabilities() {
    let Some(model) = model() else { return };
    let answer =
        |options: &[&str]| json_of(run(&model, &[&["--prompt", "One, two, three,", "--json"], options].concat()));
    let whole = answer(&["-n", "12"]);
    let text = whole["text"].as_str().unwrap();
    let stop = text.split(',').nth(1).unwrap();
    let stopped = answer(&["-n", "12", "--stop", stop]);
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(stopped["text"], text[..text.find(stop).unwrap()]);
    assert_eq!(answer(&["-n", "12", "--echo"])["text"], format!("One, two, three,{text}"));
    let logprobs = answer(&["-n", "3", "--logprobs", "2"])["logprobs"].clone();
    assert_eq!((logprobs.as_array().unwrap().len(), logprobs[0]["top"].as_array().unwrap().len()), (3, 2));
    assert_eq!(logprobs[0]["top"][0]["token"], whole["tokens"][0], "greedy takes the likeliest");
    let long = answer(&["-n", "100", "--ctx", "32", "--when-full", "shift", "--keep", "4", "--ignore-end"]);
    assert_eq!((long["generated_tokens"].as_u64(), long["finish_reason"].as_str()), (Some(100), Some("max_tokens")));
    assert_eq!(answer(&["--ctx", "32", "--ignore-end"])["finish_reason"], "context_full");
    assert_fails(&run(&model, &["-p", "a", "--stop", ""]), 2, &["stop"]);
    assert_fails(&run(&model, &["-p", "a", "--ctx", "32", "--when-full", "shift", "--keep", "40"]), 2, &["keep"]);

    let text_only = run(&model, &["-p", "a", "--logprobs", "2"]);
    assert_fails(&text_only, 2, &["--logprobs needs --json"]);

    let asked = answer(&["--chat", "-n", "12"]);
    assert_ne!(asked["text"], whole["text"], "a question is not a text to continue");
    assert!(asked["prompt_tokens"].as_u64() > whole["prompt_tokens"].as_u64());
}
