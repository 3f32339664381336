//! Speed of every backend that runs here: `cargo bench --profile release --bench variants -- pp`.
//!
//! Group `variants`: pp128 and tg16 as in `gguf_loader::benchmark`; criterion's throughput is tokens a second. The model is the
//! one that `GGUF_LOADER_TEST_MODEL` names, else a synthetic one of SmolLM2-135M's shape in Q4_0.

use std::{ops::ControlFlow, path::PathBuf, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gguf_loader::{
    Context, LoadOptions, Model,
    backend::ContextOptions,
    benchmark::{Test, run},
    gguf::{TensorType, synth::SyntheticModel},
    select::{ChooseOptions, Policy},
};

const PROMPT: Test = Test::Prompt(128);
const GENERATION: Test = Test::Generation(16);

/// The model's path, and the folder that goes with it when it was made for this run.
fn model() -> (PathBuf, Option<tempfile::TempDir>) {
    if let Some(path) = std::env::var_os("GGUF_LOADER_TEST_MODEL") {
        return (PathBuf::from(path), None);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("smol.gguf");
    SyntheticModel::smol().with_type(TensorType::Q4_0).write_file(&path).expect("the model is written");
    (path, Some(folder))
}

fn load(path: &PathBuf, policy: Policy) -> Model {
    let options = LoadOptions::default().with_choose(ChooseOptions::default().with_policy(policy));
    Model::load_with(path, &options, |_| ControlFlow::Continue(())).expect("the model loads")
}

fn variants(criterion: &mut Criterion) {
    let (path, _folder) = model();
    let automatic = load(&path, Policy::Automatic);
    let ids: Vec<&str> = automatic.selection().eligible().map(|(candidate, _)| candidate.id).collect();
    let mut group = criterion.benchmark_group("variants");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for id in ids.into_iter().filter(|&id| id != "reference") {
        let mut context: Context =
            load(&path, Policy::Named(id.to_owned())).context(&ContextOptions::default()).expect("the context opens");
        assert_eq!(context.executed_by(), id, "another backend runs");
        for (name, test) in [("pp128", PROMPT), ("tg16", GENERATION)] {
            group.throughput(Throughput::Elements(u64::from(test.tokens())));
            group.bench_function(BenchmarkId::new(name, id), |bencher| {
                bencher.iter(|| run(&mut context, test, 0).expect("the context is long enough"));
            });
        }
    }
    group.finish();
}

/// A model that the page cache holds, from the path to the first context.
fn loading(criterion: &mut Criterion) {
    let (path, _folder) = model();
    let mut group = criterion.benchmark_group("load");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    group.bench_function("model", |bencher| bencher.iter(|| load(&path, Policy::Automatic)));
    let model = load(&path, Policy::Automatic);
    group.bench_function("context", |bencher| bencher.iter(|| model.context(&ContextOptions::default())));
    group.finish();
}

criterion_group!(benches, variants, loading);
criterion_main!(benches);
