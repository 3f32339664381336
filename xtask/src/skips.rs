//! What tests skipped. A test that lacks something prints `skipped: why` and passes; libtest shows what a passing test printed
//! only on request, and then all of it. Here those lines are picked out, and counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use crate::process::{ProcessError, run_filtered};

/// Reasons, and how many tests gave each.
#[derive(Debug, Default)]
pub(crate) struct Skips {
    reasons: BTreeMap<String, usize>,
    /// Whether the lines that come are what passing tests printed.
    inside: bool,
}

impl Skips {
    /// Runs `cargo test`; its report is shown without what passing tests printed.
    pub(crate) fn collect(&mut self, tests: &mut Command) -> Result<(), ProcessError> {
        run_filtered(tests.args(["--", "--show-output"]), |line| self.shows(line))
    }

    /// One line for each reason under a heading with the number of all; nothing when nothing was skipped.
    pub(crate) fn summary(&self) -> String {
        let mut table = String::new();
        let total: usize = self.reasons.values().sum();
        if total > 0 {
            let _ = writeln!(table, "Skipped by {total} tests:");
        }
        for (reason, count) in &self.reasons {
            let _ = writeln!(table, "  {count:>3}  {reason}");
        }
        table
    }

    /// Takes note of a line of libtest's report, and says whether to show it.
    fn shows(&mut self, line: &str) -> bool {
        if line == "successes:" {
            self.inside = true;
        } else if line == "failures:" || line.starts_with("test result:") {
            self.inside = false;
        }
        if let Some(reason) = line.strip_prefix("skipped: ").filter(|_| self.inside) {
            *self.reasons.entry(reason.to_owned()).or_default() += 1;
        }
        !self.inside
    }
}

#[cfg(test)]
mod tests {
    use super::Skips;

    const REPORT: &str = "\
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
        assert_eq!(skips.summary(), "Skipped by 3 tests:\n    2  no model\n    1  no network\n");
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
