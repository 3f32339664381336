//! What is left to chance, against distributions that are worked out here: chi-square, six standard deviations.

use gguf_loader::{
    backend::Token,
    sampling::{ChooseToken as _, Pick, SamplerChain, SamplerStep, Sampling},
};

use super::tokenizer;

const DRAWS: u32 = 30_000;

/// Logits of odds, which need no particular sum.
fn of_odds(odds: &[f64]) -> Vec<f32> {
    odds.iter().map(|odds| odds.ln() as f32).collect()
}

/// How often each token is drawn. Each draw is taken, so that what learns, learns.
fn draws(sampling: &Sampling, logits: &[f32]) -> Option<Vec<u32>> {
    let mut chain = SamplerChain::new(&tokenizer()?, sampling).unwrap();
    let mut counts = vec![0; logits.len()];
    for _ in 0..DRAWS {
        let token = chain.choose(logits).unwrap();
        chain.accept(token);
        counts[token as usize] += 1;
    }
    Some(counts)
}

/// Pearson's statistic has mean `k` and variance `2k`, with `k` degrees of freedom.
#[track_caller]
fn assert_distributed(counts: &[u32], odds: &[f64]) {
    let total: f64 = odds.iter().sum();
    let mut statistic = 0.0;
    let mut degrees = -1.0;
    for (&count, odds) in counts.iter().zip(odds) {
        let expected = f64::from(DRAWS) * odds / total;
        if *odds == 0.0 {
            assert_eq!(count, 0, "what cannot be drawn was drawn: {counts:?} for {odds:?}");
            continue;
        }
        if expected < 5.0 {
            // Too few for this statistic, and for much of a mistake.
            assert!(count < 30, "{count} draws of {expected} expected: {counts:?} for {odds:?}");
            continue;
        }
        statistic += (f64::from(count) - expected).powi(2) / expected;
        degrees += 1.0;
    }
    let bound = degrees + 6.0 * f64::sqrt(2.0 * degrees);
    assert!(statistic <= bound, "chi-square {statistic:.1} with {degrees} degrees: {counts:?} for {odds:?}");
}

fn chance() -> Sampling {
    Sampling::new(Pick::Distribution).with_seed(7)
}

#[test]
fn a_distribution_is_that_of_the_softmax() {
    let odds = [1.0, 2.0, 3.0, 4.0, 30.0, 0.05];
    let Some(counts) = draws(&chance(), &of_odds(&odds)) else { return };
    assert_distributed(&counts, &odds);
}

#[test]
fn a_temperature_is_a_power_of_the_odds() {
    let odds = [1.0, 2.0, 3.0, 4.0];
    for (temperature, power) in [(0.5, 2), (0.25, 4)] {
        let Some(counts) = draws(&chance().then(SamplerStep::Temperature { temperature }), &of_odds(&odds)) else {
            return;
        };
        assert_distributed(&counts, &odds.map(|odds: f64| odds.powi(power)));
    }
}

#[test]
fn steps_work_in_the_order_in_which_they_stand() {
    // Top-p of 0.6 takes 6 of 10 and 3 of 10; after top-k 1 there is nothing to choose.
    let odds = [3.0, 6.0, 1.0];
    let top_p = SamplerStep::TopP { p: 0.61, min_keep: 1 };
    let Some(counts) = draws(&chance().then(top_p.clone()), &of_odds(&odds)) else { return };
    assert_distributed(&counts, &[3.0, 6.0, 0.0]);
    let counts = draws(&chance().then(SamplerStep::TopK { k: 1 }).then(top_p), &of_odds(&odds)).unwrap();
    assert_distributed(&counts, &[0.0, 6.0, 0.0]);
    // Heat first: 0.43, 0.43 ^ ... the odds become alike, and a share of 0.61 takes all three.
    let hot =
        chance().then(SamplerStep::Temperature { temperature: 100.0 }).then(SamplerStep::MinP { p: 0.5, min_keep: 1 });
    let counts = draws(&hot, &of_odds(&odds)).unwrap();
    assert_distributed(&counts, &odds.map(|odds: f64| odds.powf(0.01)));
}

