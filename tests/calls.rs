//! Random sequences of calls: no panic, no abort, no leak, and what a context says it holds is what it holds.
//!
//! A program of its own: what its memory grows by is grown by these calls.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a helper of a test may panic and print like the test")]

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use gguf_loader::{
    Context, Model,
    adapter::{ControlVector, LoraAdapter},
    backend::{Batch, ContextOptions, Position, SequenceEdit, SequenceId, Token},
    generation::{Completion, FinishReason, GenerateRequest, Start, WhenFull},
    gguf::{Gguf, TensorType, Writer, synth::SyntheticModel},
    grammar::Grammar,
    sampling::Sampling,
    state::State,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

#[derive(Debug, Clone)]
enum Call {
    Decode(Vec<Token>, SequenceId, Position, bool),
    Generate(Vec<Token>, SequenceId, u32, u8, Extras),
    Stream(Vec<Token>, SequenceId, u32, usize),
    Clear,
    Truncate(SequenceId, Position),
    Remove(SequenceId, Position, Position),
    Copy(SequenceId, SequenceId),
    Save(Option<SequenceId>),
    Restore(Option<SequenceId>),
    Cancel(bool),
    Adapt(Option<f32>),
    Control(Option<f32>),
}

/// What a generation may have beside.
#[derive(Debug, Clone)]
struct Extras {
    shift: bool,
    grammar: bool,
    logprobs: Option<u32>,
    echo: bool,
}

fn call() -> impl Strategy<Value = Call> {
    // Three sequences of sixteen tokens, and a little beyond: most calls make sense and some do not.
    let sequence = || prop_oneof![8 => 0_u32..3, 1 => Just(3_u32), 1 => any::<u32>()];
    let position = || prop_oneof![8 => 0_u32..18, 1 => any::<u32>()];
    let tokens = || prop::collection::vec(prop_oneof![20 => 0_u32..300, 1 => any::<u32>()], 0..12);
    let extras = || {
        (any::<bool>(), any::<bool>(), prop::option::of(0_u32..4), any::<bool>())
            .prop_map(|(shift, grammar, logprobs, echo)| Extras { shift, grammar, logprobs, echo })
    };
    let scale = || prop::option::of(prop_oneof![Just(0.0_f32), Just(0.5), Just(f32::NAN)]);
    prop_oneof![
        3 => (tokens(), sequence(), 0_u32..20, any::<bool>()).prop_map(|(t, s, p, c)| Call::Decode(t, s, p, c)),
        4 => (tokens(), sequence(), 1_u32..24, 0_u8..3, extras())
            .prop_map(|(t, s, n, start, extras)| Call::Generate(t, s, n, start, extras)),
        1 => (tokens(), sequence(), 1_u32..24, 0_usize..8).prop_map(|(t, s, n, pieces)| Call::Stream(t, s, n, pieces)),
        1 => Just(Call::Clear),
        2 => (sequence(), position()).prop_map(|(s, p)| Call::Truncate(s, p)),
        2 => (sequence(), position(), position()).prop_map(|(s, a, b)| Call::Remove(s, a, b)),
        2 => (sequence(), sequence()).prop_map(|(a, b)| Call::Copy(a, b)),
        1 => prop::option::of(sequence()).prop_map(Call::Save),
        1 => prop::option::of(sequence()).prop_map(Call::Restore),
        1 => any::<bool>().prop_map(Call::Cancel),
        1 => scale().prop_map(Call::Adapt),
        1 => scale().prop_map(Call::Control),
    ]
}

/// An adapter of the model.
fn adapter(folder: &Path, model: &Path) -> PathBuf {
    const MATRIX: &str = "blk.1.ffn_up.weight";
    let shape = Gguf::open(model).unwrap().tensor(MATRIX).unwrap().shape.clone();
    let mut writer = Writer::new();
    writer.set("general.type", "adapter").set("general.architecture", "llama").set("adapter.type", "lora");
    for (half, shape) in [("a", [shape[0], 1]), ("b", [1, shape[1]])] {
        let bytes = (0..shape[0] * shape[1]).flat_map(|at| (0.1 * (at % 5) as f32).to_le_bytes());
        writer.add_tensor(format!("{MATRIX}.lora_{half}"), &shape, TensorType::F32, bytes.collect::<Vec<_>>()).unwrap();
    }
    let path = folder.join("adapter.gguf");
    writer.write_file(&path).unwrap();
    path
}

/// A control vector for the model.
fn control_vector(folder: &Path) -> ControlVector {
    let width = SyntheticModel::tiny().shape.n_embd;
    let mut writer = Writer::new();
    writer.set("general.architecture", "controlvector");
    let numbers: Vec<u8> = (0..width).flat_map(|at| (0.1 * (at % 7) as f32).to_le_bytes()).collect();
    writer.add_tensor("direction.1", &[width.into()], TensorType::F32, numbers).unwrap();
    let path = folder.join("vector.gguf");
    writer.write_file(&path).unwrap();
    ControlVector::load(path).unwrap()
}

/// What a generation gives fits what was asked for.
fn check(completion: &Completion, extras: &Extras) -> Result<(), TestCaseError> {
    let expected = if extras.logprobs.is_some() { completion.tokens.len() } else { 0 };
    prop_assert_eq!(completion.logprobs.len(), expected);
    for token in &completion.logprobs {
        prop_assert!(token.logprob < 1e-3 && token.top.len() == extras.logprobs.unwrap_or(0) as usize, "{:?}", token);
    }
    if extras.grammar && !extras.echo {
        let text = completion.text.as_str();
        let fits = text.chars().all(|c| ('a'..='c').contains(&c)) && text.len() <= 4;
        prop_assert!(fits && (completion.finish != FinishReason::End || !text.is_empty()), "{:?}", completion);
    }
    Ok(())
}

/// Takes so many pieces of a stream, and gives the context back, which is cancelled then.
#[cfg(feature = "async")]
fn stream(context: Context, request: GenerateRequest, pieces: usize) -> Context {
    use futures::StreamExt as _;
    futures::executor::block_on(async {
        let mut stream = context.into_stream(request);
        for _ in 0..pieces {
            // Errors are answers, too.
            let _ = stream.next().await;
        }
        stream.cancel_token().cancel();
        let context = stream.into_context().await.expect("the thread does not panic");
        context.cancel_token().reset();
        context
    })
}

#[cfg(not(feature = "async"))]
fn stream(context: Context, _: GenerateRequest, _: usize) -> Context {
    context
}

/// Bytes of this process in memory; `None` where the system does not say.
fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

/// `PROPTEST_CASES=10000 cargo test --release --features cpu-all,reference,synth,async --test calls -- --nocapture` is the long
/// form, which takes some minutes.
#[test]
fn any_calls_in_any_order_leave_a_context_that_knows_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    SyntheticModel::tiny().write_file(&path).unwrap();
    let model = Model::load(&path).unwrap();
    if let Err(error) = model.tokenizer() {
        println!("skipped: {error}");
        return;
    }
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1000);
    let options = ContextOptions::default().with_length(count(16)).with_ubatch(count(8));
    let options = options.with_sequences(count(3)).with_threads(count(1));
    // A backend that takes none is tested without.
    let adapter = LoraAdapter::load(&model, adapter(folder.path(), &path)).ok();
    let vector = control_vector(folder.path());
    let grammar = Grammar::regex("[a-c]{1,4}").unwrap();
    let contexts = [false, true].map(|shared| Some(model.context(&options.clone().with_shared_cache(shared)).unwrap()));
    let contexts = std::cell::RefCell::new(contexts);
    let mut runner =
        TestRunner::new(Config { cases, max_shrink_iters: 300, failure_persistence: None, ..Config::default() });
    let calls = prop::collection::vec(call(), 1..12);
    let (begin, done, early) = (std::time::Instant::now(), std::cell::Cell::new(0_u32), std::cell::Cell::new(None));
    let result = runner.run(&(calls, any::<bool>()), |(calls, shared)| {
        let place = &mut contexts.borrow_mut()[usize::from(shared)];
        let context = place.as_mut().expect("it was given back");
        context.cancel_token().reset();
        context.edit(SequenceEdit::Clear).unwrap();
        context.set_adapters(&[]).unwrap();
        context.set_control_vectors(&[], None).unwrap();
        done.set(done.get() + 1);
        if done.get() == cases / 4 {
            early.set(memory());
        }
        let mut saved: Option<State> = None;
        for call in calls {
            let context = place.as_mut().expect("it was given back");
            // Errors are answers, too: what matters is what is left.
            match call.clone() {
                Call::Decode(tokens, sequence, position, continues) => {
                    let first = if continues { context.next_position(sequence) } else { position };
                    let mut batch = Batch::new();
                    batch.extend(&tokens, first, sequence);
                    if context.decode(&batch).is_ok() {
                        prop_assert!(context.logits(tokens.len() - 1).is_some());
                    }
                }
                Call::Generate(tokens, sequence, most, start, extras) => {
                    let mut request = GenerateRequest::new(tokens)
                        .with_sequence(sequence)
                        .with_start([Start::Fresh, Start::Reuse, Start::Continue][usize::from(start)])
                        .with_sampling(Sampling::balanced().with_seed(u64::from(most)))
                        .with_when_full(if extras.shift { WhenFull::Shift { keep: 3 } } else { WhenFull::Stop })
                        .with_max_tokens(count(most))
                        .with_echo(extras.echo);
                    request.grammar = extras.grammar.then(|| grammar.clone());
                    request.logprobs = extras.logprobs;
                    if let Ok(completion) = context.complete(request) {
                        check(&completion, &extras)?;
                    }
                }
                Call::Stream(tokens, sequence, most, pieces) => {
                    let request = GenerateRequest::new(tokens).with_sequence(sequence).with_start(Start::Reuse);
                    let request = request.with_sampling(Sampling::balanced().with_seed(u64::from(most)));
                    let taken = place.take().expect("it was given back");
                    *place = Some(stream(taken, request.with_max_tokens(count(most)), pieces));
                }
                Call::Clear => context.edit(SequenceEdit::Clear).unwrap(),
                Call::Truncate(sequence, from) => _ = context.edit(SequenceEdit::Truncate { sequence, from }),
                Call::Remove(sequence, from, to) => _ = context.edit(SequenceEdit::Remove { sequence, from, to }),
                Call::Copy(from, to) => _ = context.edit(SequenceEdit::Copy { from, to }),
                Call::Save(None) => saved = Some(context.save().unwrap()),
                Call::Save(Some(sequence)) => saved = context.save_sequence(sequence).ok().or(saved),
                Call::Restore(to) => {
                    if let Some(state) = &saved {
                        let _ = match to {
                            None => context.restore(state),
                            Some(to) => context.restore_sequence(state, to),
                        };
                    }
                }
                Call::Cancel(cancelled) => match cancelled {
                    true => context.cancel_token().cancel(),
                    false => context.cancel_token().reset(),
                },
                Call::Adapt(scale) => {
                    let applied = adapter.as_ref().zip(scale);
                    let _ = context.set_adapters(applied.as_slice());
                }
                Call::Control(scale) => {
                    let applied: Vec<_> = scale.map(|scale| (&vector, scale)).into_iter().collect();
                    let _ = context.set_control_vectors(&applied, None);
                }
            }
            let context = place.as_mut().expect("it was given back");
            for sequence in 0..4 {
                let (held, next) = (context.tokens(sequence).len(), context.next_position(sequence) as usize);
                prop_assert!(
                    held == next && next <= 16,
                    "{call:?}: sequence {sequence} has {held} tokens and ends at {next}"
                );
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (early, late) = (early.get(), memory());
    println!(
        "{cases} sequences of calls in {:?}; memory after a quarter {early:?}, in the end {late:?}",
        begin.elapsed()
    );
    if let Some((early, late)) = early.zip(late) {
        assert!(late < early + (16 << 20), "memory grew from {early} to {late}");
    }
}
