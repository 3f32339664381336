//! Random numbers that are the same everywhere, and how many random cases there are.

use std::env;

/// A linear congruential generator (Knuth's MMIX): the same numbers everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}

/// As many random cases as proptest's own variable says, or so many: an emulator takes its time.
pub(crate) fn cases(usual: u32) -> u32 {
    let asked_for = env::var("PROPTEST_CASES").ok();
    asked_for.map_or(usual, |cases| cases.parse().expect("PROPTEST_CASES is a number"))
}
