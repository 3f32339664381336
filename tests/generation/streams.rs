//! Generations for asynchronous programs.

use futures::{StreamExt as _, executor::block_on};
use gguf_loader::generation::{FinishReason, GenerateError, GenerateRequest};

use super::{complete, context, model, request, trained_model};

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
