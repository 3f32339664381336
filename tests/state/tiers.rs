//! A state goes on elsewhere as it would have where it was saved.

use std::path::Path;

use gguf_loader::{
    Context, Model,
    backend::{CacheType, ContextOptions, SequenceEdit, Token},
    generation::{GenerateRequest, Start},
    state::State,
};

use super::{
    STORY, begin, count, go_on, load, options, path, random_model, random_model_in_q4_1, ternary_tiers, tiers,
    trained_bitnet,
};

/// What comes after a state in a context of its own.
fn after(model: &Model, options: &ContextOptions, state: &State) -> (Vec<Token>, Context) {
    let mut context = model.context(options).unwrap();
    let restored = context.restore(state).unwrap();
    assert_eq!(restored.kept_tokens, state.sequences().map(|(_, tokens)| tokens.len()).sum::<usize>(), "{restored:?}");
    assert_eq!(restored.computed_tokens, 0);
    (go_on(&mut context, 0), context)
}

#[test]
fn restored_forked_and_reread_it_goes_on_alike_on_every_tier_and_cache_type() {
    let path = path();
    goes_on_alike(if path == random_model() { random_model_in_q4_1() } else { &path }, &tiers());
}

#[test]
fn bitnet_goes_on_alike_on_every_tier_of_its_kernels_and_cache_type() {
    let tiers = ternary_tiers();
    if tiers.is_empty() {
        println!("skipped: no ternary kernels are compiled in");
    }
    goes_on_alike(trained_bitnet(), &tiers);
}

/// Of the first two tiers.
fn goes_on_alike(path: &Path, tiers: &[&str]) {
    for cache_type in [None, Some(CacheType::Q8_0), Some(CacheType::F32)] {
        let mut options = options().with_sequences(count(2));
        (options.keys, options.values) = (cache_type, cache_type);
        for &tier in tiers.iter().take(2) {
            let Some(model) = load(path, Some(tier)) else { return };
            let mut context = model.context(&options).unwrap();
            begin(&mut context, 0);
            let state = State::from_bytes(&context.save_sequence(0).unwrap().to_bytes()).unwrap();
            let undecoded = state.clone();
            context.edit(SequenceEdit::Copy { from: 0, to: 1 }).unwrap();
            let expected = go_on(&mut context, 0);
            assert_eq!(expected.len(), 64);
            assert_eq!(context.executed_by(), tier);
            assert_eq!(go_on(&mut context, 1), expected, "{tier}, {cache_type:?}: a fork");
            assert_eq!(after(&model, &options, &state).0, expected, "{tier}, {cache_type:?}: restored");
            let other = if context.limits().threads == 1 { 2 } else { 1 };
            let other_threads = options.clone().with_threads(count(other));
            assert_eq!(
                after(&model, &other_threads, &undecoded).0,
                expected,
                "{tier}, {cache_type:?}: {other} threads"
            );
            // Into another place, beside what is there.
            let mut beside = model.context(&options).unwrap();
            begin(&mut beside, 0);
            beside.restore_sequence(&state, 1).unwrap();
            assert_eq!((go_on(&mut beside, 1), go_on(&mut beside, 0)), (expected.clone(), expected));
            if cache_type != Some(CacheType::Q8_0) {
                continue;
            }
            // What a prompt has in common with the one before is kept. `tests/generation` has the other types.
            let other = GenerateRequest::new(format!("{STORY} had")).with_stop_at_end(false).with_max_tokens(count(64));
            let fresh = beside.complete(other.clone()).unwrap();
            begin(&mut beside, 0);
            let kept = beside.complete(other.with_start(Start::Reuse)).unwrap();
            assert!(kept.usage.reused_tokens > 10, "{:?}", kept.usage);
            assert_eq!(kept.tokens, fresh.tokens, "{tier}, {cache_type:?}: a common beginning");
        }
    }
}

/// What a model is sure of: other roundings make no difference.
fn counting(tokens: u32) -> GenerateRequest {
    let beginning = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,";
    GenerateRequest::new(beginning).with_stop_at_end(false).with_max_tokens(count(tokens))
}

