//! A task's steps: what runs, how long each took, and the table at the end.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::TaskResult;

/// The steps that were started, in order.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    taken: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: String,
    took: Duration,
    passed: bool,
}

impl Steps {
    /// Runs one step; its failure ends the task, so the caller returns it.
    pub(crate) fn run<T>(&mut self, name: &str, step: impl FnOnce() -> TaskResult<T>) -> TaskResult<T> {
        eprintln!("==> {name}");
        let started = Instant::now();
        let result = step();
        let took = started.elapsed();
        let word = if result.is_ok() { "done" } else { "FAILED" };
        eprintln!("<== {name}: {word} in {}", seconds(took));
        self.taken.push(Step { name: name.to_owned(), took, passed: result.is_ok() });
        result
    }

    /// One line a step with its time, and the total.
    pub(crate) fn summary(&self) -> String {
        let mut table = String::new();
        for Step { name, took, passed } in &self.taken {
            let verdict = if *passed { "ok" } else { "FAILED" };
            let _ = writeln!(table, "  {name:<42} {:>9}  {verdict}", seconds(*took));
        }
        let total = self.taken.iter().map(|step| step.took).sum();
        let _ = writeln!(table, "  {:<42} {:>9}", "total", seconds(total));
        table
    }
}

/// `4.2 s`, or `3 min 05 s` from two minutes on.
pub(crate) fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole < 120 {
        return format!("{:.1} s", duration.as_secs_f64());
    }
    format!("{} min {:02} s", whole / 60, whole % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_in_the_table_and_its_error_comes_back() {
        let mut steps = Steps::default();
        steps.run("first", || Ok(())).unwrap();
        let error = steps.run::<()>("second", || Err("no luck".into())).unwrap_err();
        assert_eq!(error.to_string(), "no luck");
        let summary = steps.summary();
        let verdicts: Vec<_> = summary.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(verdicts, ["ok", "FAILED", "s"]);
    }

    #[test]
    fn long_times_are_in_minutes() {
        assert_eq!(seconds(Duration::from_millis(4_240)), "4.2 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
    }
}
