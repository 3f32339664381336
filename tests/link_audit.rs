//! What the linker made of the tiers: every one whole, none mixed with another, nothing that an old CPU would die of.
#![cfg(all(feature = "cpu", feature = "cli", target_os = "linux"))]

#[path = "link_audit/instructions.rs"]
mod instructions;
#[path = "../backends/cpu/tiers.rs"]
mod tiers;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use object::{
    Endianness, Object, ObjectComdat, ObjectSection, ObjectSymbol, SymbolKind, elf,
    read::elf::{Dyn, ElfFile64, FileHeader},
};
use tiers::{TIERS, Tier};

/// Where build.rs left the objects, one folder a tier.
const OBJECTS: &str = env!("GGUF_LOADER_TIER_OBJECTS");

/// The tiers of this build with the paths of their objects.
fn built() -> BTreeMap<&'static str, Vec<PathBuf>> {
    let objects = |tier: &Tier| -> Vec<PathBuf> {
        let files = fs::read_dir(Path::new(OBJECTS).join(tier.id)).into_iter().flatten();
        let paths = files.map(|file| file.expect("the folder can be listed").path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "o")).collect()
    };
    let built: BTreeMap<_, _> = TIERS.iter().map(|tier| (tier.id, objects(tier))).collect();
    built.into_iter().filter(|(_, objects)| !objects.is_empty()).collect()
}

fn suffix(id: &str) -> String {
    format!("__{}", id.replace('-', "_"))
}

fn with_file<R>(path: &Path, call: impl FnOnce(&object::File<'_>) -> R) -> R {
    let data = fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    call(&object::File::parse(&*data).unwrap_or_else(|error| panic!("cannot parse {}: {error}", path.display())))
}

/// Symbols that an object defines, COMDAT signatures included, and whether each is weak.
fn definitions(file: &object::File<'_>) -> BTreeMap<String, bool> {
    let signatures: Vec<_> = file.comdats().map(|comdat| comdat.symbol()).collect();
    let defined = |symbol: &object::Symbol<'_, '_>| {
        let code_or_data = matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Data | SymbolKind::Tls);
        (!symbol.is_undefined() && (symbol.is_global() || code_or_data)) || signatures.contains(&symbol.index())
    };
    let name = |symbol: object::Symbol<'_, '_>| Some((symbol.name().ok()?.to_owned(), symbol.is_weak()));
    file.symbols().filter(defined).filter_map(name).filter(|(name, _)| !name.is_empty()).collect()
}

#[test]
fn the_floor_of_the_architecture_is_always_built() {
    let floor = TIERS.iter().find(|tier| tier.is_for(std::env::consts::ARCH, std::env::consts::OS));
    assert!(built().contains_key(floor.expect("this architecture has tiers").id));
}

#[test]
fn every_symbol_of_a_tier_carries_its_name() {
    for (id, objects) in built() {
        let mut symbols = 0;
        for path in objects {
            // Some files are empty in some tiers: amx/mmq.cpp has code only where there is AMX.
            let names = with_file(&path, definitions);
            symbols += names.len();
            let foreign: Vec<_> = names.keys().filter(|name| !name.ends_with(&suffix(id))).collect();
            assert!(foreign.is_empty(), "{} defines {foreign:?}", path.display());
        }
        assert!(symbols > 500, "{id} has {symbols} symbols: its objects were not read");
    }
}

#[test]
fn no_tier_runs_code_before_main() {
    for (_, objects) in built() {
        for path in objects {
            let constructors = with_file(&path, |file| {
                let names = file.sections().filter_map(|section| section.name().ok().map(str::to_owned));
                let prefixes = [".init_array", ".preinit_array", ".fini_array", ".ctors", ".dtors"];
                names.filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))).collect::<Vec<_>>()
            });
            assert!(constructors.is_empty(), "{} has {constructors:?}", path.display());
        }
    }
}

