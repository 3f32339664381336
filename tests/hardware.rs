//! Other machines, as tests: what is decoded from a snapshot, which tier it runs, with how many threads.
//!
//! `tests/fixtures/hardware/*.json` are snapshots with the source of their facts and what is expected of them.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the functions that the tests share are tests too")]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use gguf_loader::hardware::{
    Architecture, CacheKind, CoreKind, CpuFeature, CpuFeatures, CpuidLeaf, Hardware, Snapshot, X86Registers,
};
use proptest::prelude::*;

#[path = "../backends/cpu/tiers.rs"]
mod tiers;

use tiers::{TIERS, Tier};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    /// Where its facts come from.
    source: String,
    expect: Expectation,
    snapshot: Snapshot,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Expectation {
    tier: Option<String>,
    microarchitecture: Option<String>,
    threads: Option<u32>,
    physical_cores: Option<u32>,
    efficiency_cores: Option<usize>,
    numa_nodes: Option<usize>,
    memory_total: Option<u64>,
    memory_available: Option<u64>,
}

fn fixtures() -> BTreeMap<String, Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hardware");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let json = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    json.map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let fixture = serde_json::from_str(&std::fs::read_to_string(&path).unwrap());
        (name.clone(), fixture.unwrap_or_else(|error| panic!("{name}: {error}")))
    })
    .collect()
}

fn fixture(name: &str) -> Snapshot {
    fixtures().remove(name).unwrap_or_else(|| panic!("there is no fixture {name}")).snapshot
}

fn eligible(architecture: Architecture, os: &str, features: CpuFeatures) -> impl Iterator<Item = &'static Tier> {
    let target = architecture.name().unwrap_or_default().to_owned();
    let os = os.to_owned();
    TIERS.iter().filter(move |tier| tier.is_for(&target, &os) && features.missing(tier.requires).is_empty())
}

/// The fastest tier of its architecture that a machine can run.
fn best_tier(snapshot: &Snapshot) -> Option<&'static str> {
    let features = Hardware::from_snapshot(snapshot).cpu.features;
    let eligible = eligible(snapshot.architecture, &snapshot.os, features);
    eligible.max_by(|a, b| a.rates.quantized.total_cmp(&b.rates.quantized)).map(|tier| tier.id)
}

/// Compares a fact of every fixture that expects one, and reports all differences at once.
fn check<T: PartialEq + std::fmt::Debug>(
    expected: impl Fn(&Expectation) -> Option<T>,
    found: impl Fn(&Snapshot, &Hardware) -> Option<T>,
) {
    let mut compared = 0;
    let mut differences = Vec::new();
    for (name, fixture) in fixtures() {
        let Some(expected) = expected(&fixture.expect) else { continue };
        compared += 1;
        let found = found(&fixture.snapshot, &Hardware::from_snapshot(&fixture.snapshot));
        if found.as_ref() != Some(&expected) {
            differences.push(format!("{name}: expected {expected:?}, found {found:?} ({})", fixture.source));
        }
    }
    assert!(compared > 0, "no fixture expects this");
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

#[test]
fn every_machine_runs_its_tier() {
    check(|expect| expect.tier.clone(), |snapshot, _| best_tier(snapshot).map(str::to_owned));
}

#[test]
fn every_machine_has_the_name_of_its_microarchitecture() {
    check(|expect| expect.microarchitecture.clone(), |_, hardware| hardware.cpu.microarchitecture.clone());
}

#[test]
fn every_machine_computes_with_its_number_of_threads() {
    check(|expect| expect.threads, |_, hardware| Some(hardware.default_threads().get()));
}

#[test]
fn every_machine_has_its_cores() {
    check(|expect| expect.physical_cores, |_, hardware| Some(hardware.topology.physical_cores));
    let efficient = |hardware: &Hardware| hardware.topology.cores_of(CoreKind::Efficiency).count();
    check(|expect| expect.efficiency_cores, |_, hardware| Some(efficient(hardware)));
    check(|expect| expect.numa_nodes, |_, hardware| Some(hardware.topology.numa_nodes.len()));
}

#[test]
fn every_machine_has_the_memory_that_its_groups_leave_it() {
    check(|expect| expect.memory_total, |_, hardware| hardware.memory.total);
    check(|expect| expect.memory_available, |_, hardware| hardware.memory.available);
}

#[test]
fn memory_that_nothing_tells_of_is_not_known() {
    let hardware = Hardware::from_snapshot(&fixture("nothing-readable"));
    assert_eq!((hardware.memory.total, hardware.memory.available, hardware.memory.limit), (None, None, None));
    assert!(hardware.to_string().ends_with("memory: not known"), "{hardware}");
}

#[test]
fn every_tier_is_some_machines_choice_or_has_no_machine_here() {
    // Missing: a CPUID dump of Cooper Lake, a chip with the dot product and without half precision, and the features
    // that Linux lists for one with both SVE2 and SME. `x64` is the choice of a machine that says nothing.
    const WITHOUT: [&str; 3] = ["cooperlake", "armv8-dotprod", "armv9-sme"];
    let chosen: HashSet<_> = fixtures().values().filter_map(|fixture| best_tier(&fixture.snapshot)).collect();
    for tier in TIERS.iter().filter(|tier| !WITHOUT.contains(&tier.id)) {
        assert!(chosen.contains(tier.id), "{}", tier.id);
    }
}

#[test]
fn every_fixture_names_its_source_and_reads_as_a_summary() {
    for (name, fixture) in fixtures() {
        assert!(!fixture.source.is_empty(), "{name}");
        let summary = Hardware::from_snapshot(&fixture.snapshot).to_string();
        assert_eq!(summary.lines().count(), 5, "{name}: {summary}");
    }
}

#[test]
fn a_snapshot_survives_json() {
    for (name, fixture) in fixtures() {
        let json = serde_json::to_string(&fixture.snapshot).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&json).unwrap(), fixture.snapshot, "{name}");
    }
}

