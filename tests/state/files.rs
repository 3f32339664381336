//! Files of states, whole and not.

use gguf_loader::{
    backend::ContextOptions,
    gguf::synth::SyntheticModel,
    state::{State, StateError},
};

use super::{begin, count, go_on, load, options, random_model};

#[test]
fn a_file_is_read_as_it_was_written_and_whatever_is_wrong_with_it_is_an_error() {
    let Some(model) = load(random_model(), None) else { return };
    let mut context = model.context(&options()).unwrap();
    begin(&mut context, 0);
    let state = context.save().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.state");
    state.write(&file).unwrap();
    assert_eq!(State::read(&file).unwrap(), state);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");

    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(State::read(&file), Err(StateError::Damaged)));
    let mut changed = bytes.clone();
    changed[bytes.len() / 2] ^= 1;
    assert!(matches!(State::from_bytes(&changed), Err(StateError::Damaged)));
    assert!(matches!(State::from_bytes(b"GGUF"), Err(StateError::NotAState)));
    let mut later = bytes;
    later[8] = 200;
    assert!(matches!(State::from_bytes(&later), Err(StateError::Version { found: 200, .. })));
    assert!(matches!(State::read(folder.path().join("none")), Err(StateError::Io { .. })));
    assert!(matches!(state.write(folder.path().join("no/folder")), Err(StateError::Io { .. })));
}

#[test]
fn a_state_of_another_model_or_one_that_does_not_fit_changes_nothing() {
    let Some(model) = load(random_model(), None) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.gguf");
    // The same shape, other weights.
    SyntheticModel::tiny().with_seed(99).write_file(&path).unwrap();
    let other = load(&path, None).unwrap();
    let moved = folder.path().join("moved.gguf");
    std::fs::copy(random_model(), &moved).unwrap();
    assert_eq!(load(&moved, None).unwrap().fingerprint().unwrap(), model.fingerprint().unwrap());

    let two = options().with_sequences(count(2));
    let mut context = model.context(&two).unwrap();
    begin(&mut context, 0);
    begin(&mut context, 1);
    let state = context.save().unwrap();
    let mut target = other.context(&two).unwrap();
    begin(&mut target, 0);
    let held = target.tokens(0).to_vec();
    assert!(matches!(target.restore(&state), Err(StateError::OtherModel { .. })));
    assert_eq!(target.tokens(0), held);

    assert!(matches!(context.restore_sequence(&state, 0), Err(StateError::NotOneSequence(2))));
    assert!(matches!(context.save_sequence(2), Err(StateError::NoSequence { sequence: 2, limit: 2 })));
    let one = context.save_sequence(1).unwrap();
    assert!(matches!(context.restore_sequence(&one, 9), Err(StateError::NoSequence { sequence: 9, limit: 2 })));
    let mut single = model.context(&options()).unwrap();
    assert!(matches!(single.restore(&state), Err(StateError::NoSequence { sequence: 1, limit: 1 })));
    let short = ContextOptions::default().with_length(count(8));
    assert!(matches!(model.context(&short).unwrap().restore(&state), Err(StateError::TooLong { limit: 8, .. })));
    assert_eq!(go_on(&mut context, 0), go_on(&mut context, 1), "they still hold the same");
}