#[test]
fn no_weak_symbol_is_shared_between_tiers() {
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    let mut weak_symbols = 0;
    for (id, objects) in built() {
        let weak = |path: &PathBuf| with_file(path, definitions).into_iter().filter(|(_, weak)| *weak);
        let names: BTreeSet<String> = objects.iter().flat_map(weak).map(|(name, _)| name).collect();
        weak_symbols += names.len();
        for name in names {
            if let Some(other) = owners.insert(name.clone(), id) {
                panic!("{name} is defined by {other} and by {id}: the linker keeps one of the two");
            }
        }
    }
    assert!(weak_symbols > 0, "ggml-cpu is C++ and has weak symbols; none were seen, so nothing was tested");
}

#[test]
fn a_tier_has_no_instruction_that_it_does_not_require() {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: the decoder knows x86 only");
        return;
    }
    for (id, objects) in built() {
        let tier = TIERS.iter().find(|tier| tier.id == id).expect("the tier comes from the table");
        for path in objects {
            let excess = with_file(&path, |file| instructions::beyond(file, tier.requires));
            assert!(excess.is_empty(), "{} uses what {id} does not require: {excess:?}", path.display());
        }
    }
}

#[test]
fn tiles_have_a_size_before_they_are_used() {
    let Some(objects) = built().remove("sapphirerapids") else {
        println!("skipped: this build has no tier with AMX");
        return;
    };
    let stored: Vec<bool> =
        objects.iter().flat_map(|path| with_file(path, instructions::tile_sizes_are_stored)).collect();
    assert!(!stored.is_empty(), "no object of the tier sets tiles up");
    assert!(stored.iter().all(|&stored| stored), "stores were dropped that backends/cpu/amx.h keeps: {stored:?}");
}

/// Crates that choose an instruction set at run time themselves, through `is_x86_feature_detected!` or the crate
/// cpufeatures, which ask XGETBV too: memchr and aho-corasick (filters of the log), half (conversions of floats), blake3
/// (digests of imported models).
const DETECT_AT_RUN_TIME: &[&str] = &["memchr", "aho_corasick", "half", "blake3"];

/// Parts of the names of functions that are called only where CPUID said so: XGETBV in the standard library and in our own
/// detection, RDRAND and RDSEED in libstdc++'s `random_device`.
const CALLED_WHERE_THERE: &[&str] = &["5xsave7__xgetbv", "8hardware6record3x864xcr0", "__x86_rdrand", "__x86_rdseed"];

#[test]
fn instructions_beyond_the_baseline_stand_only_in_tiers_and_in_crates_that_detect_by_themselves() {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: the decoder knows x86 only");
        return;
    }
    let suffixes: Vec<String> = built().keys().map(|id| suffix(id)).collect();
    let in_tier = |symbol: &str| suffixes.iter().any(|suffix| symbol.contains(suffix.as_str()));
    let may = |symbol: &str| {
        in_tier(symbol)
            || defining_crate(symbol).is_some_and(|name| DETECT_AT_RUN_TIME.contains(&name))
            || CALLED_WHERE_THERE.iter().any(|part| symbol.contains(part))
    };
    let baseline = TIERS.iter().find(|tier| tier.arch == "x86_64").expect("the table has x86-64").requires;
    let owners =
        with_file(Path::new(env!("CARGO_BIN_EXE_gguf-loader")), |file| instructions::owners_beyond(file, baseline));
    assert!(owners.keys().any(|symbol| in_tier(symbol)), "no tier's code was found: nothing was tested");
    let foreign: BTreeMap<_, _> = owners.into_iter().filter(|(symbol, _)| !may(symbol)).collect();
    assert!(foreign.is_empty(), "outside the tiers there are instructions that not every x86-64 has: {foreign:#?}");
}

