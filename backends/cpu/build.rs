//! Compiles ggml-cpu once per tier, from the sys crate's own source, and gives every symbol the tier's name, so that all
//! tiers live in one static binary.
//!
//! Why renaming, and why all of it: the tiers define the same functions, some of them as weak symbols in COMDAT groups
//! (C++ inline functions, templates). Were one group shared, the linker would keep the copy of any one tier, and an AVX-512
//! tier's copy of `std::vector::resize` would kill an old CPU. The group's signature is a symbol of its own: it has to be
//! renamed too, or the linker still drops all copies but one.

use std::{
    collections::{BTreeSet, HashSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use object::{Object, ObjectComdat, ObjectSymbol, SymbolKind};

use crate::{
    bitnet,
    ggml::Source,
    tiers::{self, Tier},
};

/// ggml-cpu's sources for every architecture, relative to its folder.
const SOURCES: &[&str] = &[
    "repack.cpp",
    "hbm.cpp",
    "quants.c",
    "amx/amx.cpp",
    "amx/mmq.cpp",
    "binary-ops.cpp",
    "unary-ops.cpp",
    "vec.cpp",
    "tiled/tiled-kernel.cpp",
];

/// The tiers' own kernels.
const KERNELS: &str = "backends/cpu/kernels";
/// Those that are compiled. Each includes sources of ggml's whose functions it goes before.
const WRAPPERS: &[&str] = &["threadpool.c", "memory.cpp", "scale.cpp", "prompt.cpp", "tiled.cpp"];

/// And those of one architecture.
fn architecture_sources(arch: &str) -> &'static [&'static str] {
    match arch {
        "x86_64" => &["arch/x86/quants.c", "arch/x86/repack.cpp"],
        "aarch64" => &["arch/arm/quants.c", "arch/arm/repack.cpp"],
        other => panic!("the tiers of {other} have no source files in backends/cpu/build.rs"),
    }
}

/// Comes before every C++ source of a tier with AMX; the file says why.
const AMX: &str = "backends/cpu/amx.h";

/// Builds every tier whose cargo feature is on, and writes the list of them for the library.
pub(crate) fn build(source: &Source) {
    println!("cargo:rerun-if-changed=backends/cpu/build.rs");
    println!("cargo:rerun-if-changed={KERNELS}");
    println!("cargo:rerun-if-changed=backends/cpu/tiers.rs");
    println!("cargo:rerun-if-changed={AMX}");
    println!("cargo:rerun-if-changed={}", bitnet::KERNELS);
    println!("cargo:rerun-if-env-changed=GGUF_LOADER_STRICT_BUILD");
    println!("cargo:rerun-if-env-changed=GGUF_LOADER_SINGLE_TIER");
    println!("cargo:rerun-if-env-changed=GGUF_LOADER_RAISED_BASELINE");
    rerun_when_the_compiler_changes();
    refuse_flags_for_a_newer_cpu();
    refuse_rust_code_for_a_newer_cpu();
    let wanted = wanted_tiers();
    let built = match Renamer::find() {
        Some(renamer) => build_tiers(source, &wanted, &renamer),
        None => vec![build_floor_alone(source, wanted[0])],
    };
    remove_others(&built);
    write_registrations(&built);
}

/// cc says this by itself only for builds whose archives it links.
fn rerun_when_the_compiler_changes() {
    let target = env::var("TARGET").expect("cargo sets it");
    for name in ["CC", "CXX", "CFLAGS", "CXXFLAGS", "AR"] {
        let of_target = [format!("{name}_{target}"), format!("{name}_{}", target.replace('-', "_"))];
        for name in of_target.into_iter().chain([name.to_owned(), format!("TARGET_{name}"), format!("HOST_{name}")]) {
            println!("cargo:rerun-if-env-changed={name}");
        }
    }
}

/// `CFLAGS=-march=native` would raise the instruction set of every tier, the floor included: the binary would look portable
/// and die on older machines.
fn refuse_flags_for_a_newer_cpu() {
    for cpp in [false, true] {
        let compiler = cc::Build::new().cpp(cpp).get_compiler();
        let flags: Vec<_> = compiler.args().iter().map(|flag| flag.to_string_lossy()).collect();
        let raises = |flag: &str| {
            let sets = |prefix| flag.strip_prefix(prefix).is_some_and(|cpu| !matches!(cpu, "x86-64" | "armv8-a"));
            sets("-march=") || sets("-mcpu=") || flag.starts_with("-mavx") || flag.starts_with("-msse4")
        };
        if let Some(flag) = flags.iter().find(|flag| raises(flag)) {
            panic!("{flag} in CFLAGS or CXXFLAGS would raise the instruction set of every tier; unset it");
        }
    }
}

/// `RUSTFLAGS=-Ctarget-cpu=native` raises what stands around the tiers: the Rust code, which detects the CPU, and libllama, whose
/// build follows the same flag.
fn refuse_rust_code_for_a_newer_cpu() {
    if env::var("GGUF_LOADER_RAISED_BASELINE").is_ok_and(|value| value == "1") {
        return;
    }
    let Some(baseline) = target_baseline() else { return };
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let raised: Vec<&str> = features.split(',').filter(|feature| !baseline.contains(*feature)).collect();
    assert!(
        raised.is_empty(),
        "RUSTFLAGS or a cargo configuration let the Rust code use {}: the program would not start on every CPU. The tiers \
         bring these instructions to where they matter; take `target-cpu` and `target-feature` away, or set \
         GGUF_LOADER_RAISED_BASELINE=1 for a program that need not run elsewhere",
        raised.join(", ")
    );
}

/// The features that the target has without flags. `None` where rustc does not say.
fn target_baseline() -> Option<HashSet<String>> {
    let arguments = ["--print", "cfg", "--target", &env::var("TARGET").ok()?];
    let output =
        Command::new(env::var_os("RUSTC")?).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let feature = |line: &str| Some(line.strip_prefix("target_feature=\"")?.strip_suffix('"')?.to_owned());
    Some(text.lines().filter_map(feature).collect())
}

/// The floor of the target's architecture, then every tier that a cargo feature asks for.
fn wanted_tiers() -> Vec<&'static Tier> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    let os = env::var("CARGO_CFG_TARGET_OS").expect("cargo sets it");
    let feature_is_on =
        |feature: &str| env::var_os(format!("CARGO_FEATURE_{}", feature.to_uppercase().replace('-', "_"))).is_some();
    tiers::wanted(&arch, &os, feature_is_on).unwrap_or_else(|message| panic!("{message}"))
}

