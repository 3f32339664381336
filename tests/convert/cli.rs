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