/// Tiers round differently, and part at a near tie. Where a model is sure of what comes next, they do not.
#[test]
fn a_state_goes_on_on_another_tier() {
    let tiers = tiers();
    let path = path();
    let [first, .., last] = tiers.as_slice() else {
        println!("skipped: only one tier runs here");
        return;
    };
    let (Some(first), Some(last)) = (load(&path, Some(first)), load(&path, Some(last))) else { return };
    for (from, to) in [(&first, &last), (&last, &first)] {
        let mut context = from.context(&options()).unwrap();
        context.complete(counting(8)).unwrap();
        let state = context.save().unwrap();
        let expected = go_on(&mut context, 0);
        let (found, context) = after(to, &options(), &state);
        assert_eq!(context.executed_by(), to.backend());
        if path != random_model() {
            assert_eq!(found, expected, "{} to {}", from.backend(), to.backend());
        }
    }
}

#[test]
fn another_engine_and_another_cache_compute_the_tokens_again() {
    let path = random_model();
    let Some(model) = load(path, None) else { return };
    let mut context = model.context(&options()).unwrap();
    begin(&mut context, 0);
    let state = context.save().unwrap();
    let tokens = context.tokens(0).to_vec();
    let expected = go_on(&mut context, 0);

    let mut wider = model.context(&options().with_cache_type(CacheType::F32)).unwrap();
    let restored = wider.restore(&state).unwrap();
    assert_eq!((restored.kept_tokens, restored.computed_tokens), (0, tokens.len()));
    assert_eq!(wider.tokens(0), tokens);
    assert_eq!(go_on(&mut wider, 0)[..8], expected[..8]);
    if !cfg!(feature = "reference") {
        return;
    }
    let reference = load(path, Some("reference")).unwrap();
    let mut other = reference.context(&options()).unwrap();
    assert_eq!(other.restore(&state).unwrap().computed_tokens, tokens.len());
    let of_reference = other.save().unwrap();
    assert_eq!(go_on(&mut other, 0)[..8], expected[..8]);
    let mut back = model.context(&options()).unwrap();
    assert_eq!(back.restore(&of_reference).unwrap().computed_tokens, tokens.len());
    assert_eq!(go_on(&mut back, 0)[..8], expected[..8]);
}

#[test]
fn a_fork_in_a_shared_cache_takes_no_time() {
    let Some(model) = load(&path(), None) else { return };
    let options = ContextOptions::default().with_length(count(6000)).with_sequences(count(4)).with_shared_cache(true);
    let mut context = model.context(&options).unwrap();
    let mut batch = gguf_loader::backend::Batch::new();
    for begin in (0..4000_u32).step_by(1000) {
        batch.clear();
        let tokens: Vec<Token> = (begin..begin + 1000).map(|token| token % 250).collect();
        batch.extend(&tokens, begin, 0);
        context.decode(&batch).unwrap();
    }
    let mut times = Vec::new();
    for to in [1, 2, 3, 1, 2, 3] {
        let begin = std::time::Instant::now();
        context.edit(SequenceEdit::Copy { from: 0, to }).unwrap();
        times.push(begin.elapsed());
    }
    assert!((0..4).all(|sequence| context.next_position(sequence) == 4000), "16,000 tokens in a cache of 6,000");
    println!("forks of 4,000 tokens: {times:?}");
    assert!(times.iter().min().unwrap().as_micros() < 1000, "{times:?}");
    // They part where they are written to.
    let mut next = |sequence: u32, token: Token| {
        batch.clear();
        batch.push(token, 4000, sequence, true);
        context.decode(&batch).unwrap();
        context.logits(0).unwrap().to_vec()
    };
    let (one, other, same) = (next(1, 7), next(2, 11), next(3, 7));
    assert_ne!(one, other);
    let distance = |left: &[f32], right: &[f32]| {
        let squares: f32 = left.iter().zip(right).map(|(left, right)| (left - right).powi(2)).sum();
        (squares / left.len() as f32).sqrt()
    };
    assert!(distance(&one, &same) < 0.05 * distance(&one, &other), "{}", distance(&one, &same));
}

#[test]
fn flash_attention_is_an_option_that_changes_little() {
    let Some(model) = load(&path(), None) else { return };
    let texts: Vec<_> = [Some(true), Some(false), None]
        .into_iter()
        .map(|flash_attention| {
            let mut options = options();
            options.flash_attention = flash_attention;
            model.context(&options).unwrap().complete(counting(24)).unwrap().tokens
        })
        .collect();
    assert_eq!(texts[0], texts[1]);
    assert_eq!(texts[0], texts[2], "where a model allows it, it is what is taken");
    let mut impossible = options().with_cache_type(CacheType::Q4_0);
    impossible.flash_attention = Some(false);
    let error = model.context(&impossible).unwrap_err().to_string();
    assert!(error.contains("llama.cpp refused the context"), "{error}");
}
