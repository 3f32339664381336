//! What the selector says: errors, report, JSON; and how calibration overrules predictions.

#[path = "selector/fake.rs"]
mod fake;

use std::sync::atomic::Ordering;

use fake::{Claim, fake, machine, rates, registry, smollm2};
use gguf_loader::{
    backend::{Backend, Ineligible, Unavailable},
    hardware::{CpuFeature, CpuFeatures},
    select::{
        Basis, Calibration, CalibrationCache, Fingerprint, Policy, Registry, RegistryError, Request, SelectError,
        Selection, select,
    },
};

const AVX512: [CpuFeature; 2] = [CpuFeature::Avx512f, CpuFeature::Avx512vnni];

/// A fast backend that wants AVX-512, a middling one that wants AVX2, and a slow one for all.
fn tiers() -> Registry {
    registry([
        fake("cpu-x64", 10.0),
        fake("cpu-haswell", 250.0).requiring(CpuFeatures::from_iter([CpuFeature::Avx2])),
        fake("cpu-zen4", 300.0).requiring(CpuFeatures::from_iter(AVX512)),
    ])
}

fn choose(registry: &Registry, features: &[CpuFeature], policy: &str) -> Result<Selection, SelectError> {
    let model = smollm2();
    let request = Request::new(&model).with_policy(policy.parse().expect("a policy"));
    select(registry, &machine(features.iter().copied()), &request)
}

#[test]
fn a_named_backend_that_the_cpu_cannot_run_is_an_error_with_the_missing_features() {
    let error = choose(&tiers(), &[CpuFeature::Avx2], "cpu-zen4").unwrap_err();
    assert_eq!(error.to_string(), "`cpu-zen4` cannot run the model here: the CPU lacks avx512f, avx512vnni");
    let SelectError::CannotRun { candidates, .. } = error else { panic!("{error:?}") };
    let reason = candidates.iter().find(|candidate| candidate.id == "cpu-zen4").unwrap().ineligible().unwrap();
    let missing = vec!["avx512f".to_owned(), "avx512vnni".to_owned()];
    assert_eq!(reason, &Ineligible::Unavailable(Unavailable::MissingCpuFeatures(missing)));
}

#[test]
fn a_known_backend_that_is_not_compiled_in_is_an_error_with_its_cargo_feature() {
    let error = choose(&tiers(), &[], "reference").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no backend `reference` in this program: build it with the cargo feature `reference`; \
         compiled: cpu-haswell, cpu-x64, cpu-zen4"
    );
}

#[test]
fn a_backend_for_another_processor_is_not_promised_by_a_cargo_feature() {
    let foreign = if cfg!(target_arch = "x86_64") { "cpu-apple-m1" } else { "cpu-zen4" };
    let registry = registry([fake("reference", 1.0)]);
    let text = registry.find(foreign).unwrap_err().to_string();
    assert!(text.contains("it is for") && !text.contains("cargo feature"), "{text}");
}

#[test]
fn a_misspelt_backend_is_an_error_with_a_proposal() {
    for (typed, meant) in [("cpu-hasswell", "cpu-haswell"), ("zen4", "cpu-zen4"), ("cpu-x46", "cpu-x64")] {
        let unknown = tiers().find(typed).unwrap_err();
        assert_eq!(unknown.suggestion, Some(meant), "{unknown}");
        assert!(unknown.to_string().contains(&format!("did you mean `{meant}`?")), "{unknown}");
    }
    let far = tiers().find("cuda").unwrap_err();
    assert_eq!(far.suggestion, None);
    assert_eq!(far.to_string(), "no backend `cuda` in this program; compiled: cpu-haswell, cpu-x64, cpu-zen4");
}

#[test]
fn a_misspelt_denial_is_an_error_and_a_superfluous_one_is_not() {
    assert!(matches!(choose(&tiers(), &[], "!cpu-zen44"), Err(SelectError::Unknown(_))));
    assert_eq!(choose(&tiers(), &[], "!reference").unwrap().backend().id(), "cpu-x64");
}