fn build_tiers(source: &Source, wanted: &[&'static Tier], renamer: &Renamer) -> Vec<&'static Tier> {
    let (buildable, dropped): (Vec<&'static Tier>, Vec<&'static Tier>) =
        wanted.iter().partition(|tier| compiler_can_build(tier));
    for tier in dropped {
        let message = format!("the C++ compiler cannot build the CPU tier {}", tier.id);
        assert!(!strict(), "{message}; GGUF_LOADER_STRICT_BUILD=1 makes this an error");
        println!("cargo:warning={message}; the binary goes without it");
    }
    // One thread a tier; cc's job tokens keep the number of compilers within what cargo allows.
    thread::scope(|scope| {
        for tier in &buildable {
            scope.spawn(move || {
                let stamp = Stamp::of(source, tier, renamer);
                if !stamp.is_there() {
                    let objects = compile(source, tier, &[]);
                    renamer.rename(tier, &objects);
                    archive(tier, &objects);
                    stamp.write();
                }
            });
        }
    });
    buildable
}

/// Without a way to rename symbols there can be one tier: the floor, which runs everywhere.
fn build_floor_alone(source: &Source, floor: &'static Tier) -> &'static Tier {
    let message = "symbols cannot be renamed for this target: only the baseline CPU tier is built";
    assert!(!strict(), "{message}; GGUF_LOADER_STRICT_BUILD=1 makes this an error");
    println!("cargo:warning={message}");
    let suffix = symbol_suffix(floor);
    let entries = ["ggml_backend_cpu_reg"].into_iter().chain(bitnet::ENTRIES);
    let renamed: Vec<String> = entries.map(|entry| format!("-D{entry}={entry}__{suffix}")).collect();
    let objects = compile(source, floor, &renamed.iter().map(String::as_str).collect::<Vec<_>>());
    archive(floor, &objects);
    floor
}

/// What a tier was built from. Cargo runs the whole script again when any input of any part changes, the shim included;
/// a tier whose own inputs are the same is not compiled again.
struct Stamp {
    path: PathBuf,
    text: String,
}

impl Stamp {
    fn of(source: &Source, tier: &Tier, renamer: &Renamer) -> Self {
        let compiler = compiler(tier, true).get_compiler();
        let version = Command::new(compiler.path()).arg("--version").output().map(|output| output.stdout);
        let text = format!(
            "{:?}\n{:?}\n{:?}\n{:?}\n{}\n{:?}\n{}\n{}\n{}",
            compiler.to_command(),
            version.unwrap_or_default(),
            source.ggml(),
            renamer.objcopy,
            tier.defines.join(" "),
            bitnet::sources(),
            include_str!("build.rs"),
            include_str!("amx.h"),
            [KERNELS, bitnet::KERNELS].map(text_of).concat(),
        );
        Self { path: tier_dir(tier).join("stamp"), text }
    }

    fn is_there(&self) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|text| text == self.text)
    }

    fn write(&self) {
        fs::write(&self.path, &self.text).expect("OUT_DIR is writable");
    }
}

/// All files of a folder, one after another.
fn text_of(folder: &str) -> String {
    let files = fs::read_dir(folder).expect("the package has its kernels");
    let mut files: Vec<PathBuf> = files.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).expect("a readable source file")).collect()
}

