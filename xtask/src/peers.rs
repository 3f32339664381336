//! `cargo xtask bench-peers`: native llama.cpp and us, interleaved, on the same files: how fast, and whether both say the same.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::TaskResult;
use crate::agreement::{self, Agreement};
use crate::digest::sha256;
use crate::environment::Environment;
use crate::model;
use crate::pip::{Form, Pip};
use crate::process::{capture, run, run_on_stderr};
use crate::program::{BenchRow, Program, RUNS};
use crate::record::{Peer, Record, Row, commit, cpu};
use crate::setup;
use crate::workspace::Workspace;

/// Options of `cargo xtask bench-peers`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench-peers                              SmolLM2 in Q4_1, Q4_0, Q4_K_M and Q8_0
  cargo xtask bench-peers --model a.gguf --rounds 9    another file
  cargo xtask bench-peers --only-build                 build the peer, make the models, print where they are

The record goes to benches/record/peers-<cpu>.json and .md. Leave the machine alone meanwhile.")]
pub(crate) struct Options {
    /// A GGUF file to measure; may be given several times.
    #[arg(long, value_name = "GGUF")]
    model: Vec<PathBuf>,
    /// Threads on either side; default: all that this process may use.
    #[arg(long, short)]
    threads: Option<NonZero<usize>>,
    /// Rounds; the medians are compared.
    #[arg(long, default_value = "5")]
    rounds: NonZero<usize>,
    /// Tokens of the prompt test.
    #[arg(long, short, default_value_t = 512)]
    prompt: u32,
    /// Tokens of the generation test.
    #[arg(long, short = 'n', default_value_t = 64)]
    generate: u32,
    /// Our backend; default: the one that is chosen.
    #[arg(long)]
    backend: Option<String>,
    /// Stop before measuring.
    #[arg(long)]
    only_build: bool,
}

/// `cargo xtask bench-peers`.
pub(crate) fn task(workspace: &Workspace, options: &Options) -> TaskResult {
    let environment = setup::prepare(workspace)?;
    let peer = LlamaCpp::build(workspace, &environment)?;
    let models = if options.model.is_empty() { peer.quantized()? } else { options.model.clone() };
    if options.only_build {
        for path in std::iter::once(&peer.programs).chain(&models) {
            println!("{}", path.display());
        }
        return Ok(());
    }
    run(environment.apply(workspace.cargo("build").args(["--release", "--package", "gguf-loader"])))?;
    let ours = Program::native(workspace.program());
    let record = measure(workspace, options, &peer, &ours, &models)?;
    let stem = record.write(&workspace.root().join("benches/record"))?;
    print!("{}", record.table());
    eprintln!("recorded in {}.json and .md", stem.display());
    Ok(())
}

fn measure(
    workspace: &Workspace,
    options: &Options,
    peer: &LlamaCpp,
    ours: &Program,
    models: &[PathBuf],
) -> TaskResult<Record> {
    let threads = match options.threads {
        Some(threads) => threads.get(),
        None => std::thread::available_parallelism()?.get(),
    };
    let (mut rows, mut agreements) = (Vec::new(), Vec::new());
    let text = peer.models.join("text.txt");
    fs::create_dir_all(&peer.models)?;
    fs::write(&text, agreement::text(workspace.root())?)?;
    for model in models {
        let mut rounds = Rounds::default();
        for round in 0..options.rounds.get() {
            eprintln!("  {}: round {} of {}", model.display(), round + 1, options.rounds);
            // Who comes first changes from round to round: the second finds warmer caches and a hotter CPU.
            for ours_now in [round % 2 == 1, round % 2 == 0] {
                if ours_now {
                    rounds.ours.push(our_bench(ours, model, options, threads)?);
                } else {
                    rounds.theirs.push(peer.bench(model, options, threads)?);
                }
            }
        }
        rows.extend(rounds.rows(model, options));
        let theirs = |name: &str| peer.program(name);
        agreements.push(Agreement::measure(ours, &theirs, model, &text, threads, options.rounds.get())?);
    }
    let flags = LlamaCpp::flags(Path::new(""));
    let peer = Peer { name: "llama.cpp", source: LlamaCpp::REQUIREMENT, flags };
    Ok(Record {
        commit: commit(workspace.root()),
        cpu: cpu(),
        threads,
        rounds: options.rounds.get(),
        peer,
        rows,
        agreements,
    })
}

