//! What models and contexts take goes with them: over many rounds, memory and threads stay where they were. Alone in its process,
//! since both are the process's.
#![cfg(all(target_os = "linux", feature = "cpu", feature = "synth"))]

use std::{
    fs,
    num::NonZeroU32,
    ops::ControlFlow,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use gguf_loader::{
    LoadOptions, Model,
    backend::{ContextOptions, Mapping},
    generation::GenerateRequest,
    gguf::{
        TensorType,
        synth::{SyntheticBitNet, SyntheticModel},
    },
    select::{ChooseOptions, Policy, Registry},
};

/// Allocators keep what the first rounds gave back.
const WARM_UP: u32 = 5;
const ROUNDS: u32 = 30;
const TIMES: u32 = 3;
/// Tokens of a context; its KV cache is the larger part of what a round takes.
const LENGTH: u32 = 4096;
const THREADS: u32 = 2;

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("the kernel describes this process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a size") * 1024
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").expect("the kernel lists this process's threads").count()
}

/// The fewest threads that are seen for a while: one that was joined is in the list for a moment longer.
fn settled_threads() -> usize {
    let samples = (0..100).map(|_| {
        thread::sleep(Duration::from_millis(1));
        threads()
    });
    samples.min().expect("samples")
}

/// One model and one context, which compute something and are dropped. Returns the bytes of the weights.
fn round(path: &Path, policy: &Policy) -> u64 {
    let count = |number| NonZeroU32::new(number).expect("above zero");
    let choose = ChooseOptions::default().with_policy(policy.clone());
    let options = LoadOptions::default().with_choose(choose).with_mapping(Mapping::Read);
    let model = Model::load_with(path, &options, |_| ControlFlow::Continue(())).expect("the model loads");
    let options = ContextOptions::default().with_length(count(LENGTH)).with_threads(count(THREADS));
    let mut context = model.context(&options).expect("the context opens");
    assert!(threads() >= THREADS as usize, "the context computes on threads of its own");
    let request = GenerateRequest::new("the quick brown fox").with_stop_at_end(false).with_max_tokens(count(2));
    assert_eq!(context.complete(request).expect("the prompt fits").tokens.len(), 2);
    model.profile().weight_bytes
}

#[test]
fn rounds_of_loading_computing_and_dropping_leave_no_memory_and_no_thread() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (dense, ternary) = (folder.path().join("dense.gguf"), folder.path().join("ternary.gguf"));
    SyntheticModel::tiny().write_file(&dense).expect("the model is written");
    SyntheticBitNet::tiny().with_ternary(TensorType::TQ2_0).write_file(&ternary).expect("the model is written");
    let registry = Registry::global().expect("the registry is sound");
    let named = |id: &str| registry.find(id).is_ok().then(|| Policy::Named(id.to_owned()));
    let floor = registry.ids().find(|id| ["cpu-x64", "cpu-armv8"].contains(id));
    let ways =
        [(&dense, Some(Policy::Automatic)), (&dense, floor.and_then(named)), (&ternary, Some(Policy::Automatic))];
    for (path, policy) in ways {
        let Some(policy) = policy else { continue };
        let weights = (0..WARM_UP).map(|_| round(path, &policy)).max().expect("rounds");
        let before = settled_threads();
        // Allocators keep some megabytes more now and then; what leaks comes to as much each time.
        let grown = (0..TIMES).map(|_| {
            let memory = resident();
            (0..ROUNDS).for_each(|_| _ = round(path, &policy));
            resident().saturating_sub(memory)
        });
        let grown = grown.min().expect("times");
        let deadline = Instant::now() + Duration::from_secs(5);
        while threads() > before && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(settled_threads(), before, "{policy}: threads of {ROUNDS} rounds");
        println!("{policy}: {grown} bytes more after {ROUNDS} rounds with {weights} bytes of weights");
        assert!(grown < weights * u64::from(ROUNDS) / 4, "{policy}: {grown} bytes more after {ROUNDS} rounds");
    }
}
