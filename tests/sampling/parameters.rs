//! What can be asked for, what cannot, and steps of one's own.

use gguf_loader::{
    backend::Token,
    sampling::{
        Candidates, ChooseToken as _, LogitProcessor, Pick, SampleError, SamplerChain, SamplerStep, Sampling,
        SamplingError, TokenLogprobs,
    },
};

use super::{logits, tokenizer};

#[test]
fn what_is_out_of_range_is_an_error_that_names_it() {
    use SamplerStep as Step;
    let Some(tokenizer) = tokenizer() else { return };
    let nan = f32::NAN;
    let dry =
        |multiplier, base, allowed_length| Step::Dry { multiplier, base, allowed_length, last: 10, breakers: vec![] };
    let steps = [
        (Step::Temperature { temperature: -0.1 }, "temperature"),
        (Step::Temperature { temperature: nan }, "temperature"),
        (Step::DynamicTemperature { temperature: 1.0, range: -1.0, exponent: 1.0 }, "dynamic temperature range"),
        (Step::DynamicTemperature { temperature: 1.0, range: 1.0, exponent: 0.0 }, "dynamic temperature exponent"),
        (Step::TopK { k: 0 }, "top-k"),
        (Step::TopP { p: 1.1, min_keep: 1 }, "top-p"),
        (Step::MinP { p: -0.1, min_keep: 1 }, "min-p"),
        (Step::Typical { p: nan, min_keep: 1 }, "typical p"),
        (Step::TopNSigma { n: 0.0 }, "top-n-sigma"),
        (Step::Xtc { probability: 2.0, threshold: 0.1, min_keep: 1 }, "XTC probability"),
        (Step::Xtc { probability: 0.5, threshold: -0.1, min_keep: 1 }, "XTC threshold"),
        (Step::Penalties { last: 1, repetition: 0.0, frequency: 0.0, presence: 0.0 }, "repetition penalty"),
        (Step::Penalties { last: 1, repetition: 1.0, frequency: nan, presence: 0.0 }, "frequency penalty"),
        (Step::Penalties { last: 1, repetition: 1.0, frequency: 0.0, presence: f32::INFINITY }, "presence penalty"),
        (dry(-1.0, 2.0, 2), "DRY multiplier"),
        (dry(1.0, 0.5, 2), "DRY base"),
        (dry(1.0, 2.0, 0), "DRY allowed length"),
        (Step::LogitBias { biases: vec![(0, f32::INFINITY)] }, "logit bias"),
    ];
    for (step, name) in steps {
        let error = SamplerChain::new(&tokenizer, &Sampling::greedy().then(step.clone())).unwrap_err();
        assert!(matches!(error, SamplingError::OutOfRange { parameter, .. } if parameter == name), "{step:?}: {error}");
    }
    let picks = [
        (Pick::Mirostat { tau: 0.0, eta: 0.1, m: 100 }, "mirostat tau"),
        (Pick::Mirostat { tau: 5.0, eta: 0.1, m: 1 }, "mirostat m"),
        (Pick::MirostatV2 { tau: 5.0, eta: 1.5 }, "mirostat eta"),
        (Pick::AdaptiveP { target: 1.5, decay: 0.5 }, "adaptive-p target"),
        (Pick::AdaptiveP { target: 0.5, decay: 1.0 }, "adaptive-p decay"),
    ];
    for (pick, name) in picks {
        let error = SamplerChain::new(&tokenizer, &Sampling::new(pick)).unwrap_err();
        assert!(matches!(error, SamplingError::OutOfRange { parameter, .. } if parameter == name), "{pick:?}: {error}");
    }
    let n_tokens = tokenizer.n_tokens();
    let foreign = Sampling::greedy().then(Step::LogitBias { biases: vec![(n_tokens, 1.0)] });
    let error = SamplerChain::new(&tokenizer, &foreign).unwrap_err();
    assert_eq!(error, SamplingError::Token { token: n_tokens, n_tokens });
    let breaker = Step::Dry { multiplier: 1.0, base: 2.0, allowed_length: 2, last: 9, breakers: vec![String::new()] };
    let error = SamplerChain::new(&tokenizer, &Sampling::greedy().then(breaker)).unwrap_err();
    assert_eq!(error, SamplingError::EmptyBreaker);
}

