//! What `chat` and `run --chat` show where, and the commands within a conversation.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use assert_cmd::cargo::cargo_bin;
use serde_json::{Value, json};

use crate::{
    assert_fails, json_of,
    models::{Folder, can_tokenize},
    program, stdout_of,
};

/// A template that writes a variable of its own, and each message as it is.
const OWN: &str = "{{ mood }}{% for m in messages %} {{ m.content }}{% endfor %}";

fn with_own_template(folder: &Folder) -> Option<(PathBuf, String)> {
    let model = folder.model();
    let template = folder.file("own.jinja", OWN).to_str().unwrap().to_owned();
    can_tokenize(&model).then_some((model, template))
}

/// The trained model, where the environment names it.
fn trained() -> Option<PathBuf> {
    let path = std::env::var_os("GGUF_LOADER_TEST_MODEL").map(PathBuf::from).filter(|path| path.is_file());
    if path.is_none() {
        crate::skip("GGUF_LOADER_TEST_MODEL names no file");
    }
    path.filter(|path| can_tokenize(path))
}

fn of(command: &str, model: &Path, arguments: &[&str], input: &str) -> Output {
    program().arg(command).arg(model).args(["--threads", "1"]).args(arguments).write_stdin(input).output().unwrap()
}

fn chat(model: &Path, arguments: &[&str], input: &str) -> Output {
    of("chat", model, arguments, input)
}

/// The replies, and what was said beside them.
fn replies(output: Output) -> (Vec<Value>, String) {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    let stdout = String::from_utf8(stdout_of(output)).unwrap();
    (stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), stderr)
}

fn saved(file: &Path) -> Value {
    serde_json::from_str::<Value>(&fs::read_to_string(file).unwrap()).unwrap()["messages"].clone()
}

#[test]
fn what_a_model_thinks_is_shown_beside_what_it_says() {
    let Some(model) = trained() else { return };
    // Its prompt begins the reasoning, or ends it where there shall be none.
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/chat/templates/deepseek-r1-distill.jinja");
    let run = |more: &[&str]| {
        let asked = ["--chat", "--template", template, "--prompt", "What is 2+2?", "-n", "12"];
        of("run", &model, &[&asked[..], more].concat(), "")
    };
    let thinks = json_of(run(&["--json"]));
    let text = thinks["text"].as_str().unwrap().trim();
    assert!(text.len() > 10, "{thinks}");
    assert_eq!((thinks["content"].as_str(), thinks["reasoning"].as_str().map(str::trim)), (Some(""), Some(text)));
    let shown = run(&[]);
    let stderr = String::from_utf8(shown.stderr.clone()).unwrap();
    assert!(stdout_of(shown).is_empty(), "what is thought is no result");
    // The line ends before the next one begins.
    assert!(stderr.contains(&format!("{text}\n")), "{text} is not in {stderr}");
    let quiet = run(&["--quiet"]);
    assert!(quiet.stderr.is_empty() && quiet.stdout.is_empty());

    let says = json_of(run(&["--json", "--no-thinking"]));
    let content = says["content"].as_str().unwrap();
    assert_eq!((content.trim(), says["reasoning"].as_str()), (says["text"].as_str().unwrap().trim(), Some("")));
    let shown = run(&["--no-thinking"]);
    let stderr = String::from_utf8(shown.stderr.clone()).unwrap();
    assert_eq!(String::from_utf8(stdout_of(shown)).unwrap(), content);
    assert!(!stderr.contains(content.trim()), "{stderr}");

    let asked = ["--template", template, "--preset", "greedy", "-n", "12"];
    for (more, expected) in [(&[][..], &thinks), (&["--no-thinking"], &says)] {
        let (replies, _) = replies(chat(&model, &[&asked[..], &["--json"], more].concat(), "What is 2+2?\n"));
        assert_eq!(replies[0]["content"], expected["content"]);
        let reasoning = replies[0]["reasoning"].as_str().unwrap_or_default();
        assert_eq!(Some(reasoning), expected["reasoning"].as_str());
    }
    assert_fails(&of("run", &model, &["--prompt", "a", "--no-thinking"], ""), 2, &["--chat"]);

    // A few tokens of thought, the marker of its end, and what a grammar lets the model say.
    let bounded = ["--reasoning-budget", "3", "--regex", "(yes|no)"];
    let answer = json_of(run(&[&["--json"], &bounded[..]].concat()));
    let (replies, _) = replies(chat(&model, &[&asked[..], &["--json"], &bounded[..]].concat(), "What is 2+2?\n"));
    for answer in [&answer, &replies[0]] {
        assert!(matches!(answer["content"].as_str().map(str::trim), Some("yes" | "no")), "{answer}");
        assert!((1..40).contains(&answer["reasoning"].as_str().unwrap().trim().len()), "{answer}");
    }
}