/// One model's measurements, in the order in which they were taken.
#[derive(Default)]
struct Rounds {
    ours: Vec<Speeds>,
    theirs: Vec<Speeds>,
}

/// Tokens per second of one run.
struct Speeds {
    backend: String,
    prompt: f64,
    generation: f64,
}

impl Rounds {
    fn rows(&self, model: &Path, options: &Options) -> [Row; 2] {
        let row = |test, speed: fn(&Speeds) -> f64| Row {
            model: model.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            test,
            backend: self.ours.last().map(|speeds| speeds.backend.clone()).unwrap_or_default(),
            ours: self.ours.iter().map(speed).collect(),
            theirs: self.theirs.iter().map(speed).collect(),
        };
        [
            row(format!("pp{}", options.prompt), |speeds| speeds.prompt),
            row(format!("tg{}", options.generate), |speeds| speeds.generation),
        ]
    }
}

fn our_bench(program: &Program, model: &Path, options: &Options, threads: usize) -> TaskResult<Speeds> {
    let rows = program.bench(model, options.backend.as_deref(), options.prompt, options.generate, threads)?;
    let row = |is: fn(&BenchRow) -> bool| rows.iter().find(|row| is(row));
    let prompt = row(|row| row.n_prompt > 0 && row.n_gen == 0).ok_or("our bench has no prompt row")?;
    let generation = row(|row| row.n_prompt == 0 && row.n_gen > 0).ok_or("our bench has no generation row")?;
    Ok(Speeds {
        backend: prompt.backend.clone(),
        prompt: prompt.tokens_per_second,
        generation: generation.tokens_per_second,
    })
}

/// llama.cpp, built for this machine from the source that a Python package carries.
struct LlamaCpp {
    programs: PathBuf,
    models: PathBuf,
}

