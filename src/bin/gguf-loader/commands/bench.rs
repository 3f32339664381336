//! `bench`: how fast backends run a model, and whether the automatic choice is the fastest.

use std::{fmt, num::NonZeroU32, path::PathBuf, str::FromStr, thread, time::Duration};

use clap::Args;
use gguf_loader::{
    backend::{CacheType, ContextOptions, Score, Workload},
    benchmark::{self, Test, mean_and_deviation},
    context::Context,
    gguf::Gguf,
    hardware::Hardware,
    knobs::Knobs,
    model::LoadOptions,
    select::{ChooseOptions, Policy, PolicyError, Selection, choose},
};
use serde::Serialize;

use crate::{
    args::{self, ThreadArgs},
    context::CacheArgs,
    failure::{Exit, Failure},
    interrupt::Interrupt,
    loading,
    output::Output,
};

/// Measure how fast a model runs: a prompt (pp) and a generation (tg), with llama-bench's meaning of both
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader bench model.gguf
  gguf-loader bench model.gguf --backend cpu-haswell -p 128 -n 0 -t 2
  gguf-loader bench model.gguf --backend all --assert --json
  gguf-loader bench model.gguf -p 0 -d 4000 --cache-type q8_0     what the cache's type does to a long text

pp feeds -p random tokens to an empty context, tg feeds -n random tokens one by one. Each starts with a run \
that does not count. Several backends take turns, so that a busy moment of the machine hits all of them; their \
models are in memory together. `all` leaves the backend `reference` out: it is slow.

--assert measures all backends, unless --backend says which, and the automatic choice. It fails (exit code 8) when \
the choice is over 5 % slower than the fastest. What counts is the speed over 512 tokens of prompt and 128 \
generated, which the selector predicts, from the medians of pp and tg; with -p 0 or -n 0 it is the median of the \
other.")]
pub(crate) struct Bench {
    /// The model: a GGUF file, or the first part of a split one
    model: PathBuf,
    /// Backends to measure: all, or as for `run`: auto, ID, ID,ID (the first that can) or !ID,!ID
    #[arg(long, value_name = "POLICY|all")]
    backend: Option<Backends>,
    /// Tokens of the prompt; 0 leaves pp out
    #[arg(long, short = 'p', value_name = "N", default_value = "512")]
    n_prompt: u32,
    /// Tokens to generate; 0 leaves tg out
    #[arg(long, short = 'n', value_name = "N", default_value = "64")]
    n_gen: u32,
    /// Runs that count
    #[arg(long, short, value_name = "N", default_value = "5")]
    repetitions: NonZeroU32,
    /// Fail when the automatic choice is over 5 % slower than the fastest
    #[arg(long)]
    assert: bool,
    /// Tokens that the context holds already, as llama-bench's -d
    #[arg(long, short = 'd', value_name = "N", default_value = "0")]
    depth: u32,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    threads: ThreadArgs,
}

/// Which backends to measure.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Backends {
    /// All that can run the model, the reference left out.
    All,
    /// The one that the policy gives.
    Chosen(Policy),
}

impl FromStr for Backends {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::Chosen) }
    }
}

