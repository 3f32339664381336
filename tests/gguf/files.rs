//! Files on disk: what is missing, unreadable, or split.

use std::{error::Error, fs, path::Path};

use gguf_loader::{
    backend::LoadRequest,
    gguf::{Gguf, GgufError, SplitLimit, SplitProblem, TensorType, Writer},
};

fn open_error(path: &Path) -> GgufError {
    let error = Gguf::open(path).unwrap_err();
    let message = error.to_string();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(message.contains(name), "`{message}` names the file");
    error
}

#[test]
fn a_missing_file_is_not_found() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(open_error(&folder.path().join("no.gguf")), GgufError::NotFound { .. }));
}

#[test]
fn a_folder_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(open_error(folder.path()), GgufError::Directory { .. }));
}

#[test]
fn an_empty_file_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.gguf");
    fs::write(&path, "").unwrap();
    assert!(matches!(open_error(&path), GgufError::Empty { .. }));
}

#[test]
fn a_truncated_download_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let file = super::bytes(&super::model());
    fs::write(&path, &file[..file.len() - 4096]).unwrap();
    let error = open_error(&path);
    assert!(matches!(error, GgufError::Truncated { .. }) && error.to_string().contains("fetch it again"), "{error}");
}

#[cfg(unix)]
#[test]
fn an_unreadable_file_is_named_as_such() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret.gguf");
    fs::write(&path, super::bytes(&super::model())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&path).is_ok() {
        println!("skipped: this user may read every file");
        return;
    }
    assert!(matches!(open_error(&path), GgufError::PermissionDenied { .. }));
}

#[cfg(unix)]
#[test]
fn a_device_is_refused_and_not_read() {
    let error = open_error(Path::new("/dev/zero"));
    let cause = error.source().expect("an I/O error has a cause").to_string();
    assert!(matches!(error, GgufError::Io { .. }) && cause.contains("ordinary"), "{cause}");
}

#[test]
fn a_backend_is_asked_only_for_models_in_files() {
    let model = super::model();
    let parsed = super::accept(&model);
    assert_eq!(parsed.path(), None);
    assert!(matches!(LoadRequest::new(&parsed), Err(GgufError::InMemory)));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    model.write_file(&path).unwrap();
    let file = Gguf::open(&path).unwrap();
    let request = LoadRequest::new(&file).unwrap();
    assert_eq!((request.path(), request.profile()), (path.as_path(), &file.profile().unwrap()));

    // An adapter is a valid file and no model.
    let adapter = Writer::new();
    adapter.write_file(&path).unwrap();
    let file = Gguf::open(&path).unwrap();
    assert!(matches!(LoadRequest::new(&file), Err(GgufError::MissingKey { .. })));
}

#[test]
fn tensors_are_read_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut writer = Writer::new();
    writer.add_tensor("a", &[2], TensorType::F32, vec![1; 8]).unwrap();
    writer.add_tensor_with("b", &[64], TensorType::I8, |output| output.write_all(&[2; 64])).unwrap();
    writer.write_file(&path).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    assert_eq!(gguf.read_tensor(gguf.tensor("a").unwrap()).unwrap(), [1; 8]);
    assert_eq!(gguf.read_tensor(gguf.tensor("b").unwrap()).unwrap(), [2; 64]);
    assert!(gguf.tensor("c").is_none());
}

struct Split {
    folder: tempfile::TempDir,
    paths: Vec<std::path::PathBuf>,
}

fn split() -> Split {
    let folder = tempfile::tempdir().unwrap();
    let paths = super::model().write_split(folder.path().join("model"), SplitLimit::Tensors(8)).unwrap();
    assert_eq!(paths.len(), 3);
    Split { folder, paths }
}

/// Puts a changed part in place of another.
fn replace(path: &Path, writer: &Writer) {
    writer.write_file(path).unwrap();
}

fn part(number: u16, count: u16) -> Writer {
    let mut writer = Writer::new();
    writer.set("split.no", number).set("split.count", count).set("split.tensors.count", 20_i32);
    writer
}

#[test]
fn all_parts_are_opened_from_the_first() {
    let split = split();
    assert!(split.paths[0].ends_with("model-00001-of-00003.gguf"));
    let gguf = Gguf::open(&split.paths[0]).unwrap();
    let whole = super::accept(&super::model());
    assert_eq!(gguf.parts().iter().map(|part| part.path.clone()).collect::<Vec<_>>(), split.paths);
    assert_eq!(gguf.tensors().len(), whole.tensors().len());
    for (tensor, expected) in gguf.tensors().iter().zip(whole.tensors()) {
        assert_eq!((&tensor.name, &tensor.shape), (&expected.name, &expected.shape));
        assert_eq!(gguf.read_tensor(tensor).unwrap(), whole.read_tensor(expected).unwrap());
    }
    assert_eq!(fs::read_dir(split.folder.path()).unwrap().count(), 3, "no partial file is left");
}

#[test]
fn another_part_than_the_first_names_the_first() {
    let split = split();
    let error = open_error(&split.paths[1]);
    let GgufError::Split { problem: SplitProblem::NotFirst { number: 2, count: 3, first }, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(first, &split.paths[0]);
}

#[test]
fn a_missing_part_is_named() {
    let split = split();
    fs::remove_file(&split.paths[2]).unwrap();
    let error = Gguf::open(&split.paths[0]).unwrap_err();
    let GgufError::Split { path, problem: SplitProblem::Missing { number: 3, count: 3, .. } } = &error else {
        panic!("{error}")
    };
    assert_eq!(path, &split.paths[2]);
}

#[test]
fn a_renamed_first_part_is_refused() {
    let split = split();
    let renamed = split.folder.path().join("renamed.gguf");
    fs::rename(&split.paths[0], &renamed).unwrap();
    let error = open_error(&renamed);
    assert!(matches!(error, GgufError::Split { problem: SplitProblem::Name { count: 3 }, .. }), "{error}");
}

#[test]
fn swapped_parts_are_refused() {
    let split = split();
    fs::copy(&split.paths[2], &split.paths[1]).unwrap();
    let error = Gguf::open(&split.paths[0]).unwrap_err();
    let is_wrong_number =
        matches!(error, GgufError::Split { problem: SplitProblem::Number { found: 3, expected: 2 }, .. });
    assert!(is_wrong_number, "{error}");
}

#[test]
fn a_part_of_another_model_is_refused() {
    let split = split();
    replace(&split.paths[2], &part(2, 3));
    let error = Gguf::open(&split.paths[0]).unwrap_err();
    let is_tensor_count =
        matches!(error, GgufError::Split { problem: SplitProblem::Tensors { found: 16, expected: 20 }, .. });
    assert!(is_tensor_count, "{error}");
}

#[test]
fn a_tensor_in_two_parts_is_refused() {
    let split = split();
    let mut writer = part(2, 3);
    super::add(&mut writer, "output_norm.weight", &[64], TensorType::F32);
    replace(&split.paths[2], &writer);
    let error = Gguf::open(&split.paths[0]).unwrap_err();
    assert!(error.to_string().contains("twice") && error.to_string().contains("00003-of-00003"), "{error}");
}

// gguf_get_val_u16 asserts the type, and llama.cpp asks for it without looking.
#[test]
fn a_part_number_of_another_type_is_refused() {
    let split = split();
    let mut writer = part(1, 3);
    writer.set("split.no", 1_u32);
    replace(&split.paths[1], &writer);
    let error = Gguf::open(&split.paths[0]).unwrap_err();
    assert!(matches!(&error, GgufError::Key { key, .. } if key == "split.no"), "{error}");
}
