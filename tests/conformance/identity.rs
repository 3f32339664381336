//! What a backend says about itself.

use std::collections::HashSet;

use gguf_loader::backend::{Ineligible, registered};

use crate::{
    checks,
    models::{Model, TYPES},
    subject::{Subject, open_file},
};

checks! {
    id_is_lower_case_kebab,
    summary_is_one_line,
    devices_are_the_same_when_asked_again,
    score_is_finite_and_positive,
    score_is_the_same_when_asked_again,
    unknown_architecture_is_ineligible,
}

/// Not a check of one backend, but of all together.
pub(crate) fn no_two_backends_share_an_id() {
    let mut ids = HashSet::new();
    for backend in registered() {
        assert!(ids.insert(backend.id()), "{} is registered twice", backend.id());
    }
    assert!(!ids.is_empty(), "no backend is compiled in");
}

fn id_is_lower_case_kebab(subject: &Subject) {
    let id = subject.backend.id();
    let word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    assert!(id.split('-').all(word), "`{id}`");
    assert!(id.starts_with(|c: char| c.is_ascii_lowercase()), "`{id}`");
}

fn summary_is_one_line(subject: &Subject) {
    let summary = subject.backend.summary();
    assert!(!summary.trim().is_empty() && summary.lines().count() == 1, "`{summary}`");
}

fn devices_are_the_same_when_asked_again(subject: &Subject) {
    let ask = || subject.backend.devices(&subject.hardware).expect("usable a moment ago");
    let (first, second) = (ask(), ask());
    assert!(!first.is_empty(), "no device and no reason");
    assert_eq!(first, second);
    let ids: HashSet<&str> = first.iter().map(|device| device.id.as_str()).collect();
    assert_eq!(ids.len(), first.len(), "two devices share an id");
}

fn score_is_finite_and_positive(subject: &Subject) {
    let tiny = TYPES.iter().map(|&tensor_type| Model::Tiny(tensor_type));
    for model in subject.runnable(tiny.chain([Model::Full, Model::BytePairVocabulary, subject.usual()])) {
        let profile = open_file(&subject.models.path(model)).profile().expect("a model");
        let score = subject.backend.score(&subject.device, &subject.hardware, &profile).expect("a model that it runs");
        for speed in [score.prompt, score.decode] {
            assert!(speed.is_finite() && speed > 0.0, "{model:?}: {score:?}");
        }
    }
}

fn score_is_the_same_when_asked_again(subject: &Subject) {
    let profile = open_file(&subject.models.path(subject.usual())).profile().expect("a model");
    let score = || subject.backend.score(&subject.device, &subject.hardware, &profile);
    assert_eq!(score(), score());
}

fn unknown_architecture_is_ineligible(subject: &Subject) {
    let mut profile = open_file(&subject.models.path(subject.usual())).profile().expect("a model");
    profile.architecture = "no-such-architecture".to_owned();
    let score = subject.backend.score(&subject.device, &subject.hardware, &profile);
    assert_eq!(score, Err(Ineligible::Architecture(profile.architecture)));
}
