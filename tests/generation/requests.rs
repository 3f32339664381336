//! The same request by every way in, and requests that make no sense.

use std::ops::ControlFlow;

use gguf_loader::{
    backend::{BatchError, DecodeError, Token},
    generation::{FinishReason, GenerateError, GenerateRequest},
    sampling::{Candidates, LogitProcessor, SamplerStep, Sampling},
};

use super::{PROMPT, complete, context, model, request, trained_model};

#[test]
fn iterator_callback_and_whole_give_the_same() {
    let Some(model) = trained_model().or_else(model) else { return };
    let mut context = context(&model);
    for sampling in [Sampling::greedy(), Sampling::balanced().with_seed(9), Sampling::creative().with_seed(9)] {
        let request = request(40).with_sampling(sampling);
        let whole = complete(&mut context, &request);
        assert_eq!((whole.finish, whole.tokens.len()), (FinishReason::MaxTokens, 40));

        let mut generation = context.generate(&request).unwrap();
        let pieces: Vec<_> = generation.by_ref().map(|piece| piece.unwrap()).collect();
        assert_eq!(generation.finish_reason(), Some(FinishReason::MaxTokens));
        assert!(request.sampling.seed.is_none_or(|seed| generation.seed() == seed && whole.seed == seed));
        assert_eq!(pieces.iter().filter_map(|piece| piece.token).collect::<Vec<_>>(), whole.tokens);
        assert_eq!(pieces.iter().map(|piece| piece.text.as_str()).collect::<String>(), whole.text);

        let mut seen = Vec::new();
        let called = context.generate(&request).unwrap().for_each_piece(|piece| {
            seen.extend(piece.token);
            ControlFlow::Continue(())
        });
        assert_eq!(called.unwrap().tokens, whole.tokens);
        assert_eq!(seen, whole.tokens);
    }
}

#[test]
fn text_is_that_of_the_tokens_and_comes_in_whole_characters() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    // Tokens of single bytes are likely in a synthetic vocabulary.
    let request = request(400).with_sampling(Sampling::balanced().with_seed(2));
    let completion = complete(&mut context, &request);
    let bytes = model.tokenizer().unwrap().detokenize(&completion.tokens, false).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    // A character that is not complete at the end is not shown.
    assert!(text.starts_with(&completion.text) && text.len() - completion.text.len() <= 3);
    assert!(completion.text.contains(char::REPLACEMENT_CHARACTER), "the test needs bytes that are no characters");
}

#[test]
fn breaking_off_keeps_what_came_until_then() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    let whole = complete(&mut context, &request(10));
    let mut left = 4;
    let broken = context.generate(request(10)).unwrap().for_each_piece(|_| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let broken = broken.unwrap();
    assert_eq!((broken.finish, broken.tokens.as_slice()), (FinishReason::BrokenOff, &whole.tokens[..4]));
}

#[test]
fn a_seed_that_was_drawn_repeats_the_text() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    let drawn = complete(&mut context, &request(30).with_sampling(Sampling::balanced()));
    let again = complete(&mut context, &request(30).with_sampling(Sampling::balanced().with_seed(drawn.seed)));
    assert_eq!(again.tokens, drawn.tokens);
}

#[test]
fn penalties_see_the_prompt() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    let first = complete(&mut context, &request(1)).tokens[0];
    // A prompt that ends with the token that would come makes it unlikely when what was said is forbidden.
    let tokens = vec![first; 8];
    let prompt = GenerateRequest::new(tokens).with_max_tokens(20.try_into().unwrap()).with_stop_at_end(false);
    let forbidden = SamplerStep::Penalties { last: 4096, repetition: 1.0, frequency: 0.0, presence: 1e9 };
    let completion = complete(&mut context, &prompt.with_sampling(Sampling::greedy().then(forbidden)));
    let different: std::collections::BTreeSet<_> = completion.tokens.iter().collect();
    assert_eq!(different.len(), 20, "a token came twice: {:?}", completion.tokens);
    assert!(!different.contains(&first), "the prompt's token came again");
}

#[test]
fn what_makes_no_sense_is_an_error_and_changes_nothing() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    complete(&mut context, &request(5));
    let held = context.tokens(0).to_vec();
    let invalid = Sampling::greedy().then(SamplerStep::TopP { p: 2.0, min_keep: 1 });
    type IsExpected = fn(&GenerateError) -> bool;
    let cases: [(GenerateRequest, IsExpected); 5] = [
        (GenerateRequest::new(Vec::<u32>::new()), |error| *error == GenerateError::EmptyPrompt),
        (request(5).with_stop(""), |error| *error == GenerateError::EmptyStop),
        (request(5).with_sampling(invalid), |error| matches!(error, GenerateError::Sampling(_))),
        (GenerateRequest::new(vec![1; 100_000]), |error| {
            matches!(error, GenerateError::PromptTooLong { tokens: 100_000, used: 0, .. })
        }),
        (GenerateRequest::new("long text ".repeat(1_000_000)), |error| {
            matches!(error, GenerateError::PromptTooLong { .. })
        }),
    ];
    for (request, is_expected) in cases {
        let error = context.generate(request).unwrap_err();
        assert!(is_expected(&error), "{error}");
        assert_eq!(context.tokens(0), held);
    }
    let error = context.generate(request(5).with_sequence(7)).unwrap_err();
    assert!(matches!(error, GenerateError::Decode(DecodeError::SequenceEdit(_))), "{error}");
    let mut generation = context.generate(GenerateRequest::new(vec![u32::MAX])).unwrap();
    let error = generation.next().unwrap().unwrap_err();
    assert!(matches!(error, GenerateError::Decode(DecodeError::Batch(BatchError::Token { .. }))), "{error}");
    assert!(generation.next().is_none() && generation.finish_reason().is_none());
    assert_eq!(complete(&mut context, &request(5)).tokens.len(), 5, "{PROMPT} goes on");
}

/// Rules out each token that it has seen: what it remembers must not outlive a text.
#[derive(Default)]
struct Once(Vec<Token>);

impl LogitProcessor for Once {
    fn begin(&mut self) {
        self.0.clear();
    }

    fn process(&mut self, candidates: &mut Candidates) {
        candidates.retain(|candidate| !self.0.contains(&candidate.token));
    }

    fn accept(&mut self, token: Token) {
        self.0.push(token);
    }
}

#[test]
fn a_step_of_ones_own_is_told_when_a_text_begins() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    let request = request(12).with_sampling(Sampling::greedy().then_custom(Once::default()));
    let first = complete(&mut context, &request).tokens;
    assert_eq!(first.iter().collect::<std::collections::BTreeSet<_>>().len(), 12);
    assert_eq!(complete(&mut context, &request).tokens, first);
}