impl LlamaCpp {
    const REQUIREMENT: &'static str = "llama-cpp-python==0.3.36";
    const SOURCE: &'static str = "llama_cpp_python-0.3.36/vendor/llama.cpp";
    const SHA256: &'static str = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e";
    /// As its users build it, less what needs other libraries: its own OpenMP thread pool, all of this CPU's features.
    const FLAGS: &'static [&'static str] = &[
        "CMAKE_BUILD_TYPE=Release",
        "GGML_NATIVE=ON",
        "BUILD_SHARED_LIBS=OFF",
        "LLAMA_OPENSSL=OFF",
        "LLAMA_BUILD_TESTS=OFF",
        "LLAMA_BUILD_EXAMPLES=OFF",
        "LLAMA_BUILD_SERVER=OFF",
        "LLAMA_BUILD_APP=OFF",
    ];
    /// Included first on x86-64: what gcc compiles without it dies of SIGILL on a CPU with AMX.
    const AMX: &'static str = "backends/cpu/amx.h";
    const PROGRAMS: &'static [&'static str] =
        &["llama-bench", "llama-quantize", "llama-perplexity", "llama-completion"];

    /// The variables that cmake gets; `root` is this repository's.
    fn flags(root: &Path) -> Vec<String> {
        let mut flags: Vec<_> = Self::FLAGS.iter().map(|&flag| flag.to_owned()).collect();
        if cfg!(all(target_arch = "x86_64", not(target_env = "msvc"))) {
            flags.push(format!("CMAKE_CXX_FLAGS=-include {}", root.join(Self::AMX).display()));
        }
        flags
    }

    /// Fetches and builds what is not there yet.
    fn build(workspace: &Workspace, environment: &Environment) -> TaskResult<Self> {
        let folder = &workspace.target().join("peers");
        let source = folder.join(Self::SOURCE);
        if !source.join("CMakeLists.txt").is_file() {
            Self::fetch(folder)?;
        }
        let build = folder.join("build");
        let mut configure = Command::new("cmake");
        configure.arg("-S").arg(&source).arg("-B").arg(&build);
        configure.args(Self::flags(workspace.root()).iter().map(|flag| format!("-D{flag}")));
        run_on_stderr(environment.apply(&mut configure))?;
        let jobs = std::thread::available_parallelism()?.to_string();
        let mut make = Command::new("cmake");
        make.arg("--build").arg(&build).args(["--config", "Release", "--parallel", &jobs, "--target"]);
        run_on_stderr(environment.apply(make.args(Self::PROGRAMS)))?;
        Ok(Self { programs: build.join("bin"), models: folder.join("models") })
    }

    /// pip asks the package's build for its metadata before it hands the file over; nothing is compiled for that.
    fn fetch(folder: &Path) -> TaskResult {
        let pip = Pip::find().ok_or("no Python with pip to fetch llama.cpp's source with")?;
        let download = folder.join("download");
        if download.exists() {
            fs::remove_dir_all(&download)?;
        }
        fs::create_dir_all(&download)?;
        let archive = pip.download(Self::REQUIREMENT, Form::Source, &download)?;
        let found = sha256(&archive)?;
        if found != Self::SHA256 {
            return Err(format!("the index has another {} than expected: SHA-256 {found}", Self::REQUIREMENT).into());
        }
        run_on_stderr(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(folder))?;
        fs::remove_dir_all(&download)?;
        Ok(())
    }

    /// SmolLM2 as it comes (Q4_1) and in the other types, made by llama.cpp itself.
    fn quantized(&self) -> TaskResult<Vec<PathBuf>> {
        let original = model::provide(&model::Options::default())?;
        fs::create_dir_all(&self.models)?;
        let mut models = vec![original.clone()];
        for name in ["Q4_0", "Q4_K_M", "Q8_0"] {
            let path = self.models.join(format!("SmolLM2-135M-Instruct.{name}.gguf"));
            if !path.is_file() {
                let part = path.with_extension("part");
                let mut command = self.program("llama-quantize");
                command.arg("--allow-requantize").arg(&original).arg(&part).arg(name);
                run_on_stderr(&mut command)?;
                fs::rename(&part, &path)?;
            }
            models.push(path);
        }
        Ok(models)
    }

    fn bench(&self, model: &Path, options: &Options, threads: usize) -> TaskResult<Speeds> {
        let mut command = self.program("llama-bench");
        command.arg("-m").arg(model).args(["-r", RUNS, "-o", "json"]).args(["-t", &threads.to_string()]);
        command.args(["-p", &options.prompt.to_string(), "-n", &options.generate.to_string()]);
        parse_llama_bench(&capture(&mut command)?)
    }

    fn program(&self, name: &str) -> Command {
        Command::new(self.programs.join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
    }
}

fn parse_llama_bench(answer: &[u8]) -> TaskResult<Speeds> {
    #[derive(Deserialize)]
    struct Test {
        n_prompt: u32,
        n_gen: u32,
        avg_ts: f64,
    }
    let tests: Vec<Test> = serde_json::from_slice(answer)?;
    let speed = |is: fn(&Test) -> bool| tests.iter().find(|test| is(test)).map(|test| test.avg_ts);
    Ok(Speeds {
        backend: "native".to_owned(),
        prompt: speed(|test| test.n_prompt > 0 && test.n_gen == 0).ok_or("llama-bench has no prompt row")?,
        generation: speed(|test| test.n_prompt == 0 && test.n_gen > 0).ok_or("llama-bench has no generation row")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_rows_of_llama_bench_are_told_apart() {
        let answer = br#"[{"build_number": 1, "n_prompt": 512, "n_gen": 0, "avg_ts": 815.9, "samples_ts": [815.9]},
                          {"build_number": 1, "n_prompt": 0, "n_gen": 64, "avg_ts": 194.7}]"#;
        let speeds = parse_llama_bench(answer).unwrap();
        assert_eq!((speeds.prompt, speeds.generation), (815.9, 194.7));
        assert!(parse_llama_bench(b"[]").is_err());
    }
}
