//! When backends are measured, and what becomes of the result.

#[path = "selector/fake.rs"]
mod fake;

use std::{fs, path::Path, sync::atomic::Ordering};

use fake::{Fake, fake, machine, rates, smollm2};
use gguf_loader::{
    backend::Backend,
    select::{Basis, Calibrate, ChooseOptions, Policy, Registry, Selection, choose_from},
};

/// Predicted slow, measured fast; and a rival in between without anything to measure with.
fn fakes() -> [&'static Fake; 2] {
    [fake("measurable", 1.0).measuring(rates(1e12, 1e11)).leak(), fake("rival", 5.0).leak()]
}

fn start(fakes: [&'static Fake; 2], options: ChooseOptions) -> Selection {
    let registry = Registry::from_backends(fakes.map(|fake| fake as &'static dyn Backend)).expect("two ids");
    choose_from(&registry, &machine([]), &smollm2(), &options).expect("both can run")
}

fn measurements(fakes: [&'static Fake; 2]) -> [usize; 2] {
    fakes.map(|fake| fake.measurements.load(Ordering::Relaxed))
}

fn cached(folder: &Path) -> ChooseOptions {
    ChooseOptions::default().with_calibrate(Calibrate::Cached).with_cache(folder)
}

#[test]
fn nothing_is_measured_unless_asked_for() {
    let (folder, fakes) = (tempfile::tempdir().unwrap(), fakes());
    let selection = start(fakes, ChooseOptions::default().with_cache(folder.path()));
    assert_eq!(selection.backend().id(), "rival");
    assert_eq!(measurements(fakes), [0, 0]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_machine_is_measured_once() {
    let (folder, fakes) = (tempfile::tempdir().unwrap(), fakes());
    for _ in 0..3 {
        let selection = start(fakes, cached(folder.path()));
        assert_eq!(selection.backend().id(), "measurable");
        assert_eq!(selection.prediction().basis, Basis::Measurement);
        // Also the one that has nothing to measure with is asked only once.
        assert_eq!(measurements(fakes), [1, 1]);
    }
}

#[test]
fn a_refresh_measures_again_and_replaces_the_cache() {
    let (folder, before) = (tempfile::tempdir().unwrap(), fakes());
    start(before, cached(folder.path()));
    let slower = [fake("measurable", 1.0).measuring(rates(1e6, 1e6)).leak(), fake("rival", 5.0).leak()];
    assert_eq!(start(slower, cached(folder.path())).backend().id(), "measurable");
    assert_eq!(start(slower, cached(folder.path()).with_calibrate(Calibrate::Refresh)).backend().id(), "rival");
    assert_eq!(start(slower, cached(folder.path())).backend().id(), "rival");
    assert_eq!(measurements(slower), [1, 1]);
}

#[test]
fn a_denied_backend_is_not_measured_and_a_later_start_makes_up_for_it() {
    let (folder, fakes) = (tempfile::tempdir().unwrap(), fakes());
    start(fakes, cached(folder.path()).with_policy(Policy::Deny(vec!["measurable".into()])));
    assert_eq!(measurements(fakes), [0, 1]);
    assert_eq!(start(fakes, cached(folder.path())).backend().id(), "measurable");
    assert_eq!(measurements(fakes), [1, 1]);
}

#[test]
fn a_damaged_cache_is_measured_anew_and_rewritten() {
    let (folder, fakes) = (tempfile::tempdir().unwrap(), fakes());
    start(fakes, cached(folder.path()));
    let file = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    fs::write(&file, "{}").unwrap();
    for _ in 0..2 {
        assert_eq!(start(fakes, cached(folder.path())).backend().id(), "measurable");
        assert_eq!(measurements(fakes), [2, 2]);
    }
}

#[test]
fn a_cache_that_cannot_be_written_costs_time_and_nothing_else() {
    let (folder, fakes) = (tempfile::tempdir().unwrap(), fakes());
    let file = folder.path().join("a file, not a folder");
    fs::write(&file, "").unwrap();
    for round in 1..3 {
        assert_eq!(start(fakes, cached(&file)).backend().id(), "measurable");
        assert_eq!(measurements(fakes), [round, round]);
    }
}
