//! The tokens that may come next, on their way through the steps of a chain.

use std::collections::HashMap;

use super::SampleError;
use crate::backend::Token;

/// A token that may come next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The token.
    pub token: Token,
    /// Its logit, a finite number.
    pub logit: f32,
}

/// The tokens that may come next, as the steps so far have left them.
///
/// What has no chance is not among them: a logit of minus infinity takes a candidate out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Candidates {
    entries: Vec<Candidate>,
    /// So many entries at the beginning are the likeliest, in descending order. The others stand in no order.
    sorted: usize,
    /// Whether entry `i` is token `i`.
    whole: bool,
}

impl Candidates {
    /// Makes every token with a chance a candidate.
    pub(crate) fn fill(&mut self, logits: &[f32]) -> Result<(), SampleError> {
        self.entries.clear();
        self.sorted = 0;
        let all = (0..).zip(logits).map(|(token, &logit)| Candidate { token, logit });
        self.whole = logits.iter().fold(true, |finite, logit| finite & logit.is_finite());
        if self.whole {
            self.entries.extend(all);
        } else if logits.iter().all(|&logit| logit < f32::INFINITY) {
            self.entries.extend(all.filter(|candidate| candidate.logit > f32::NEG_INFINITY));
        } else {
            return Err(SampleError::NotANumber);
        }
        self.check()
    }

    /// Whether any candidate is left.
    pub(crate) fn check(&self) -> Result<(), SampleError> {
        if self.entries.is_empty() { Err(SampleError::NothingLeft) } else { Ok(()) }
    }

    /// Takes out what was given a logit of minus infinity.
    ///
    /// # Errors
    ///
    /// [`SampleError::Processor`] for a NaN or plus infinity.
    pub(crate) fn settle(&mut self) -> Result<(), SampleError> {
        if self.entries.iter().all(|candidate| candidate.logit < f32::INFINITY) {
            self.drop_without_chance();
            return self.check();
        }
        Err(SampleError::Processor)
    }

    /// Number of candidates.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no candidate is left.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The candidates, in no order that a program could count on.
    pub fn as_slice(&self) -> &[Candidate] {
        &self.entries
    }

    /// The tokens, with their logits to change.
    pub fn logits_mut(&mut self) -> impl Iterator<Item = (Token, &mut f32)> {
        self.sorted = 0;
        self.entries.iter_mut().map(|candidate| (candidate.token, &mut candidate.logit))
    }

    /// Keeps the candidates for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&Candidate) -> bool) {
        let (mut index, mut sorted) = (0, 0);
        let before = self.sorted;
        self.entries.retain(|candidate| {
            let kept = keep(candidate);
            sorted += usize::from(kept && index < before);
            index += 1;
            kept
        });
        self.sorted = sorted;
        self.whole &= self.entries.len() == index;
    }

    /// Puts the `count` likeliest to the front, in descending order, and returns them. Of equal ones the smaller token
    /// comes first.
    pub fn likeliest(&mut self, count: usize) -> &[Candidate] {
        let count = count.min(self.entries.len());
        if self.sorted < count {
            self.whole = false;
            let rest = &mut self.entries[self.sorted..];
            let wanted = count - self.sorted;
            if wanted < rest.len() {
                rest.select_nth_unstable_by(wanted - 1, descending);
            }
            rest[..wanted].sort_unstable_by(descending);
            self.sorted = count;
        }
        &self.entries[..count]
    }

    /// Keeps the `count` likeliest only.
    pub(crate) fn keep_likeliest(&mut self, count: usize) {
        if self.sorted == 0 && count < self.entries.len() {
            self.narrow(count);
        }
        self.likeliest(count);
        self.truncate(count);
    }

    /// Keeps the first `count`.
    pub(crate) fn truncate(&mut self, count: usize) {
        if count < self.entries.len() {
            self.entries.truncate(count);
            self.sorted = self.sorted.min(count);
            self.whole = false;
        }
    }

    /// Drops candidates of which it is certain that they are not among the `count` likeliest, in one pass.
    ///
    /// A vocabulary has a hundred thousand tokens, of which forty are wanted. Those that reach the best bound so far are
    /// collected at the front; when there are four times as many as wanted, the `count`th of them is the new bound. Nearly
    /// every token is then dismissed by one comparison.
    fn narrow(&mut self, count: usize) {
        let room = count.saturating_mul(4);
        if count == 0 || room >= self.entries.len() {
            return;
        }
        let (mut kept, mut bound) = (0, f32::NEG_INFINITY);
        for index in 0..self.entries.len() {
            let candidate = self.entries[index];
            if candidate.logit < bound {
                continue;
            }
            if kept == room {
                let (_, last, _) = self.entries[..kept].select_nth_unstable_by(count - 1, descending);
                bound = last.logit;
                kept = count;
                if candidate.logit < bound {
                    continue;
                }
            }
            self.entries[kept] = candidate;
            kept += 1;
        }
        self.truncate(kept);
        self.whole = false;
    }

    /// The largest logit.
    pub fn largest(&self) -> f32 {
        match self.sorted {
            0 => self.entries.iter().fold(f32::NEG_INFINITY, |largest, candidate| largest.max(candidate.logit)),
            _ => self.entries[0].logit,
        }
    }

    /// Each candidate's odds, the likeliest one's being 1, and their sum: their quotient is the probability.
    pub(crate) fn odds(&self, odds: &mut Vec<f32>) -> f64 {
        let largest = self.largest();
        odds.clear();
        odds.extend(self.entries.iter().map(|candidate| (candidate.logit - largest).exp()));
        odds.iter().map(|&odds| f64::from(odds)).sum()
    }

    /// Sets logits anew, in the order of [`as_slice`](Self::as_slice); those of minus infinity take candidates out.
    pub(crate) fn replace(&mut self, mut logit: impl FnMut(usize, &Candidate) -> f32) {
        self.sorted = 0;
        for (index, candidate) in self.entries.iter_mut().enumerate() {
            candidate.logit = logit(index, candidate);
        }
        self.drop_without_chance();
    }

    /// Changes the logits of the tokens in `changes`. What overflows stays a number; minus infinity takes a candidate out.
    pub(crate) fn change<T>(&mut self, changes: &HashMap<Token, T>, change: impl Fn(&T, f32) -> f32) {
        if changes.is_empty() {
            return;
        }
        self.sorted = 0;
        let mut dropped = false;
        let mut apply = |candidate: &mut Candidate, to: &T| {
            candidate.logit = change(to, candidate.logit).min(f32::MAX);
            dropped |= candidate.logit == f32::NEG_INFINITY;
        };
        if self.whole {
            for (&token, to) in changes {
                if let Some(candidate) = self.entries.get_mut(token as usize) {
                    apply(candidate, to);
                }
            }
        } else {
            for candidate in &mut self.entries {
                if let Some(to) = changes.get(&candidate.token) {
                    apply(candidate, to);
                }
            }
        }
        if dropped {
            self.drop_without_chance();
        }
    }

    /// Leaves this token as the only one.
    pub(crate) fn only(&mut self, token: Token) {
        self.entries.clear();
        self.entries.push(Candidate { token, logit: 0.0 });
        self.sorted = 1;
        self.whole = false;
    }

    /// Reorders: the entries at `order`, and no others.
    pub(crate) fn pick_out(&mut self, order: &[usize]) {
        self.entries = order.iter().map(|&index| self.entries[index]).collect();
        self.sorted = 0;
        self.whole = false;
    }

    fn drop_without_chance(&mut self) {
        self.retain(|candidate| candidate.logit > f32::NEG_INFINITY);
    }
}