#[test]
fn a_backend_that_the_policy_rules_out_is_not_touched() {
    for policy in [Policy::Named("b".into()), Policy::Preference(vec!["b".into()]), Policy::Deny(vec!["a".into()])] {
        let (denied, other) = (fake("a", 9.0).leak(), fake("b", 1.0).leak());
        let registry = Registry::from_backends([denied as &'static dyn Backend, other]).unwrap();
        let model = smollm2();
        let selection = select(&registry, &machine([]), &Request::new(&model).with_policy(policy)).unwrap();
        assert_eq!(selection.backend().id(), "b");
        assert_eq!(denied.asked.load(Ordering::Relaxed), 0);
        assert_eq!(other.asked.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn a_preference_goes_before_speed() {
    let selection = choose(&tiers(), &[CpuFeature::Avx2], "cpu-x64,cpu-haswell").unwrap();
    assert_eq!(selection.explain(), "cpu-x64: first of `cpu-x64,cpu-haswell` that can run, 10.0 tokens/s predicted");
    let order: Vec<_> = selection.eligible().map(|(candidate, _)| candidate.id).collect();
    assert_eq!(order, ["cpu-x64", "cpu-haswell"]);
}

#[test]
fn a_preference_skips_what_cannot_run_and_takes_nothing_else() {
    let selection = choose(&tiers(), &[CpuFeature::Avx2], "cpu-zen4,cpu-x64").unwrap();
    assert_eq!(selection.backend().id(), "cpu-x64");
    let error = choose(&tiers(), &[], "cpu-zen4,cpu-haswell").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no backend that `cpu-zen4,cpu-haswell` permits can run the model here: \
         the CPU lacks avx2 (cpu-haswell); the CPU lacks avx512f, avx512vnni (cpu-zen4)"
    );
}

#[test]
fn when_nothing_can_run_each_reason_is_written_once() {
    let registry = registry([
        fake("a", 1.0).with_devices([Claim::Refuses]),
        fake("b", 1.0).with_devices([Claim::Refuses]),
        fake("c", f64::NAN),
        fake("d", 1.0).with_devices([]),
    ]);
    let error = choose(&registry, &[], "auto").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no backend can run the model here: does not run the architecture `llama` (a, b); found no device (d); \
         the prediction is no speed: prompt NaN and decode NaN tokens/s (c)"
    );
}

#[test]
fn a_program_without_backends_says_how_to_get_one() {
    let error = choose(&registry([]), &[], "cpu-x64").unwrap_err();
    assert_eq!(error, SelectError::NoBackends);
    assert!(error.to_string().contains("`cpu-common`"));
}

#[test]
fn an_id_that_no_policy_can_spell_makes_no_registry() {
    for id in ["", "auto", "CPU", "a,b", "!a", "a b"] {
        let backend = fake(id, 1.0).leak() as &'static dyn Backend;
        assert_eq!(Registry::from_backends([backend]).unwrap_err(), RegistryError::Name { id });
    }
}

#[test]
fn the_explanation_tells_the_lead() {
    let all = [AVX512[0], AVX512[1], CpuFeature::Avx2];
    assert_eq!(
        choose(&tiers(), &all, "auto").unwrap().explain(),
        "cpu-zen4: 300 tokens/s predicted, 1.2 times the next, cpu-haswell"
    );
    assert_eq!(choose(&tiers(), &all, "cpu-x64").unwrap().explain(), "cpu-x64: asked for, 10.0 tokens/s predicted");
    assert_eq!(
        choose(&tiers(), &[], "auto").unwrap().explain(),
        "cpu-x64: 10.0 tokens/s predicted, the only one that can run"
    );
    let level = registry([fake("b", 5.0), fake("a", 5.0)]);
    assert_eq!(
        choose(&level, &[], "auto").unwrap().explain(),
        "a: 5.00 tokens/s predicted, level with b and first by name"
    );
}

#[test]
fn the_report_is_aligned_and_has_every_candidate() {
    let report = choose(&tiers(), &[CpuFeature::Avx2], "auto").unwrap().to_string();
    let expected = "\
cpu-haswell: 250 tokens/s predicted, 25.0 times the next, cpu-x64
  backend      device   tokens/s  prompt  decode
* cpu-haswell  device0       250     250     250  a fake
  cpu-x64      device0      10.0    10.0    10.0  a fake
  cpu-zen4     -               -       -       -  the CPU lacks avx512f, avx512vnni
";
    assert_eq!(report, expected);
}

#[test]
fn the_json_has_the_winner_and_every_candidate() {
    let selection = choose(&tiers(), &[CpuFeature::Avx2], "!cpu-x64").unwrap();
    let json = serde_json::to_value(&selection).unwrap();
    assert_eq!(json["winner"], "cpu-haswell");
    assert_eq!(json["policy"], "!cpu-x64");
    assert_eq!(json["device"]["id"], "device0");
    assert_eq!(json["workload"]["prompt_tokens"], 512);
    let candidates = json["candidates"].as_array().unwrap();
    let ids: Vec<_> = candidates.iter().map(|candidate| candidate["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["cpu-haswell", "cpu-x64", "cpu-zen4"]);
    assert_eq!(candidates[0]["device"], "device0");
    let speed = candidates[0]["predicted_tokens_per_second"].as_f64().unwrap();
    assert!((speed - 250.0).abs() < 1e-9);
    assert_eq!(candidates[0].get("ineligible"), None);
    assert_eq!(candidates[1]["ineligible"], "the policy `!cpu-x64` rules it out");
    assert_eq!(candidates[2]["ineligible"], "the CPU lacks avx512f, avx512vnni");
    assert_eq!(candidates[2]["cause"]["unavailable"]["missing_cpu_features"][1], "avx512vnni");
    assert_eq!(candidates[2].get("predicted_tokens_per_second"), None);
}

#[test]
fn a_measurement_overrules_the_prediction_but_not_the_reasons() {
    let registry = registry([
        fake("predicted-fast", 100.0),
        fake("measured-fast", 1.0),
        fake("refuses", 1.0).with_devices([Claim::Refuses]),
    ]);
    let (hardware, model) = (machine([]), smollm2());
    let mut calibration = Calibration::new();
    for id in ["measured-fast", "refuses"] {
        let device = registry.find(id).unwrap().devices(&hardware).unwrap().remove(0);
        calibration.record(id, &device, Some(rates(1e12, 1e11)));
    }
    let selection = select(&registry, &hardware, &Request::new(&model).with_calibration(&calibration)).unwrap();
    assert_eq!(selection.backend().id(), "measured-fast");
    assert_eq!(selection.prediction().basis, Basis::Measurement);
    assert!(selection.explain().contains("predicted from measurements"), "{}", selection.explain());
    let bases: Vec<_> = selection.eligible().map(|(_, prediction)| prediction.basis).collect();
    assert_eq!(bases, [Basis::Measurement, Basis::Estimate]);
}

#[test]
fn a_fingerprint_tells_machines_apart() {
    let one = machine([CpuFeature::Avx2]);
    let mut stepping = one.clone();
    stepping.cpu.stepping += 1;
    let mut cores = one.clone();
    cores.topology.physical_cores += 1;
    let mut quota = one.clone();
    quota.topology.cpu_quota = Some(1.0);
    let mut vendor = one.clone();
    vendor.cpu.vendor = "GenuineIntel".into();
    let mut memory = one.clone();
    memory.memory.available = memory.memory.available.map(|available| available / 2);
    let cache = CalibrationCache::new("folder");
    for other in [machine([]), stepping, cores, quota, vendor] {
        assert_ne!(Fingerprint::of(&one), Fingerprint::of(&other));
        assert_ne!(cache.path(&Fingerprint::of(&one)), cache.path(&Fingerprint::of(&other)));
    }
    // What another program has allocated does not change the speed.
    assert_eq!(Fingerprint::of(&one), Fingerprint::of(&memory));
}
