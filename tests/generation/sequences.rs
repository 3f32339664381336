//! What becomes of what a sequence held before.

use gguf_loader::{
    backend::{ContextOptions, SequenceEdit, Token, TokenizeOptions},
    generation::{GenerateRequest, Start},
};

use super::{PROMPT, complete, context, count, model, request, trained_model};

#[test]
fn the_same_request_gives_the_same_whatever_came_before() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    let first = complete(&mut context, &request(20));
    complete(&mut context, &GenerateRequest::new("something else").with_max_tokens(count(30)));
    assert_eq!(complete(&mut context, &request(20)).tokens, first.tokens);
    assert_eq!(first.usage.reused_tokens, 0);
}

#[test]
fn a_context_knows_what_its_sequences_hold() {
    let Some(model) = model() else { return };
    let mut context = model.context(&ContextOptions::default().with_sequences(count(2))).unwrap();
    let prompt = model.tokenizer().unwrap().tokenize(PROMPT, TokenizeOptions::default()).unwrap();
    let completion = complete(&mut context, &request(6).with_sequence(1));
    assert!(context.tokens(0).is_empty() && context.tokens(9).is_empty());
    assert_eq!(context.tokens(1), [prompt.as_slice(), &completion.tokens[..5]].concat());
    context.edit(SequenceEdit::Copy { from: 1, to: 0 }).unwrap();
    context.edit(SequenceEdit::Truncate { sequence: 1, from: 2 }).unwrap();
    assert_eq!((context.tokens(0).len(), context.tokens(1)), (prompt.len() + 5, &prompt[..2]));
    context.edit(SequenceEdit::Remove { sequence: 0, from: 1, to: 3 }).unwrap();
    assert_eq!(context.tokens(0)[..2], [prompt[0], prompt[3]]);
    context.edit(SequenceEdit::Clear).unwrap();
    assert!(context.tokens(0).is_empty() && context.tokens(1).is_empty());
}

/// With passes of fewer than 8 tokens, which are rounded alike however a prompt is cut.
#[test]
fn a_common_beginning_is_not_computed_again_and_changes_nothing() {
    let Some(model) = trained_model().or_else(model) else { return };
    let options = ContextOptions::default().with_ubatch(count(7)).with_length(count(1024));
    let (mut old, mut new) = (model.context(&options).unwrap(), model.context(&options).unwrap());
    let story = "Once upon a time, in a village at the foot of a mountain, there lived an old clockmaker. ".repeat(3);
    complete(&mut old, &GenerateRequest::new(format!("{story}He")).with_max_tokens(count(10)));
    let other = GenerateRequest::new(format!("{story}She")).with_max_tokens(count(64)).with_start(Start::Reuse);
    let (with, without) = (complete(&mut old, &other), complete(&mut new, &other));
    assert_eq!(with.tokens, without.tokens);
    assert_eq!(without.usage.reused_tokens, 0);
    assert!(with.usage.reused_tokens + 5 > with.usage.prompt_tokens, "{:?}", with.usage);
    // The same prompt again: one token is computed, for its logits.
    let again = complete(&mut old, &other);
    assert_eq!(again.usage.reused_tokens, again.usage.prompt_tokens - 1);
    assert_eq!(again.tokens, without.tokens);
}

#[test]
fn what_continues_follows_on_all_that_was_generated() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    let prompt = model.tokenizer().unwrap().tokenize(PROMPT, TokenizeOptions::default()).unwrap();
    let first = complete(&mut context, &request(7));
    let more: Vec<Token> = vec![20, 21, 22];
    let continued = |tokens: Vec<Token>, start| {
        GenerateRequest::new(tokens).with_max_tokens(count(9)).with_stop_at_end(false).with_start(start)
    };
    let second = complete(&mut context, &continued(more.clone(), Start::Continue));
    let all = [prompt.as_slice(), &first.tokens, &more].concat();
    // The last token that was generated had not been decoded: nobody had asked for what follows it.
    assert_eq!(context.tokens(0)[..all.len()], all);
    assert_eq!(second.usage.prompt_tokens, 3);
    assert_eq!(second.tokens, complete(&mut context, &continued(all, Start::Fresh)).tokens);
    // An edit is the caller's own: what was generated and not decoded is forgotten with it.
    complete(&mut context, &request(7));
    context.edit(SequenceEdit::Truncate { sequence: 0, from: 4 }).unwrap();
    complete(&mut context, &continued(more.clone(), Start::Continue));
    assert_eq!(context.tokens(0)[..7], [&prompt[..4], &more].concat());
}
