//! Opening contexts.

use gguf_loader::backend::{ContextError, ContextOptions};

use crate::{
    checks,
    subject::{Subject, count, feed, open, options, prompt},
};

checks! {
    limits_are_what_was_asked_for,
    length_that_nobody_named_is_that_of_the_training,
    threads_that_nobody_named_are_those_of_the_machine,
    context_outlives_the_model,
    context_is_executed_by_this_backend,
    too_many_threads_are_an_error,
    context_larger_than_the_memory_is_an_error,
}

fn limits_are_what_was_asked_for(subject: &Subject) {
    let asked = ContextOptions::default()
        .with_length(count(96))
        .with_batch(count(64))
        .with_ubatch(count(16))
        .with_sequences(count(3))
        .with_threads(count(2));
    let context = subject.context(&asked);
    let limits = context.limits();
    // An engine may round a length up to what its kernels like.
    assert!((96..=1024).contains(&limits.context), "{limits:?}");
    assert_eq!((limits.batch, limits.ubatch, limits.sequences, limits.threads), (64, 16, 3, 2));
}

fn length_that_nobody_named_is_that_of_the_training(subject: &Subject) {
    let model = subject.load(subject.usual());
    assert_eq!(open(&model, &ContextOptions::default()).limits().context, model.shape().n_ctx_train);
}

fn threads_that_nobody_named_are_those_of_the_machine(subject: &Subject) {
    let context = subject.context(&ContextOptions::default());
    assert_eq!(context.limits().threads, subject.hardware.default_threads().get());
}

fn context_outlives_the_model(subject: &Subject) {
    let model = subject.load(subject.usual());
    let mut context = open(&model, &options());
    let before = feed(&mut *context, &prompt(4, 1), 0, 0);
    drop(model);
    let after = feed(&mut *context, &prompt(4, 2), 4, 0);
    assert_ne!(before, after);
    assert!(after.iter().all(|logit| logit.is_finite()));
}

fn context_is_executed_by_this_backend(subject: &Subject) {
    let mut context = subject.context(&options());
    assert_eq!(context.executed_by(), subject.backend.id());
    feed(&mut *context, &prompt(4, 1), 0, 0);
    assert_eq!(context.executed_by(), subject.backend.id(), "after a decode");
}

fn too_many_threads_are_an_error(subject: &Subject) {
    let model = subject.load(subject.usual());
    let error = model.context(&options().with_threads(count(u32::MAX))).expect_err("no engine runs 2^32 threads");
    assert!(matches!(error, ContextError::Threads { requested: u32::MAX, .. }), "{error:?}");
}

fn context_larger_than_the_memory_is_an_error(subject: &Subject) {
    let model = subject.load(subject.usual());
    let error = model.context(&options().with_length(count(u32::MAX))).expect_err("4 TB of KV cache");
    assert!(matches!(error, ContextError::Memory { .. } | ContextError::Refused { .. }), "{error:?}");
}
