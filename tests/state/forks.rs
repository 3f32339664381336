//! Forks in a shared cache: what becomes of one is nothing to the others.

use gguf_loader::{
    Context, Model,
    backend::{Batch, CacheType, ContextOptions, DecodeError, SequenceEdit, SequenceId, Token},
    generation::{FinishReason, GenerateRequest, Start, WhenFull},
    state::{State, StateError},
};

use super::{count, load, random_model};

fn shared(length: u32, sequences: u32) -> ContextOptions {
    let options = ContextOptions::default().with_length(count(length)).with_ubatch(count(32));
    // One thread: the work is small, and several would wait for each other on a busy machine.
    options.with_sequences(count(sequences)).with_shared_cache(true).with_threads(count(1))
}

fn tokens(count: u32, seed: u32) -> Vec<Token> {
    (0..count).map(|index| 10 + (index * 7 + seed * 31) % 230).collect()
}

/// Decodes `tokens` where the sequence ends; the logits after the last.
fn decode(context: &mut Context, sequence: SequenceId, tokens: &[Token]) -> Result<Vec<f32>, DecodeError> {
    let (mut batch, mut logits) = (Batch::new(), Vec::new());
    for chunk in tokens.chunks(context.limits().batch as usize) {
        batch.clear();
        batch.extend(chunk, context.next_position(sequence), sequence);
        context.decode(&batch)?;
        logits = context.logits(chunk.len() - 1).unwrap().to_vec();
    }
    Ok(logits)
}

/// The root mean square of the difference, in deviations of the expected logits.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    let mean = expected.iter().sum::<f32>() / expected.len() as f32;
    let variance: f32 = expected.iter().map(|logit| (logit - mean).powi(2)).sum();
    let squares: f32 = found.iter().zip(expected).map(|(found, expected)| (found - expected).powi(2)).sum();
    (squares / variance).sqrt()
}

/// Two sequences that begin alike, in one cache or in two of their own, after a removal in one of them.
fn after_removal(model: &Model, options: &ContextOptions, removed_from: SequenceId) -> (Context, [Vec<f32>; 2]) {
    let mut context = model.context(options).unwrap();
    decode(&mut context, 0, &tokens(60, 0)).unwrap();
    context.edit(SequenceEdit::Copy { from: 0, to: 1 }).unwrap();
    decode(&mut context, 0, &tokens(5, 1)).unwrap();
    decode(&mut context, 1, &tokens(9, 2)).unwrap();
    context.edit(SequenceEdit::Remove { sequence: removed_from, from: 8, to: 40 }).unwrap();
    let logits = [0, 1].map(|sequence| decode(&mut context, sequence, &[20, 30]).unwrap());
    (context, logits)
}

#[test]
fn what_is_removed_from_one_fork_is_nothing_to_the_other() {
    let Some(model) = load(random_model(), None) else { return };
    for removed_from in [0, 1] {
        let (together, found) = after_removal(&model, &shared(512, 2), removed_from);
        let (apart, expected) = after_removal(&model, &shared(512, 2).with_shared_cache(false), removed_from);
        for sequence in [0, 1_u32] {
            assert_eq!(together.tokens(sequence), apart.tokens(sequence));
            assert_eq!(together.next_position(sequence), apart.next_position(sequence));
            let (found, expected) = (&found[sequence as usize], &expected[sequence as usize]);
            let distance = distance(found, expected);
            assert!(distance < 0.01, "{sequence} after a removal from {removed_from}: {distance}");
        }
        // A removal is no small thing, as the distance between the two shows.
        assert!(distance(&found[0], &found[1]) > 0.05);
        // They share what is before it, and nothing else.
        let mut together = together;
        together.edit(SequenceEdit::Remove { sequence: 1 - removed_from, from: 2, to: 6 }).unwrap();
        let lengths = [together.tokens(0).len(), together.tokens(1).len()];
        assert_eq!(lengths.iter().sum::<usize>(), 2 * 60 + 5 + 9 + 2 * 2 - 32 - 4);
    }
}