fn strict() -> bool {
    env::var("GGUF_LOADER_STRICT_BUILD").is_ok_and(|value| value == "1")
}

/// What follows `__` in the names of the tier's symbols.
fn symbol_suffix(tier: &Tier) -> String {
    tier.id.replace('-', "_")
}

fn compiler(tier: &Tier, cpp: bool) -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(cpp).std(if cpp { "c++17" } else { "gnu11" }).cpp_link_stdlib(None);
    build.warnings(false).debug(false).opt_level(3).cargo_metadata(false);
    build.define("NDEBUG", None).define("_GNU_SOURCE", None).define("_XOPEN_SOURCE", "600");
    build.define("GGML_USE_CPU_REPACK", None).define("GGML_USE_LLAMAFILE", None).define("GGML_SCHED_MAX_COPIES", "4");
    for define in tier.defines {
        build.define(define, None);
    }
    let msvc = build.get_compiler().is_like_msvc();
    let flags = if msvc { tier.msvc_flags.unwrap_or_default() } else { tier.gnu_flags };
    for flag in flags {
        build.flag(flag);
    }
    if !msvc {
        build.flag("-w").flag("-ffunction-sections").flag("-fdata-sections").pic(true);
    }
    if cpp && !msvc && tier.requires.contains(&"amx-tile") {
        build.flag("-include").flag(AMX);
    }
    build
}

fn compiler_can_build(tier: &Tier) -> bool {
    let folder = out_dir().join("probe").join(tier.id);
    fs::create_dir_all(&folder).expect("OUT_DIR is writable");
    let probe = folder.join("probe.cpp");
    let build = compiler(tier, true);
    let msvc = build.get_compiler().is_like_msvc();
    if msvc && tier.msvc_flags.is_none() {
        return false;
    }
    // Unknown -m flags are errors with gcc and clang. Their assembler may still be too old: it is given an instruction.
    let statement = if msvc { String::new() } else { format!("__asm__ volatile(\"{}\");", tier.instruction) };
    fs::write(&probe, format!("void gguf_loader_probe() {{ {statement} }}\n")).expect("OUT_DIR is writable");
    build.clone().out_dir(&folder).file(&probe).try_compile_intermediates().is_ok()
}

fn compile(source: &Source, tier: &Tier, flags: &[&str]) -> Vec<PathBuf> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    let folder = source.ggml_cpu();
    let out_dir = tier_dir(tier);
    // Objects of an earlier run carry renamed symbols already.
    let _ = fs::remove_dir_all(&out_dir);
    fs::create_dir_all(&out_dir).expect("OUT_DIR is writable");
    let files = || SOURCES.iter().chain(architecture_sources(&arch)).map(|file| folder.join(file));
    let mut objects = Vec::new();
    for cpp in [false, true] {
        let mut build = compiler(tier, cpp);
        build
            .out_dir(&out_dir)
            .include(source.ggml().join("src"))
            .include(&folder)
            .include(source.ggml().join("include"));
        for flag in flags {
            build.flag(flag);
        }
        let wrappers = WRAPPERS.iter().map(|file| Path::new(KERNELS).join(file));
        let sources = files().chain(wrappers).chain(bitnet::sources());
        build.files(sources.filter(|file| file.extension().is_some_and(|extension| extension == "cpp") == cpp));
        objects.extend(build.compile_intermediates());
    }
    objects
}

fn archive(tier: &Tier, objects: &[PathBuf]) {
    let mut build = cc::Build::new();
    build.cpp(true).cpp_link_stdlib(None).cargo_metadata(false).out_dir(tier_dir(tier)).objects(objects);
    build.compile(&library(tier));
}

/// The name of the tier's archive, as the linker knows it.
fn library(tier: &Tier) -> String {
    format!("ggml-cpu-{}", tier.id)
}

fn out_dir() -> PathBuf {
    PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"))
}

fn tier_dir(tier: &Tier) -> PathBuf {
    out_dir().join("tiers").join(tier.id)
}

/// Removes what an earlier build with other features left, so that the link audit sees this build's tiers only.
fn remove_others(built: &[&Tier]) {
    let folders = fs::read_dir(out_dir().join("tiers")).into_iter().flatten().flatten();
    for folder in folders.filter(|folder| built.iter().all(|tier| folder.file_name() != tier.id)) {
        let _ = fs::remove_dir_all(folder.path());
    }
}

