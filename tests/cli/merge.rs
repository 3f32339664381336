//! `merge` and `merge-lora`, and adapters in `run`.

use std::path::PathBuf;

use gguf_loader::gguf::{Gguf, TensorType, Writer, synth::SyntheticModel};

use crate::{
    assert_fails, json_of,
    models::{Folder, can_tokenize},
    program, run, stdout_of,
};

const MATRIX: &str = "blk.0.ffn_up.weight";

fn model(folder: &Folder, name: &str, seed: u64) -> PathBuf {
    let path = folder.path().join(name);
    SyntheticModel::tiny().with_type(TensorType::Q4_0).with_seed(seed).write_file(&path).unwrap();
    path
}

/// An adapter that changes one matrix, by a lot.
fn adapter(folder: &Folder) -> PathBuf {
    let path = folder.path().join("adapter.gguf");
    let shape = Gguf::open(folder.path().join("one.gguf")).unwrap().tensor(MATRIX).unwrap().shape.clone();
    let mut writer = Writer::new();
    writer.set("general.type", "adapter").set("general.architecture", "llama").set("adapter.type", "lora");
    for (half, shape) in [("a", [shape[0], 1]), ("b", [1, shape[1]])] {
        let numbers = (0..shape[0] * shape[1]).map(|at| if at % 3 == 0 { 1.5_f32 } else { -0.5 });
        let bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
        writer.add_tensor(format!("{MATRIX}.lora_{half}"), &shape, TensorType::F32, bytes).unwrap();
    }
    writer.write_file(&path).unwrap();
    path
}

#[test]
fn merge_reports_what_it_wrote() {
    let folder = Folder::new();
    let (one, other) = (model(&folder, "one.gguf", 1), model(&folder, "other.gguf", 2));
    let output = folder.path().join("both.gguf");
    let arguments = ["merge".as_ref(), one.as_os_str(), other.as_os_str(), output.as_os_str()];
    let report = json_of(program().args(arguments).args(["--ratio", "-0.25", "--json"]).output().unwrap());
    let tensors = Gguf::open(&one).unwrap().tensors().len() as u64;
    assert_eq!((report["output"].as_str(), report["changed"].as_u64()), (output.to_str(), Some(tensors)));
    assert!(report["as_q8_0"].as_u64() > Some(0), "{report}");
    assert_eq!(Gguf::open(&output).unwrap().tensors().len() as u64, tensors);
    let text = String::from_utf8(stdout_of(run(arguments))).unwrap();
    assert!(text.contains(&format!("both.gguf: {tensors} tensors changed")), "{text}");
}

#[test]
fn merged_and_applied_adapters_say_the_same() {
    let folder = Folder::new();
    let one = model(&folder, "one.gguf", 1);
    let lora = format!("{}=0.5", adapter(&folder).display());
    let output = folder.path().join("merged.gguf");
    let arguments = ["merge-lora", one.to_str().unwrap(), output.to_str().unwrap(), "--lora", &lora];
    let report = json_of(program().args(arguments).arg("--json").output().unwrap());
    assert_eq!((report["changed"].as_u64(), report["as_q8_0"].as_u64()), (Some(1), Some(1)), "{report}");
    if !can_tokenize(&one) {
        return;
    }
    let tokens = |model: &PathBuf, more: &[&str]| {
        let mut command = program();
        command.arg("run").arg(model).args(["--prompt", "the fox", "-n", "8", "--ignore-end", "--json"]).args(more);
        json_of(command.output().unwrap())["tokens"].clone()
    };
    let applied = tokens(&one, &["--lora", &lora]);
    assert_ne!(applied, tokens(&one, &[]));
    assert_eq!(applied[0], tokens(&output, &[])[0]);
}

#[test]
fn what_does_not_fit_is_an_error_and_nothing_is_written() {
    let folder = Folder::new();
    let (one, output) = (model(&folder, "one.gguf", 1), folder.path().join("out.gguf"));
    let mut wide = SyntheticModel::tiny().with_type(TensorType::Q4_0);
    wide.shape.n_ff *= 2;
    let wide_path = folder.path().join("wide.gguf");
    wide.write_file(&wide_path).unwrap();
    let (one, wide, out) = (one.to_str().unwrap(), wide_path.to_str().unwrap(), output.to_str().unwrap());
    assert_fails(&run(["merge", one, wide, out]), 4, &["ffn_", "not alike"]);
    assert_fails(&run(["merge", one, "nowhere.gguf", out]), 3, &["nowhere.gguf"]);
    assert_fails(&run(["merge", one, one, one]), 2, &["one.gguf"]);
    let ternary = folder.path().join("ternary.gguf");
    SyntheticModel::tiny().with_block_type(TensorType::TQ2_0).write_file(&ternary).unwrap();
    assert_fails(&run(["merge", ternary.to_str().unwrap(), one, out]), 4, &["TQ2_0", "help: merge models in F16"]);
    assert_fails(&run(["merge", one, one, out, "--ratio", "nan"]), 2, &["NaN"]);
    assert_fails(&run(["merge-lora", one, out, "--lora", one]), 3, &["LoRA adapter"]);
    // A name may have a `=`, too.
    assert_fails(&run(["merge-lora", one, out, "--lora", "a.gguf=much"]), 3, &["no file a.gguf=much"]);
    assert_fails(&run(["merge-lora", one, out]), 2, &["--lora"]);
    assert!(!output.exists());
}