#[test]
fn extremes_within_the_ranges_choose_a_token() {
    use SamplerStep as Step;
    let Some(tokenizer) = tokenizer() else { return };
    let everything = [
        Step::Temperature { temperature: f32::MIN_POSITIVE },
        Step::Temperature { temperature: f32::MAX },
        Step::DynamicTemperature { temperature: 0.0, range: f32::MAX, exponent: 1e9 },
        Step::TopK { k: u32::MAX },
        Step::TopP { p: 0.0, min_keep: 0 },
        Step::TopP { p: 0.5, min_keep: u32::MAX },
        Step::MinP { p: 1.0, min_keep: u32::MAX },
        Step::MinP { p: 0.0, min_keep: 0 },
        Step::Typical { p: 0.0, min_keep: u32::MAX },
        Step::TopNSigma { n: f32::MIN_POSITIVE },
        Step::Xtc { probability: 1.0, threshold: 0.0, min_keep: u32::MAX },
        Step::Xtc { probability: 1.0, threshold: 0.0, min_keep: 0 },
        Step::Penalties { last: u32::MAX, repetition: f32::MIN_POSITIVE, frequency: f32::MAX, presence: f32::MIN },
        Step::Dry {
            multiplier: f32::MAX,
            base: f32::MAX,
            allowed_length: 1,
            last: u32::MAX,
            breakers: vec!["a".repeat(500)],
        },
        Step::LogitBias { biases: vec![(0, f32::MAX), (0, f32::MAX), (1, f32::MIN), (1, f32::MIN)] },
        Step::Infill,
    ];
    let picks = [
        Pick::Greedy,
        Pick::Distribution,
        Pick::Mirostat { tau: f32::MAX, eta: 1.0, m: u32::MAX },
        Pick::Mirostat { tau: f32::MIN_POSITIVE, eta: f32::MIN_POSITIVE, m: 2 },
        Pick::MirostatV2 { tau: f32::MAX, eta: 1.0 },
        Pick::AdaptiveP { target: 0.0, decay: 0.99 },
    ];
    for pick in picks {
        for step in &everything {
            let mut chain = SamplerChain::new(&tokenizer, &Sampling::new(pick).then(step.clone())).unwrap();
            for logits in [logits(300, 1), vec![0.0], vec![f32::MAX, f32::MIN], vec![1.0; 50]] {
                for _ in 0..20 {
                    let token = chain.choose(&logits).unwrap_or_else(|error| panic!("{pick:?}, {step:?}: {error}"));
                    assert!((token as usize) < logits.len() || *step == Step::Infill, "{pick:?}, {step:?}: {token}");
                    chain.accept(token);
                }
            }
        }
    }
}

#[test]
fn broken_logits_are_an_error_and_the_chain_stays_usable() {
    let Some(tokenizer) = tokenizer() else { return };
    for sampling in [Sampling::greedy(), Sampling::balanced(), Sampling::creative()] {
        let mut chain = SamplerChain::new(&tokenizer, &sampling).unwrap();
        assert_eq!(chain.choose(&[0.0, f32::NAN, 1.0]), Err(SampleError::NotANumber));
        assert!(chain.choose(&[0.0, 1.0]).is_ok());
    }
    let mut chain = SamplerChain::new(&tokenizer, &Sampling::balanced()).unwrap();
    assert_eq!(chain.choose(&[0.0, f32::INFINITY]), Err(SampleError::NotANumber));
    assert_eq!(chain.choose(&[f32::NEG_INFINITY; 5]), Err(SampleError::NothingLeft));
    let none = SamplerStep::LogitBias { biases: vec![(0, f32::NEG_INFINITY), (1, f32::NEG_INFINITY)] };
    let mut chain = SamplerChain::new(&tokenizer, &Sampling::greedy().then(none)).unwrap();
    assert_eq!(chain.choose(&[0.0, 1.0]), Err(SampleError::NothingLeft));
    assert_eq!(chain.choose(&[0.0, 1.0, -9.0]), Ok(2));
}

#[test]
fn the_same_seed_gives_the_same_tokens_and_another_one_others() {
    let Some(tokenizer) = tokenizer() else { return };
    let draw = |sampling: &Sampling| -> Vec<Token> {
        let mut chain = SamplerChain::new(&tokenizer, sampling).unwrap();
        let logits = logits(200, 3);
        (0..40).map(|_| chain.choose(&logits).unwrap()).collect()
    };
    let hot = Sampling::new(Pick::Distribution).then(SamplerStep::Temperature { temperature: 2.0 });
    assert_eq!(draw(&hot.clone().with_seed(1)), draw(&hot.clone().with_seed(1)));
    assert_ne!(draw(&hot.clone().with_seed(1)), draw(&hot.clone().with_seed(2)));
    assert_ne!(draw(&hot), draw(&hot), "without a seed one is drawn");
    let chain = SamplerChain::new(&tokenizer, &hot).unwrap();
    assert_eq!(draw(&hot.clone().with_seed(chain.seed())).len(), 40, "the seed that was drawn can be named");
}