impl Bench {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        let tests = self.tests()?;
        let backend = match &self.backend {
            Some(Backends::Chosen(policy)) => Some(policy),
            _ => None,
        };
        let knobs = args::knobs(backend, self.threads.threads);
        let threads = knobs.threads()?;
        let interrupt = Interrupt::install()?;
        let choices = self.choices(&knobs)?;
        let mut runners = Vec::with_capacity(choices.ids.len());
        for id in &choices.ids {
            output.note(format_args!("loading for {id}"));
            runners.push(self.open(id, &tests, threads, &interrupt, output)?);
        }
        self.measure(&mut runners, &tests, output)?;
        let rows = runners.iter().flat_map(|runner| runner.rows(&tests, &self)).collect();
        output.result(&Report(rows))?;
        match choices.automatic {
            Some(automatic) => check(&runners, &tests, automatic, output),
            None => Ok(()),
        }
    }

    fn tests(&self) -> Result<Vec<Test>, Failure> {
        let tests = [Test::Prompt(self.n_prompt), Test::Generation(self.n_gen)];
        let tests: Vec<Test> = tests.into_iter().filter(|test| test.tokens() > 0).collect();
        if tests.is_empty() {
            return Err(Failure::message(Exit::Usage, "-p 0 and -n 0 leave nothing to measure"));
        }
        Ok(tests)
    }

    fn choices(&self, knobs: &Knobs) -> Result<Choices, Failure> {
        let options = knobs.choose_options()?;
        let profile = Gguf::open(&self.model)?.profile()?;
        let hardware = Hardware::detect();
        let choose = |policy: Policy| choose(&hardware, &profile, &options.clone().with_policy(policy));
        let winner = |selection: &Selection| selection.backend().id();

        let everything = match &self.backend {
            Some(Backends::All) => true,
            Some(Backends::Chosen(_)) => false,
            None => self.assert,
        };
        let automatic = if self.assert { Some(winner(&choose(Policy::Automatic)?)) } else { None };
        let mut ids = if everything {
            all_but_reference(&choose(Policy::Automatic)?)?
        } else {
            vec![winner(&choose(options.policy.clone())?)]
        };
        ids.extend(automatic.filter(|id| !ids.contains(id)));
        Ok(Choices { ids, automatic })
    }

    fn open(
        &self,
        id: &'static str,
        tests: &[Test],
        threads: Option<NonZeroU32>,
        interrupt: &Interrupt,
        output: &Output,
    ) -> Result<Runner, Failure> {
        let choose = ChooseOptions::default().with_policy(Policy::Named(id.to_owned()));
        let mut options = LoadOptions::default().with_choose(choose);
        options.threads = threads;
        let model = loading::load(&self.model, &options, interrupt, output)?;
        let mut options = ContextOptions::default().with_cancel(interrupt.token());
        options.length = Some(context_length(tests, self.depth));
        self.cache.set(&mut options);
        let context = model.context(&options)?;
        Ok(Runner { id, context, speeds: vec![Vec::new(); tests.len()] })
    }

    /// Runs everything once without counting, then round by round.
    fn measure(&self, runners: &mut [Runner], tests: &[Test], output: &Output) -> Result<(), Failure> {
        let steps = u64::from(self.repetitions.get()) * (runners.len() * tests.len()) as u64;
        let bar = loading::progress_bar(output, steps, "run {pos} of {len} {bar:40} {msg}");
        for runner in &mut *runners {
            bar.set_message(format!("{}: warming up", runner.id));
            for &test in tests {
                benchmark::warm_up(&mut runner.context, test)?;
            }
        }
        /// ggml's threads go on polling for a while after a graph, and would take the cores from the next backend.
        const THREADS_FALL_ASLEEP: Duration = Duration::from_millis(400);
        let several = runners.len() > 1;
        for _ in 0..self.repetitions.get() {
            for (index, &test) in tests.iter().enumerate() {
                for runner in &mut *runners {
                    bar.set_message(runner.id);
                    if several {
                        thread::sleep(THREADS_FALL_ASLEEP);
                    }
                    let speed = benchmark::run(&mut runner.context, test, self.depth)?;
                    runner.speeds[index].push(speed);
                    bar.inc(1);
                }
            }
        }
        bar.finish_and_clear();
        Ok(())
    }
}

/// Room for the longest test, in the steps in which llama.cpp sizes contexts.
fn context_length(tests: &[Test], depth: u32) -> NonZeroU32 {
    const STEP: u32 = 256;
    let longest = tests.iter().map(|test| test.tokens()).max().unwrap_or_default().saturating_add(depth);
    NonZeroU32::new(longest.checked_next_multiple_of(STEP).unwrap_or(longest)).unwrap_or(NonZeroU32::MIN)
}

/// What to measure.
#[derive(Debug)]
struct Choices {
    ids: Vec<&'static str>,
    /// The automatic choice, when it is to be checked.
    automatic: Option<&'static str>,
}

fn all_but_reference(selection: &Selection) -> Result<Vec<&'static str>, Failure> {
    const REFERENCE: &str = "reference";
    let mut ids: Vec<&'static str> = selection.eligible().map(|(candidate, _)| candidate.id).collect();
    ids.retain(|&id| id != REFERENCE);
    // A backend with several devices is a candidate once for each; its best device stands for it.
    let mut seen = std::collections::HashSet::new();
    ids.retain(|&id| seen.insert(id));
    if ids.is_empty() {
        let failure = Failure::message(Exit::Backend, "no backend but `reference` can run the model here");
        return Err(failure.with_help("name it with --backend reference"));
    }
    Ok(ids)
}

/// A backend with the model loaded.
#[derive(Debug)]
struct Runner {
    id: &'static str,
    context: Context,
    /// Tokens a second of each run, by test.
    speeds: Vec<Vec<f64>>,
}

