//! Several sequences in a context, and changing what they hold.

use gguf_loader::backend::{BackendContext, Batch, DecodeError, SequenceEdit};

use crate::{
    checks,
    models::Model,
    subject::{Subject, assert_same, count, distance, feed, open, options, prompt},
};

checks! {
    sequences_in_one_batch_equal_single_runs,
    sequences_in_turn_equal_single_runs,
    truncated_sequence_continues_like_a_fresh_one,
    truncating_beyond_the_end_changes_nothing,
    truncating_to_nothing_starts_afresh,
    copy_continues_like_the_original,
    copy_replaces_what_was_there,
    copy_and_original_are_independent,
    copy_onto_itself_changes_nothing,
    what_is_removed_was_never_read_by_one_layer,
    removing_nothing_changes_nothing,
    clear_empties_all_sequences,
    editing_a_missing_sequence_is_an_error,
}

fn three_sequences(subject: &Subject) -> Box<dyn BackendContext> {
    subject.context(&options().with_sequences(count(3)))
}

fn alone(subject: &Subject, tokens: &[u32]) -> Vec<f32> {
    feed(&mut *subject.context(&options()), tokens, 0, 0)
}

fn sequences_in_one_batch_equal_single_runs(subject: &Subject) {
    let prompts = [prompt(20, 1), prompt(13, 2), prompt(17, 3)];
    let mut context = subject.context(&options().with_sequences(count(3)).with_ubatch(count(8)));
    let mut batch = Batch::new();
    let mut last = [0; 3];
    // Interleaved, so that a pass has tokens of all three.
    for position in 0..20 {
        for (sequence, tokens) in prompts.iter().enumerate() {
            if let Some(&token) = tokens.get(position) {
                last[sequence] = batch.len();
                batch.push(token, position as u32, sequence as u32, position + 1 == tokens.len());
            }
        }
    }
    context.decode(&batch).expect("a valid batch");
    for (sequence, tokens) in prompts.iter().enumerate() {
        assert_eq!(context.next_position(sequence as u32), tokens.len() as u32);
        assert_same(context.logits(last[sequence]).expect("asked for"), &alone(subject, tokens));
    }
}

fn sequences_in_turn_equal_single_runs(subject: &Subject) {
    let (first, second) = (prompt(20, 4), prompt(20, 5));
    let mut context = three_sequences(subject);
    feed(&mut *context, &first[..11], 0, 0);
    feed(&mut *context, &second[..3], 0, 2);
    let of_first = feed(&mut *context, &first[11..], 11, 0);
    let of_second = feed(&mut *context, &second[3..], 3, 2);
    assert_same(&of_first, &alone(subject, &first));
    assert_same(&of_second, &alone(subject, &second));
    assert_eq!(context.next_position(1), 0);
}

fn truncated_sequence_continues_like_a_fresh_one(subject: &Subject) {
    let mut context = subject.context(&options());
    let tokens = prompt(15, 6);
    feed(&mut *context, &tokens[..6], 0, 0);
    feed(&mut *context, &prompt(20, 7), 6, 0);
    context.edit(SequenceEdit::Truncate { sequence: 0, from: 6 }).expect("a KV cache can be cut");
    assert_eq!(context.next_position(0), 6);
    assert_same(&feed(&mut *context, &tokens[6..], 6, 0), &alone(subject, &tokens));
}

fn truncating_beyond_the_end_changes_nothing(subject: &Subject) {
    let mut context = subject.context(&options());
    let tokens = prompt(10, 8);
    feed(&mut *context, &tokens[..9], 0, 0);
    for from in [9, 100, u32::MAX] {
        context.edit(SequenceEdit::Truncate { sequence: 0, from }).expect("nothing to remove");
        assert_eq!(context.next_position(0), 9);
    }
    assert_same(&feed(&mut *context, &tokens[9..], 9, 0), &alone(subject, &tokens));
}

fn truncating_to_nothing_starts_afresh(subject: &Subject) {
    let mut context = subject.context(&options());
    feed(&mut *context, &prompt(10, 9), 0, 0);
    context.edit(SequenceEdit::Truncate { sequence: 0, from: 0 }).expect("a KV cache can be emptied");
    assert_eq!(context.next_position(0), 0);
    let tokens = prompt(10, 10);
    assert_same(&feed(&mut *context, &tokens, 0, 0), &alone(subject, &tokens));
}

fn copy_continues_like_the_original(subject: &Subject) {
    let tokens = prompt(18, 11);
    let mut context = three_sequences(subject);
    feed(&mut *context, &tokens[..12], 0, 0);
    context.edit(SequenceEdit::Copy { from: 0, to: 2 }).expect("a KV cache can be copied");
    assert_eq!((context.next_position(0), context.next_position(2)), (12, 12));
    let expected = alone(subject, &tokens);
    assert_same(&feed(&mut *context, &tokens[12..], 12, 2), &expected);
    assert_same(&feed(&mut *context, &tokens[12..], 12, 0), &expected);
}

