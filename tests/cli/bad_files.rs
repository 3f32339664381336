//! Files that cannot be used: each ends with its code and says what is wrong.

use std::{ffi::OsStr, fs, path::Path, process::Output};

use gguf_loader::gguf::SplitLimit;

use crate::{
    assert_fails, json_of,
    models::{self, Folder},
    run, skip, stdout_of,
};

/// The commands that open a model, each on `model`.
fn every_command(model: &Path) -> Vec<Output> {
    let arguments: [&[&str]; 6] =
        [&["select"], &["inspect"], &["tokenize"], &["detokenize"], &["bench", "-p", "8"], &["run", "--prompt", "x"]];
    arguments.iter().map(|arguments| on(arguments, model)).collect()
}

fn on(arguments: &[&str], model: &Path) -> Output {
    run(arguments.iter().map(OsStr::new).chain([model.as_os_str()]))
}

#[track_caller]
fn refused(model: &Path, code: i32, texts: &[&str]) {
    for output in every_command(model) {
        assert_fails(&output, code, texts);
    }
}

#[test]
fn missing_file_is_named() {
    let folder = Folder::new();
    refused(&folder.path().join("absent.gguf"), 3, &["there is no file", "absent.gguf", "help: "]);
}

#[test]
fn empty_file_is_to_be_fetched_again() {
    refused(&Folder::new().file("model.gguf", ""), 3, &["is empty", "fetch it again"]);
}

#[test]
fn truncated_file_says_what_is_cut_off_and_where() {
    let bytes = models::tiny_bytes();
    let folder = Folder::new();
    let within_data = folder.file("data.gguf", &bytes[..bytes.len() - 1000]);
    refused(&within_data, 3, &["truncated", "at byte"]);
    let within_header = folder.file("header.gguf", &bytes[..1000]);
    refused(&within_header, 3, &["truncated", "at byte"]);
}

#[test]
fn no_flipped_bit_of_the_header_is_more_than_an_error() {
    let bytes = models::tiny_bytes();
    let folder = Folder::new();
    let mut refused = 0;
    for place in (0..2048).step_by(61) {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1 << (place % 8);
        let output = on(&["select"], &folder.file("model.gguf", &flipped));
        let stderr = String::from_utf8(output.stderr).unwrap();
        // Another architecture or tensor type is a model that is not supported; a changed name may not matter.
        assert!(matches!(output.status.code(), Some(0 | 3 | 4)), "byte {place}: {:?} {stderr}", output.status);
        refused += usize::from(!output.status.success());
    }
    assert!(refused > 5, "{refused} were refused");
}

#[test]
fn file_with_another_magic_is_not_gguf() {
    refused(&Folder::new().file("model.gguf", "PK\u{3}\u{4} and so on"), 3, &["is not a GGUF file", "help: "]);
}

#[test]
fn version_that_cannot_be_read_comes_with_the_way_out() {
    for (version, advice) in [(1_u32, "help: convert the original model again"), (4, "help: take a newer gguf-loader")]
    {
        let mut bytes = models::tiny_bytes();
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        let model = Folder::new();
        refused(&model.file("model.gguf", &bytes), 3, &[&format!("GGUF version {version}"), "2 and 3", advice]);
    }
}

#[test]
fn huge_count_does_not_take_memory() {
    for (offset, what) in [(8, "tensors"), (16, "keys")] {
        let mut bytes = models::tiny_bytes();
        bytes[offset..offset + 8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
        refused(&Folder::new().file("model.gguf", &bytes), 3, &[what]);
    }
}

#[test]
fn folder_is_not_a_model() {
    refused(Folder::new().path(), 3, &["is a folder"]);
}

#[cfg(unix)]
#[test]
fn file_without_permission_says_so() {
    use std::os::unix::fs::PermissionsExt as _;
    let path = Folder::new();
    let model = path.model();
    fs::set_permissions(&model, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&model).is_ok() {
        return skip("this user may read every file");
    }
    refused(&model, 3, &["no permission to read", "help: "]);
}

#[test]
fn unsupported_architecture_is_named_and_can_still_be_inspected() {
    let mut writer = models::tiny().writer().unwrap();
    writer.set("general.architecture", "perceptron");
    for (key, value) in [("context_length", 2048_u32), ("embedding_length", 256), ("block_count", 2)] {
        writer.set(format!("perceptron.{key}"), value);
    }
    let model = Folder::new();
    let model = model.file("model.gguf", models::bytes(&writer));
    for arguments in [&["select"][..], &["bench"], &["run", "--prompt", "x"]] {
        let texts = ["does not run the architecture `perceptron`", "help: take a model of another architecture"];
        assert_fails(&on(arguments, &model), 4, &texts);
    }
    assert_eq!(json_of(on(&["inspect", "--json"], &model))["architecture"], "perceptron");
}

#[test]
fn unknown_tensor_type_is_named_with_its_tensor() {
    let mut bytes = models::tiny_bytes();
    let name = b"token_embd.weight";
    let end = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    // Behind the name: the number of dimensions, two sizes, the type.
    let at = end + 4 + 2 * 8;
    bytes[at..at + 4].copy_from_slice(&777_u32.to_le_bytes());
    refused(&Folder::new().file("model.gguf", &bytes), 4, &["token_embd.weight", "element type 777"]);
}

#[test]
fn missing_part_of_a_split_model_is_named() {
    let folder = Folder::new();
    let writer = models::tiny().writer().unwrap();
    let parts = writer.write_split(folder.path().join("model"), SplitLimit::Tensors(8)).unwrap();
    assert!(stdout_of(on(&["inspect"], &parts[0])).starts_with(parts[0].to_str().unwrap().as_bytes()));
    fs::remove_file(&parts[1]).unwrap();
    refused(&parts[0], 3, &["part 2 of", "is missing", parts[1].to_str().unwrap()]);
}

#[test]
fn part_of_a_split_model_that_is_not_the_first_says_which_is() {
    let folder = Folder::new();
    let writer = models::tiny().writer().unwrap();
    let parts = writer.write_split(folder.path().join("model"), SplitLimit::Tensors(8)).unwrap();
    refused(&parts[1], 3, &["load the first part", parts[0].to_str().unwrap()]);
}

#[test]
fn vocabulary_without_weights_can_be_inspected_but_not_run() {
    let folder = Folder::new();
    let vocabulary = folder.vocabulary();
    let report = json_of(on(&["inspect", "--json"], &vocabulary));
    assert_eq!((&report["quantization"]["parameters"], &report["memory"]), (&0.into(), &serde_json::Value::Null));
    assert_fails(&on(&["bench"], &vocabulary), 4, &["only a vocabulary"]);
}