fn descending(one: &Candidate, other: &Candidate) -> std::cmp::Ordering {
    other.logit.total_cmp(&one.logit).then(one.token.cmp(&other.token))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a sort of everything, with many equal logits, in any number of calls.
        #[test]
        fn the_likeliest_are_those_of_a_full_sort(
            logits in prop::collection::vec((-20_i8..20).prop_map(f32::from), 1..400),
            counts in prop::collection::vec(0_usize..450, 1..4),
            last in 1_usize..40,
        ) {
            let mut expected: Vec<Candidate> =
                (0..).zip(&logits).map(|(token, &logit)| Candidate { token, logit }).collect();
            expected.sort_by(descending);
            let mut candidates = Candidates::default();
            candidates.fill(&logits).unwrap();
            for count in counts {
                prop_assert_eq!(candidates.likeliest(count), &expected[..count.min(logits.len())]);
            }
            candidates.keep_likeliest(last);
            prop_assert_eq!(candidates.as_slice(), &expected[..last.min(logits.len())]);

            candidates.fill(&logits).unwrap();
            candidates.keep_likeliest(last);
            prop_assert_eq!(candidates.as_slice(), &expected[..last.min(logits.len())]);
        }
    }

    #[test]
    fn what_has_no_chance_is_no_candidate() {
        let mut candidates = Candidates::default();
        candidates.fill(&[1.0, f32::NEG_INFINITY, 2.0]).unwrap();
        assert_eq!(candidates.as_slice().iter().map(|candidate| candidate.token).collect::<Vec<_>>(), [0, 2]);
        // Not every token is there, so they are looked for by their ids.
        candidates.change(&HashMap::from([(2, ())]), |(), _| f32::NEG_INFINITY);
        assert_eq!(candidates.as_slice(), [Candidate { token: 0, logit: 1.0 }]);

        assert_eq!(candidates.fill(&[f32::NEG_INFINITY; 3]), Err(SampleError::NothingLeft));
        assert_eq!(candidates.fill(&[0.0, f32::NAN]), Err(SampleError::NotANumber));
        assert_eq!(candidates.fill(&[0.0, f32::INFINITY]), Err(SampleError::NotANumber));
    }

    #[test]
    fn an_order_is_forgotten_where_logits_change_and_kept_where_candidates_go() {
        let mut candidates = Candidates::default();
        candidates.fill(&[1.0, 3.0, 2.0, 0.0]).unwrap();
        candidates.likeliest(2);
        candidates.retain(|candidate| candidate.token != 1);
        assert_eq!(candidates.largest(), 2.0);
        for (token, logit) in candidates.logits_mut() {
            *logit = token as f32;
        }
        assert_eq!(candidates.largest(), 3.0);
        assert_eq!(candidates.likeliest(1)[0].token, 3);
    }
}