/// The crate at the beginning of a mangled Rust path, in either of rustc's manglings. Those further on are of types that a
/// generic function was made for: their crates did not write it.
fn defining_crate(symbol: &str) -> Option<&str> {
    if let Some(path) = symbol.strip_prefix("_ZN") {
        let digits = path.find(|other: char| !other.is_ascii_digit())?;
        let first = path.get(digits..)?.get(..path[..digits].parse().ok()?)?;
        // Of an implementation the type stands first: `<memchr::arch::One as Trait>::find`.
        return match first.strip_prefix("_$LT$") {
            Some(implementation) => implementation.split("..").next(),
            None => Some(first),
        };
    }
    let (_, root) = symbol.strip_prefix("_R")?.split_once("Cs")?;
    let name = root.split_once('_')?.1;
    let length = name.find(|other: char| !other.is_ascii_digit())?;
    name.get(length..)?.get(..name[..length].parse().ok()?)
}

#[test]
fn only_the_crate_that_wrote_a_function_counts_as_its_own() {
    for (symbol, name) in [
        ("_ZN6memchr4arch6x86_644avx26memchr3One8find_raw17hf2a72ead91b920baE", Some("memchr")),
        ("_ZN56_$LT$half..binary16..f16$u20$as$u20$core..fmt..Debug$GT$3fmt17hf2a72ead91b920baE", Some("half")),
        ("_ZN11gguf_loader4gguf10dequantize16row$LT$4half$GT$17hf2a72ead91b920baE", Some("gguf_loader")),
        ("_RNvNtCs1a2B_6blake34avx29hash_many", Some("blake3")),
        ("_RINvNtCs9_11gguf_loader4gguf3rowNtNtCs7_4half8binary163f16E", Some("gguf_loader")),
        ("ggml_vec_dot_4half", None),
    ] {
        assert_eq!(defining_crate(symbol), name, "{symbol}");
    }
}

#[test]
fn nothing_of_the_sys_crates_fixed_instruction_set_is_linked() {
    with_file(Path::new(env!("CARGO_BIN_EXE_gguf-loader")), |file| {
        let unrenamed = ["ggml_graph_compute", "ggml_cpu_init", "ggml_backend_cpu_init", "ggml_threadpool_new"];
        let linked: Vec<_> = file.symbols().filter_map(|symbol| symbol.name().ok().map(str::to_owned)).collect();
        let found: Vec<_> = linked.iter().filter(|name| unrenamed.contains(&name.as_str())).collect();
        assert!(found.is_empty(), "{found:?} come from the sys crate's own ggml-cpu");
        assert!(linked.iter().any(|name| name.starts_with("ggml_graph_compute__")), "the binary has no tier");
    });
}

#[test]
fn the_binary_needs_no_library_beyond_those_that_every_linux_has() {
    let data = fs::read(env!("CARGO_BIN_EXE_gguf-loader")).expect("the binary can be read");
    let file = ElfFile64::<Endianness>::parse(&*data).expect("an ELF file");
    let allowed = ["libc.so.6", "libm.so.6", "libgcc_s.so.1"];
    let needed = needed(&file, &data);
    assert!(needed.contains(&"libc.so.6".to_owned()), "{needed:?}");
    let more: Vec<_> =
        needed.iter().filter(|name| !allowed.contains(&name.as_str()) && !name.starts_with("ld-linux")).collect();
    assert!(more.is_empty(), "{more:?}");
}

fn needed(file: &ElfFile64<'_, Endianness>, data: &[u8]) -> Vec<String> {
    let endian = file.endian();
    let sections = file.elf_header().sections(endian, data).expect("sections");
    let (entries, link) = sections.dynamic(endian, data).expect("readable").expect("a dynamic section");
    let strings = sections.strings(endian, data, link).expect("its strings");
    entries
        .iter()
        .filter(|entry| entry.tag32(endian) == Some(elf::DT_NEEDED))
        .map(|entry| String::from_utf8_lossy(entry.string(endian, strings).expect("a name")).into_owned())
        .collect()
}
