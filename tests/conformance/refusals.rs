//! Batches that cannot be decoded: a typed error, and the context is what it was before.

use gguf_loader::backend::{BackendContext, Batch, BatchError, DecodeError};

use crate::{
    checks,
    subject::{Subject, assert_same, count, feed, options, prompt},
};

checks! {
    empty_batch_is_refused,
    token_outside_the_vocabulary_is_refused,
    sequence_that_does_not_exist_is_refused,
    batch_that_is_too_long_is_refused,
    gap_in_the_positions_is_refused,
    going_back_in_the_positions_is_refused,
    gap_inside_a_batch_is_refused,
    position_beyond_the_context_is_refused,
    token_for_a_full_context_is_refused,
    refused_batch_leaves_no_logits,
}

/// A context that holds a few tokens, one refused batch, and the assertion that nothing changed by it.
fn refuse(subject: &Subject, batch: &Batch) -> DecodeError {
    let (tokens, rest) = (prompt(6, 1), prompt(5, 2));
    let options = options().with_sequences(count(2)).with_batch(count(64));
    let mut context = subject.context(&options);
    feed(&mut *context, &tokens, 0, 0);
    let error = context.decode(batch).expect_err("this batch cannot be decoded");
    assert_eq!((context.next_position(0), context.next_position(1)), (6, 0), "after {error:?}");
    let after = feed(&mut *context, &rest, 6, 0);

    let mut undisturbed = subject.context(&options);
    feed(&mut *undisturbed, &tokens, 0, 0);
    assert_same(&after, &feed(&mut *undisturbed, &rest, 6, 0));
    error
}

/// A batch of one sequence at these positions.
fn at(positions: &[u32]) -> Batch {
    let mut batch = Batch::new();
    for &position in positions {
        batch.push(7, position, 0, true);
    }
    batch
}

fn empty_batch_is_refused(subject: &Subject) {
    assert_eq!(refuse(subject, &Batch::new()), DecodeError::Batch(BatchError::Empty));
}

fn token_outside_the_vocabulary_is_refused(subject: &Subject) {
    for token in [512, u32::MAX] {
        let mut batch = at(&[6, 7]);
        batch.push(token, 8, 0, true);
        let expected = BatchError::Token { index: 2, token, n_vocab: 512 };
        assert_eq!(refuse(subject, &batch), DecodeError::Batch(expected));
    }
}

fn sequence_that_does_not_exist_is_refused(subject: &Subject) {
    for sequence in [2, u32::MAX] {
        let mut batch = at(&[6]);
        batch.push(7, 0, sequence, true);
        let expected = BatchError::Sequence { index: 1, sequence, limit: 2 };
        assert_eq!(refuse(subject, &batch), DecodeError::Batch(expected));
    }
}

fn batch_that_is_too_long_is_refused(subject: &Subject) {
    let positions: Vec<u32> = (6..71).collect();
    let expected = BatchError::TooLong { tokens: 65, limit: 64 };
    assert_eq!(refuse(subject, &at(&positions)), DecodeError::Batch(expected));
}

fn gap_in_the_positions_is_refused(subject: &Subject) {
    let expected = BatchError::Gap { index: 0, sequence: 0, position: 7, expected: 6 };
    assert_eq!(refuse(subject, &at(&[7])), DecodeError::Batch(expected));
}

fn going_back_in_the_positions_is_refused(subject: &Subject) {
    let expected = BatchError::Gap { index: 0, sequence: 0, position: 5, expected: 6 };
    assert_eq!(refuse(subject, &at(&[5, 6])), DecodeError::Batch(expected));
}

fn gap_inside_a_batch_is_refused(subject: &Subject) {
    let expected = BatchError::Gap { index: 2, sequence: 0, position: 9, expected: 8 };
    assert_eq!(refuse(subject, &at(&[6, 7, 9])), DecodeError::Batch(expected));
    let expected = BatchError::Gap { index: 1, sequence: 0, position: 6, expected: 7 };
    assert_eq!(refuse(subject, &at(&[6, 6])), DecodeError::Batch(expected));
}

fn position_beyond_the_context_is_refused(subject: &Subject) {
    let limit = subject.context(&options()).limits().context;
    for position in [limit, u32::MAX] {
        let expected = BatchError::Position { index: 0, position, limit };
        assert_eq!(refuse(subject, &at(&[position])), DecodeError::Batch(expected));
    }
}

fn token_for_a_full_context_is_refused(subject: &Subject) {
    let mut context = subject.context(&options());
    let limit = context.limits().context;
    let tokens = prompt(limit as usize, 3);
    let last = feed(&mut *context, &tokens, 0, 0);
    let error = context.decode(&at(&[limit])).expect_err("the context is full");
    assert!(is_full(&error), "{error:?}");
    assert_eq!(context.next_position(0), limit);

    // The last place is usable, and is so again.
    let edit = gguf_loader::backend::SequenceEdit::Truncate { sequence: 0, from: limit - 1 };
    context.edit(edit).expect("a KV cache can be cut");
    assert_same(&feed(&mut *context, &tokens[tokens.len() - 1..], limit - 1, 0), &last);
}

/// A token behind the last place stands at a position that the context does not have; an engine whose sequences share
/// their memory may run out before.
fn is_full(error: &DecodeError) -> bool {
    matches!(error, DecodeError::Batch(BatchError::Position { .. }) | DecodeError::ContextFull { .. })
}

fn refused_batch_leaves_no_logits(subject: &Subject) {
    let mut context: Box<dyn BackendContext> = subject.context(&options());
    feed(&mut *context, &prompt(4, 4), 0, 0);
    context.decode(&at(&[0])).expect_err("position 0 is taken");
    assert!((0..8).all(|index| context.logits(index).is_none()), "logits of the batch before");
}