#[test]
fn a_variable_of_the_template_is_set() {
    let folder = Folder::new();
    let Some((model, template)) = with_own_template(&folder) else { return };
    let run = |more: &[&str]| {
        let asked = ["--chat", "--template", &template, "--prompt", "fox", "-n", "1"];
        of("run", &model, &[&asked[..], more].concat(), "")
    };
    let text = String::from_utf8(stdout_of(run(&["--template-arg", "mood=\"glad\"", "--echo"]))).unwrap();
    assert!(text.starts_with("glad fox"), "{text}");
    let (long, given) = ("\"glad as can be\"", json_of(run(&["--template-arg", "mood=\"glad\"", "--json"])));
    let chatted = |mood: &str| {
        let mood = format!("mood={mood}");
        let options = ["--json", "-n", "1", "--template", &template, "--template-arg", &mood];
        replies(chat(&model, &options, "fox\n")).0[0]["prompt_tokens"].clone()
    };
    assert_eq!(chatted("\"glad\""), given["prompt_tokens"]);
    assert!(chatted(long).as_u64() > given["prompt_tokens"].as_u64());
    assert_fails(&run(&["--template-arg", "mood=glad"]), 2, &["`glad` is no JSON", "KEY=JSON"]);
    assert_fails(&run(&["--template-arg", "mood"]), 2, &["KEY=JSON"]);
    assert_fails(&of("run", &model, &["-p", "a", "--template-arg", "mood=1"], ""), 2, &["--chat"]);
}

#[test]
fn a_reply_goes_on_beyond_the_context_where_that_is_asked_for() {
    let folder = Folder::new();
    let Some((model, template)) = with_own_template(&folder) else { return };
    let finish = |more: &[&str]| {
        // Its end-of-sequence token is ruled out.
        let options = ["--json", "--template", &template, "--logit-bias", "2=-inf", "--ctx", "256", "-n", "400"];
        let (replies, _) = replies(chat(&model, &[&options[..], more].concat(), "the fox\n"));
        (replies[0]["finish_reason"].as_str().unwrap().to_owned(), replies[0]["generated_tokens"].as_u64().unwrap())
    };
    let (reason, stopped) = finish(&[]);
    assert!(reason == "context_full" && stopped < 256, "{reason} after {stopped}");
    assert_eq!(finish(&["--when-full", "shift", "--keep", "4"]), ("max_tokens".to_owned(), 400));
    let too_many = ["--template", &template, "--ctx", "256", "--when-full", "shift", "--keep", "300"];
    assert_fails(&chat(&model, &too_many, "the fox\n"), 2, &["cannot keep 300", "keep 254 at most"]);
}

#[test]
fn a_conversation_that_is_loaded_goes_on_and_one_that_is_reset_begins_anew() {
    let Some(model) = trained() else { return };
    let folder = Folder::new();
    let (talk, fresh) = (folder.path().join("talk.json"), folder.path().join("fresh.json"));
    let (talk_name, fresh_name) = (talk.to_str().unwrap(), fresh.to_str().unwrap());
    let options = ["--json", "--preset", "greedy", "-n", "10", "--system", "Be brief."];
    let input =
        format!("Name a colour.\n/save {talk_name}\nName another.\n/reset\n/save {fresh_name}\nName a colour.\n");
    let (first, _) = replies(chat(&model, &[&options[..], &crate::ALIKE].concat(), &input));
    let system = json!({"role": "system", "content": "Be brief."});
    assert_eq!(saved(&fresh), json!([system]), "the instructions stay");
    assert_eq!((first.len(), &first[2]["content"]), (3, &first[0]["content"]));
    assert_eq!(first[2]["prompt_tokens"], first[0]["prompt_tokens"], "nothing else is left");

    let (loaded, said) =
        replies(chat(&model, &[&options[..5], &crate::ALIKE].concat(), &format!("/load {talk_name}\nName another.\n")));
    assert_eq!(loaded[0]["content"], first[1]["content"]);
    assert_eq!(loaded[0]["prompt_tokens"], first[1]["prompt_tokens"]);
    assert!(said.contains(&format!("3 messages from {talk_name}")), "{said}");
}

