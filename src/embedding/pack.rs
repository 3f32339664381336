//! Which texts are computed together.

use std::collections::VecDeque;

/// Puts texts of `lengths` tokens into batches of at most `tokens` tokens and `texts` texts, each text in one.
///
/// Longest first, each filled up with the longest that still fit. No length is above `tokens`.
pub(super) fn pack(lengths: &[usize], tokens: usize, texts: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(lengths[index]), index));
    let mut waiting = VecDeque::from(order);
    let mut batches = Vec::new();
    while let Some(longest) = waiting.pop_front() {
        let mut room = tokens.saturating_sub(lengths[longest]);
        let mut batch = vec![longest];
        while batch.len() < texts {
            // They wait in order of length: the first that fits is the longest that does.
            let first = waiting.partition_point(|&index| lengths[index] > room);
            let Some(index) = waiting.remove(first) else { break };
            room -= lengths[index];
            batch.push(index);
        }
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::pack;

    proptest! {
        #[test]
        fn every_text_is_in_one_batch_and_no_batch_is_too_large(
            lengths in prop::collection::vec(1_usize..=64, 0..200),
            tokens in 64_usize..256,
            texts in 1_usize..20,
        ) {
            let batches = pack(&lengths, tokens, texts);
            let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for batch in &batches {
                prop_assert!(!batch.is_empty() && batch.len() <= texts);
                prop_assert!(batch.iter().map(|&index| lengths[index]).sum::<usize>() <= tokens);
            }
        }

        #[test]
        fn batches_are_filled(lengths in prop::collection::vec(1_usize..=32, 1..200)) {
            // While a text waits that would fit, a batch is not closed: but the last, each is more than half full.
            let batches = pack(&lengths, 64, usize::MAX);
            for batch in &batches[..batches.len() - 1] {
                prop_assert!(batch.iter().map(|&index| lengths[index]).sum::<usize>() > 32);
            }
        }
    }
}
