//! Attention on every tier, against sums in 64 bits that are written here.
//!
//! Keys and values are numbers that the cache's type holds exactly, so that nothing but the arithmetic is compared. Few tokens of heads
//! that share keys with at most one other are ggml's on some tiers, and so are those of values that are not whole vectors: it sums in 16
//! bits.
#![forbid(unsafe_code)]

#[path = "kernels/random.rs"]
mod random;

use std::num::NonZeroU32;

use gguf_loader::{
    backend::{Backend, Cache, CacheType, Queries, registered},
    hardware::Hardware,
};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use random::{Random, cases};

/// The tiers that this CPU can run.
fn tiers() -> Vec<&'static dyn Backend> {
    let hardware = Hardware::detect();
    let tiers = registered().filter(|backend| backend.id().starts_with("cpu-"));
    tiers.filter(|backend| backend.devices(&hardware).is_ok()).collect()
}

/// What stands in a mask.
#[derive(Debug, Clone, Copy)]
enum Hides {
    /// All positions are seen.
    Nothing,
    /// Those after a token, the last of which stands at the last position.
    Future,
    /// Those, and what lies `window` positions back.
    AllButAWindow(usize),
    /// Positions by chance, and from some tokens all of them.
    ByChance,
    /// Nothing, but adds numbers.
    Adds,
    /// Those of others: each token has a share of the positions, as sequences in one cache have.
    OtherSequences,
    /// The last positions, whose keys and values are infinite: cells of a cache that nobody uses any more.
    Leftovers,
}

/// How many [`Hides::Leftovers`] hides.
const LEFTOVERS: usize = 10;

#[derive(Debug, Clone, Copy)]
struct Case {
    cache_type: CacheType,
    tokens: usize,
    positions: usize,
    /// Heads of keys, and queries for each.
    heads: (usize, usize),
    key_size: usize,
    value_size: usize,
    max_bias: f32,
    hides: Hides,
    threads: u32,
}

/// Tiers with vectors of 4 or 8 numbers and no arithmetic on 16-bit floats: they leave nothing of this file's to ggml.
const NARROW: [&str; 8] = [
    "cpu-x64",
    "cpu-sse42",
    "cpu-sandybridge",
    "cpu-ivybridge",
    "cpu-piledriver",
    "cpu-haswell",
    "cpu-alderlake",
    "cpu-armv8",
];

impl Case {
    /// Whether that many of its tokens are computed by our kernel.
    fn is_ours(&self, tier: &str, tokens: usize) -> bool {
        tokens >= 64 || NARROW.contains(&tier) || self.value_size.is_multiple_of(16) && self.heads.1 >= 3
    }
}

fn is_emulated() -> bool {
    std::env::var_os("GGUF_LOADER_TEST_EMULATED").is_some()
}

const USUAL: Case = Case {
    cache_type: CacheType::F16,
    tokens: 70,
    positions: 100,
    heads: (2, 3),
    key_size: 64,
    value_size: 64,
    max_bias: 0.0,
    hides: Hides::Future,
    threads: 2,
};

fn mask(case: &Case, random: &mut Random) -> Vec<f32> {
    let hidden = |hidden: bool| if hidden { f32::NEG_INFINITY } else { 0.0 };
    let mut mask = Vec::new();
    for token in 0..case.tokens {
        let now = (case.positions + token).saturating_sub(case.tokens - 1);
        let blind = random.below(5) == 0;
        for position in 0..case.positions {
            mask.push(match case.hides {
                Hides::Nothing => 0.0,
                // ALiBi's masks have distances where others have zeros.
                Hides::Future if case.max_bias > 0.0 && position <= now => position as f32 - now as f32,
                Hides::Future => hidden(position > now),
                Hides::AllButAWindow(window) => hidden(position > now || position + window <= now),
                Hides::ByChance => hidden(blind || random.below(3) == 0),
                Hides::Adds => random.below(9) as f32 - 4.0,
                Hides::OtherSequences => hidden(position * case.tokens / case.positions != token),
                Hides::Leftovers => hidden(position + LEFTOVERS >= case.positions),
            });
        }
    }
    mask
}

/// Numbers that the type holds exactly: whole ones in its range, of which each block has both ends, divided by a power of two.
fn exact(cache_type: CacheType, count: usize, random: &mut Random) -> Vec<f32> {
    let (least, most) = match cache_type {
        CacheType::Q4_0 | CacheType::Q4_1 => (-8, 7),
        CacheType::Q5_0 | CacheType::Q5_1 => (-16, 15),
        _ => (-127, 127),
    };
    let steps = (most - least) as u32;
    let mut values: Vec<i32> = (0..count).map(|_| least + random.below(steps + 1) as i32).collect();
    for block in values.chunks_exact_mut(32) {
        let place = random.below(31) as usize;
        block[place..place + 2].copy_from_slice(&[least, most]);
    }
    values.into_iter().map(|value| value as f32 / (steps + 1).next_power_of_two() as f32 * 4.0).collect()
}

