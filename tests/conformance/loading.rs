//! Loading, breaking off, dropping.

use std::{fs, ops::ControlFlow, path::Path};

use gguf_loader::backend::{ContextError, LoadError};

use crate::{
    checks,
    models::Model,
    subject::{Subject, feed, open, open_file, options, prompt, request, skipped},
};

checks! {
    progress_rises_from_zero_to_one,
    load_broken_off_at_the_start_is_cancelled,
    load_broken_off_midway_is_cancelled,
    dropping_everything_lets_go_of_the_file,
    shape_equals_the_file,
    file_that_vanished_is_an_error,
    vocabulary_only_file_has_no_contexts,
}

fn progress_rises_from_zero_to_one(subject: &Subject) {
    let mut reports = Vec::new();
    let path = subject.models.path(subject.usual());
    let loaded = subject.load_path(&path, |done| {
        reports.push(done);
        ControlFlow::Continue(())
    });
    assert!(loaded.is_ok(), "{loaded:?}");
    assert!(reports.is_sorted(), "{reports:?}");
    assert!(reports.first().is_some_and(|&first| (0.0..0.5).contains(&first)), "{reports:?}");
    assert_eq!(reports.last(), Some(&1.0), "{reports:?}");
}

fn load_broken_off_at_the_start_is_cancelled(subject: &Subject) {
    break_off(subject, "broken-off-at-the-start", 0.0);
}

fn load_broken_off_midway_is_cancelled(subject: &Subject) {
    break_off(subject, "broken-off-midway", 0.5);
}

fn break_off(subject: &Subject, name: &str, at: f32) {
    let path =
        subject.models.copy(subject.usual(), &format!("{name}-{}-{}.gguf", subject.backend.id(), subject.device.id));
    let mut calls_after = 0;
    let mut broken_off = false;
    let loaded = subject.load_path(&path, |done| {
        calls_after += i32::from(broken_off);
        broken_off |= done >= at;
        if broken_off { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(loaded, Err(LoadError::Cancelled)), "{loaded:?}");
    assert_eq!(calls_after, 0, "progress was reported to someone who had broken off");
    assert_let_go(&path);
    let again = subject.load_path(&path, |_| ControlFlow::Continue(()));
    assert!(again.is_ok(), "a load after a cancelled one: {again:?}");
}

fn dropping_everything_lets_go_of_the_file(subject: &Subject) {
    let name = format!("dropped-{}-{}.gguf", subject.backend.id(), subject.device.id);
    let path = subject.models.copy(subject.usual(), &name);
    let model = subject.load_path(&path, |_| ControlFlow::Continue(())).expect("a model of the suite");
    let mut context = open(&model, &options());
    drop(model);
    feed(&mut *context, &prompt(5, 1), 0, 0);
    drop(context);
    assert_let_go(&path);
}

/// Asserts that this process has the file neither open nor mapped.
fn assert_let_go(path: &Path) {
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else {
        skipped("whether the file is still mapped cannot be asked on this system");
        return;
    };
    let name = path.to_str().expect("a path in UTF-8");
    assert!(!maps.contains(name), "the file is still mapped");
    let open = fs::read_dir("/proc/self/fd").expect("the list of open files");
    let targets = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    assert_eq!(targets.filter(|target| target == path).count(), 0, "the file is still open");
}

fn shape_equals_the_file(subject: &Subject) {
    for model in subject.runnable([subject.usual(), Model::Full]) {
        let path = subject.models.path(model);
        let described = model.describe().shape;
        let file = open_file(&path);
        let loaded = subject.load(model);
        let shape = loaded.shape();
        assert_eq!(shape.n_vocab, described.n_vocab);
        assert_eq!(shape.n_ctx_train, described.n_ctx_train);
        assert_eq!(shape.n_embd, described.n_embd);
        assert_eq!(shape.n_layer, described.n_layer);
        assert_eq!(shape.weight_bytes, request(&file).profile().weight_bytes);
        let parameters: u64 = file.tensors().iter().map(|tensor| tensor.shape.iter().product::<u64>()).sum();
        assert_eq!(shape.parameters, parameters);
    }
}

fn file_that_vanished_is_an_error(subject: &Subject) {
    let name = format!("vanished-{}-{}.gguf", subject.backend.id(), subject.device.id);
    let path = subject.models.copy(subject.usual(), &name);
    let file = open_file(&path);
    fs::remove_file(&path).expect("the copy can be removed");
    let loaded = subject.backend.load(&subject.device, &request(&file), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(loaded, Err(LoadError::Io { .. } | LoadError::Refused { .. })), "{loaded:?}");
}

fn vocabulary_only_file_has_no_contexts(subject: &Subject) {
    let model = subject.load(Model::SentencePieceVocabulary);
    assert_eq!(model.shape().n_vocab, Model::SentencePieceVocabulary.describe().shape.n_vocab);
    let error = model.context(&options()).expect_err("there are no weights");
    assert_eq!(error, ContextError::VocabularyOnly);
}
