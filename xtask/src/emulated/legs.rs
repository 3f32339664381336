//! The legs of a run and what became of each. A leg that cannot run here is skipped with its reason, and counted.

use std::time::{Duration, Instant};

use crate::TaskResult;
use crate::steps::seconds;

/// What became of a leg.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What was found, in a few words.
    Passed(String),
    /// Why it cannot run here.
    Skipped(String),
}

/// The legs so far.
#[derive(Debug, Default)]
pub(crate) struct Legs {
    taken: Vec<Leg>,
}

#[derive(Debug)]
struct Leg {
    name: String,
    took: Duration,
    verdict: Result<Verdict, String>,
}

impl Legs {
    /// Runs one leg and prints its line.
    pub(crate) fn run(&mut self, name: &str, leg: impl FnOnce() -> TaskResult<Verdict>) {
        let started = Instant::now();
        let verdict = leg().map_err(|error| chain(error.as_ref()));
        let leg = Leg { name: name.to_owned(), took: started.elapsed(), verdict };
        println!("{}", leg.line());
        self.taken.push(leg);
    }

    /// Counts a leg that cannot run here.
    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        self.run(name, || Ok(Verdict::Skipped(why.to_owned())));
    }

    /// Prints all legs again, with their counts as the last line.
    ///
    /// # Errors
    ///
    /// When a leg failed, or when none passed: a run that tested nothing is no success. With `no_skips` also when one was
    /// skipped.
    pub(crate) fn conclude(&self, no_skips: bool) -> TaskResult {
        println!("\nLegs:");
        for leg in &self.taken {
            println!("{}", leg.line());
        }
        let (passed, failed, skipped) = self.counts();
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        match (passed, failed) {
            (_, 1..) => Err(format!("{failed} of the emulated legs failed").into()),
            (0, _) => Err("no emulated leg could run here".into()),
            _ if no_skips && skipped > 0 => Err(format!("{skipped} of the emulated legs could not run here").into()),
            _ => Ok(()),
        }
    }

    fn counts(&self) -> (usize, usize, usize) {
        let count = |of: fn(&Result<Verdict, String>) -> bool| self.taken.iter().filter(|leg| of(&leg.verdict)).count();
        (
            count(|verdict| matches!(verdict, Ok(Verdict::Passed(_)))),
            count(Result::is_err),
            count(|verdict| matches!(verdict, Ok(Verdict::Skipped(_)))),
        )
    }
}

impl Leg {
    fn line(&self) -> String {
        let (verdict, what) = match &self.verdict {
            Ok(Verdict::Passed(found)) => ("ok", found.as_str()),
            Ok(Verdict::Skipped(why)) => ("skipped", why.as_str()),
            Err(why) => ("FAILED", why.as_str()),
        };
        format!("  {:<28} {:>9}  {verdict}: {what}", self.name, seconds(self.took))
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed() -> TaskResult<Verdict> {
        Ok(Verdict::Passed("cpu-x64".into()))
    }

    #[test]
    fn a_failed_leg_fails_the_run_but_not_the_legs_after_it() {
        let mut legs = Legs::default();
        legs.run("one", || Err("other tokens".into()));
        legs.run("two", passed);
        legs.skip("three", "no qemu");
        assert_eq!(legs.counts(), (1, 1, 1));
        assert!(legs.conclude(false).is_err());
    }

    #[test]
    fn a_run_in_which_everything_was_skipped_is_no_success() {
        let mut legs = Legs::default();
        legs.skip("one", "no qemu");
        assert!(legs.conclude(false).is_err());
        legs.run("two", passed);
        assert!(legs.conclude(false).is_ok());
    }

    #[test]
    fn a_skipped_leg_fails_the_run_only_where_none_may_be() {
        let mut legs = Legs::default();
        legs.run("one", passed);
        assert!(legs.conclude(true).is_ok());
        legs.skip("two", "no qemu");
        assert!(legs.conclude(false).is_ok());
        assert!(legs.conclude(true).is_err());
    }
}