#[test]
fn help_lists_the_commands_and_stats_say_what_the_last_reply_took() {
    let folder = Folder::new();
    let Some((model, template)) = with_own_template(&folder) else { return };
    let options = ["--json", "--template", &template, "--ctx", "512", "-n", "5", "--logit-bias", "2=-inf"];
    let (replies, said) = replies(chat(&model, &options, "/help\n/stats\nthe quick brown fox\n/stats\n"));
    for command in ["system", "undo", "retry", "reset", "fork", "back", "save", "load", "stats", "help", "quit"] {
        assert!(said.lines().any(|line| line.starts_with(&format!("/{command} "))), "{command}: {said}");
    }
    let number = |key: &str| replies[0][key].as_u64().unwrap();
    let (prompt, generated) = (number("prompt_tokens"), number("generated_tokens"));
    let in_use: Vec<&str> = said.lines().filter(|line| line.contains(" of context in use")).collect();
    // The last token that was generated is not in the context yet.
    let expected = [0, prompt + generated - 1].map(|held| format!("{held} of 512 tokens of context in use, 1 threads"));
    assert!(in_use.len() == 2 && in_use.iter().zip(&expected).all(|(line, text)| line.ends_with(text)), "{said}");
    let last: Vec<&str> = said.lines().filter(|line| line.starts_with("last reply: ")).collect();
    let [last] = last[..] else { panic!("nothing was said when the first one was asked for: {said}") };
    assert!(last.starts_with(&format!("last reply: {prompt} tokens of prompt (0 of them kept) at ")), "{last}");
    assert!(last.contains(&format!("/s, {generated} generated at ")), "{last}");
    let first = replies[0]["timings"]["first_token_seconds"].as_f64().unwrap();
    assert!(last.ends_with(&format!(", the first after {first:.2} s")), "{last} {first}");
    let each = replies[0]["timings"]["seconds_per_token"].as_f64().unwrap();
    let speed = replies[0]["timings"]["generated_tokens_per_second"].as_f64().unwrap();
    assert!((each * speed - 1.0).abs() < 1e-3, "{each} {speed}");
}

#[test]
fn a_message_may_have_several_lines() {
    let folder = Folder::new();
    let Some((model, template)) = with_own_template(&folder) else { return };
    let file = folder.path().join("talk.json");
    let input = format!("\"\"\"\none\n\n/undo\n\"\"\"\ntwo\\\nthree\n/save {}\n", file.display());
    let (replies, _) = replies(chat(&model, &["--json", "-n", "1", "--template", &template], &input));
    let asked: Vec<Value> =
        saved(&file).as_array().unwrap().iter().step_by(2).map(|it| it["content"].clone()).collect();
    assert_eq!((replies.len(), asked), (2, vec![json!("one\n\n/undo"), json!("two\nthree")]));
}

#[cfg(target_os = "linux")]
#[test]
fn a_conversation_that_does_not_fit_on_the_disk_leaves_nothing_of_it() {
    let (folder, disk) = (Folder::new(), Folder::new());
    let Some((model, template)) = with_own_template(&folder) else { return };
    let target = disk.path().join("talk.json");
    let input = format!("/system {}\n/save {}\n", "x".repeat(50_000), target.display());
    let mut command = std::process::Command::new(cargo_bin!("gguf-loader"));
    command.arg("chat").arg(&model).args(["--quiet", "--template"]).arg(&template);
    let Some(output) = crate::full_disk::run(&command, &input, disk.path(), 16) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("cannot write ") && said.contains("No space left on device"), "{said}");
    assert!(output.stdout.is_empty(), "left on the disk: {}", String::from_utf8_lossy(&output.stdout));
    // On a disk with room the same conversation is right.
    let output = crate::full_disk::run(&command, &input, disk.path(), 400).expect("a disk a moment ago");
    assert!(
        output.status.success() && output.stdout == b"./talk.json\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn any_json_is_json() {
    let Some(model) = trained() else { return };
    let asked = ["--chat", "--prompt", "Describe a cat as a JSON object.", "--any-json", "-n", "300", "--json"];
    let mut whole = 0;
    for seed in ["1", "2", "3", "4"] {
        let answer = json_of(of("run", &model, &[&asked[..], &["--temp", "0.7", "--seed", seed]].concat(), ""));
        let text = answer["text"].as_str().unwrap();
        assert!(text.trim_start().starts_with(['{', '[']), "{text}");
        if answer["finish_reason"] == "end" {
            let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert!(value.is_object() || value.is_array());
            whole += 1;
        }
    }
    assert!(whole > 0, "one of four comes to its end");
}
