//! Tokens in, logits out.

use gguf_loader::backend::Batch;

use crate::{
    checks,
    models::{Model, TERNARY_TYPES, TYPES},
    subject::{
        Subject, assert_mostly_same, assert_same, best, count, distance, feed, feed_singly, open, options, prompt,
    },
};

checks! {
    prompt_at_once_equals_token_by_token,
    prompt_in_ubatches_equals_one_pass,
    number_of_threads_does_not_change_the_result,
    long_prompt_at_once_equals_two_halves,
    same_prompt_gives_the_same_logits,
    other_prompt_gives_other_logits,
    order_of_the_prompt_matters,
    logits_are_finite_and_as_many_as_tokens,
    logits_are_there_only_where_asked,
    logits_of_every_token_equal_those_of_shorter_prompts,
    next_position_counts_the_tokens,
    greedy_text_does_not_repeat_itself,
}

fn prompt_at_once_equals_token_by_token(subject: &Subject) {
    let ternary = TERNARY_TYPES.iter().map(|&tensor_type| Model::Ternary(tensor_type));
    let tiny = TYPES.iter().map(|&tensor_type| Model::Tiny(tensor_type));
    for model in subject.runnable(tiny.chain(ternary)) {
        let model = subject.load(model);
        let pairs = (1..=5).map(|seed| {
            let tokens = prompt(24, seed);
            let at_once = feed(&mut *open(&model, &options()), &tokens, 0, 0);
            (feed_singly(&mut *open(&model, &options()), &tokens, 0, 0), at_once)
        });
        assert_mostly_same(pairs);
    }
}

fn prompt_in_ubatches_equals_one_pass(subject: &Subject) {
    let tokens = prompt(50, 2);
    let one_pass = feed(&mut *subject.context(&options()), &tokens, 0, 0);
    for ubatch in [1, 7, 16] {
        let mut context = subject.context(&options().with_ubatch(count(ubatch)));
        assert_same(&feed(&mut *context, &tokens, 0, 0), &one_pass);
    }
}

fn number_of_threads_does_not_change_the_result(subject: &Subject) {
    let tokens = prompt(40, 3);
    let one = feed(&mut *subject.context(&options().with_threads(count(1))), &tokens, 0, 0);
    let three = feed(&mut *subject.context(&options().with_threads(count(3))), &tokens, 0, 0);
    assert_same(&three, &one);
}

fn long_prompt_at_once_equals_two_halves(subject: &Subject) {
    let tokens = prompt(200, 4);
    let at_once = feed(&mut *subject.context(&options()), &tokens, 0, 0);
    let mut context = subject.context(&options());
    feed(&mut *context, &tokens[..101], 0, 0);
    assert_same(&feed(&mut *context, &tokens[101..], 101, 0), &at_once);
}

fn same_prompt_gives_the_same_logits(subject: &Subject) {
    let run = || feed(&mut *subject.context(&options()), &prompt(30, 5), 0, 0);
    assert_eq!(run(), run(), "the same work twice");
}

fn other_prompt_gives_other_logits(subject: &Subject) {
    let run = |seed| feed(&mut *subject.context(&options()), &prompt(30, seed), 0, 0);
    assert!(distance(&run(6), &run(7)) > 0.5);
}

fn order_of_the_prompt_matters(subject: &Subject) {
    let mut tokens = prompt(8, 8);
    let forwards = feed(&mut *subject.context(&options()), &tokens, 0, 0);
    tokens.swap(1, 5);
    let swapped = feed(&mut *subject.context(&options()), &tokens, 0, 0);
    assert!(distance(&swapped, &forwards) > 0.1, "attention does not see positions");
}

fn logits_are_finite_and_as_many_as_tokens(subject: &Subject) {
    let model = subject.load(subject.usual());
    let logits = feed(&mut *open(&model, &options()), &prompt(10, 9), 0, 0);
    assert_eq!(logits.len(), model.shape().n_vocab as usize);
    assert!(logits.iter().all(|logit| logit.is_finite()));
}

fn logits_are_there_only_where_asked(subject: &Subject) {
    let mut context = subject.context(&options().with_ubatch(count(4)));
    let mut batch = Batch::new();
    for (position, &token) in prompt(10, 10).iter().enumerate() {
        batch.push(token, position as u32, 0, position % 3 == 0);
    }
    context.decode(&batch).expect("a valid batch");
    for index in 0..12 {
        assert_eq!(context.logits(index).is_some(), index < 10 && index % 3 == 0, "token {index}");
    }
    let mut silent = Batch::new();
    silent.push(5, 10, 0, false);
    context.decode(&silent).expect("a batch without logits");
    assert!((0..12).all(|index| context.logits(index).is_none()), "logits of the batch before");
}

fn logits_of_every_token_equal_those_of_shorter_prompts(subject: &Subject) {
    let model = subject.load(subject.usual());
    let tokens = prompt(12, 11);
    let mut all = open(&model, &options().with_ubatch(count(5)));
    let mut batch = Batch::new();
    for (position, &token) in tokens.iter().enumerate() {
        batch.push(token, position as u32, 0, true);
    }
    all.decode(&batch).expect("a valid batch");
    for length in 1..=tokens.len() {
        let shorter = feed(&mut *open(&model, &options()), &tokens[..length], 0, 0);
        assert_same(all.logits(length - 1).expect("asked for"), &shorter);
    }
}

fn next_position_counts_the_tokens(subject: &Subject) {
    let mut context = subject.context(&options());
    assert_eq!(context.next_position(0), 0);
    feed(&mut *context, &prompt(9, 12), 0, 0);
    assert_eq!(context.next_position(0), 9);
    feed(&mut *context, &[4], 9, 0);
    assert_eq!(context.next_position(0), 10);
}

/// As much a check of the synthetic model as of the backend: a model that repeats one token tests little.
fn greedy_text_does_not_repeat_itself(subject: &Subject) {
    let mut context = subject.context(&options());
    let mut logits = feed(&mut *context, &prompt(4, 13), 0, 0);
    let mut text = Vec::new();
    for position in 4..68 {
        text.push(best(&logits) as u32);
        logits = feed(&mut *context, &text[text.len() - 1..], position, 0);
    }
    let mut distinct = text.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() > 24, "{} different tokens among 64: {text:?}", distinct.len());
}
