//! Random sequences of calls: no panic, no abort, and what a context says it holds is what it holds.

use std::path::Path;

use gguf_loader::{
    adapter::LoraAdapter,
    backend::{Batch, Position, SequenceEdit, SequenceId, Token},
    generation::{GenerateRequest, Start, WhenFull},
    gguf::{Gguf, TensorType, Writer},
    sampling::Sampling,
    state::State,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::{count, load, options, random_model};

#[derive(Debug, Clone)]
enum Call {
    Decode(Vec<Token>, SequenceId, Position, bool),
    Generate(Vec<Token>, SequenceId, u32, u8, bool),
    Clear,
    Truncate(SequenceId, Position),
    Remove(SequenceId, Position, Position),
    Copy(SequenceId, SequenceId),
    Save(Option<SequenceId>),
    Restore(Option<SequenceId>),
    Cancel(bool),
    Adapt(Option<f32>),
}

fn call() -> impl Strategy<Value = Call> {
    // Three sequences of sixteen tokens, and a little beyond: most calls make sense and some do not.
    let sequence = || prop_oneof![8 => 0_u32..3, 1 => Just(3_u32), 1 => any::<u32>()];
    let position = || prop_oneof![8 => 0_u32..18, 1 => any::<u32>()];
    let tokens = || prop::collection::vec(prop_oneof![20 => 0_u32..300, 1 => any::<u32>()], 0..12);
    prop_oneof![
        3 => (tokens(), sequence(), 0_u32..20, any::<bool>()).prop_map(|(t, s, p, c)| Call::Decode(t, s, p, c)),
        3 => (tokens(), sequence(), 1_u32..24, 0_u8..3, any::<bool>())
            .prop_map(|(t, s, n, start, shift)| Call::Generate(t, s, n, start, shift)),
        1 => Just(Call::Clear),
        2 => (sequence(), position()).prop_map(|(s, p)| Call::Truncate(s, p)),
        2 => (sequence(), position(), position()).prop_map(|(s, a, b)| Call::Remove(s, a, b)),
        2 => (sequence(), sequence()).prop_map(|(a, b)| Call::Copy(a, b)),
        1 => prop::option::of(sequence()).prop_map(Call::Save),
        1 => prop::option::of(sequence()).prop_map(Call::Restore),
        1 => any::<bool>().prop_map(Call::Cancel),
        1 => prop::option::of(prop_oneof![Just(0.0_f32), Just(0.5), Just(f32::NAN)]).prop_map(Call::Adapt),
    ]
}

/// An adapter of the random model.
fn adapter(folder: &Path) -> std::path::PathBuf {
    const MATRIX: &str = "blk.1.ffn_up.weight";
    let shape = Gguf::open(random_model()).unwrap().tensor(MATRIX).unwrap().shape.clone();
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

/// Bytes of this process in memory; `None` where the system does not say.
fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

/// `PROPTEST_CASES=10000 cargo test --release --features cpu-all,reference,synth,async --test state -- any_calls --nocapture` is the
/// long form, which takes some minutes.
#[test]
fn any_calls_in_any_order_leave_a_context_that_knows_what_it_holds() {
    let Some(model) = load(random_model(), None) else { return };
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1000);
    let options =
        options().with_length(count(16)).with_ubatch(count(8)).with_sequences(count(3)).with_threads(count(1));
    let folder = tempfile::tempdir().unwrap();
    // A backend that takes none is tested without.
    let adapter = LoraAdapter::load(&model, adapter(folder.path())).ok();
    let contexts = [false, true].map(|shared| model.context(&options.clone().with_shared_cache(shared)).unwrap());
    let contexts = std::cell::RefCell::new(contexts);
    let mut runner =
        TestRunner::new(Config { cases, max_shrink_iters: 300, failure_persistence: None, ..Config::default() });
    let calls = prop::collection::vec(call(), 1..12);
    let (begin, done, early) = (std::time::Instant::now(), std::cell::Cell::new(0_u32), std::cell::Cell::new(None));
    let result = runner.run(&(calls, any::<bool>()), |(calls, shared)| {
        let context = &mut contexts.borrow_mut()[usize::from(shared)];
        context.cancel_token().reset();
        context.edit(SequenceEdit::Clear).unwrap();
        context.set_adapters(&[]).unwrap();
        done.set(done.get() + 1);
        if done.get() == cases / 4 {
            early.set(memory());
        }
        let mut saved: Option<State> = None;
        for call in calls {
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
                Call::Generate(tokens, sequence, most, start, shift) => {
                    let request = GenerateRequest::new(tokens)
                        .with_sequence(sequence)
                        .with_start([Start::Fresh, Start::Reuse, Start::Continue][usize::from(start)])
                        .with_sampling(Sampling::balanced().with_seed(u64::from(most)))
                        .with_when_full(if shift { WhenFull::Shift { keep: 3 } } else { WhenFull::Stop });
                    let _ = context.complete(request.with_max_tokens(count(most)));
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
            }
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
    // Other tests take memory meanwhile, unless this one was asked for.
    if let Some((early, late)) = early.zip(late).filter(|_| cases > 1000) {
        assert!(late < early + (64 << 20), "memory grew from {early} to {late}");
    }
}