/// Makes even tokens impossible, and counts what was taken.
#[derive(Default)]
struct Odd {
    taken: std::sync::Arc<std::sync::atomic::AtomicU32>,
}

impl LogitProcessor for Odd {
    fn process(&mut self, candidates: &mut Candidates) {
        candidates.retain(|candidate| candidate.token % 2 == 1);
    }

    fn accept(&mut self, _token: Token) {
        self.taken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

struct Breaks(f32);

impl LogitProcessor for Breaks {
    fn process(&mut self, candidates: &mut Candidates) {
        candidates.logits_mut().for_each(|(_, logit)| *logit = self.0);
    }
}

#[test]
fn a_step_of_ones_own_stands_where_it_was_put() {
    let Some(tokenizer) = tokenizer() else { return };
    let odd = Odd::default();
    let taken = odd.taken.clone();
    let logits = [0.0, 1.0, 2.0, 3.0, 9.0, 4.0];
    let mut chain = SamplerChain::new(&tokenizer, &Sampling::greedy().then_custom(odd)).unwrap();
    assert_eq!(chain.choose(&logits), Ok(5));
    chain.accept(5);
    assert_eq!(taken.load(std::sync::atomic::Ordering::Relaxed), 1);
    // After top-k 2, which leaves 4 and 5, and after top-k 1, which leaves 4.
    let after = |k| Sampling::greedy().then(SamplerStep::TopK { k }).then_custom(Odd::default());
    assert_eq!(SamplerChain::new(&tokenizer, &after(2)).unwrap().choose(&logits), Ok(5));
    assert_eq!(SamplerChain::new(&tokenizer, &after(1)).unwrap().choose(&logits), Err(SampleError::NothingLeft));
    for (value, error) in [
        (f32::NAN, SampleError::Processor),
        (f32::INFINITY, SampleError::Processor),
        (f32::NEG_INFINITY, SampleError::NothingLeft),
    ] {
        let breaks = Sampling::greedy().then_custom(Breaks(value));
        assert_eq!(SamplerChain::new(&tokenizer, &breaks).unwrap().choose(&logits), Err(error));
    }
}

#[test]
fn a_sampling_is_read_from_what_it_is_written_as() {
    let sampling = Sampling::creative().with_seed(4).then(SamplerStep::LogitBias { biases: vec![(1, 0.5)] });
    let text = serde_json::to_string(&sampling).unwrap();
    assert_eq!(serde_json::from_str::<Sampling>(&text).unwrap(), sampling);
    let short = r#"{"steps": [{"top_k": {"k": 40}}, {"temperature": {"temperature": 0.5}}], "pick": "distribution"}"#;
    let expected = Sampling::new(Pick::Distribution)
        .then(SamplerStep::TopK { k: 40 })
        .then(SamplerStep::Temperature { temperature: 0.5 });
    assert_eq!(serde_json::from_str::<Sampling>(short).unwrap(), expected);
    let error = serde_json::from_str::<Sampling>(r#"{"steps": [{"top_q": {}}]}"#).unwrap_err().to_string();
    assert!(error.contains("top_q") && error.contains("top_k"), "{error}");
    assert!(serde_json::to_string(&Sampling::greedy().then_custom(Odd::default())).is_err(), "code is no data");
}

#[test]
fn log_probabilities_are_those_of_the_softmax() {
    let two = 2.0_f32.ln();
    // Odds of 1, 2, 4 and 1.
    let logprobs = TokenLogprobs::of(&[0.0, two, 2.0 * two, 0.0], 1, 3);
    assert!((logprobs.logprob.exp() - 0.25).abs() < 1e-6);
    let top: Vec<(Token, f32)> = logprobs.top.iter().map(|top| (top.token, top.logprob.exp())).collect();
    assert_eq!(top.iter().map(|top| top.0).collect::<Vec<_>>(), [2, 1, 0]);
    assert!((top[0].1 - 0.5).abs() < 1e-6 && (top[1].1 - 0.25).abs() < 1e-6 && (top[2].1 - 0.125).abs() < 1e-6);
    assert_eq!(TokenLogprobs::of(&[1.0, 2.0], 0, 9).top.len(), 2);
}
