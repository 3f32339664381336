//! Ctrl-C.
#![cfg(unix)]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use gguf_loader::gguf::{Gguf, TensorType, Writer};

use crate::{
    json_of,
    models::{Folder, can_tokenize, tiny},
    program,
};

/// Starts the program with these arguments; stdout and stderr are pipes.
fn spawn(arguments: &[&str], model: &Path) -> Child {
    let mut command = Command::new(program().get_program());
    for knob in gguf_loader::knobs::ALL {
        command.env_remove(knob.name);
    }
    command.arg(arguments[0]).arg(model).args(&arguments[1..]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub(crate) fn interrupt(child: &Child) {
    let status = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(status.success());
}

/// Ends the child after a while, so that a test that fails does not hang.
fn wait(mut child: Child) -> Output {
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn interrupt_while_decoding_ends_with_130() {
    let folder = Folder::new();
    let model = folder.model();
    // Hours of work, were it not interrupted.
    let mut child = spawn(&["bench", "-p", "2000", "-n", "0", "-r", "4000000"], &model);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("loading for"), "{line}");
    thread::sleep(Duration::from_millis(300));
    interrupt(&child);
    let output = wait(child);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(output.status.code(), Some(130), "{rest}");
    // The engine may have logged something before.
    assert!(rest.ends_with("error: interrupted\n"), "{rest}");
    assert!(output.stdout.is_empty());
}

#[test]
fn interrupt_while_generating_keeps_what_was_printed() {
    let folder = Folder::new();
    if !can_tokenize(&folder.model()) {
        return;
    }
    // Long enough that it is not over before the signal arrives.
    let (model, text) = (0..50)
        .find_map(|seed| {
            let mut model = tiny().with_seed(seed);
            model.shape.n_layer = 12;
            model.shape.n_ff = 1024;
            let path = folder.write(&model);
            let arguments = ["--prompt", "a", "--json", "--ctx", "2048"];
            let report = json_of(program().arg("run").arg(&path).args(arguments).output().unwrap());
            let long = report["generated_tokens"].as_u64().unwrap() > 1500;
            long.then(|| (path, report["text"].as_str().unwrap().to_owned()))
        })
        .expect("a model that talks on");
    let mut child = spawn(&["run", "--prompt", "a", "--ctx", "2048"], &model);
    let mut stdout = child.stdout.take().unwrap();
    let mut printed = vec![0];
    stdout.read_exact(&mut printed).unwrap();
    interrupt(&child);
    stdout.read_to_end(&mut printed).unwrap();
    let output = wait(child);
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(printed).unwrap();
    assert!(text.starts_with(&printed) && printed.len() < text.len(), "{printed}");
}

#[test]
fn interrupt_while_merging_leaves_nothing() {
    let folder = Folder::new();
    let mut large = tiny();
    (large.shape.n_embd, large.shape.n_ff, large.shape.n_layer) = (2048, 8192, 4);
    let model = folder.write(&large);
    let output = folder.path().join("out.gguf");
    let child = spawn(&["merge", model.to_str().unwrap(), output.to_str().unwrap()], &model);
    let files = || std::fs::read_dir(folder.path()).unwrap().count();
    let deadline = Instant::now() + Duration::from_secs(60);
    // The file beside the output: Ctrl-C is taken over, and bytes are on their way.
    while files() < 2 {
        assert!(Instant::now() < deadline, "the merge does not begin");
        thread::sleep(Duration::from_millis(1));
    }
    interrupt(&child);
    let output = wait(child);
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "error: interrupted\n");
    assert_eq!(files(), 1);
}

/// Linux tells which signals a process catches, and how large a pipe is: the tests know when the signal arrives.
#[cfg(target_os = "linux")]
mod held {
    use std::{
        fs,
        io::{PipeReader, Write as _, pipe},
    };

    use super::*;

    /// Starts `run` with the log on, and a stderr that takes nothing: it stands still at the line that says which
    /// backend was chosen, just before the load, and catches Ctrl-C already.
    fn start_and_hold(model: &Path) -> (Child, PipeReader) {
        const PIPE_BYTES: usize = 65536;
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(&vec![b'\n'; PIPE_BYTES]).unwrap();
        let mut command = Command::new(program().get_program());
        command.arg("run").arg(model).args(["--prompt", "x"]).env("GGUF_LOADER_LOG", "gguf_loader::select=info");
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(writer).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while !catches_interrupts(child.id()) {
            assert!(Instant::now() < deadline, "the program does not take over Ctrl-C");
            thread::sleep(Duration::from_millis(5));
        }
        (child, reader)
    }

    fn catches_interrupts(process: u32) -> bool {
        const SIGINT: u64 = 2;
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (SIGINT - 1)) != 0
    }

    fn interrupt_and_settle(child: &Child) {
        interrupt(child);
        // The handler runs on a thread of its own.
        thread::sleep(Duration::from_millis(500));
    }

    #[test]
    fn interrupt_while_loading_cancels_the_load() {
        let folder = Folder::new();
        let (child, mut stderr) = start_and_hold(&folder.model());
        interrupt_and_settle(&child);
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        let output = wait(child);
        assert_eq!(output.status.code(), Some(130), "{}", text.trim());
        assert!(output.stdout.is_empty());
        // Beside the line of the log, nothing but the error: the load did not come to its end.
        let lines: Vec<_> = text.lines().filter(|line| !line.is_empty() && !line.contains("INFO")).collect();
        assert_eq!(lines, ["error: interrupted"]);
    }

    #[test]
    fn second_interrupt_ends_a_program_that_does_not_get_on() {
        let folder = Folder::new();
        let (mut child, stderr) = start_and_hold(&folder.model());
        interrupt_and_settle(&child);
        assert_eq!(child.try_wait().unwrap(), None);
        interrupt(&child);
        assert_eq!(wait(child).status.code(), Some(130));
        drop(stderr);
    }
}

