//! What the choice costs at start: criterion group `selection`. Goal: detection and selection together under 5 ms, of
//! which the selection takes less than 0.1 ms.

#[path = "../tests/selector/fake.rs"]
mod fake;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use fake::{Claim, fake, machine, rates, registry, smollm2};
use gguf_loader::{
    hardware::{CpuFeature, CpuFeatures, Hardware},
    select::{Policy, Registry, Request, select},
};

/// More than a program with every feature has.
const BACKENDS: usize = 40;

/// Each requires one feature more than the one before and is a little faster; the last quarter cannot run.
fn backends() -> Registry {
    let fakes = (0..BACKENDS).map(|index| {
        let id: &'static str = Box::leak(format!("cpu-tier{index:02}").into_boxed_str());
        let speed = 1.0 + index as f64 / BACKENDS as f64;
        let required = CpuFeature::ALL.iter().copied().take(index * CpuFeature::ALL.len() / BACKENDS);
        fake(id, 1.0).requiring(required.collect()).with_devices([Claim::Rates(rates(1e11 * speed, 2e10 * speed))])
    });
    registry(fakes)
}

fn selection(criterion: &mut Criterion) {
    let registry = backends();
    let features: CpuFeatures = CpuFeature::ALL.iter().copied().take(CpuFeature::ALL.len() * 3 / 4).collect();
    let hardware = machine(features.iter());
    let model = smollm2();
    let automatic = Request::new(&model);
    let named = Request::new(&model).with_policy(Policy::Named("cpu-tier05".to_owned()));
    let chosen = select(&registry, &hardware, &automatic).expect("most can run");

    let mut group = criterion.benchmark_group("selection");
    group.bench_function("select among 40", |bencher| {
        bencher.iter(|| select(black_box(&registry), black_box(&hardware), black_box(&automatic)));
    });
    group.bench_function("detect and select among 40", |bencher| {
        bencher.iter(|| select(black_box(&registry), &Hardware::detect(), black_box(&automatic)));
    });
    group.bench_function("select one by name", |bencher| {
        bencher.iter(|| select(black_box(&registry), black_box(&hardware), black_box(&named)));
    });
    group.bench_function("report", |bencher| bencher.iter(|| black_box(&chosen).to_string()));
    group.finish();
}

criterion_group!(benches, selection);
criterion_main!(benches);