impl Runner {
    fn rows<'a>(&'a self, tests: &'a [Test], bench: &'a Bench) -> impl Iterator<Item = Row<'a>> {
        tests.iter().zip(&self.speeds).map(|(&test, speeds)| {
            let (tokens_per_second, stddev) = mean_and_deviation(speeds);
            let (n_prompt, n_gen) = match test {
                Test::Prompt(tokens) => (tokens, 0),
                Test::Generation(tokens) => (0, tokens),
            };
            Row {
                backend: self.id,
                executed_by: self.context.executed_by(),
                threads: self.context.limits().threads,
                n_prompt,
                n_gen,
                n_depth: bench.depth,
                cache_type: bench.cache.cache_type,
                flash_attention: bench.cache.flash_attention(),
                tokens_per_second,
                stddev,
                samples: speeds,
            }
        })
    }

    /// The speed that `--assert` compares.
    fn overall(&self, tests: &[Test]) -> f64 {
        let median_of = |wanted: fn(&Test) -> bool| {
            let speeds = tests.iter().zip(&self.speeds).find(|(test, _)| wanted(test))?.1;
            Some(median(speeds))
        };
        let prompt = median_of(|test| matches!(test, Test::Prompt(_)));
        let decode = median_of(|test| matches!(test, Test::Generation(_)));
        match (prompt, decode) {
            (Some(prompt), Some(decode)) => Score { prompt, decode }.tokens_per_second(Workload::default()),
            (one, other) => one.or(other).unwrap_or_default(),
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The rule of `--assert`.
fn check(runners: &[Runner], tests: &[Test], automatic: &str, output: &Output) -> Result<(), Failure> {
    let speeds: Vec<(&str, f64)> = runners.iter().map(|runner| (runner.id, runner.overall(tests))).collect();
    let verdict = Verdict::of(&speeds, automatic);
    output.note(&verdict);
    if verdict.holds() { Ok(()) } else { Err(Failure::message(Exit::Assertion, verdict.to_string())) }
}

/// The automatic choice beside the fastest, each with its speed.
#[derive(Debug)]
struct Verdict<'a> {
    automatic: (&'a str, f64),
    fastest: (&'a str, f64),
}

impl<'a> Verdict<'a> {
    fn of(speeds: &[(&'a str, f64)], automatic: &'a str) -> Self {
        let automatic = speeds.iter().copied().find(|&(id, _)| id == automatic).unwrap_or((automatic, 0.0));
        let fastest = speeds.iter().copied().max_by(|one, other| one.1.total_cmp(&other.1)).unwrap_or(automatic);
        Self { automatic, fastest }
    }

    /// At least 95 % of the fastest.
    fn holds(&self) -> bool {
        const LEAST_SHARE: f64 = 0.95;
        self.automatic.1 >= LEAST_SHARE * self.fastest.1
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { automatic: (automatic, speed), fastest: (fastest, best) } = self;
        write!(formatter, "the automatic choice {automatic} runs at {speed:.1} tokens/s, ")?;
        if automatic == fastest {
            return formatter.write_str("the fastest of the measured");
        }
        let slower = 100.0 * (1.0 - speed / best);
        write!(formatter, "{slower:.1} % slower than the fastest, {fastest} with {best:.1}")
    }
}

#[derive(Debug, Serialize)]
struct Report<'a>(Vec<Row<'a>>);

/// One test of one backend: a prompt (`n_gen` is 0) or a generation (`n_prompt` is 0).
#[derive(Debug, Serialize)]
struct Row<'a> {
    backend: &'static str,
    /// Asked of the running engine itself.
    executed_by: String,
    threads: u32,
    n_prompt: u32,
    n_gen: u32,
    /// Tokens that the context held before.
    n_depth: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_type: Option<CacheType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flash_attention: Option<bool>,
    /// Mean of `samples`.
    tokens_per_second: f64,
    stddev: f64,
    samples: &'a [f64],
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.0.iter().map(|row| row.backend.len()).chain(["backend".len()]).max().unwrap_or_default();
        writeln!(formatter, "{:id$}  threads  {:>12}  {:>20}", "backend", "test", "tokens/s")?;
        for row in &self.0 {
            let mut test = if row.n_gen == 0 { format!("pp{}", row.n_prompt) } else { format!("tg{}", row.n_gen) };
            if row.n_depth > 0 {
                test += &format!("@{}", row.n_depth);
            }
            let speed = format!("{:.2} ± {:.2}", row.tokens_per_second, row.stddev);
            writeln!(formatter, "{:id$}  {:>7}  {test:>12}  {speed:>20}", row.backend, row.threads)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_no_backend_and_everything_else_is_a_policy() {
        assert_eq!("all".parse(), Ok(Backends::All));
        assert_eq!("auto".parse(), Ok(Backends::Chosen(Policy::Automatic)));
        assert_eq!("cpu-x64".parse(), Ok(Backends::Chosen(Policy::Named("cpu-x64".into()))));
        assert!("CPU".parse::<Backends>().is_err());
    }

    #[test]
    fn choice_may_be_five_percent_slower_than_the_fastest_and_no_more() {
        let holds = |choice: f64| Verdict::of(&[("best", 100.0), ("choice", choice), ("slow", 1.0)], "choice").holds();
        assert!(holds(95.0) && holds(101.0));
        assert!(!holds(94.9) && !holds(1.0));
    }

    #[test]
    fn choice_that_was_not_measured_does_not_pass() {
        assert!(!Verdict::of(&[("best", 100.0)], "choice").holds());
    }

    #[test]
    fn median_ignores_one_disturbed_run() {
        assert_eq!(median(&[100.0, 3.0, 101.0]), 100.0);
        assert_eq!(median(&[1.0, 2.0, 3.0, 4.0]), 2.5);
    }

    #[test]
    fn context_has_room_for_the_longest_test() {
        assert_eq!(context_length(&[Test::Prompt(512), Test::Generation(64)], 0).get(), 512);
        assert_eq!(context_length(&[Test::Generation(257)], 0).get(), 512);
        assert_eq!(context_length(&[Test::Generation(64)], 4000).get(), 4096);
        assert_eq!(context_length(&[Test::Prompt(u32::MAX)], 1).get(), u32::MAX);
    }
}