/// `chat` without a terminal, on a model that answers each line with as many `#`s as that.
fn batch(folder: &Folder, most: &str) -> Option<Child> {
    let model = folder.model();
    if !can_tokenize(&model) {
        return None;
    }
    let template = folder.file("own.jinja", "{% for m in messages %} {{ m.content }}{% endfor %}");
    let mut command = Command::new(program().get_program());
    command.arg("chat").arg(model).arg("--template").arg(template).args(["-n", most, "--logit-bias", "2=-inf"]);
    command.args(["--grammar", "root ::= \"#\"+", "--threads", "1", "--quiet"]);
    Some(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

#[test]
fn interrupt_ends_a_conversation_without_a_terminal() {
    let folder = Folder::new();
    let Some(mut child) = batch(&folder, "1900") else { return };
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    stdin.write_all("the fox\n".repeat(1000).as_bytes()).unwrap();
    let mut answer = vec![0];
    stdout.read_exact(&mut answer).unwrap();
    interrupt(&child);
    stdout.read_to_end(&mut answer).unwrap();
    let output = wait(child);
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "error: interrupted\n");
    // Of the first answer, which has no end.
    assert!(answer.iter().all(|byte| *byte == b'#'), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn interrupt_ends_a_conversation_that_waits_for_its_next_line() {
    let folder = Folder::new();
    let Some(mut child) = batch(&folder, "3") else { return };
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    stdin.write_all(b"the fox\n").unwrap();
    let mut answer = String::new();
    let mut stdout = BufReader::new(stdout);
    stdout.read_line(&mut answer).unwrap();
    assert!(answer.starts_with('#') && answer.ends_with('\n'), "{answer}");
    interrupt(&child);
    // stdin stays open.
    let output = wait(child);
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "error: interrupted\n");
    drop(stdin);
}

/// Interrupts a command in the middle of minutes of work, some time after the line that says which backend computes.
fn interrupted_at_work(arguments: &[&str], model: &Path) {
    let mut child = spawn(arguments, model);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    thread::sleep(Duration::from_millis(700));
    assert_eq!(child.try_wait().unwrap(), None, "{line}: there was not enough to do");
    interrupt(&child);
    let output = wait(child);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(output.status.code(), Some(130), "{line}{rest}");
    assert!(rest.ends_with("error: interrupted\n"), "{line}{rest}");
    assert!(output.stdout.is_empty());
}

/// Large enough that a file of texts keeps it busy.
fn large(folder: &Folder) -> std::path::PathBuf {
    let mut model = tiny();
    (model.shape.n_layer, model.shape.n_ff) = (12, 1024);
    folder.write(&model)
}

#[test]
fn interrupt_while_embedding_ends_with_130() {
    let folder = Folder::new();
    let model = large(&folder);
    if !can_tokenize(&model) {
        return;
    }
    let texts = folder.file("texts.txt", "the quick brown fox jumps over the lazy dog\n".repeat(20_000));
    interrupted_at_work(&["embed", "--pooling", "mean", "--file", texts.to_str().unwrap()], &model);
}

/// The model as a Qwen3 that ranks.
fn ranking(folder: &Folder) -> std::path::PathBuf {
    let gguf = Gguf::open(large(folder)).unwrap();
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter() {
        match key.strip_prefix("llama.") {
            Some(key) => writer.set(format!("qwen3.{key}"), value.clone()),
            None => writer.set(key, value.clone()),
        };
    }
    writer.set("general.architecture", "qwen3").set("qwen3.pooling_type", 4_u32);
    for tensor in gguf.tensors() {
        let bytes = gguf.read_tensor(tensor).unwrap();
        writer.add_tensor(&tensor.name, &tensor.shape, tensor.tensor_type, bytes).unwrap();
    }
    let shape = tiny().shape;
    let head = u64::from(shape.n_embd / shape.n_head);
    let ones = |count: u64| -> Vec<u8> { (0..count).flat_map(|_| 1_f32.to_le_bytes()).collect() };
    for name in (0..12).flat_map(|block| ["q", "k"].map(|half| format!("blk.{block}.attn_{half}_norm.weight"))) {
        writer.add_tensor(name, &[head], TensorType::F32, ones(head)).unwrap();
    }
    let width = u64::from(shape.n_embd);
    writer.add_tensor("cls.output.weight", &[width, 1], TensorType::F32, ones(width)).unwrap();
    let path = folder.path().join("ranking.gguf");
    writer.write_file(&path).unwrap();
    path
}

#[test]
fn interrupt_while_ranking_ends_with_130() {
    let folder = Folder::new();
    let model = ranking(&folder);
    if !can_tokenize(&model) {
        return;
    }
    let documents = folder.file("documents.txt", "the quick brown fox jumps over the lazy dog\n".repeat(20_000));
    interrupted_at_work(&["rerank", "--query", "what jumps?", "--file", documents.to_str().unwrap()], &model);
}

#[test]
fn interrupt_while_measuring_a_perplexity_ends_with_130() {
    let folder = Folder::new();
    let model = large(&folder);
    if !can_tokenize(&model) {
        return;
    }
    let text = folder.file("text.txt", "the quick brown fox jumps over the lazy dog. ".repeat(20_000));
    interrupted_at_work(&["perplexity", "--file", text.to_str().unwrap()], &model);
}

#[test]
fn interrupt_while_merging_an_adapter_leaves_nothing() {
    let folder = Folder::new();
    let mut large = tiny();
    (large.shape.n_embd, large.shape.n_ff, large.shape.n_layer) = (2048, 8192, 4);
    let model = folder.write(&large);
    let mut writer = Writer::new();
    writer.set("general.type", "adapter").set("general.architecture", "llama").set("adapter.type", "lora");
    for block in 0..4 {
        for (half, shape) in [("a", [2048, 1]), ("b", [1, 8192])] {
            let name = format!("blk.{block}.ffn_up.weight.lora_{half}");
            writer.add_tensor(name, &shape, TensorType::F32, vec![0; (4 * shape[0] * shape[1]) as usize]).unwrap();
        }
    }
    let adapter = folder.path().join("adapter.gguf");
    writer.write_file(&adapter).unwrap();
    let output = folder.path().join("out.gguf");
    let child = spawn(&["merge-lora", output.to_str().unwrap(), "--lora", adapter.to_str().unwrap()], &model);
    let files = || std::fs::read_dir(folder.path()).unwrap().count();
    let deadline = Instant::now() + Duration::from_secs(60);
    // The file beside the output: Ctrl-C is taken over, and bytes are on their way.
    while files() < 3 {
        assert!(Instant::now() < deadline, "the merge does not begin");
        thread::sleep(Duration::from_millis(1));
    }
    interrupt(&child);
    let output = wait(child);
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "error: interrupted\n");
    assert_eq!(files(), 2);
}