#[test]
fn xtc_excludes_the_top_choices_as_often_as_asked() {
    let odds = [40.0, 30.0, 20.0, 6.0, 4.0];
    let xtc = SamplerStep::Xtc { probability: 0.3, threshold: 0.1, min_keep: 1 };
    let Some(counts) = draws(&chance().then(xtc), &of_odds(&odds)) else { return };
    // In three of ten cases the first two are out: the third stays, as the least likely of those that reach 0.1.
    let without = [0.0, 0.0, 20.0, 6.0, 4.0].map(|odds| odds / 30.0 * 0.3);
    let expected: Vec<f64> = odds.iter().zip(without).map(|(with, without)| with / 100.0 * 0.7 + without).collect();
    assert_distributed(&counts, &expected);
}

#[test]
fn xtc_draws_once_for_a_token_however_often_it_is_tried() {
    let Some(tokenizer) = tokenizer() else { return };
    let xtc = SamplerStep::Xtc { probability: 0.5, threshold: 0.1, min_keep: 1 };
    let mut chain = SamplerChain::new(&tokenizer, &Sampling::new(Pick::Greedy).with_seed(1).then(xtc)).unwrap();
    let logits = of_odds(&[40.0, 30.0, 20.0]);
    let mut seen = [0; 3];
    for _ in 0..200 {
        let token = chain.choose(&logits).unwrap();
        (0..5).for_each(|_| assert_eq!(chain.choose(&logits).unwrap(), token));
        chain.accept(token);
        seen[token as usize] += 1;
    }
    assert!(seen[0] > 50 && seen[1] == 0 && seen[2] > 50, "{seen:?}");
}

/// Mean surprise, in bits, over draws from Zipf's law, by the probabilities that the tokens had among all.
fn mean_surprise(pick: Pick) -> Option<f64> {
    let odds: Vec<f64> = (1..=5000).map(|rank| 1.0 / f64::from(rank).powf(1.2)).collect();
    let total: f64 = odds.iter().sum();
    let mut chain = SamplerChain::new(&tokenizer()?, &Sampling::new(pick).with_seed(3)).unwrap();
    let logits = of_odds(&odds);
    let (mut sum, draws) = (0.0, 4000);
    // The bound has come near what it should be by then.
    for draw in 0..draws + 500 {
        let token = chain.choose(&logits).unwrap();
        chain.accept(token);
        if draw >= 500 {
            sum -= (odds[token as usize] / total).log2();
        }
    }
    Some(sum / f64::from(draws))
}

#[test]
fn mirostat_holds_the_surprise() {
    for tau in [2.0, 3.0, 5.0] {
        for pick in [Pick::Mirostat { tau, eta: 0.1, m: 100 }, Pick::MirostatV2 { tau, eta: 0.1 }] {
            let Some(surprise) = mean_surprise(pick) else { return };
            // It is held among what is left, whose probabilities are larger: the surprise among all is a little larger.
            assert!((f64::from(tau) - 0.2..f64::from(tau) + 1.2).contains(&surprise), "{pick:?}: {surprise}");
        }
    }
}

#[test]
fn mirostat_learns_from_what_is_taken_and_not_from_what_is_tried() {
    let Some(tokenizer) = tokenizer() else { return };
    let logits = of_odds(&[1000.0, 500.0, 250.0, 1.0, 1.0, 1.0]);
    let sampling = Sampling::new(Pick::MirostatV2 { tau: 1.0, eta: 1.0 }).with_seed(5);
    // A bound of 2 bits leaves the first two only (0.57, 0.28 and 0.14 of the whole: 0.8, 1.8 and 2.8 bits).
    let mut chain = SamplerChain::new(&tokenizer, &sampling).unwrap();
    (0..500).for_each(|_| assert!(chain.choose(&logits).unwrap() < 2));
    // The first is less of a surprise than 1 bit: each time that it is taken the bound rises, until all are possible.
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..500 {
        let token = chain.choose(&logits).unwrap();
        seen.insert(token);
        if token == 0 {
            chain.accept(token);
        }
    }
    assert!(seen.len() > 3, "{seen:?}");
}

