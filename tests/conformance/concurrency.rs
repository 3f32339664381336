//! Many models, contexts and threads at once.

use std::{sync::Arc, thread};

use gguf_loader::gguf::TensorType;

use crate::{
    checks,
    models::Model,
    subject::{Subject, assert_same, count, feed, open, options, prompt},
};

checks! {
    two_models_interleaved_do_not_disturb_each_other,
    eight_contexts_in_eight_threads_equal_single_runs,
    models_load_in_parallel,
    context_moves_to_another_thread,
}

fn two_models_interleaved_do_not_disturb_each_other(subject: &Subject) {
    let candidates = [
        Model::Tiny(TensorType::F32),
        Model::Tiny(TensorType::Q4_0),
        Model::Ternary(TensorType::TQ2_0),
        Model::Ternary(TensorType::Q2_0),
    ];
    let other = subject.runnable(candidates).into_iter().find(|&model| model != subject.usual());
    let kinds = [subject.usual(), other.expect("two models that it can run")];
    let tokens = prompt(24, 1);
    let expected = kinds.map(|kind| feed(&mut *open(&subject.load(kind), &options()), &tokens, 0, 0));
    assert_ne!(expected[0], expected[1]);
    let mut contexts = kinds.map(|kind| open(&subject.load(kind), &options()));
    let mut logits = [Vec::new(), Vec::new()];
    for (position, token) in tokens.iter().enumerate() {
        for (context, logits) in contexts.iter_mut().zip(&mut logits) {
            *logits = feed(&mut **context, &[*token], position as u32, 0);
        }
    }
    for (found, expected) in logits.iter().zip(&expected) {
        assert_same(found, expected);
    }
}

fn eight_contexts_in_eight_threads_equal_single_runs(subject: &Subject) {
    let model = subject.load(subject.usual());
    let options = options().with_threads(count(1));
    let expected: Vec<Vec<f32>> =
        (0..8).map(|seed| feed(&mut *open(&model, &options), &prompt(30, seed), 0, 0)).collect();
    thread::scope(|scope| {
        for (seed, expected) in expected.iter().enumerate() {
            let (model, options) = (&model, &options);
            scope.spawn(move || {
                let tokens = prompt(30, seed as u32);
                let mut context = open(model, options);
                feed(&mut *context, &tokens[..10], 0, 0);
                assert_same(&feed(&mut *context, &tokens[10..], 10, 0), expected);
            });
        }
    });
}

fn models_load_in_parallel(subject: &Subject) {
    let tokens = prompt(10, 9);
    let expected = feed(&mut *subject.context(&options()), &tokens, 0, 0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_same(&feed(&mut *subject.context(&options()), &tokens, 0, 0), &expected));
        }
    });
}

fn context_moves_to_another_thread(subject: &Subject) {
    let model = subject.load(subject.usual());
    let tokens = prompt(20, 10);
    let expected = feed(&mut *open(&model, &options()), &tokens, 0, 0);
    let mut context = open(&Arc::clone(&model), &options());
    feed(&mut *context, &tokens[..8], 0, 0);
    let rest = tokens[8..].to_vec();
    let found = thread::spawn(move || feed(&mut *context, &rest, 8, 0)).join().expect("a decode in a thread");
    assert_same(&found, &expected);
}
