//! What tests skipped. A test that lacks something prints `skipped: why` and passes; libtest shows what a passing test printed
//! only on request, and then all of it. Here those lines are picked out, and counted. The conformance suite has a harness of its
//! own, which keeps nothing back: its lines stand in the report itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use crate::process::{ProcessError, run_filtered};

/// Reasons, and how many tests or steps gave each.
#[derive(Debug, Default)]
pub(crate) struct Skips {
    reasons: BTreeMap<String, usize>,
    section: Section,
}

/// What the lines that come are part of.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Section {
    /// One line for each test, and what a harness lets through.
    #[default]
    Report,
    /// What passing tests printed.
    Successes,
    /// What failing tests printed.
    Failures,
}

impl Skips {
    /// Runs `cargo test`; its report is shown without what passing tests printed.
    pub(crate) fn collect(&mut self, tests: &mut Command) -> Result<(), ProcessError> {
        run_filtered(tests.args(["--", "--show-output"]), |line| self.shows(line))
    }

    /// Counts one.
    pub(crate) fn note(&mut self, reason: &str) {
        *self.reasons.entry(reason.to_owned()).or_default() += 1;
    }

    /// One line for each reason under a heading with the number of all; nothing when nothing was skipped.
    pub(crate) fn summary(&self) -> String {
        let mut table = String::new();
        let total: usize = self.reasons.values().sum();
        if total > 0 {
            let _ = writeln!(table, "Skipped, by tests and steps, {total} times:");
        }
        for (reason, count) in &self.reasons {
            let _ = writeln!(table, "  {count:>3}  {reason}");
        }
        table
    }

    /// Takes note of a line of a report, and says whether to show it.
    fn shows(&mut self, line: &str) -> bool {
        if line == "successes:" {
            self.section = Section::Successes;
        } else if line == "failures:" {
            self.section = Section::Failures;
        } else if line.starts_with("test result:") {
            self.section = Section::Report;
        }
        let whole = line.strip_prefix("skipped: ");
        let reason = match self.section {
            Section::Successes => whole,
            // With one thread a harness begins the test's line before the test runs.
            Section::Report => whole.or_else(|| Some(line.split_once(" ... skipped: ")?.1)),
            Section::Failures => None,
        };
        if let Some(reason) = reason {
            self.note(reason);
        }
        match self.section {
            Section::Report => whole.is_none(),
            Section::Successes => false,
            Section::Failures => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Skips;

    /// Of a harness of its own, and of libtest.
    const REPORT: &str = "\
skipped: a tier cannot be used here

running 2 tests
test four ... skipped: no /proc
ok
test five ... ok

test result: ok. 2 passed; 0 failed

running 3 tests
test one ... ok
test two ... ok
test three ... FAILED

successes:

---- one stdout ----
detected in 1 ms
skipped: no model

---- two stdout ----
skipped: no model
skipped: no network

successes:
    one
    two

failures:

---- three stdout ----
skipped: and then it failed

failures:
    three

test result: FAILED. 2 passed; 1 failed";

    #[test]
    fn reasons_of_passing_tests_are_counted_and_their_output_is_left_out() {
        let mut skips = Skips::default();
        let shown: Vec<&str> = REPORT.lines().filter(|line| skips.shows(line)).collect();
        skips.note("no cargo-deny");
        assert_eq!(
            skips.summary(),
            "Skipped, by tests and steps, 6 times:\n    1  a tier cannot be used here\n    1  no /proc\n    \
             1  no cargo-deny\n    2  no model\n    1  no network\n"
        );
        assert!(shown.contains(&"test one ... ok") && shown.contains(&"skipped: and then it failed"));
        assert!(!shown.iter().any(|line| line.contains("detected") || line.contains("no model")));
    }

    #[test]
    fn where_nothing_is_skipped_nothing_is_said() {
        let mut skips = Skips::default();
        assert!(skips.shows("test result: ok. 2 passed; 0 failed"));
        assert_eq!(skips.summary(), "");
    }
}