/// `softmax(scale * keys * query + slope * mask) * values` of every token and head.
fn expected(case: &Case, keys: &[f32], values: &[f32], queries: &Queries<'_>) -> Vec<f64> {
    let (kept, each) = case.heads;
    let heads = kept * each;
    let mut results = Vec::new();
    for (index, query) in queries.values.chunks(case.key_size).enumerate() {
        let (token, head) = (index / heads, index % heads);
        // ALiBi: 8 heads have slopes of 2^-(b/8), 2^-(2b/8) and so on; those beyond a power of two lie between.
        let power = 1 << heads.ilog2();
        let step = if head < power { (head + 1) as f64 } else { (head - power) as f64 + 0.5 };
        let slope = (-f64::from(case.max_bias) * step / power as f64).exp2();
        let row = |of: usize, size: usize| (of * kept + head / each) * size;
        let scores: Vec<f64> = (0..case.positions)
            .map(|position| {
                let key = &keys[row(position, case.key_size)..][..case.key_size];
                let product: f64 = key.iter().zip(query).map(|(&k, &q)| f64::from(k) * f64::from(q)).sum();
                let mask = f64::from(queries.mask[token * case.positions + position]);
                if mask == f64::NEG_INFINITY { mask } else { product * f64::from(queries.scale) + slope * mask }
            })
            .collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        results.extend((0..case.value_size).map(|element| {
            let seen = weights.iter().enumerate().filter(|&(_, &weight)| weight > 0.0);
            let total = seen.map(|(at, weight)| weight * f64::from(values[row(at, case.value_size) + element]));
            if largest > f64::NEG_INFINITY { total.sum::<f64>() / sum } else { 0.0 }
        }));
    }
    results
}

/// What a token gets is the same, to the last bit, whatever tokens it is computed with: a prompt may be cut into any passes.
fn check_alone(
    case: Case,
    token: usize,
    query: &[f32],
    mask: &[f32],
    together: &[f32],
    attend: impl FnOnce(Queries<'_>) -> Vec<f32>,
) {
    let heads = case.heads.0 * case.heads.1;
    let row = |values: usize| token * heads * values..(token + 1) * heads * values;
    let alone = attend(Queries {
        tokens: 1,
        heads,
        values: &query[row(case.key_size)],
        scale: 0.25 / (case.key_size as f32).sqrt(),
        max_bias: case.max_bias,
        mask: &mask[token * case.positions..][..case.positions],
    });
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert!(bits(&alone) == bits(&together[row(case.value_size)]), "{case:?}: token {token} alone");
}

/// The bits of what every tier computed.
fn check(case: Case, seed: u64) -> Vec<Vec<u32>> {
    let mut random = Random::new(seed);
    let (kept, each) = case.heads;
    let mut keys = exact(case.cache_type, case.positions * kept * case.key_size, &mut random);
    let mut values = exact(case.cache_type, case.positions * kept * case.value_size, &mut random);
    if matches!(case.hides, Hides::Leftovers) {
        let first = (case.positions - LEFTOVERS) * kept;
        keys[first * case.key_size..].fill(f32::INFINITY);
        values[first * case.value_size..].fill(f32::INFINITY);
    }
    let query = exact(CacheType::F32, case.tokens * kept * each * case.key_size, &mut random);
    let mask = mask(&case, &mut random);
    let queries = Queries {
        tokens: case.tokens,
        heads: kept * each,
        values: &query,
        scale: 0.25 / (case.key_size as f32).sqrt(),
        max_bias: case.max_bias,
        mask: &mask,
    };
    let expected = expected(&case, &keys, &values, &queries);
    let of_tier = |backend: &'static dyn Backend| {
        let device = backend.devices(&Hardware::detect()).expect("usable").remove(0);
        let cache = Cache {
            cache_type: case.cache_type,
            heads: kept,
            key_size: case.key_size,
            value_size: case.value_size,
            keys: &keys,
            values: &values,
        };
        let threads = NonZeroU32::new(case.threads).expect("not zero");
        let mut attention = backend.attention(&device, cache, threads).expect("attends").expect("a cache");
        let mut results = vec![f32::NAN; expected.len()];
        attention.attend(queries, &mut results).expect("attention");
        if case.is_ours(backend.id(), 1) {
            check_alone(case, seed as usize % case.tokens, &query, &mask, &results, |queries| {
                let mut alone = vec![f32::NAN; queries.heads * case.value_size];
                attention.attend(queries, &mut alone).expect("attention");
                alone
            });
        }
        for (index, (&got, &expected)) in results.iter().zip(&expected).enumerate() {
            // Values are up to 2, and each of the sums, up to that of some hundred weights, is rounded to 24 bits, or to 11.
            let bound = if case.is_ours(backend.id(), case.tokens) { 4e-6 } else { 4e-3 };
            assert!(
                (f64::from(got) - expected).abs() < bound,
                "{}: {case:?}: element {} of head {} of token {} is {got}, not {expected}",
                backend.id(),
                index % case.value_size,
                index / case.value_size % (kept * each),
                index / case.value_size / (kept * each),
            );
        }
        results.into_iter().map(f32::to_bits).collect()
    };
    tiers().into_iter().map(of_tier).collect()
}