#[test]
fn without_osxsave_nothing_with_vex_is_left() {
    let features = Hardware::from_snapshot(&fixture("haswell-without-osxsave")).cpu.features;
    let vex = [CpuFeature::Avx, CpuFeature::F16c, CpuFeature::Fma, CpuFeature::Avx2, CpuFeature::AvxVnni];
    assert!(vex.iter().all(|&feature| !features.contains(feature)), "{features:?}");
    assert!(features.contains(CpuFeature::Bmi2), "BMI2 works on general registers");
}

#[test]
fn avx10_at_512_bits_implies_the_features_that_it_does_not_list() {
    let mut snapshot = fixture("zen4");
    let registers = snapshot.x86.as_mut().unwrap();
    // The AVX-512 bits of leaf 7 off, AVX10 of leaf 7.1 on, version 1 at 512 bits in leaf 0x24.
    change(registers, 0x7, 0, |[eax, ebx, ecx, edx]| [eax.max(1), ebx & !0xdc23_0000, ecx & !0x5842, edx]);
    let without = best_tier(&snapshot);
    let registers = snapshot.x86.as_mut().unwrap();
    change(registers, 0x7, 1, |[eax, ebx, ecx, edx]| [eax & !(1 << 5), ebx, ecx, edx | 1 << 19]);
    change(registers, 0x0, 0, |[eax, ebx, ecx, edx]| [eax.max(0x24), ebx, ecx, edx]);
    registers.cpuid.push(CpuidLeaf::new(0x24, 0, [0, 1 << 18 | 1, 0, 0]));
    assert_eq!((without, best_tier(&snapshot)), (Some("haswell"), Some("zen4")));
}

fn change(registers: &mut X86Registers, leaf: u32, subleaf: u32, new: impl Fn([u32; 4]) -> [u32; 4]) {
    match registers.cpuid.iter_mut().find(|entry| entry.leaf == leaf && entry.subleaf == subleaf) {
        Some(entry) => entry.registers = new(entry.registers),
        None => registers.cpuid.push(CpuidLeaf::new(leaf, subleaf, new([0; 4]))),
    }
}

#[test]
fn threads_stand_on_one_cpu_of_each_core() {
    let plan = Hardware::from_snapshot(&fixture("hybrid-8p-8e")).thread_plan();
    assert_eq!(plan.cpus, [0, 2, 4, 6, 8, 10, 12, 14]);
    let plan = Hardware::from_snapshot(&fixture("affinity-one-core")).thread_plan();
    assert_eq!(plan.cpus, [3]);
}

