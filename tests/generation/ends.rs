//! Where a generation ends, and what is shown of its end.

use gguf_loader::{
    Context, Model,
    backend::{CancelToken, ContextOptions},
    generation::{FinishReason, GenerateError, GenerateRequest, Start, WhenFull},
    gguf::{Gguf, TensorType, Writer, synth::SyntheticModel},
    grammar::{ConstraintError, Grammar},
    sampling::{Pick, SampleError, Sampling},
};

use super::{PROMPT, complete, context, count, model, request};

#[test]
fn a_stop_is_found_wherever_it_begins_and_ends_and_is_never_shown() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    let whole = complete(&mut context, &request(60)).text;
    let bounds: Vec<usize> = whole.char_indices().map(|(index, _)| index).collect();
    for begin in (0..bounds.len() - 12).step_by(3) {
        for length in [1, 2, 5, 11] {
            let stop = &whole[bounds[begin]..bounds[begin + length]];
            let expected = &whole[..whole.find(stop).unwrap()];
            let mut generation = context.generate(request(60).with_stop("never").with_stop(stop)).unwrap();
            let mut shown = String::new();
            for piece in generation.by_ref() {
                shown += &piece.unwrap().text;
                assert!(expected.starts_with(&shown), "{shown:?} shows a part of the stop {stop:?}");
            }
            assert_eq!(shown, expected, "with the stop {stop:?}");
            assert_eq!(generation.finish_reason(), Some(FinishReason::Stop));
        }
    }
}

#[test]
fn what_only_begins_like_a_stop_is_given_in_the_end() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    let whole = complete(&mut context, &request(20));
    let last: String = whole.text.chars().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect();
    let stop = format!("{last}and something that does not come");
    let mut generation = context.generate(request(20).with_stop(stop)).unwrap();
    let pieces: Vec<_> = generation.by_ref().map(|piece| piece.unwrap()).collect();
    assert_eq!(generation.finish_reason(), Some(FinishReason::MaxTokens));
    let rest = pieces.last().unwrap();
    assert_eq!((rest.token, rest.text.as_str()), (None, last.as_str()));
    assert_eq!(pieces.iter().map(|piece| piece.text.as_str()).collect::<String>(), whole.text);
}

#[test]
fn a_full_context_ends_it_or_is_shifted() {
    let Some(model) = model() else { return };
    let options = ContextOptions::default().with_length(count(64));
    let mut context = model.context(&options).unwrap();
    let unlimited = GenerateRequest::new(PROMPT).with_stop_at_end(false);
    let stopped = complete(&mut context, &unlimited);
    assert_eq!(stopped.finish, FinishReason::ContextFull);
    assert_eq!(stopped.usage.prompt_tokens + stopped.tokens.len(), 65, "the last one is not decoded");

    let keep = 5;
    let shifted = unlimited.with_when_full(WhenFull::Shift { keep }).with_max_tokens(count(300));
    let completion = complete(&mut context, &shifted);
    assert_eq!((completion.finish, completion.tokens.len()), (FinishReason::MaxTokens, 300));
    // As long as nothing is shifted, nothing is different.
    assert!(completion.tokens.starts_with(&stopped.tokens));
    // The beginning was kept, and the end is what was generated.
    let mut fresh = model.context(&options).unwrap();
    let prompt = fresh.generate(PROMPT).unwrap().next().map(|_| fresh.tokens(0)[..keep as usize].to_vec()).unwrap();
    let held = context.tokens(0);
    assert_eq!(held[..keep as usize], prompt);
    assert_eq!(held.len(), context.next_position(0) as usize);
    let newest = &held[keep as usize..];
    assert!(newest.len() > 20 && completion.tokens[..299].ends_with(newest));
}

#[test]
fn a_shift_that_leaves_no_room_is_an_error() {
    let Some(model) = model() else { return };
    let mut context = model.context(&ContextOptions::default().with_length(count(64))).unwrap();
    for keep in [63, 64, u32::MAX] {
        let error = context.generate(request(5).with_when_full(WhenFull::Shift { keep })).unwrap_err();
        assert_eq!(error, GenerateError::NothingToShift { keep, limit: 64 });
    }
    assert_eq!(complete(&mut context, &request(200).with_when_full(WhenFull::Shift { keep: 62 })).tokens.len(), 200);
}

#[test]
fn a_grammar_ends_it() {
    let Some(model) = model() else { return };
    let mut context = context(&model);
    let request = GenerateRequest::new(PROMPT).with_grammar(Grammar::regex("[a-c]{5}").unwrap());
    // Also when the end of an answer is to be passed over: nothing follows a grammar's end.
    for request in [request.clone(), request.with_stop_at_end(false)] {
        let completion = complete(&mut context, &request);
        assert_eq!(completion.finish, FinishReason::End);
        assert!(completion.text.len() == 5 && completion.text.chars().all(|c| "abc".contains(c)), "{completion:?}");
    }
}

