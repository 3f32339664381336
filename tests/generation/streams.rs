//! Generations for asynchronous programs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, executor::block_on};
use gguf_loader::{
    backend::{CancelToken, ContextOptions},
    generation::{FinishReason, GenerateError, GenerateRequest},
    sampling::{Candidates, LogitProcessor, Sampling},
};

use super::{complete, context, count, model, request, trained_model};

#[test]
fn a_stream_gives_the_same_tokens_and_hands_the_context_back() {
    let Some(model) = trained_model().or_else(model) else { return };
    let mut context = context(&model);
    let expected = complete(&mut context, &request(40));
    let mut stream = context.into_stream(request(40));
    let pieces: Vec<_> = block_on(stream.by_ref().collect::<Vec<_>>());
    let pieces: Vec<_> = pieces.into_iter().map(|piece| piece.unwrap()).collect();
    assert_eq!(pieces.iter().filter_map(|piece| piece.token).collect::<Vec<_>>(), expected.tokens);
    assert_eq!(pieces.iter().map(|piece| piece.text.as_str()).collect::<String>(), expected.text);
    assert_eq!(stream.finish_reason(), Some(FinishReason::MaxTokens));
    assert_eq!(stream.usage().unwrap().generated_tokens, 40);
    let mut context = block_on(stream.into_context()).unwrap();
    assert_eq!(complete(&mut context, &request(40)).tokens, expected.tokens);
}

#[test]
fn a_stream_is_cancelled_from_anywhere() {
    let Some(model) = model() else { return };
    let endless = GenerateRequest::new("the").with_stop_at_end(false);
    let mut stream = context(&model).into_stream(&endless);
    assert!(block_on(stream.next()).unwrap().is_ok());
    let cancel = stream.cancel_token();
    cancel.cancel();
    assert!(block_on(stream.by_ref().all(async |piece| piece.is_ok())));
    assert_eq!(stream.finish_reason(), Some(FinishReason::Cancelled));
    cancel.reset();
    assert!(block_on(stream.into_context()).is_some());
}

#[test]
fn an_error_is_an_item_and_the_context_is_not_lost() {
    let Some(model) = model() else { return };
    let mut stream = context(&model).into_stream(request(4).with_stop(""));
    assert_eq!(block_on(stream.next()), Some(Err(GenerateError::EmptyStop)));
    assert_eq!(block_on(stream.next()), None);
    assert_eq!(stream.finish_reason(), None);
    let mut context = block_on(stream.into_context()).unwrap();
    assert_eq!(complete(&mut context, &request(4)).tokens.len(), 4);
}

/// Says when it goes, which is when the thread of a stream does.
struct Held(Arc<AtomicBool>);

impl LogitProcessor for Held {
    fn process(&mut self, _: &mut Candidates) {}
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_stream_that_is_dropped_stops_within_a_pass_and_stops_nothing_else() {
    let Some(model) = trained_model() else { return };
    let shared = CancelToken::new();
    let options = ContextOptions::default().with_length(count(4096)).with_cancel(shared.clone());
    let gone = Arc::new(AtomicBool::new(false));
    let request = GenerateRequest::new(vec![1000_u32; 4000]);
    let request = request.with_sampling(Sampling::greedy().then_custom(Held(Arc::clone(&gone))));
    let stream = model.context(&options).unwrap().into_stream(request);
    std::thread::sleep(Duration::from_millis(100));
    assert!(!gone.load(Ordering::Relaxed), "a prompt of 4000 tokens takes longer");
    let begin = Instant::now();
    drop(stream);
    while !gone.load(Ordering::Relaxed) {
        assert!(begin.elapsed() < Duration::from_millis(500), "it runs on");
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("stopped after {:?}", begin.elapsed());
    assert!(!shared.is_cancelled(), "other contexts have this token too");
}

struct Panics;

impl LogitProcessor for Panics {
    fn process(&mut self, _: &mut Candidates) {
        panic!("a step of the program's own");
    }
}

#[test]
fn a_step_that_panics_does_not_look_like_an_end() {
    let Some(model) = model() else { return };
    let request = request(4).with_sampling(Sampling::greedy().then_custom(Panics));
    let mut stream = context(&model).into_stream(request);
    assert_eq!(block_on(stream.next()), Some(Err(GenerateError::Panicked)));
    assert_eq!((block_on(stream.next()), stream.finish_reason()), (None, None));
    assert!(block_on(stream.into_context()).is_none());
}
