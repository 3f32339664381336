//! Stopping a decode, from anywhere.

use std::{thread, time::Duration};

use gguf_loader::backend::{BackendContext, Batch, CancelToken, ContextOptions, DecodeError, SequenceEdit};

use crate::{
    checks,
    subject::{Subject, assert_same, count, feed, open, options, prompt},
};

checks! {
    decode_that_is_cancelled_beforehand_does_nothing,
    running_decode_is_cancelled_from_another_thread,
    token_of_one_context_does_not_stop_another,
}

const UBATCH: u32 = 32;

/// A prompt that takes a while: a dozen passes.
const LONG: usize = 400;

fn long_context(cancel: &CancelToken) -> ContextOptions {
    options().with_length(count(512)).with_ubatch(count(UBATCH)).with_cancel(cancel.clone())
}

fn long_batch() -> Batch {
    let mut batch = Batch::new();
    batch.extend(&prompt(LONG, 1), 0, 0);
    batch
}

fn decode_that_is_cancelled_beforehand_does_nothing(subject: &Subject) {
    let cancel = CancelToken::new();
    let mut context = subject.context(&options().with_cancel(cancel.clone()));
    feed(&mut *context, &prompt(5, 2), 0, 0);
    cancel.cancel();
    let mut batch = Batch::new();
    batch.extend(&prompt(10, 3), 5, 0);
    assert_eq!(context.decode(&batch), Err(DecodeError::Cancelled));
    assert_eq!(context.next_position(0), 5);
    assert!(context.logits(9).is_none());

    cancel.reset();
    let after = feed(&mut *context, &prompt(10, 3), 5, 0);
    let mut undisturbed = subject.context(&options());
    feed(&mut *undisturbed, &prompt(5, 2), 0, 0);
    assert_same(&after, &feed(&mut *undisturbed, &prompt(10, 3), 5, 0));
}

fn running_decode_is_cancelled_from_another_thread(subject: &Subject) {
    let model = subject.load(subject.slow());
    let cancel = CancelToken::new();
    let mut context = open(&model, &long_context(&cancel));
    context.decode(&long_batch()).expect("a valid batch");
    let expected = context.logits(LONG - 1).expect("asked for").to_vec();
    stop_midway(&mut *context, &cancel);

    // What stayed is whole passes, and the rest continues it.
    let kept = context.next_position(0);
    assert_eq!(kept % UBATCH, 0, "{kept} tokens stayed");
    let rest = &prompt(LONG, 1)[kept as usize..];
    assert_same(&feed(&mut *context, rest, kept, 0), &expected);
}

/// Decodes the long batch until another thread's cancellation falls into the decode.
///
/// Nothing tells how far a decode is, and other processes make it take any time at all: an attempt that comes too late
/// is followed by one after half of the delay, one that comes too early by one after half as much again.
fn stop_midway(context: &mut dyn BackendContext, cancel: &CancelToken) {
    const ATTEMPTS: usize = 30;
    let mut delay = Duration::from_millis(200);
    for _ in 0..ATTEMPTS {
        context.edit(SequenceEdit::Clear).expect("a KV cache can be emptied");
        let canceller = thread::spawn({
            let cancel = cancel.clone();
            move || {
                thread::sleep(delay);
                cancel.cancel();
            }
        });
        let decoded = context.decode(&long_batch());
        canceller.join().expect("the cancelling thread only sleeps");
        cancel.reset();
        match decoded {
            Ok(()) => delay /= 2,
            Err(DecodeError::Cancelled) if context.next_position(0) == 0 => delay += delay / 2,
            Err(DecodeError::Cancelled) => return,
            Err(error) => panic!("{error:?} instead of a cancellation"),
        }
    }
    panic!("none of {ATTEMPTS} attempts stopped a decode; the last waited {delay:?}");
}

fn token_of_one_context_does_not_stop_another(subject: &Subject) {
    let (first, second) = (CancelToken::new(), CancelToken::new());
    let model = subject.load(subject.usual());
    let _stopped = open(&model, &options().with_cancel(first.clone()));
    let mut running = open(&model, &options().with_cancel(second));
    first.cancel();
    feed(&mut *running, &prompt(8, 4), 0, 0);
}