#[test]
fn a_fork_that_finds_no_room_to_part_is_an_error_and_changes_nothing() {
    let Some(model) = load(random_model(), None) else { return };
    // 256 cells: 200 are the forks', 40 another sequence's.
    let mut context = model.context(&shared(256, 3)).unwrap();
    decode(&mut context, 0, &tokens(200, 0)).unwrap();
    context.edit(SequenceEdit::Copy { from: 0, to: 1 }).unwrap();
    decode(&mut context, 2, &tokens(40, 3)).unwrap();
    let error = context.edit(SequenceEdit::Remove { sequence: 1, from: 10, to: 20 }).unwrap_err();
    assert_eq!(error, DecodeError::ContextFull { used: 240, limit: 256, requested: 180 });
    assert_eq!([0, 1, 2].map(|sequence| context.tokens(sequence).len()), [200, 200, 40]);
    // What moves little needs little room.
    context.edit(SequenceEdit::Remove { sequence: 1, from: 10, to: 190 }).unwrap();
    assert_eq!([0, 1, 2].map(|sequence| context.tokens(sequence).len()), [200, 20, 40]);
    let error = decode(&mut context, 2, &tokens(20, 4)).unwrap_err();
    assert_eq!(error, DecodeError::ContextFull { used: 250, limit: 256, requested: 20 });
}

#[test]
fn a_full_shared_cache_ends_a_generation_or_is_shifted() {
    let Some(model) = load(random_model(), None) else { return };
    let endless = |sequence| {
        let request = GenerateRequest::new(vec![40_u32, 50, 60]).with_sequence(sequence).with_stop_at_end(false);
        request.with_max_tokens(count(100))
    };
    let fill = || {
        let mut context = model.context(&shared(256, 2)).unwrap();
        decode(&mut context, 0, &tokens(200, 0)).unwrap();
        context
    };
    let mut context = fill();
    let stopped = context.complete(endless(1)).unwrap();
    // 200 and 56 of 256 cells; the last token is not decoded.
    assert_eq!((stopped.finish, stopped.tokens.len()), (FinishReason::ContextFull, 56 - 3 + 1));
    // Room elsewhere lets it go on, from the token that was not decoded.
    context.edit(SequenceEdit::Truncate { sequence: 0, from: 0 }).unwrap();
    let more = GenerateRequest::new(Vec::<Token>::new()).with_start(Start::Continue).with_sequence(1);
    let more = context.complete(more.with_stop_at_end(false).with_max_tokens(count(20))).unwrap();
    let whole = model.context(&shared(256, 2)).unwrap().complete(endless(1)).unwrap();
    assert_eq!([stopped.tokens.clone(), more.tokens].concat(), whole.tokens[..74]);

    let mut context = fill();
    let shifted = context.complete(endless(1).with_when_full(WhenFull::Shift { keep: 3 })).unwrap();
    assert_eq!((shifted.finish, shifted.tokens.len()), (FinishReason::MaxTokens, 100));
    assert!(shifted.tokens.starts_with(&stopped.tokens));
    assert_eq!(context.tokens(0), tokens(200, 0));
}