#[test]
fn every_mask_is_kept() {
    let all = [
        Hides::Nothing,
        Hides::Future,
        Hides::AllButAWindow(20),
        Hides::ByChance,
        Hides::Adds,
        Hides::OtherSequences,
        Hides::Leftovers,
    ];
    for hides in all {
        for tokens in [1, 3, 70] {
            check(Case { hides, tokens, ..USUAL }, 1);
        }
    }
}

/// Each has more positions than are taken at a time, in tiles of one vector and of several.
#[test]
fn sequences_in_one_cache_are_kept_apart() {
    for (tokens, each) in [(5, 3), (20, 3), (20, 5), (33, 1), (70, 2)] {
        check(Case { tokens, positions: tokens * 40, heads: (1, each), hides: Hides::OtherSequences, ..USUAL }, 6);
    }
}

/// Many threads and few heads that share keys may be computed in another way than few threads and many.
#[test]
fn threads_change_no_bit() {
    for (tokens, each, hides) in [(1, 71, Hides::Nothing), (1, 128, Hides::Future), (20, 4, Hides::OtherSequences)] {
        let case = Case { tokens, positions: 300, heads: (1, each), key_size: 96, hides, ..USUAL };
        let results = [1, 2, 9].map(|threads| check(Case { threads, ..case }, 7));
        assert!(results[1] == results[0] && results[2] == results[0], "{case:?}");
    }
}

#[test]
fn every_cache_type_is_read() {
    for cache_type in CacheType::ALL {
        check(Case { cache_type, ..USUAL }, 2);
    }
}

#[test]
fn slopes_are_those_of_alibi() {
    for heads in [(1, 8), (12, 1), (2, 3)] {
        check(Case { heads, max_bias: 8.0, ..USUAL }, 3);
    }
}

#[test]
fn heads_of_any_size_and_number_are_computed() {
    for (key_size, value_size) in [(64, 64), (80, 80), (96, 96), (128, 128), (256, 256), (192, 128), (40, 40)] {
        for heads in [(1, 1), (1, 5), (3, 1), (5, 4), (2, 2), (1, 16)] {
            check(Case { key_size, value_size, heads, tokens: 1, ..USUAL }, 4);
        }
        // An emulated CPU takes minutes for what takes seconds here.
        for heads in if is_emulated() { &[(1, 2)][..] } else { &[(1, 1), (1, 5), (2, 2)] } {
            check(Case { key_size, value_size, heads: *heads, ..USUAL }, 4);
        }
    }
}

#[test]
fn any_number_of_tokens_and_positions_is_computed() {
    let (tokens, most) =
        if is_emulated() { (&[1, 2, 6, 17, 65][..], 257) } else { (&[1, 2, 5, 6, 17, 64, 65, 96, 127, 130][..], 600) };
    for &tokens in tokens {
        for positions in [tokens, tokens + 31, 256, most] {
            check(Case { tokens, positions, heads: (1, 3), ..USUAL }, 5);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(48),
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_attention_is_computed(
        tokens in prop_oneof![1_usize..8, 1_usize..150], more in 0_usize..600, kept in 1_usize..4, each in 1_usize..6, size in 1_usize..9,
        window in 1_usize..60, hides in 0..6_usize, threads in 1_u32..6, seed: u64,
    ) {
        let hides =
            [
                Hides::Nothing,
                Hides::Future,
                Hides::AllButAWindow(window),
                Hides::ByChance,
                Hides::Adds,
                Hides::OtherSequences,
            ][hides];
        let (key_size, value_size, positions) = (size * 16, size * 16, tokens + more);
        check(Case { tokens, positions, heads: (kept, each), key_size, value_size, hides, threads, ..USUAL }, seed);
    }
}
