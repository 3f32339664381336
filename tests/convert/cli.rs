//! The command `convert`.

use assert_cmd::{Command, cargo::cargo_bin};
use serde_json::Value as Json;

use super::checkpoint::Checkpoint;

fn program() -> Command {
    Command::new(cargo_bin!("gguf-loader"))
}

#[test]
fn report_is_text_or_json() {
    let folder = Checkpoint::packed().write();
    let model = folder.path().join("model.gguf");
    let run = |json: bool| {
        let mut command = program();
        command.arg("convert").arg(folder.path()).arg(&model).args(["--embedding", "bf16"]);
        let output = if json { command.arg("--json") } else { &mut command }.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(false);
    assert!(text.contains("ternary matrices: 14, from packed weights"), "{text}");
    assert!(text.contains("264 tokens, llama-bpe, without a chat template"), "{text}");
    let json: Json = serde_json::from_str(&run(true)).unwrap();
    assert_eq!((&json["architecture"], &json["matrices"]), (&"bitnet-b1.58".into(), &14.into()));
}

#[test]
fn what_is_wrong_decides_the_exit_code() {
    let exit = |checkpoint: &Checkpoint, file: Option<&str>| {
        let folder = checkpoint.write();
        if let Some(file) = file {
            std::fs::remove_file(folder.path().join(file)).unwrap();
        }
        let model = folder.path().join("model.gguf");
        let output = program().arg("convert").arg(folder.path()).arg(&model).output().unwrap();
        assert!(output.stdout.is_empty() && !model.exists());
        output.status.code()
    };
    let mut other = Checkpoint::packed();
    other.config["model_type"] = "llama".into();
    assert_eq!(exit(&other, None), Some(4));
    assert_eq!(exit(&Checkpoint::packed(), Some("tokenizer.json")), Some(3));
}

#[cfg(unix)]
mod unix {
    use std::{
        fs::{self, OpenOptions},
        io::Write as _,
        process::{Command, Output, Stdio},
        sync::mpsc,
        thread,
        time::Duration,
    };

    use assert_cmd::cargo::cargo_bin;

    use crate::checkpoint::Checkpoint;
    #[cfg(target_os = "linux")]
    use crate::full_disk;

    fn stderr(output: &Output) -> String {
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn disk_that_fills_up_is_an_error_and_is_left_empty() {
        let (folder, disk) = (Checkpoint::packed().write(), tempfile::tempdir().unwrap());
        let mut command = Command::new(cargo_bin!("gguf-loader"));
        command.arg("convert").arg(folder.path()).arg(disk.path().join("out.gguf"));
        let Some(output) = full_disk::run(&command, "", disk.path(), 40) else { return };
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert!(stderr(&output).contains("out.gguf"), "{}", stderr(&output));
        assert!(stderr(&output).contains("No space left on device"), "{}", stderr(&output));
        assert!(output.stdout.is_empty(), "left on the disk: {}", String::from_utf8_lossy(&output.stdout));
        // On a disk with room the same arguments are right.
        let output = full_disk::run(&command, "", disk.path(), 400).expect("a disk a moment ago");
        assert!(output.status.success() && output.stdout.ends_with(b"\n./out.gguf\n"), "{}", stderr(&output));
    }

    /// The tokenizer comes through a pipe: Ctrl-C is pressed while the program waits for it, and so never too late.
    #[test]
    fn interrupt_while_converting_ends_with_130_and_leaves_nothing() {
        let (folder, target) = (Checkpoint::packed().write(), tempfile::tempdir().unwrap());
        let pipe = folder.path().join("tokenizer.json");
        let tokenizer = fs::read(&pipe).unwrap();
        fs::remove_file(&pipe).unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());

        let mut command = Command::new(cargo_bin!("gguf-loader"));
        command.arg("convert").arg(folder.path()).arg(target.path().join("model.gguf"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, opened) = mpsc::channel();
        // Opening a pipe takes until someone reads from it.
        thread::spawn(move || sender.send(OpenOptions::new().write(true).open(pipe).unwrap()));
        let mut pipe = opened.recv_timeout(Duration::from_secs(60)).expect("the conversion begins");
        let status = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
        assert!(status.success());
        // The program takes the signal in a thread of its own.
        thread::sleep(Duration::from_millis(300));
        pipe.write_all(&tokenizer).unwrap();
        drop(pipe);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert_eq!(stderr(&output), "error: interrupted\n");
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
    }
}