#[test]
fn cancelling_takes_effect_within_a_pass_over_a_long_prompt() {
    let Some(model) = super::trained_model() else { return };
    let mut context = model.context(&ContextOptions::default().with_length(count(2048))).unwrap();
    let cancel = context.cancel_token();
    let mut late = Vec::new();
    for after in [5, 40, 120, 200] {
        let tokens = vec![1000_u32; 2000];
        let cancelling = std::thread::spawn({
            let cancel = cancel.clone();
            move || {
                std::thread::sleep(std::time::Duration::from_millis(after));
                let now = std::time::Instant::now();
                cancel.cancel();
                now
            }
        });
        let completion = complete(&mut context, &GenerateRequest::new(tokens));
        let ended = std::time::Instant::now();
        late.push(ended - cancelling.join().unwrap());
        assert_eq!((completion.finish, completion.tokens.len()), (FinishReason::Cancelled, 0), "after {after} ms");
        cancel.reset();
    }
    println!("cancelled after {late:?}");
    // The goal is 50 ms; a busy machine is forgiven some of the four, and for each of them no more than a tenth of a pass over
    // 512 tokens, which takes longer in the same measure.
    assert!(late.iter().min().unwrap().as_millis() < 50, "{late:?}");
    let begin = std::time::Instant::now();
    complete(&mut context, &GenerateRequest::new(vec![1000_u32; 512]).with_max_tokens(count(1)));
    let bound = (begin.elapsed() / 10).max(std::time::Duration::from_millis(50));
    assert!(late.iter().all(|late| *late < bound), "{late:?}, and a pass takes {:?}", begin.elapsed());
    assert_eq!(complete(&mut context, &request(3)).tokens.len(), 3, "the context stays usable");
}

#[test]
fn a_generation_that_was_cancelled_is_continued_as_if_it_had_not_been() {
    // A state names its model, for which the file is read again.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    SyntheticModel::tiny().write_file(&path).unwrap();
    let Some(model) = super::with_tokenizer(Model::load(&path).unwrap()) else { return };
    let mut context = context(&model);
    let whole = complete(&mut context, &request(20)).tokens;
    let cancel = context.cancel_token();
    let mut generation = context.generate(request(20)).unwrap();
    let mut tokens: Vec<u32> = generation.by_ref().take(7).map(|piece| piece.unwrap().token.unwrap()).collect();
    cancel.cancel();
    assert_eq!(generation.next(), None);
    assert_eq!(generation.finish_reason(), Some(FinishReason::Cancelled));
    // The token has done what it was for, and the one that was shown last is not lost, nor is it in a copy or a saved state.
    assert!(!cancel.is_cancelled());
    let state = context.save().unwrap();
    let more = GenerateRequest::new(Vec::<u32>::new()).with_start(Start::Continue).with_stop_at_end(false);
    let more = more.with_max_tokens(count(13));
    tokens.extend(complete(&mut context, &more).tokens);
    assert_eq!(tokens, whole);
    context.restore(&state).unwrap();
    assert_eq!(complete(&mut context, &more).tokens, whole[7..]);
}

#[test]
fn a_token_that_cancels_several_contexts_cancels_them_until_it_is_reset() {
    let Some(model) = model() else { return };
    let all = CancelToken::new();
    let options = ContextOptions::default().with_cancel(all.clone());
    let mut contexts = [model.context(&options).unwrap(), model.context(&options).unwrap()];
    contexts[0].cancel_token().cancel();
    let finish = |context: &mut Context| complete(context, &request(3)).finish;
    assert_eq!(contexts.each_mut().map(finish), [FinishReason::Cancelled, FinishReason::MaxTokens]);
    all.cancel();
    for _ in 0..2 {
        assert_eq!(contexts.each_mut().map(finish), [FinishReason::Cancelled; 2]);
    }
    all.reset();
    assert_eq!(contexts.each_mut().map(finish), [FinishReason::MaxTokens; 2]);
}

/// A model in which one token's embedding is no number.
fn broken_model(token: usize) -> Option<Model> {
    let folder = tempfile::tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole.gguf"), folder.path().join("broken.gguf"));
    SyntheticModel::tiny().with_type(TensorType::F32).write_file(&whole).unwrap();
    let model = Gguf::open(&whole).unwrap();
    let mut writer = Writer::new();
    model.metadata().iter().for_each(|(key, value)| _ = writer.set(key, value.clone()));
    for tensor in model.tensors() {
        let mut bytes = model.read_tensor(tensor).unwrap();
        if tensor.name == "token_embd.weight" {
            // The output is not tied to it, or every row of logits would have that number.
            writer.add_tensor("output.weight", &tensor.shape, tensor.tensor_type, bytes.clone()).unwrap();
            let row = tensor.shape[0] as usize * size_of::<f32>();
            bytes[token * row..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        writer.add_tensor(&tensor.name, &tensor.shape, tensor.tensor_type, bytes).unwrap();
    }
    writer.write_file(&broken).unwrap();
    super::with_tokenizer(Model::load(&broken).unwrap())
}

#[test]
fn logits_that_are_no_numbers_are_an_error_and_the_context_goes_on() {
    let Some(model) = broken_model(77) else { return };
    let mut context = context(&model);
    let of = |token: u32| GenerateRequest::new(vec![5, 9, token]).with_max_tokens(count(1)).with_stop_at_end(false);
    let sound = complete(&mut context, &of(20)).tokens;
    for sampling in [Sampling::greedy(), Sampling::balanced(), Sampling::new(Pick::MirostatV2 { tau: 5.0, eta: 0.1 })] {
        let error = context.complete(of(77).with_sampling(sampling.clone())).unwrap_err();
        assert_eq!(error, GenerateError::Sample(SampleError::NotANumber), "{sampling:?}");
        let grammar = Grammar::regex("[a-z]+").unwrap();
        let error = context.complete(of(77).with_sampling(sampling).with_grammar(grammar)).unwrap_err();
        assert!(
            matches!(error, GenerateError::Constraint(ConstraintError::Sample(SampleError::NotANumber))),
            "{error}"
        );
        assert_eq!(complete(&mut context, &of(20)).tokens, sound);
    }
}
