//! Which cells of a shared cache belong to more than one sequence.
//!
//! A fork takes no new cells: llama.cpp notes the copy at those of the original. It moves a cell for all sequences that have
//! it, and does not say which they are, so they are followed here. Sequences have their beginnings in common and nothing else:
//! a fork begins as a copy, and what comes later is its own.

use crate::backend::{Position, SequenceId};

/// For each two sequences, how many cells they have in common.
#[derive(Debug)]
pub(super) struct Forks {
    /// A row for each sequence.
    common: Vec<Position>,
    sequences: usize,
}

impl Forks {
    pub(super) fn new(sequences: u32) -> Self {
        let sequences = sequences as usize;
        Self { common: vec![0; sequences * sequences], sequences }
    }

    /// Nothing is shared any more.
    pub(super) fn clear(&mut self) {
        self.common.fill(0);
    }

    /// Takes note that `to` is a copy of `from`, which holds `length` tokens.
    pub(super) fn copy(&mut self, from: SequenceId, to: SequenceId, length: Position) {
        self.cut(to, 0);
        for other in (0..self.sequences as SequenceId).filter(|&other| other != to) {
            let common = if other == from { length } else { self.common(from, other) };
            self.set(to, other, common);
        }
    }

    /// Takes note that of the cells of `sequence` from `length` on none is shared.
    pub(super) fn cut(&mut self, sequence: SequenceId, length: Position) {
        for other in 0..self.sequences as SequenceId {
            self.set(sequence, other, self.common(sequence, other).min(length));
        }
    }

    /// Takes note that two sequences have so many cells in common.
    pub(super) fn set(&mut self, one: SequenceId, other: SequenceId, common: Position) {
        let (one, other) = (one as usize, other as usize);
        self.common[one * self.sequences + other] = common;
        self.common[other * self.sequences + one] = common;
    }

    fn common(&self, one: SequenceId, other: SequenceId) -> Position {
        self.common[one as usize * self.sequences + other as usize]
    }

    /// The sequence with which `sequence` has most in common, and how much that is.
    pub(super) fn nearest(&self, sequence: SequenceId) -> Option<(SequenceId, Position)> {
        let all = (0..self.sequences as SequenceId).map(|other| (other, self.common(sequence, other)));
        all.max_by_key(|&(_, common)| common).filter(|&(_, common)| common > 0)
    }

    /// Cells that the sequences take together, where `lengths` is what each holds.
    pub(super) fn used(&self, lengths: &[Position]) -> u32 {
        let own = (0..).zip(lengths).map(|(sequence, &length)| {
            let counted = (0..sequence).map(|other| self.common(sequence, other)).max();
            length - counted.unwrap_or(0)
        });
        own.sum()
    }

    /// All pairs that have something in common.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (SequenceId, SequenceId, Position)> {
        let sequences = self.sequences as SequenceId;
        let all = (0..sequences).flat_map(move |one| (0..one).map(move |other| (one, other)));
        all.map(|(one, other)| (one, other, self.common(one, other))).filter(|&(.., common)| common > 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Edit {
        Append(SequenceId),
        Copy(SequenceId, SequenceId),
        Cut(SequenceId, usize),
        Clear,
    }

    fn edits() -> impl Strategy<Value = Vec<Edit>> {
        let edit = prop_oneof![
            4 => (0_u32..4).prop_map(Edit::Append),
            2 => (0_u32..4, 0_u32..4).prop_map(|(from, to)| Edit::Copy(from, to)),
            2 => (0_u32..4, 0_usize..6).prop_map(|(sequence, length)| Edit::Cut(sequence, length)),
            1 => Just(Edit::Clear),
        ];
        prop::collection::vec(edit, 0..40)
    }

    proptest! {
        /// Against sequences whose cells have numbers of their own.
        #[test]
        fn what_is_in_common_is_what_the_cells_say(edits in edits()) {
            let (mut forks, mut cells, mut next) = (Forks::new(4), vec![Vec::<u32>::new(); 4], 0..);
            for edit in edits {
                match edit {
                    Edit::Append(sequence) => cells[sequence as usize].extend(next.next()),
                    Edit::Copy(from, to) if from == to => {}
                    Edit::Copy(from, to) => {
                        cells[to as usize] = cells[from as usize].clone();
                        forks.copy(from, to, cells[from as usize].len() as Position);
                    }
                    Edit::Cut(sequence, length) => {
                        cells[sequence as usize].truncate(length);
                        forks.cut(sequence, length as Position);
                    }
                    Edit::Clear => {
                        cells.iter_mut().for_each(Vec::clear);
                        forks.clear();
                    }
                }
                let lengths: Vec<Position> = cells.iter().map(|cells| cells.len() as Position).collect();
                let distinct: std::collections::BTreeSet<u32> = cells.iter().flatten().copied().collect();
                prop_assert_eq!(forks.used(&lengths) as usize, distinct.len());
                for (one, own) in (0..).zip(&cells) {
                    let common = |other: &Vec<u32>| own.iter().zip(other).take_while(|(one, other)| one == other).count();
                    let others = (0..).zip(&cells).filter(|(other, _)| *other != one);
                    let most = others.map(|(_, cells)| common(cells)).max().unwrap_or(0);
                    prop_assert_eq!(forks.nearest(one).map_or(0, |(_, common)| common as usize), most);
                }
            }
        }
    }
}
