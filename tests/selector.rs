//! Properties of the selector, over arbitrary registries, machines, models and policies.

#[path = "selector/fake.rs"]
mod fake;

use std::collections::{BTreeMap, BTreeSet};

use fake::{Claim, Fake, fake, machine, model, rates, registry};
use gguf_loader::{
    backend::{Backend, ModelProfile, Score, WeightGroup, Workload},
    gguf::TensorType,
    hardware::{CpuFeature, CpuFeatures, Hardware},
    select::{Candidate, Policy, Registry, Request, SelectError, Selection, select},
};
use proptest::{collection, prelude::*, sample};

/// The names that arbitrary fakes and policies draw from.
const IDS: [&str; 8] = ["a", "b", "cpu-x64", "cpu-haswell", "cpu-zen4", "d.1", "e_2", "reference"];

/// Features that arbitrary fakes require; few, so that they often meet.
const FEATURES: [CpuFeature; 5] =
    [CpuFeature::Avx, CpuFeature::Fma, CpuFeature::Avx2, CpuFeature::Avx512f, CpuFeature::AvxVnni];

fn features() -> impl Strategy<Value = CpuFeatures> {
    sample::subsequence(&FEATURES, 0..=FEATURES.len()).prop_map(CpuFeatures::from_iter)
}

fn hardware() -> impl Strategy<Value = Hardware> {
    features().prop_map(|features| machine(features.iter()))
}

/// Speeds, a few of them equal, and everything that is none.
fn speed() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => 1e-3..1e4,
        2 => sample::select(vec![1.0, 2.0, 100.0]),
        1 => sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, -5.0, 5e-324, f64::MAX]),
    ]
}

fn claim() -> impl Strategy<Value = Claim> {
    prop_oneof![
        3 => (speed(), speed()).prop_map(|(prompt, decode)| Claim::Score(Score { prompt, decode })),
        2 => (speed(), speed()).prop_map(|(compute, bandwidth)| Claim::Rates(rates(compute * 1e9, bandwidth * 1e7))),
        1 => Just(Claim::Refuses),
    ]
}

/// What a fake is made of; the fake itself is leaked, and made anew for each registry.
type Recipe = (CpuFeatures, Vec<Claim>);

fn recipes() -> impl Strategy<Value = BTreeMap<&'static str, Recipe>> {
    // Few requirements, so that most fakes can run on many machines: a rule about two of them must meet two.
    let requires = sample::subsequence(&FEATURES, 0..=2).prop_map(CpuFeatures::from_iter);
    let recipe = (requires, collection::vec(claim(), 0..3));
    collection::btree_map(sample::select(&IDS[..]), recipe, 1..IDS.len())
}

fn bake<'a>(recipes: impl IntoIterator<Item = (&'a &'static str, &'a Recipe)>) -> Vec<Fake> {
    let fake = |(id, (requires, claims)): (&&'static str, &Recipe)| {
        fake(id, 1.0).requiring(*requires).with_devices(claims.iter().cloned())
    };
    recipes.into_iter().map(fake).collect()
}

fn profile() -> impl Strategy<Value = ModelProfile> {
    let group =
        (sample::select(TensorType::ALL), 0..u64::from(u32::MAX)).prop_map(|(tensor_type, blocks)| WeightGroup {
            tensor_type,
            stacked: false,
            elements: blocks * tensor_type.block_elements(),
            bytes: blocks * tensor_type.block_bytes(),
        });
    collection::vec(group, 0..4).prop_map(model)
}

/// Policies that leave the choice to speed, over ids that may not be compiled in.
fn open_policy() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::Automatic), some_of(&IDS).prop_map(Policy::Deny)]
}

fn policy() -> impl Strategy<Value = Policy> {
    policy_over(&IDS)
}

