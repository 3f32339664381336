//! Lots. PCG gives the same ones on every machine, unlike what a platform's own generator does.

use rand_pcg::{
    Pcg64,
    rand_core::{Rng, SeedableRng},
};

#[derive(Debug, Clone)]
pub(super) struct Random(Pcg64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Pcg64::seed_from_u64(seed))
    }

    /// Uniform in 0 to 1, without the 1.
    pub(super) fn share(&mut self) -> f64 {
        // As many bits as a double has.
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// An index, with probabilities in proportion to `odds`, whose sum is `total`.
    pub(super) fn index(&mut self, odds: &[f32], total: f64) -> usize {
        let mut left = self.share() * total;
        let chosen = odds.iter().position(|&odds| {
            left -= f64::from(odds);
            left < 0.0
        });
        // Rounding may leave a little at the end.
        chosen.unwrap_or_else(|| odds.iter().rposition(|&odds| odds > 0.0).unwrap_or(0))
    }
}