#[test]
fn adaptive_p_is_distributed_by_its_formula() {
    let odds = [60.0, 25.0, 10.0, 5.0];
    let pick = Pick::AdaptiveP { target: 0.25, decay: 0.0 };
    let Some(tokenizer) = tokenizer() else { return };
    let mut chain = SamplerChain::new(&tokenizer, &Sampling::new(pick).with_seed(11)).unwrap();
    let logits = of_odds(&odds);
    // Never told what was taken, it has no history, and aims at the target itself.
    let mut counts = vec![0; odds.len()];
    for _ in 0..DRAWS {
        counts[chain.choose(&logits).unwrap() as usize] += 1;
    }
    let odds_of = |probability: f64| {
        let distance = ((probability - 0.25) / 0.3).abs();
        (5.0 - 10.0 * distance * distance / (1.0 + distance)).exp()
    };
    assert_distributed(&counts, &odds.map(|odds| odds_of(odds / 100.0)));
    // After a token of 0.6 it aims as far below the target as that was above.
    let taken: Token = 0;
    let sampling = Sampling::new(pick).with_seed(12);
    let mut counts = vec![0; odds.len()];
    let mut chain = SamplerChain::new(&tokenizer, &sampling).unwrap();
    while chain.choose(&logits).unwrap() != taken {}
    chain.accept(taken);
    for _ in 0..DRAWS {
        counts[chain.choose(&logits).unwrap() as usize] += 1;
    }
    let odds_of = |probability: f64| {
        let distance = (probability / 0.3).abs(); // 2 * 0.25 - 0.6 is below 0
        (5.0 - 10.0 * distance * distance / (1.0 + distance)).exp()
    };
    assert_distributed(&counts, &odds.map(|odds| odds_of(odds / 100.0)));
}

#[test]
fn mirostat_is_distributed_among_those_that_its_bound_lets_in() {
    let Some(tokenizer) = tokenizer() else { return };
    let odds: Vec<f64> = (1..=40).map(|rank| 1.0 / f64::from(rank).powf(1.3)).collect();
    let total: f64 = odds.iter().sum();
    let logits = of_odds(&odds);
    // Never told what was taken, it keeps its first bound: twice the target.
    let draw = |pick: Pick| {
        let mut chain = SamplerChain::new(&tokenizer, &Sampling::new(pick).with_seed(21)).unwrap();
        let mut counts = vec![0; odds.len()];
        (0..DRAWS).for_each(|_| counts[chain.choose(&logits).unwrap() as usize] += 1);
        counts
    };
    let first = |kept: usize| -> Vec<f64> {
        (0..).zip(&odds).map(|(rank, &odds)| if rank < kept { odds } else { 0.0 }).collect()
    };
    for tau in [1.6_f32, 2.2, 3.0] {
        let bound = 2.0 * f64::from(tau);
        // The second algorithm: a surprise of at most the bound.
        let kept = odds.iter().filter(|&odds| -(odds / total).log2() <= bound).count();
        assert!((2..40).contains(&kept), "{kept}");
        assert_distributed(&draw(Pick::MirostatV2 { tau, eta: 0.1 }), &first(kept));
        // The first: an exponent by least squares over the logarithms, which here is that of the law, and equation 30 of the
        // paper.
        let (exponent, vocabulary) = (1.3_f64, f64::from(tokenizer.n_tokens()));
        let excess = exponent - 1.0;
        let k = (excess * bound.exp2() / (1.0 - vocabulary.powf(-excess))).powf(1.0 / exponent);
        assert!((2.0..40.0).contains(&k) && k.fract() > 0.01 && k.fract() < 0.99, "{k}");
        assert_distributed(&draw(Pick::Mirostat { tau, eta: 0.1, m: 30 }), &first(k as usize));
    }
}