fn copy_replaces_what_was_there(subject: &Subject) {
    let tokens = prompt(10, 12);
    let mut context = three_sequences(subject);
    feed(&mut *context, &prompt(25, 13), 0, 1);
    feed(&mut *context, &tokens[..4], 0, 0);
    context.edit(SequenceEdit::Copy { from: 0, to: 1 }).expect("a KV cache can be copied");
    assert_eq!(context.next_position(1), 4);
    assert_same(&feed(&mut *context, &tokens[4..], 4, 1), &alone(subject, &tokens));
}

fn copy_and_original_are_independent(subject: &Subject) {
    let (tokens, other) = (prompt(18, 14), prompt(30, 15));
    let mut context = three_sequences(subject);
    feed(&mut *context, &tokens[..9], 0, 0);
    context.edit(SequenceEdit::Copy { from: 0, to: 1 }).expect("a KV cache can be copied");
    feed(&mut *context, &other[9..], 9, 1);
    context.edit(SequenceEdit::Truncate { sequence: 1, from: 2 }).expect("a KV cache can be cut");
    assert_eq!(context.next_position(0), 9);
    assert_same(&feed(&mut *context, &tokens[9..], 9, 0), &alone(subject, &tokens));
}

fn copy_onto_itself_changes_nothing(subject: &Subject) {
    let tokens = prompt(12, 16);
    let mut context = three_sequences(subject);
    feed(&mut *context, &tokens[..7], 0, 1);
    context.edit(SequenceEdit::Copy { from: 1, to: 1 }).expect("nothing to do");
    assert_eq!(context.next_position(1), 7);
    assert_same(&feed(&mut *context, &tokens[7..], 7, 1), &alone(subject, &tokens));
}

/// A layer's keys and values come from its input, and that of the first layer is the tokens: positions aside, a model of one
/// layer cannot know what was removed. RoPE turns positions into angles, and these must have been turned back.
fn what_is_removed_was_never_read_by_one_layer(subject: &Subject) {
    let model = subject.load(subject.one_layer());
    // Keys in F16 are rounded once more, and what comes of them to 8 bits in BitNet.
    let most = if subject.one_layer() == Model::OneLayer { 0.01 } else { 0.03 };
    let tokens = prompt(40, 23);
    for (from, to) in [(5, 19), (0, 30), (12, 39), (0, 40)] {
        let mut context = open(&model, &options());
        feed(&mut *context, &tokens, 0, 0);
        context.edit(SequenceEdit::Remove { sequence: 0, from, to }).expect("keys can be turned back");
        let left = 40 - (to - from);
        assert_eq!(context.next_position(0), left);
        let found = feed(&mut *context, &[7, 8], left, 0);
        let kept = [&tokens[..from as usize], &tokens[to as usize..], &[7, 8]].concat();
        let expected = feed(&mut *open(&model, &options()), &kept, 0, 0);
        assert!(distance(&found, &expected) < most, "{from} to {to}: {}", distance(&found, &expected));
    }
}

fn removing_nothing_changes_nothing(subject: &Subject) {
    let mut context = subject.context(&options());
    let tokens = prompt(12, 24);
    feed(&mut *context, &tokens[..11], 0, 0);
    for (from, to) in [(3, 3), (5, 2), (11, 20), (100, u32::MAX)] {
        context.edit(SequenceEdit::Remove { sequence: 0, from, to }).expect("nothing to remove");
        assert_eq!(context.next_position(0), 11, "{from} to {to}");
    }
    assert_same(&feed(&mut *context, &tokens[11..], 11, 0), &alone(subject, &tokens));
}

fn clear_empties_all_sequences(subject: &Subject) {
    let mut context = three_sequences(subject);
    for sequence in 0..3 {
        feed(&mut *context, &prompt(8, 17 + sequence), 0, sequence);
    }
    context.edit(SequenceEdit::Clear).expect("a KV cache can be emptied");
    let tokens = prompt(8, 21);
    let expected = alone(subject, &tokens);
    for sequence in 0..3 {
        assert_eq!(context.next_position(sequence), 0);
        assert_same(&feed(&mut *context, &tokens, 0, sequence), &expected);
    }
}

fn editing_a_missing_sequence_is_an_error(subject: &Subject) {
    let model = subject.load(subject.usual());
    let mut context = open(&model, &options().with_sequences(count(2)));
    let before = feed(&mut *context, &prompt(6, 22), 0, 1);
    for edit in [
        SequenceEdit::Truncate { sequence: 2, from: 0 },
        SequenceEdit::Remove { sequence: 2, from: 0, to: 1 },
        SequenceEdit::Copy { from: 2, to: 1 },
        SequenceEdit::Copy { from: 1, to: 2 },
        SequenceEdit::Truncate { sequence: u32::MAX, from: 0 },
    ] {
        let error = context.edit(edit).expect_err("there is no such sequence");
        assert!(matches!(error, DecodeError::SequenceEdit(_)), "{edit:?}: {error:?}");
    }
    assert_eq!((context.next_position(1), context.next_position(2), context.next_position(u32::MAX)), (6, 0, 0));
    let after = feed(&mut *context, &[9], 6, 1);
    assert!(distance(&after, &before) > 0.1);
}
