//! Ctrl-C.
#![cfg(unix)]

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

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

fn interrupt(child: &Child) {
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

#[test]
fn interrupt_stops_an_answer_and_not_the_conversation() {
    use std::io::Write as _;
    let path = std::env::var_os("GGUF_LOADER_TEST_MODEL").map(std::path::PathBuf::from);
    let Some(model) = path.filter(|path| path.is_file() && can_tokenize(path)) else {
        eprintln!("skipped: GGUF_LOADER_TEST_MODEL names no file");
        return;
    };
    let mut command = Command::new(program().get_program());
    command.arg("chat").arg(model).args(["--preset", "greedy"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    stdin.write_all(b"Write a story of a thousand words about the sea.\n").unwrap();
    let mut byte = [0];
    stdout.read_exact(&mut byte).unwrap();
    interrupt(&child);
    // The line break after the answer shows that it is over.
    let mut answer = vec![byte[0]];
    while !answer.ends_with(b"\n") || answer.ends_with(b"\n\n") {
        thread::sleep(Duration::from_millis(300));
        let mut more = [0; 4096];
        let length = stdout.read(&mut more).unwrap();
        answer.extend_from_slice(&more[..length]);
    }
    stdin.write_all(b"/stats\nSay hello.\n").unwrap();
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let output = wait(child);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("(stopped;") && !stderr.contains("ERROR"), "{stderr}");
    assert!(!rest.trim().is_empty(), "the second question got no answer");
}
