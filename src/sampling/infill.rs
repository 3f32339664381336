//! The step for filling a gap in a text.

use super::{Candidates, SamplingError, chain::Stage, random::Random};
use crate::{backend::Token, tokenizer::Tokenizer};

/// Most candidates that are compared with each other.
const MOST: usize = 256;
/// What a text token's probability must reach at first.
const BOUND: f32 = 0.2;

/// In a gap the end matters more than elsewhere, and how the text is cut into tokens matters less: what the middle must
/// join up with is given. So candidates of which one begins with the other are joined, what is then unlikely goes, and the
/// end stands against the text as a whole.
pub(super) struct Infill {
    tokenizer: Tokenizer,
    /// What ends the answer where nothing else is likely.
    end: Token,
    odds: Vec<f32>,
    pieces: Vec<Vec<u8>>,
}

impl Infill {
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Self, SamplingError> {
        let special = tokenizer.special();
        let end = special.eot.or(special.eos).ok_or(SamplingError::NoEnd)?;
        Ok(Self { tokenizer: tokenizer.clone(), end, odds: Vec::new(), pieces: Vec::new() })
    }

    fn ends(&self, token: Token) -> bool {
        self.tokenizer.is_end_of_generation(token)
    }

    /// Gives the odds of candidates whose text begins with, or is the beginning of, a likelier one's to that one.
    fn join(&mut self, candidates: &Candidates) {
        let piece = |token| self.tokenizer.piece(token, false).unwrap_or_default();
        self.pieces.clear();
        self.pieces.extend(candidates.as_slice().iter().map(|candidate| piece(candidate.token)));
        for first in 0..self.pieces.len() {
            for other in 0..self.pieces.len() {
                if self.odds[first] == 0.0 {
                    break;
                }
                if first == other || self.odds[other] == 0.0 || self.pieces[first].is_empty() {
                    continue;
                }
                if self.pieces[other].starts_with(&self.pieces[first]) {
                    let (to, from) = if self.odds[other] > self.odds[first] { (other, first) } else { (first, other) };
                    self.odds[to] += self.odds[from];
                    self.odds[from] = 0.0;
                }
            }
        }
    }

    /// Takes away the odds of text whose share is below `bound`; the number of text tokens that are left.
    fn drop_below(&mut self, candidates: &Candidates, bound: f32) -> usize {
        let total: f32 = self.odds.iter().sum();
        let mut left = 0;
        for (index, candidate) in candidates.as_slice().iter().enumerate() {
            if self.ends(candidate.token) {
                continue;
            }
            if self.odds[index] < bound * total {
                self.odds[index] = 0.0;
            }
            left += usize::from(self.odds[index] > 0.0);
        }
        left
    }
}

impl Stage for Infill {
    fn apply(&mut self, candidates: &mut Candidates, _random: &mut Random) {
        candidates.keep_likeliest(MOST);
        let total = candidates.odds(&mut self.odds) as f32;
        let ends = candidates.as_slice().iter().zip(&self.odds).filter(|(candidate, _)| self.ends(candidate.token));
        let end: f32 = ends.map(|(_, odds)| odds).sum();
        if 3.0 * end * candidates.len() as f32 > total - end {
            candidates.retain(|candidate| self.ends(candidate.token));
            return;
        }
        self.join(candidates);
        let texts = self.drop_below(candidates, BOUND);
        if texts == 0 {
            let end = self.end;
            return candidates.only(end);
        }
        self.drop_below(candidates, 1.0 / (texts as f32 + 1.0));
        // What joined others is as likely as all of them together.
        candidates.replace(|index, _| self.odds[index].ln());
    }
}
