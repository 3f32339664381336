//! How long a generation took.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use gguf_loader::sampling::{Candidates, LogitProcessor, Sampling};

use super::{complete, context, model, request};

/// What each choice takes at least, that of the first token too.
const CHOICE: Duration = Duration::from_millis(20);

struct Slow;

impl LogitProcessor for Slow {
    fn process(&mut self, _: &mut Candidates) {
        sleep(CHOICE);
    }
}

#[test]
fn the_first_token_and_the_later_ones_are_timed_apart() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    let slow = request(5).with_sampling(Sampling::greedy().then_custom(Slow));
    let begin = Instant::now();
    let usage = complete(&mut context, &slow).usage;
    let all = begin.elapsed();
    let (first, later) = (usage.time_to_first_token().unwrap(), usage.time_per_token().unwrap());
    assert!(first >= CHOICE && later >= CHOICE && first + 4 * later <= all, "{first:?}, {later:?} of {all:?}");
    let speed = usage.generation_speed().unwrap();
    assert!((speed * later.as_secs_f64() - 1.0).abs() < 1e-3, "{speed} a second, {later:?} each");

    let one = complete(&mut context, &request(1)).usage;
    assert_eq!((one.time_to_first_token(), one.time_per_token()), (Some(one.prompt_time), None));
    context.cancel_token().cancel();
    let none = complete(&mut context, &request(5)).usage;
    assert_eq!((none.generated_tokens, none.time_to_first_token(), none.time_per_token()), (0, None, None));
}

#[test]
fn what_passes_between_two_pieces_does_not_count() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    let begin = Instant::now();
    let mut generation = context.generate(request(5)).unwrap();
    for piece in generation.by_ref() {
        assert!(piece.is_ok());
        sleep(CHOICE);
    }
    let usage = generation.usage();
    let counted = usage.prompt_time + usage.generation_time;
    assert!(counted + 5 * CHOICE <= begin.elapsed(), "{counted:?} of {:?}", begin.elapsed());
}