fn policy_over(ids: &[&'static str]) -> impl Strategy<Value = Policy> + use<> {
    prop_oneof![
        1 => Just(Policy::Automatic),
        2 => some_of(ids).prop_map(Policy::Deny),
        2 => sample::select(ids.to_vec()).prop_map(|id| Policy::Named(id.to_owned())),
        3 => some_of(ids).prop_map(Policy::Preference),
    ]
}

/// A registry, and a policy that mostly names what is in it.
fn recipes_and_policy() -> impl Strategy<Value = (BTreeMap<&'static str, Recipe>, Policy)> {
    recipes().prop_flat_map(|recipes| {
        let compiled: Vec<_> = recipes.keys().copied().collect();
        (Just(recipes), prop_oneof![3 => policy_over(&compiled), 1 => policy()])
    })
}

/// Up to four of these, in any order.
fn some_of(ids: &[&'static str]) -> impl Strategy<Value = Vec<String>> + use<> {
    let some = sample::subsequence(ids.to_vec(), 0..=ids.len().min(4)).prop_shuffle();
    some.prop_map(|ids| ids.into_iter().map(str::to_owned).collect())
}

fn workload() -> impl Strategy<Value = Workload> {
    let tokens = || prop_oneof![1 => Just(0), 3 => 0..5000u32];
    (tokens(), tokens()).prop_map(|(prompt_tokens, generated_tokens)| Workload { prompt_tokens, generated_tokens })
}

/// What can be read off an answer, whether it is a selection or not.
fn candidates(answer: &Result<Selection, SelectError>) -> Option<&[Candidate]> {
    match answer {
        Ok(selection) => Some(selection.candidates()),
        Err(SelectError::CannotRun { candidates, .. }) => Some(candidates),
        Err(_) => None,
    }
}

fn text(answer: &Result<Selection, SelectError>) -> String {
    answer.as_ref().map_or_else(ToString::to_string, ToString::to_string)
}

fn device_of(candidate: &Candidate) -> Option<&str> {
    candidate.device.as_ref().map(|device| device.id.as_str())
}

fn key(candidate: &Candidate) -> (&'static str, Option<&str>) {
    (candidate.id, device_of(candidate))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_winner_can_run_and_no_other_is_faster(
        (recipes, policy) in recipes_and_policy(), hardware in hardware(), model in profile(), workload in workload(),
    ) {
        let registry = registry(bake(&recipes));
        let request = Request::new(&model).with_policy(policy).with_workload(workload);
        let answer = select(&registry, &hardware, &request);
        if let Ok(selection) = &answer {
            let winner = &selection.candidates()[0];
            prop_assert_eq!(winner.id, selection.backend().id());
            prop_assert_eq!(winner.device.as_ref(), Some(selection.device()));
            prop_assert_eq!(winner.prediction(), Some(selection.prediction()));
            let (requires, _) = &recipes[winner.id];
            prop_assert!(requires.iter().all(|feature| hardware.cpu.features.contains(feature)));
            if !matches!(request.policy, Policy::Preference(_)) {
                let best = selection.prediction().tokens_per_second;
                prop_assert!(selection.eligible().all(|(_, prediction)| prediction.tokens_per_second <= best));
            }
        }
        // Nobody who could run is overlooked: an error means that nobody can.
        if let Err(SelectError::CannotRun { candidates, .. }) = &answer {
            prop_assert!(candidates.iter().all(|candidate| candidate.ineligible().is_some()));
        }
    }

    #[test]
    fn the_order_of_registration_does_not_matter(
        (recipes, policy, order) in recipes_and_policy().prop_flat_map(|(recipes, policy)| {
            let order: Vec<_> = recipes.keys().copied().collect();
            (Just(recipes), Just(policy), Just(order).prop_shuffle())
        }),
        hardware in hardware(), model in profile(),
    ) {
        let sorted = registry(bake(&recipes));
        let shuffled = registry(bake(order.iter().map(|id| (id, &recipes[id]))));
        let request = Request::new(&model).with_policy(policy);
        prop_assert_eq!(select(&sorted, &hardware, &request), select(&shuffled, &hardware, &request));
    }

    #[test]
    fn the_same_input_gives_the_same_answer(
        (recipes, policy) in recipes_and_policy(), hardware in hardware(), model in profile(), workload in workload(),
    ) {
        let registry = registry(bake(&recipes));
        let request = Request::new(&model).with_policy(policy).with_workload(workload);
        let answer = select(&registry, &hardware, &request);
        prop_assert_eq!(&answer, &select(&registry, &hardware, &request.clone()));
        prop_assert_eq!(text(&answer), text(&select(&registry, &hardware, &request)));
    }

    #[test]
    fn another_cpu_feature_never_removes_a_candidate(
        recipes in recipes(), hardware in hardware(), model in profile(), more in sample::select(&FEATURES[..]),
    ) {
        let registry = registry(bake(&recipes));
        let request = Request::new(&model);
        let eligible = |hardware: &Hardware| -> BTreeSet<(&'static str, Option<String>)> {
            let answer = select(&registry, hardware, &request);
            let able = candidates(&answer).into_iter().flatten().filter(|candidate| candidate.prediction().is_some());
            able.map(|candidate| (candidate.id, device_of(candidate).map(str::to_owned))).collect()
        };
        let mut richer = hardware.clone();
        richer.cpu.features.insert(more);
        prop_assert!(eligible(&hardware).is_subset(&eligible(&richer)));
    }

    #[test]
    fn without_the_winner_the_former_second_wins(
        recipes in recipes(), hardware in hardware(), model in profile(), policy in open_policy(),
    ) {
        let request = Request::new(&model).with_policy(policy);
        let Ok(before) = select(&registry(bake(&recipes)), &hardware, &request) else { return Ok(()) };
        let winner = before.backend().id();
        let second = before.eligible().map(|(candidate, _)| key(candidate)).find(|(id, _)| *id != winner);
        let rest: Vec<_> = recipes.iter().filter(|(id, _)| **id != winner).collect();
        match (select(&registry(bake(rest)), &hardware, &request), second) {
            (Ok(after), second) => prop_assert_eq!(Some(key(&after.candidates()[0])), second),
            (Err(_), second) => prop_assert_eq!(second, None),
        }
    }

    #[test]
    fn a_policy_is_respected_or_an_error(
        (recipes, policy) in recipes_and_policy(), hardware in hardware(), model in profile(),
    ) {
        let registry = registry(bake(&recipes));
        let free = select(&registry, &hardware, &Request::new(&model));
        let able = |id: &str| {
            candidates(&free).into_iter().flatten().any(|other| other.id == id && other.prediction().is_some())
        };
        let compiled = |id: &String| recipes.contains_key(id.as_str());
        let request = Request::new(&model).with_policy(policy.clone());
        match (&policy, select(&registry, &hardware, &request)) {
            (Policy::Named(id), Ok(selection)) => prop_assert_eq!(selection.backend().id(), id),
            (Policy::Named(id), Err(SelectError::CannotRun { .. })) => prop_assert!(compiled(id) && !able(id)),
            (Policy::Preference(ids), Ok(selection)) if !ids.is_empty() => {
                // The first that can run, whatever its speed.
                prop_assert_eq!(Some(selection.backend().id()), ids.iter().map(String::as_str).find(|id| able(id)));
            }
            (Policy::Preference(ids), Err(SelectError::CannotRun { .. })) if !ids.is_empty() => {
                prop_assert!(ids.iter().all(|id| compiled(id) && !able(id)));
            }
            (Policy::Deny(ids), Ok(selection)) => {
                prop_assert!(selection.eligible().all(|(candidate, _)| !ids.iter().any(|id| id == candidate.id)));
                prop_assert!(able(selection.backend().id()));
            }
            (Policy::Deny(ids), Err(SelectError::CannotRun { .. })) => {
                prop_assert!(recipes.keys().all(|id| ids.iter().any(|denied| denied == id) || !able(id)));
            }
            (policy, Err(SelectError::Unknown(unknown))) => {
                prop_assert!(policy.names().contains(&unknown.id) && !compiled(&unknown.id));
            }
            // An empty list is no preference.
            (Policy::Automatic | Policy::Preference(_), answer) => {
                prop_assert_eq!(candidates(&answer), candidates(&free));
            }
            (policy, answer) => prop_assert!(false, "{policy:?}: {answer:?}"),
        }
    }

    #[test]
    fn the_report_lists_every_backend_once_for_each_device(
        (recipes, policy) in recipes_and_policy(), hardware in hardware(), model in profile(),
    ) {
        let answer = select(&registry(bake(&recipes)), &hardware, &Request::new(&model).with_policy(policy.clone()));
        let Some(listed) = candidates(&answer) else { return Ok(()) };
        let mut expected = Vec::new();
        for (id, (requires, claims)) in &recipes {
            let runs_here = requires.iter().all(|feature| hardware.cpu.features.contains(feature));
            if runs_here && policy.permits(id) && !claims.is_empty() {
                expected.extend((0..claims.len()).map(|index| (*id, Some(format!("device{index}")))));
            } else {
                expected.push((*id, None));
            }
        }
        let mut listed: Vec<_> =
            listed.iter().map(|candidate| (candidate.id, device_of(candidate).map(str::to_owned))).collect();
        listed.sort();
        expected.sort();
        prop_assert_eq!(listed, expected);
    }

    #[test]
    fn with_a_floor_there_is_always_a_winner(
        recipes in recipes(), hardware in hardware(), model in profile(), speed in 1e-3..1e4,
    ) {
        let fakes = bake(&recipes).into_iter().chain([fake("floor", speed)]);
        let selection = select(&registry(fakes), &hardware, &Request::new(&model)).unwrap();
        prop_assert!(selection.prediction().tokens_per_second >= speed * (1.0 - 1e-12));
        prop_assert!(selection.eligible().any(|(candidate, _)| candidate.id == "floor"));
    }

    #[test]
    fn what_is_no_speed_cannot_win(
        recipes in recipes(), hardware in hardware(), model in profile(), workload in workload(),
    ) {
        let registry = registry(bake(&recipes));
        let answer = select(&registry, &hardware, &Request::new(&model).with_workload(workload));
        for candidate in candidates(&answer).into_iter().flatten() {
            if let Some(prediction) = candidate.prediction() {
                for speed in [prediction.tokens_per_second, prediction.score.prompt, prediction.score.decode] {
                    prop_assert!(speed.is_finite() && speed > 0.0, "{candidate:?}");
                }
            }
        }
    }

    #[test]
    fn the_candidates_stand_best_first_and_then_by_id(
        recipes in recipes(), hardware in hardware(), model in profile(), workload in workload(), policy in open_policy(),
    ) {
        let request = Request::new(&model).with_policy(policy).with_workload(workload);
        let answer = select(&registry(bake(&recipes)), &hardware, &request);
        for pair in candidates(&answer).into_iter().flatten().collect::<Vec<_>>().windows(2) {
            let speeds = |index: usize| {
                pair[index].prediction().map_or([0.0; 3], |prediction| {
                    [prediction.tokens_per_second, prediction.score.prompt, prediction.score.decode]
                })
            };
            prop_assert!(speeds(0) >= speeds(1));
            prop_assert!(speeds(0) > speeds(1) || key(pair[0]) < key(pair[1]));
        }
    }

    #[test]
    fn a_policy_reads_back_what_it_writes(policy in policy()) {
        let text = policy.to_string();
        let read: Policy = text.parse().unwrap();
        prop_assert_eq!(read.to_string(), text);
        prop_assert!(IDS.iter().all(|id| read.permits(id) == policy.permits(id)));
    }

    #[test]
    fn any_text_is_a_policy_or_an_error(text in "[a-z0-9!, .-]{0,20}|.{0,20}") {
        if let Ok(policy) = text.parse::<Policy>() {
            prop_assert_eq!(policy.to_string().parse::<Policy>(), Ok(policy));
        }
    }

    #[test]
    fn a_registry_finds_all_that_it_holds_and_no_more(recipes in recipes(), id in "[a-z0-9-]{0,12}") {
        let registry = registry(bake(&recipes));
        prop_assert!(registry.ids().eq(recipes.keys().copied()));
        prop_assert!(registry.ids().all(|id| registry.find(id).unwrap().id() == id));
        prop_assert_eq!(registry.find(&id).is_ok(), recipes.contains_key(id.as_str()));
    }

    #[test]
    fn a_repeated_id_makes_no_registry(recipes in recipes(), again in any::<sample::Index>()) {
        let mut fakes = bake(&recipes);
        let id = fakes[again.index(fakes.len())].id;
        fakes.push(fake(id, 1.0));
        let backends = fakes.into_iter().map(|fake| fake.leak() as &'static dyn Backend);
        let error = Registry::from_backends(backends).unwrap_err();
        prop_assert!(error.to_string().contains(&format!("`{id}`")), "{error}");
    }
}