#[test]
fn a_fork_is_shifted_and_the_other_goes_on_as_if_alone() {
    let Some(model) = load(random_model(), None) else { return };
    let mut context = model.context(&shared(256, 2)).unwrap();
    decode(&mut context, 0, &tokens(100, 0)).unwrap();
    let mut alone = model.context(&shared(256, 2)).unwrap();
    decode(&mut alone, 0, &tokens(100, 0)).unwrap();
    context.edit(SequenceEdit::Copy { from: 0, to: 1 }).unwrap();
    // It fills the cache, parts from the other and is shifted.
    let request = GenerateRequest::new(vec![20_u32]).with_start(Start::Continue).with_sequence(1);
    let request = request.with_stop_at_end(false).with_when_full(WhenFull::Shift { keep: 4 });
    let completion = context.complete(request.with_max_tokens(count(250))).unwrap();
    assert!(completion.tokens.len() > 155, "it stopped after {} tokens", completion.tokens.len());
    assert!(context.tokens(1).len() < 250 && context.tokens(0) == alone.tokens(0));
    context.edit(SequenceEdit::Truncate { sequence: 1, from: 0 }).unwrap();
    let (found, expected) = (decode(&mut context, 0, &[30]).unwrap(), decode(&mut alone, 0, &[30]).unwrap());
    assert!(distance(&found, &expected) < 0.01, "{}", distance(&found, &expected));
}

#[test]
fn saved_forks_take_no_more_room_than_they_did() {
    let Some(model) = load(random_model(), None) else { return };
    let options = shared(1500, 4);
    let mut context = model.context(&options).unwrap();
    decode(&mut context, 0, &tokens(1000, 0)).unwrap();
    let single = context.save().unwrap().to_bytes().len();
    for to in 1..4 {
        context.edit(SequenceEdit::Copy { from: 0, to }).unwrap();
        decode(&mut context, to, &tokens(10, to)).unwrap();
    }
    let state = context.save().unwrap();
    let bytes = state.to_bytes();
    assert!(bytes.len() < single + single / 10, "{} bytes, and {single} for one of four", bytes.len());
    let state = State::from_bytes(&bytes).unwrap();
    let next = |context: &mut Context| [0, 1, 2, 3].map(|sequence| decode(context, sequence, &[77]).unwrap());
    let alike = |found: [Vec<f32>; 4], expected: &[Vec<f32>; 4], most: f32| {
        for (found, expected) in found.iter().zip(expected) {
            assert!(distance(found, expected) < most, "{}", distance(found, expected));
        }
    };
    let expected = next(&mut context);

    let mut read = model.context(&options).unwrap();
    let restored = read.restore(&state).unwrap();
    assert_eq!((restored.kept_tokens, restored.computed_tokens), (4 * 1000 + 30, 0));
    assert_eq!([0, 1, 2, 3].map(|sequence| read.tokens(sequence).len()), [1000, 1010, 1010, 1010]);
    alike(next(&mut read), &expected, 0.01);
    // It is known what they share: there is room to part from the others once, and not a second time.
    read.edit(SequenceEdit::Remove { sequence: 2, from: 50, to: 650 }).unwrap();
    let error = read.edit(SequenceEdit::Remove { sequence: 3, from: 50, to: 650 }).unwrap_err();
    assert!(matches!(error, DecodeError::ContextFull { requested: 350, .. }), "{error}");

    // Where it cannot be read, what they share is computed once.
    let mut wider = model.context(&options.clone().with_cache_type(CacheType::F32)).unwrap();
    let restored = wider.restore(&state).unwrap();
    assert_eq!((restored.computed_tokens, restored.copied_tokens), (1000 + 30, 3 * 1000));
    alike(next(&mut wider), &expected, 0.2);
}

#[test]
fn sequences_that_do_not_fit_into_a_shared_cache_are_an_error_and_change_nothing() {
    let Some(model) = load(random_model(), None) else { return };
    let mut context = model.context(&shared(512, 2)).unwrap();
    decode(&mut context, 0, &tokens(200, 5)).unwrap();
    decode(&mut context, 1, &tokens(200, 6)).unwrap();
    let state = context.save().unwrap();
    let mut small = model.context(&shared(256, 2)).unwrap();
    let held = tokens(20, 9);
    decode(&mut small, 0, &held).unwrap();
    let error = small.restore(&state).unwrap_err();
    assert!(matches!(error, StateError::NoRoom { tokens: 400, limit: 256 }), "{error}");
    assert_eq!(small.tokens(0), held, "it is as it was");
}
