//! Threads that have to share a CPU give it to each other where they wait. Alone in its process, which it keeps to one CPU.
#![cfg(all(target_os = "linux", feature = "cpu", feature = "synth"))]

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use gguf_loader::{
    Context, Model,
    backend::ContextOptions,
    generation::GenerateRequest,
    gguf::{
        TensorType,
        synth::{Shape, SyntheticModel},
    },
};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Tokens of a round; two threads meet hundreds of times for each.
const TOKENS: u32 = 8;
const ROUNDS: u32 = 3;
/// How much slower two threads on one CPU may be than one. Threads that spin until the system takes the CPU from them were 150
/// times as slow; those that sleep waste no more than what they spin before, 20 microseconds each time.
const SLOWER: u32 = 8;

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("above zero")
}

/// Lets this thread, and those that it starts, run on one CPU only.
fn keep_to_one_cpu() {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).expect("the system says where this thread may run");
    let first = (0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu).unwrap_or(false)).expect("it runs somewhere");
    let mut one = CpuSet::new();
    one.set(first).expect("a CPU of the set");
    sched_setaffinity(this, &one).expect("fewer CPUs are always granted");
}

fn round(context: &mut Context) -> Duration {
    let request = GenerateRequest::new("the quick brown fox").with_stop_at_end(false).with_max_tokens(count(TOKENS));
    let start = Instant::now();
    let pieces = context.generate(request).expect("the prompt fits").map(|piece| piece.expect("a token"));
    assert_eq!(pieces.count(), TOKENS as usize);
    start.elapsed()
}

#[test]
fn two_threads_on_one_cpu_take_little_longer_than_one() {
    keep_to_one_cpu();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("small.gguf");
    let shape = Shape { n_vocab: 512, ..SyntheticModel::smol().shape };
    SyntheticModel::of_shape(shape).with_type(TensorType::Q8_0).write_file(&path).expect("the model is written");
    let model = Model::load(&path).expect("the model loads");
    let open = |threads| {
        let options = ContextOptions::default().with_length(count(256)).with_threads(count(threads));
        model.context(&options).expect("the context opens")
    };
    let (mut one, mut two) = (open(1), open(2));
    let rounds: Vec<_> = (0..ROUNDS).map(|_| (round(&mut one), round(&mut two))).collect();
    let alone = rounds.iter().map(|(alone, _)| *alone).min().expect("rounds");
    let shared = rounds.iter().map(|(_, shared)| *shared).min().expect("rounds");
    println!("{TOKENS} tokens: {alone:?} with one thread, {shared:?} with two");
    assert!(shared < alone * SLOWER, "{TOKENS} tokens: {alone:?} with one thread, {shared:?} with two");
}
