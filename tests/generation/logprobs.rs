//! Log-probabilities and the echo of the prompt, against logits that are decoded one by one.

use gguf_loader::{
    Context,
    backend::{Batch, SequenceEdit, Token, TokenizeOptions},
    generation::{GenerateRequest, Origin, Start},
    sampling::TokenLogprobs,
};

use super::{PROMPT, complete, context, model, request};

/// Each token's log-probability after those before it; none for the first.
fn one_by_one(context: &mut Context, tokens: &[Token]) -> Vec<TokenLogprobs> {
    context.edit(SequenceEdit::Clear).unwrap();
    let mut logprobs = Vec::new();
    for (position, pair) in tokens.windows(2).enumerate() {
        let mut batch = Batch::new();
        batch.push(pair[0], position as u32, 0, true);
        context.decode(&batch).unwrap();
        logprobs.push(TokenLogprobs::of(context.logits(0).unwrap(), pair[1], 3));
    }
    logprobs
}

fn assert_alike(found: &[TokenLogprobs], expected: &[TokenLogprobs]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found.logprob - expected.logprob).abs() < 0.02, "{found:?}, {expected:?}");
        assert_eq!(found.top.len(), expected.top.len());
        assert!((found.top[0].logprob - expected.top[0].logprob).abs() < 0.02, "{found:?}, {expected:?}");
    }
}

#[test]
fn they_are_those_of_the_logits() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    let completion = complete(&mut context, &request(12).with_logprobs(3));
    let prompt = model.tokenizer().unwrap().tokenize(PROMPT, TokenizeOptions::default()).unwrap();
    let all = [prompt.as_slice(), &completion.tokens].concat();
    assert_alike(&completion.logprobs, &one_by_one(&mut context, &all)[prompt.len() - 1..]);
    // Greedy: what was chosen is the likeliest.
    let likeliest = completion.logprobs.iter().map(|logprobs| logprobs.top[0].token);
    assert_eq!(likeliest.collect::<Vec<_>>(), completion.tokens);
    assert!(complete(&mut context, &request(2)).logprobs.is_empty(), "nobody asked for them");
}

#[test]
fn an_echo_has_the_prompt_as_it_was_given() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    let plain = complete(&mut context, &request(5));
    let echoed = complete(&mut context, &request(5).with_echo(true));
    assert_eq!(echoed.text, format!("{PROMPT}{}", plain.text));
    assert_eq!(echoed.tokens, plain.tokens);
}

#[test]
fn an_echo_with_log_probabilities_goes_token_by_token() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    let text = PROMPT.repeat(20);
    let prompt = model.tokenizer().unwrap().tokenize(&text, TokenizeOptions::default()).unwrap();
    assert!(prompt.len() > 130, "longer than the rows of one batch");
    let echoing = GenerateRequest::new(text).with_max_tokens(2.try_into().unwrap()).with_stop_at_end(false);
    let echoing = echoing.with_echo(true).with_logprobs(3);
    let pieces: Vec<_> = context.generate(&echoing).unwrap().map(|piece| piece.unwrap()).collect();
    let of_prompt: Vec<_> = pieces.iter().filter(|piece| piece.origin == Origin::Prompt).collect();
    assert_eq!(of_prompt.iter().filter_map(|piece| piece.token).collect::<Vec<_>>(), prompt);
    assert_eq!(pieces.len(), prompt.len() + 2);
    assert!(pieces[..prompt.len()].iter().all(|piece| piece.origin == Origin::Prompt), "the prompt comes first");
    assert!(of_prompt[0].logprobs.is_none(), "nothing comes before the first token");
    let found: Vec<TokenLogprobs> = of_prompt[1..].iter().map(|piece| piece.logprobs.clone().unwrap()).collect();
    // Batches of 64 are computed by llama.cpp's other form of attention, rounded differently.
    let expected = one_by_one(&mut context, &prompt);
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found.logprob - expected.logprob).abs() < 0.3, "{found:?}, {expected:?}");
    }
    let mean = |logprobs: &[TokenLogprobs]| {
        logprobs.iter().map(|logprobs| logprobs.logprob).sum::<f32>() / logprobs.len() as f32
    };
    assert!((mean(&found) - mean(&expected)).abs() < 0.02);
}

#[test]
fn an_echo_of_what_continues_begins_with_the_prompt_and_not_with_what_the_model_said_last() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    complete(&mut context, &request(4));
    let more =
        GenerateRequest::new(vec![20_u32, 21, 22]).with_start(Start::Continue).with_max_tokens(1.try_into().unwrap());
    let more = more.with_stop_at_end(false).with_echo(true).with_logprobs(1);
    let pieces: Vec<_> = context.generate(more).unwrap().map(|piece| piece.unwrap()).collect();
    let of_prompt = pieces.iter().filter(|piece| piece.origin == Origin::Prompt).filter_map(|piece| piece.token);
    assert_eq!(of_prompt.collect::<Vec<_>>(), [20, 21, 22]);
    assert!(pieces.iter().all(|piece| piece.logprobs.is_some()), "each has tokens before it");
    assert_eq!(pieces.len(), 4);
}