/// Links the tiers, writes one registration for each, and tells the link audit where the objects are.
fn write_registrations(built: &[&Tier]) {
    let mut text = String::from("// One line for each tier that build.rs built.\n");
    for tier in built {
        let suffix = symbol_suffix(tier);
        let ternary = if bitnet::is_on() {
            bitnet::ENTRIES.map(|entry| format!(", {entry}__{suffix}")).concat()
        } else {
            String::new()
        };
        text += &format!("register_tier!(\"{}\", ggml_backend_cpu_reg__{suffix}{ternary});\n", tier.id);
        println!("cargo:rustc-link-search=native={}", tier_dir(tier).display());
        println!("cargo:rustc-link-lib=static={}", library(tier));
    }
    fs::write(out_dir().join("built_tiers.rs"), text).expect("OUT_DIR is writable");
    println!("cargo:rustc-env=GGUF_LOADER_TIER_OBJECTS={}", out_dir().join("tiers").display());
}

/// A tool that renames symbols in object files.
struct Renamer {
    objcopy: PathBuf,
}

impl Renamer {
    /// Renaming was made to work for ELF; elsewhere, and when no tool is found, there is none.
    fn find() -> Option<Self> {
        let elf = matches!(env::var("CARGO_CFG_TARGET_OS").as_deref(), Ok("linux" | "android" | "freebsd"));
        if !elf || env::var("GGUF_LOADER_SINGLE_TIER").is_ok_and(|value| value == "1") {
            return None;
        }
        println!("cargo:rerun-if-env-changed=OBJCOPY");
        objcopy_candidates().into_iter().find(|tool| runs(tool)).map(|objcopy| Self { objcopy })
    }

    fn rename(&self, tier: &Tier, objects: &[PathBuf]) {
        let suffix = symbol_suffix(tier);
        // One map for all objects: they refer to each other.
        let names: BTreeSet<String> = objects.iter().flat_map(|object| defined_symbols(object)).collect();
        let map: String = names.iter().map(|name| format!("{name} {name}__{suffix}\n")).collect();
        let map_file = tier_dir(tier).join("symbols");
        fs::write(&map_file, map).expect("OUT_DIR is writable");
        for object in objects {
            let status = Command::new(&self.objcopy)
                .arg(format!("--redefine-syms={}", map_file.display()))
                .arg(object)
                .status()
                .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.objcopy.display()));
            assert!(status.success(), "{} failed on {}", self.objcopy.display(), object.display());
        }
    }
}

/// `$OBJCOPY`, the one beside the cross compiler, the system's, LLVM's, and the one that comes with rustc.
fn objcopy_candidates() -> Vec<PathBuf> {
    let native = env::var("HOST") == env::var("TARGET");
    let mut candidates: Vec<PathBuf> = env::var_os("OBJCOPY").map(PathBuf::from).into_iter().collect();
    let compiler = cc::Build::new().cpp(true).get_compiler().path().to_string_lossy().into_owned();
    // `aarch64-linux-gnu-g++-12` has its objcopy beside it without the version.
    let compiler = compiler.trim_end_matches(|last: char| last.is_ascii_digit()).trim_end_matches('-');
    if let Some(prefix) = ["clang++", "g++", "c++"].iter().find_map(|name| compiler.strip_suffix(name)) {
        candidates.extend((!prefix.is_empty()).then(|| PathBuf::from(format!("{prefix}objcopy"))));
    }
    candidates.extend(native.then(|| PathBuf::from("objcopy")));
    candidates.push(PathBuf::from("llvm-objcopy"));
    candidates.extend(rust_objcopy());
    candidates
}

fn rust_objcopy() -> Option<PathBuf> {
    let output = Command::new(env::var_os("RUSTC")?).args(["--print", "sysroot"]).output().ok()?;
    let sysroot = String::from_utf8(output.stdout).ok()?;
    let tools = Path::new(sysroot.trim()).join("lib/rustlib").join(env::var_os("HOST")?).join("bin");
    Some(tools.join("rust-objcopy"))
}

fn runs(tool: &Path) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Every symbol that the object defines, and the signatures of its COMDAT groups.
///
/// Static functions are among them: nothing links to their names, but a profiler, a debugger and the link audit then see
/// for every function of the binary which tier it belongs to.
fn defined_symbols(path: &Path) -> Vec<String> {
    let data = fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let file = object::File::parse(&*data).unwrap_or_else(|error| panic!("cannot parse {}: {error}", path.display()));
    let signatures: HashSet<_> = file.comdats().map(|comdat| comdat.symbol()).collect();
    let is_named = |symbol: &object::Symbol<'_, '_>| {
        let code_or_data = matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Data | SymbolKind::Tls);
        !symbol.is_undefined() && (symbol.is_global() || code_or_data)
    };
    file.symbols()
        .filter(|symbol| is_named(symbol) || signatures.contains(&symbol.index()))
        .filter_map(|symbol| symbol.name().ok().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .collect()
}
