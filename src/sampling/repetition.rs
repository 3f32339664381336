//! Steps against repetition: they remember what was said.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{Candidates, chain::Stage, random::Random};
use crate::{backend::Token, tokenizer::Breakers};

pub(super) struct Penalties {
    window: Window,
    repetition: f32,
    frequency: f32,
    presence: f32,
    counts: HashMap<Token, u32>,
}

impl Penalties {
    pub(super) fn new(last: usize, repetition: f32, frequency: f32, presence: f32) -> Self {
        Self { window: Window::new(last), repetition, frequency, presence, counts: HashMap::new() }
    }
}

impl Stage for Penalties {
    fn apply(&mut self, candidates: &mut Candidates, _random: &mut Random) {
        candidates.change(&self.counts, |&count, logit| {
            // Division alone would make tokens with a negative logit likelier.
            let scaled = if logit <= 0.0 { logit * self.repetition } else { logit / self.repetition };
            (scaled - (count as f32 * self.frequency + self.presence)).max(f32::MIN)
        });
    }

    fn accept(&mut self, token: Token) {
        if self.window.size == 0 {
            return;
        }
        *self.counts.entry(token).or_default() += 1;
        if let Some(old) = self.window.push(token)
            && let Some(count) = self.counts.get_mut(&old)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&old);
            }
        }
    }
}

/// The last tokens, at most `size`, the newest first.
struct Window {
    size: usize,
    tokens: VecDeque<Token>,
}

impl Window {
    fn new(size: usize) -> Self {
        Self { size, tokens: VecDeque::new() }
    }

    /// The token that had to go.
    fn push(&mut self, token: Token) -> Option<Token> {
        let old = if self.tokens.len() >= self.size { self.tokens.pop_back() } else { None };
        if self.size > 0 {
            self.tokens.push_front(token);
        }
        old
    }
}

pub(super) struct Dry {
    window: Window,
    multiplier: f32,
    base: f32,
    allowed_length: usize,
    breakers: Arc<Breakers>,
    overlaps: Vec<usize>,
    lengths: HashMap<Token, usize>,
}

impl Dry {
    pub(super) fn new(multiplier: f32, base: f32, allowed_length: usize, last: usize, breakers: Arc<Breakers>) -> Self {
        let (overlaps, lengths) = (Vec::new(), HashMap::new());
        Self { window: Window::new(last), multiplier, base, allowed_length, breakers, overlaps, lengths }
    }

    /// For each token that would continue a repetition, the length of what it would continue.
    fn find(&mut self) {
        self.lengths.clear();
        // The newest first: a repetition is then what two places have in common from there on.
        let tokens: &[Token] = self.window.tokens.make_contiguous();
        let limit = self.breakers.distance(tokens);
        if limit < self.allowed_length {
            return;
        }
        common_prefixes(tokens, &mut self.overlaps);
        for (place, &overlap) in self.overlaps.iter().enumerate().skip(1) {
            let length = overlap.min(limit);
            let next = tokens[place - 1];
            if length >= self.allowed_length && !self.breakers.is_single(next) {
                let longest = self.lengths.entry(next).or_default();
                *longest = length.max(*longest);
            }
        }
    }
}

impl Stage for Dry {
    fn apply(&mut self, candidates: &mut Candidates, _random: &mut Random) {
        if self.multiplier == 0.0 {
            return;
        }
        self.find();
        let (multiplier, base, allowed) = (self.multiplier, self.base, self.allowed_length);
        candidates.change(&self.lengths, |&length, logit| {
            let exponent = i32::try_from(length - allowed).unwrap_or(i32::MAX);
            (logit - (multiplier * base.powi(exponent)).min(f32::MAX)).max(f32::MIN)
        });
    }

    fn accept(&mut self, token: Token) {
        self.window.push(token);
    }
}

/// For each place, how many items from there on are those that `items` begins with: the Z-function.
fn common_prefixes(items: &[Token], lengths: &mut Vec<usize>) {
    lengths.clear();
    lengths.resize(items.len(), 0);
    // The match that reaches furthest so far is items[begin..end].
    let (mut begin, mut end) = (0, 0);
    for place in 1..items.len() {
        let known = if place < end { lengths[place - begin].min(end - place) } else { 0 };
        let more = items[place + known..].iter().zip(&items[known..]).take_while(|(one, other)| one == other).count();
        lengths[place] = known + more;
        if place + lengths[place] > end {
            (begin, end) = (place, place + lengths[place]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn common_prefixes_are_those_that_comparing_finds(items in prop::collection::vec(0_u32..3, 0..60)) {
            let mut lengths = Vec::new();
            common_prefixes(&items, &mut lengths);
            for place in 1..items.len() {
                let expected = items[place..].iter().zip(&items).take_while(|(one, other)| one == other).count();
                prop_assert_eq!(lengths[place], expected);
            }
        }
    }

    #[test]
    fn penalties_forget_what_leaves_the_window() {
        let mut penalties = Penalties::new(2, 1.0, 1.0, 10.0);
        [0, 0, 1].into_iter().for_each(|token| penalties.accept(token));
        let mut candidates = Candidates::default();
        candidates.fill(&[0.0; 3]).unwrap();
        penalties.apply(&mut candidates, &mut Random::new(0));
        let logits: Vec<f32> = candidates.as_slice().iter().map(|candidate| candidate.logit).collect();
        assert_eq!(logits, [-11.0, -11.0, 0.0]);
        [2, 2].into_iter().for_each(|token| penalties.accept(token));
        assert_eq!(penalties.counts, HashMap::from([(2, 2)]));
    }
}