#[test]
fn threads_keep_to_performance_cores_where_there_are_others_and_they_suffice() {
    let keep = |name: &str, threads| Hardware::from_snapshot(&fixture(name)).topology.performance_cpus(threads);
    assert_eq!(keep("hybrid-8p-8e", 8), Some((0..16).collect()));
    assert_eq!(keep("hybrid-8p-8e", 1), Some((0..16).collect()));
    // Whoever asks for more threads wants them on all cores.
    assert_eq!(keep("hybrid-8p-8e", 9), None);
    assert_eq!(keep("hybrid-bound-to-efficiency-cores", 1), None);
    assert_eq!(keep("zen4", 1), None);
}

#[test]
fn the_plan_says_why() {
    let reason = |name: &str| Hardware::from_snapshot(&fixture(name)).thread_plan().reason;
    assert_eq!(reason("hybrid-8p-8e"), "8 performance cores (8 efficiency cores left out)");
    assert_eq!(reason("container-quota"), "64 cores; a quota of 1.50 CPUs leaves 1");
    assert_eq!(reason("affinity-one-core"), "1 core; the process may not use 7 more");
}

#[test]
fn this_machine_is_detected_as_the_standard_library_sees_it() {
    let hardware = Hardware::detect();
    println!("{hardware}");
    let topology = &hardware.topology;
    assert!(hardware.memory.available <= hardware.memory.total);
    let threads = hardware.default_threads().get() as usize;
    assert!(threads <= std::thread::available_parallelism().unwrap().get());
    assert!(threads <= topology.physical_cores as usize && topology.physical_cores <= topology.logical_cpus);
    #[cfg(target_arch = "x86_64")]
    {
        let has = |feature| hardware.cpu.features.contains(feature);
        assert_eq!(has(CpuFeature::Sse42), is_x86_feature_detected!("sse4.2"));
        assert_eq!(has(CpuFeature::Popcnt), is_x86_feature_detected!("popcnt"));
        assert_eq!(has(CpuFeature::Lzcnt), is_x86_feature_detected!("lzcnt"));
        assert_eq!(has(CpuFeature::Avx), is_x86_feature_detected!("avx"));
        assert_eq!(has(CpuFeature::Fma), is_x86_feature_detected!("fma"));
        assert_eq!(has(CpuFeature::F16c), is_x86_feature_detected!("f16c"));
        assert_eq!(has(CpuFeature::Avx2), is_x86_feature_detected!("avx2"));
        assert_eq!(has(CpuFeature::Bmi2), is_x86_feature_detected!("bmi2"));
        assert_eq!(has(CpuFeature::Avx512f), is_x86_feature_detected!("avx512f"));
        assert_eq!(has(CpuFeature::Avx512vbmi), is_x86_feature_detected!("avx512vbmi"));
        assert_eq!(has(CpuFeature::Avx512vnni), is_x86_feature_detected!("avx512vnni"));
        assert_eq!(has(CpuFeature::Avx512bf16), is_x86_feature_detected!("avx512bf16"));
    }
    #[cfg(target_arch = "aarch64")]
    {
        use std::arch::is_aarch64_feature_detected as detected;
        let has = |feature| hardware.cpu.features.contains(feature);
        assert_eq!(has(CpuFeature::DotProd), detected!("dotprod"));
        assert_eq!(has(CpuFeature::Fp16), detected!("fp16"));
        assert_eq!(has(CpuFeature::I8mm), detected!("i8mm"));
        assert_eq!(has(CpuFeature::Sve), detected!("sve"));
        assert_eq!(has(CpuFeature::Sve2), detected!("sve2"));
        assert_eq!(has(CpuFeature::Lse), detected!("lse"));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_files_of_this_machine_give_caches_and_memory() {
    if !Path::new("/sys/devices/system/cpu/cpu0/cache/index0/size").exists() {
        println!("skipped: this kernel does not list caches");
        return;
    }
    let hardware = Hardware::detect();
    let l1 = |cache: &&gguf_loader::hardware::Cache| cache.level == 1 && cache.kind == CacheKind::Data;
    let l1 = hardware.topology.caches.iter().find(l1).expect("a data cache of level 1");
    assert!((8 << 10..=1 << 20).contains(&l1.bytes), "{} bytes", l1.bytes);
    assert!(hardware.memory.total > Some(0));
}

/// What the selector makes of the fixtures, with the backends that this program has.
mod choices {
    use super::*;
    use gguf_loader::{
        backend::{ModelProfile, WeightGroup, Workload},
        gguf::TensorType,
        select::{Registry, Request, SelectError, select},
    };

    #[test]
    fn detection_and_choice_take_less_than_five_milliseconds() {
        let (registry, model) = (Registry::global().unwrap(), model(TensorType::Q4_0));
        // The best of ten: other tests run beside this one.
        let time = || {
            let start = Instant::now();
            let answer = select(registry, &Hardware::detect(), &Request::new(&model));
            let took = start.elapsed();
            assert!(answer.is_ok() || answer == Err(SelectError::NoBackends), "{answer:?}");
            took
        };
        let best = (0..10).map(|_| time()).min().unwrap();
        println!("detected, and chose among {} backends, in {best:?}", registry.len());
        let emulated = std::env::var_os("GGUF_LOADER_TEST_EMULATED").is_some();
        assert!(emulated || best < Duration::from_millis(5), "{best:?}");
    }

    /// A model of 7 * 10^9 weights of one type, as large as what binds decoding to the memory.
    fn model(tensor_type: TensorType) -> ModelProfile {
        let elements = 7_000_000_000 / tensor_type.block_elements() * tensor_type.block_elements();
        let bytes = elements / tensor_type.block_elements() * tensor_type.block_bytes();
        ModelProfile {
            architecture: "llama".to_owned(),
            weight_bytes: bytes,
            groups: vec![WeightGroup { tensor_type, stacked: false, elements, bytes }],
            kv_bytes_per_token: 131_072,
            n_ctx_train: 4096,
            n_layer: 32,
            n_vocab: 32_000,
            vocabulary_only: false,
        }
    }

    /// Compares the winner on every machine of this architecture and system whose tier was built.
    fn check(engine: &str, tensor_type: TensorType, workload: Workload) {
        let (registry, model) = (Registry::global().unwrap(), model(tensor_type));
        let request = Request::new(&model).with_workload(workload);
        let mut compared = 0;
        for (name, Fixture { expect, snapshot, .. }) in fixtures() {
            let here = snapshot.architecture == Architecture::HERE && snapshot.os == std::env::consts::OS;
            let Some(expected) = expect.tier.filter(|_| here).map(|tier| format!("{engine}-{tier}")) else { continue };
            if registry.find(&expected).is_err() {
                continue;
            }
            compared += 1;
            let selection = select(registry, &Hardware::from_snapshot(&snapshot), &request).unwrap();
            assert_eq!(selection.backend().id(), expected, "{name}, {tensor_type}, {workload:?}: {selection}");
        }
        if compared == 0 {
            println!("skipped: no {engine}-* of a recorded machine is compiled in");
        }
    }

    const USUAL: Workload = Workload { prompt_tokens: 512, generated_tokens: 128 };
    const WITHOUT_PROMPT: Workload = Workload { prompt_tokens: 0, generated_tokens: 128 };

    #[test]
    fn models_with_float_weights_are_given_the_machines_tier() {
        check("cpu", TensorType::F16, USUAL);
    }

    #[test]
    fn quantised_models_are_given_the_machines_tier() {
        check("cpu", TensorType::Q4_0, USUAL);
    }

    #[test]
    fn ternary_models_are_given_the_ternary_kernels_of_the_machines_tier() {
        check("bitnet", TensorType::TQ2_0, USUAL);
    }

    #[test]
    fn where_memory_binds_all_tiers_alike_the_machines_tier_still_wins() {
        check("cpu", TensorType::F16, WITHOUT_PROMPT);
        check("cpu", TensorType::Q4_0, WITHOUT_PROMPT);
        check("bitnet", TensorType::TQ2_0, WITHOUT_PROMPT);
    }

    #[test]
    fn on_every_machine_of_this_architecture_there_is_a_winner_and_the_floor_can_run() {
        let registry = Registry::global().unwrap();
        let floor = TIERS.iter().find(|tier| tier.is_for(std::env::consts::ARCH, std::env::consts::OS));
        let Some(floor) = floor.map(|tier| format!("cpu-{}", tier.id)).filter(|id| registry.find(id).is_ok()) else {
            println!("skipped: no CPU tier is compiled in");
            return;
        };
        let machines: Vec<Snapshot> = fixtures().into_values().map(|fixture| fixture.snapshot).collect();
        let machines: Vec<Snapshot> =
            machines.into_iter().filter(|snapshot| snapshot.architecture == Architecture::HERE).collect();
        let types = [TensorType::F32, TensorType::F16, TensorType::Q4_0, TensorType::Q6_K, TensorType::TQ2_0];
        let tokens = || prop_oneof![Just(0_u32), 1..5000_u32];
        proptest!(|(
            snapshot in prop_oneof![any_snapshot_of(machines.clone()), proptest::sample::select(machines)],
            more in any_features(),
            tensor_type in proptest::sample::select(types.to_vec()),
            prompt_tokens in tokens(),
            generated_tokens in tokens(),
        )| {
            let mut hardware = Hardware::from_snapshot(&snapshot);
            let recorded = hardware.cpu.features;
            let model = model(tensor_type);
            let request = Request::new(&model).with_workload(Workload { prompt_tokens, generated_tokens });
            // As it is, and with features in any combination.
            for features in [recorded, recorded.iter().chain(more.iter()).collect()] {
                hardware.cpu.features = features;
                let selection = select(registry, &hardware, &request).unwrap();
                prop_assert!(selection.eligible().any(|(candidate, _)| candidate.id == floor), "{selection}");
                let id = selection.backend().id();
                let tier = TIERS.iter().find(|tier| id.ends_with(&format!("-{}", tier.id)));
                prop_assert!(tier.is_some_and(|tier| features.missing(tier.requires).is_empty()), "{selection}");
            }
        });
    }
}

mod table {
    use super::*;

    #[test]
    fn every_requirement_is_a_feature_that_detection_knows() {
        for tier in TIERS {
            for name in tier.requires {
                assert!(CpuFeature::from_name(name).is_some(), "{}: {name}", tier.id);
            }
        }
    }

    #[test]
    fn ids_and_cargo_features_are_unique_and_agree() {
        let mut ids = HashSet::new();
        for tier in TIERS {
            assert!(ids.insert(tier.id), "{} stands twice", tier.id);
            if let Some(feature) = tier.cargo_feature {
                assert_eq!(feature, format!("cpu-{}", tier.id));
            }
        }
    }

    #[test]
    fn cargo_has_a_feature_for_each_tier_and_no_other() {
        let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
        let only_brings_in_cpu = manifest.lines().filter_map(|line| line.strip_suffix(r#" = ["cpu"]"#));
        // `bitnet` brings nothing else in either, and is kernels for every tier instead of a tier.
        let declared: HashSet<&str> = only_brings_in_cpu.filter(|feature| feature.starts_with("cpu-")).collect();
        let wanted: HashSet<&str> = TIERS.iter().filter_map(|tier| tier.cargo_feature).collect();
        assert_eq!(declared, wanted);
    }

    #[test]
    fn the_first_tier_of_an_architecture_is_its_floor() {
        for (architecture, baseline) in [("x86_64", "sse2"), ("aarch64", "neon")] {
            let mut tiers = TIERS.iter().filter(|tier| tier.arch == architecture);
            let floor = tiers.next().unwrap();
            assert_eq!((floor.requires, floor.cargo_feature, floor.os), (&[baseline][..], None, None));
            assert!(tiers.all(|tier| tier.cargo_feature.is_some()));
        }
    }

    #[test]
    fn a_build_has_the_floor_and_the_tiers_that_its_features_ask_for() {
        let ids = |os, features: &[&str]| -> Vec<&'static str> {
            let wanted = tiers::wanted("aarch64", os, |feature| features.contains(&feature));
            wanted.unwrap().iter().map(|tier| tier.id).collect()
        };
        assert_eq!(ids("linux", &[]), ["armv8"]);
        let features = ["cpu-armv8-dotprod", "cpu-apple-m1", "cpu-haswell"];
        assert_eq!(ids("linux", &features), ["armv8", "armv8-dotprod"]);
        assert_eq!(ids("macos", &features), ["armv8", "armv8-dotprod", "apple-m1"]);
    }

    #[test]
    fn a_build_for_an_architecture_without_tiers_is_refused_with_the_way_out() {
        let message = tiers::wanted("riscv64", "linux", |_| true).unwrap_err();
        assert!(message.contains("riscv64") && message.contains("--no-default-features"), "{message}");
    }

    #[test]
    fn every_rate_grows_from_tier_to_tier() {
        for architecture in ["x86_64", "aarch64"] {
            let tiers: Vec<_> = TIERS.iter().filter(|tier| tier.arch == architecture).collect();
            for pair in tiers.windows(2) {
                let [slow, fast] = [pair[0].rates, pair[1].rates];
                let grows = slow.quantized < fast.quantized
                    && slow.float < fast.float
                    && slow.quantized_vector < fast.quantized_vector
                    && slow.float_vector < fast.float_vector
                    && slow.ternary < fast.ternary
                    && slow.ternary_vector < fast.ternary_vector;
                assert!(grows, "{} is not slower than {}", pair[0].id, pair[1].id);
            }
        }
    }

    #[test]
    fn a_tier_with_more_requirements_comes_later() {
        for (index, tier) in TIERS.iter().enumerate() {
            for earlier in TIERS[..index].iter().filter(|earlier| earlier.arch == tier.arch) {
                let needs: HashSet<_> = earlier.requires.iter().collect();
                let fewer = tier.requires.iter().filter(|name| needs.contains(name)).count() == tier.requires.len()
                    && tier.requires.len() < needs.len();
                // Those for one operating system are faster there than what is built for all.
                assert!(!fewer || tier.os.is_some(), "{} needs less than {}", tier.id, earlier.id);
            }
        }
    }

    /// What gcc and clang may also emit under a flag; `gcc FLAG -dM -E -x c /dev/null` lists it.
    const IMPLIED: [(&str, &[&str]); 4] = [
        ("-msse4.2", &["sse3", "ssse3", "sse4.1", "popcnt"]),
        ("-march=armv8.2-a", &["lse", "rdm", "crc"]),
        ("+sve", &["fcma"]),
        ("+sme", &["bf16"]),
    ];

    #[test]
    fn whatever_a_flag_lets_the_compiler_emit_is_required() {
        for tier in TIERS {
            let flags = tier.gnu_flags.join(" ");
            let named = tier.gnu_flags.iter().filter(|flag| !flag.starts_with("-mtune=")).flat_map(|flag| {
                match flag.strip_prefix("-march=") {
                    Some(march) => march.split('+').skip(1).collect(),
                    None => vec![flag.trim_start_matches("-m")],
                }
            });
            let implied = IMPLIED.iter().filter(|(flag, _)| flags.contains(flag)).flat_map(|(_, names)| *names);
            for name in named.chain(implied.copied()) {
                assert!(tier.requires.contains(&name), "{} is compiled with {flags} and not {name}", tier.id);
            }
        }
    }
}

fn any_features() -> impl Strategy<Value = CpuFeatures> {
    proptest::collection::vec(proptest::sample::select(CpuFeature::ALL), 0..CpuFeature::ALL.len())
        .prop_map(CpuFeatures::from_iter)
}

fn any_text() -> impl Strategy<Value = String> {
    let shaped = prop_oneof![
        "[0-9]{1,20}\n",
        "[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,11}-[0-9]{1,11}){0,3}",
        "-?[0-9]{1,20} [0-9]{1,20}",
        "max [0-9]{1,6}",
        "0x[0-9a-fA-F]{0,17}",
        "[0-9]{0,3}[KMG]",
        "0::/[a-z./]{0,12}",
        "[0-9]:(cpu|memory|cpu,memory|):[a-z./]{0,12}",
        "[0-9]+ [0-9]+ 0:1 /[a-z/]{0,6} /[a-z/]{0,6} rw - (cgroup|cgroup2) x (rw,cpu|memory)",
        "(MemTotal|MemAvailable|MemFree): +[0-9]{1,20} kB\n(MemAvailable: +[0-9]{1,20} kB)?",
        "(inactive_file|total_active_file|x) [0-9]{1,20}\n",
    ];
    prop_oneof![3 => shaped, 1 => ".{0,40}"]
}

/// A snapshot whose every file, register and number may be anything.
fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    any_snapshot_of(fixtures().into_values().map(|fixture| fixture.snapshot).collect())
}

/// As [`any_snapshot`], with what one of these machines has as the beginning.
fn any_snapshot_of(machines: Vec<Snapshot>) -> impl Strategy<Value = Snapshot> {
    let leaf = prop_oneof![0_u32..0x30, 0x8000_0000_u32..0x8000_0030, any::<u32>()];
    let leaves = proptest::collection::vec((leaf, 0_u32..9, any::<[u32; 4]>()), 0..12);
    let texts = proptest::collection::vec(any_text(), 1..12);
    (proptest::sample::select(machines), leaves, texts, any::<Option<u64>>(), any::<u64>()).prop_map(
        |(mut snapshot, leaves, texts, xcr0, bits)| {
            let mut texts = texts.into_iter().cycle();
            let more = [
                "/proc/meminfo",
                "/proc/cpuinfo",
                "/proc/self/cgroup",
                "/proc/self/mountinfo",
                "/sys/devices/system/cpu/online",
                "/sys/devices/cpu_atom/cpus",
                "/sys/devices/system/node/online",
                "/sys/devices/system/cpu/cpu0/cache/index0/type",
                "/sys/devices/system/cpu/cpu0/cache/index0/size",
                "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
                "/sys/devices/system/cpu/cpu0/regs/identification/midr_el1",
            ];
            let paths: Vec<String> = snapshot.files.keys().cloned().chain(more.map(str::to_owned)).collect();
            for (index, path) in paths.into_iter().enumerate() {
                // Some keep their contents, so that damage meets sense.
                if bits >> (index % 64) & 1 == 1 {
                    snapshot.files.insert(path, texts.next().unwrap());
                }
            }
            for value in snapshot.sysctl.values_mut() {
                *value = texts.next().unwrap();
            }
            if let Some(registers) = &mut snapshot.x86 {
                let leaves = leaves.into_iter().map(|(leaf, subleaf, answer)| CpuidLeaf::new(leaf, subleaf, answer));
                // The first answer for a leaf counts.
                registers.cpuid.splice(0..0, leaves);
                registers.xcr0 = xcr0;
            }
            if let Some(registers) = &mut snapshot.arm {
                registers.hwcap = bits;
                registers.hwcap2 = bits.rotate_left(17);
            }
            snapshot
        },
    )
}

proptest! {
    #[test]
    fn one_more_feature_never_removes_a_tier(features in any_features(), more in proptest::sample::select(CpuFeature::ALL)) {
        for (architecture, os) in [(Architecture::X86_64, "linux"), (Architecture::Aarch64, "linux"), (Architecture::Aarch64, "macos")] {
            let before: HashSet<_> = eligible(architecture, os, features).map(|tier| tier.id).collect();
            let mut grown = features;
            grown.insert(more);
            let after: HashSet<_> = eligible(architecture, os, grown).map(|tier| tier.id).collect();
            prop_assert!(after.is_superset(&before));
        }
    }

    #[test]
    fn any_contents_of_any_file_decode_to_a_machine_that_can_compute(snapshot in any_snapshot()) {
        let hardware = Hardware::from_snapshot(&snapshot);
        let plan = hardware.thread_plan();
        prop_assert!(plan.threads.get() <= hardware.topology.physical_cores.max(1));
        prop_assert!(plan.cpus.iter().all(|cpu| hardware.topology.allowed_cpus.contains(cpu)));
        prop_assert!(hardware.memory.available <= hardware.memory.total);
        prop_assert!(best_tier(&snapshot).is_some());
        prop_assert!(!hardware.to_string().is_empty());
    }

    #[test]
    fn what_the_system_does_not_save_is_never_used(xcr0 in any::<u64>(), leaves in any::<[[u32; 4]; 3]>()) {
        let mut snapshot = fixture_of_all_features();
        let registers = snapshot.x86.as_mut().unwrap();
        registers.xcr0 = Some(xcr0);
        for ((leaf, subleaf), answer) in [(1, 0), (7, 0), (7, 1)].into_iter().zip(leaves) {
            change(registers, leaf, subleaf, |_| answer);
        }
        let osxsave = leaves[0][2] >> 27 & 1 == 1;
        let features = Hardware::from_snapshot(&snapshot).cpu.features;
        for feature in features.iter() {
            let name = feature.name();
            let state = if name.starts_with("amx") {
                0x6_0000
            } else if name.starts_with("avx512") {
                0xe6
            } else if name.starts_with("avx") || name == "fma" || name == "f16c" {
                0x6
            } else {
                continue;
            };
            prop_assert!(osxsave && xcr0 & state == state, "{} with XCR0 of {:#x}", name, xcr0);
        }
    }
}

fn fixture_of_all_features() -> Snapshot {
    let text = include_str!("fixtures/hardware/sapphirerapids.json");
    serde_json::from_str::<Fixture>(text).unwrap().snapshot
}
