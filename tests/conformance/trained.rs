//! A trained BitNet b1.58 (`tests/fixtures/bitnet`, in I2_S, imported as `Model::load` does) against what PyTorch computed
//! from the same file. Tolerances and their reasons are in the README there.

use std::{fs, path::PathBuf};

use gguf_loader::{
    backend::{Batch, TokenizeOptions},
    import::OutputMatrix,
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    checks,
    subject::{Subject, best, open, open_file, request, two_threads},
};

checks! {
    logits_of_a_ternary_model_are_those_of_pytorch,
    perplexity_of_a_ternary_model_is_that_of_pytorch,
    greedy_text_of_a_ternary_model_is_that_of_pytorch,
}

/// For backends that are for ternary models, and have a kernel of their own for Q6_K beside them.
pub(crate) mod output_matrix {
    use super::{an_output_matrix_in_q6_k_costs_little, an_output_matrix_in_q8_0_costs_little};

    crate::checks! {
        an_output_matrix_in_q8_0_costs_little,
        an_output_matrix_in_q6_k_costs_little,
    }
}

/// For backends that can tokenise.
pub(crate) mod tokens {
    use super::tokens_of_a_ternary_model_are_those_of_llama_3;

    crate::checks! {
        tokens_of_a_ternary_model_are_those_of_llama_3,
    }
}

/// A graph that is wrong in one place is off by 0.2 (no sub-norm before the attention's output), 0.8 (rotated
/// neighbours) or more; rounding activations towards zero by 0.08.
const LOGITS_ROOT_MEAN_SQUARE: f64 = 0.05;
const LOGITS_LARGEST: f64 = 0.3;
const PERPLEXITY: f64 = 0.005;
/// Of the perplexity, for an output matrix in fewer bits.
const OUTPUT_MATRIX: f64 = 0.01;

#[derive(Deserialize)]
struct Recorded {
    perplexity_of_beginning: Perplexity,
    continuations: Vec<Continuation>,
    tokenized: Vec<Tokenized>,
}

#[derive(Deserialize)]
struct Perplexity {
    context: usize,
    chunks: usize,
    per_token: f64,
}

#[derive(Deserialize)]
struct Continuation {
    prompt_tokens: Vec<u32>,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Tokenized {
    text: String,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Logits {
    tokens: Vec<u32>,
    last: Vec<f32>,
}

/// The text that the model never saw, begun with BOS.
#[derive(Deserialize)]
struct HeldOut {
    tokens: Vec<u32>,
}

/// A file of the fixture.
pub(crate) fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/bitnet", name].iter().collect()
}

fn recorded<T: DeserializeOwned>(name: &str) -> T {
    let text = fs::read_to_string(fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The logits after each of `tokens`.
fn logits(subject: &Subject, tokens: &[u32]) -> Vec<Vec<f32>> {
    logits_with(subject, OutputMatrix::Keep, tokens)
}

/// The same with the output matrix in another type.
fn logits_with(subject: &Subject, output: OutputMatrix, tokens: &[u32]) -> Vec<Vec<f32>> {
    let model = subject
        .load_path(&subject.models.trained(output), |_| std::ops::ControlFlow::Continue(()))
        .unwrap_or_else(|error| panic!("the trained model did not load: {error}"));
    let mut context = open(&model, &two_threads());
    let mut batch = Batch::new();
    for (position, &token) in tokens.iter().enumerate() {
        batch.push(token, position as u32, 0, true);
    }
    context.decode(&batch).expect("a valid batch");
    (0..tokens.len()).map(|index| context.logits(index).expect("asked for").to_vec()).collect()
}

fn logits_of_a_ternary_model_are_those_of_pytorch(subject: &Subject) {
    let expected: Logits = recorded("logits.json");
    let found = logits(subject, &expected.tokens).pop().expect("a row for each token");
    assert_eq!(found.len(), expected.last.len());
    let differences = found.iter().zip(&expected.last).map(|(&found, &expected)| f64::from(found - expected).abs());
    let largest = differences.clone().fold(0.0, f64::max);
    let mean_square = differences.map(|difference| difference * difference).sum::<f64>() / found.len() as f64;
    assert!(
        mean_square.sqrt() < LOGITS_ROOT_MEAN_SQUARE && largest < LOGITS_LARGEST,
        "off by {:.4} in the mean, by {largest:.4} at most",
        mean_square.sqrt()
    );
}

fn perplexity_of_a_ternary_model_is_that_of_pytorch(subject: &Subject) {
    let expected = recorded::<Recorded>("recorded.json").perplexity_of_beginning;
    let perplexity = perplexity(subject, OutputMatrix::Keep, expected.chunks);
    let relative = perplexity / expected.per_token - 1.0;
    assert!(relative.abs() < PERPLEXITY, "perplexity {perplexity:.4}, PyTorch says {}", expected.per_token);
}

/// Of the first chunks of the text that the model never saw.
fn perplexity(subject: &Subject, output: OutputMatrix, chunks: usize) -> f64 {
    let Perplexity { context, .. } = recorded::<Recorded>("recorded.json").perplexity_of_beginning;
    let HeldOut { tokens } = recorded("held-out.tokens.json");
    let bos = tokens[0];
    let (mut sum, mut count) = (0.0, 0_u32);
    for chunk in tokens.chunks_exact(context).take(chunks) {
        let chunk = [&[bos], &chunk[1..]].concat();
        let rows = logits_with(subject, output, &chunk);
        for index in chunk.len() / 2..chunk.len() - 1 {
            sum += surprise(&rows[index], chunk[index + 1] as usize);
            count += 1;
        }
    }
    (sum / f64::from(count)).exp()
}

/// With PyTorch's text as input, each of its tokens is this backend's best, or within rounding of the best.
fn greedy_text_of_a_ternary_model_is_that_of_pytorch(subject: &Subject) {
    text_is_that_of_pytorch(subject, OutputMatrix::Keep, 2);
}

/// All but `most` of the tokens of each text are.
fn text_is_that_of_pytorch(subject: &Subject, output: OutputMatrix, most: usize) {
    for Continuation { prompt_tokens, tokens } in recorded::<Recorded>("recorded.json").continuations {
        let rows = logits_with(subject, output, &[&prompt_tokens[..], &tokens].concat());
        let mut equal = 0;
        for (row, &expected) in rows[prompt_tokens.len() - 1..].iter().zip(&tokens) {
            let best = best(row);
            let behind = f64::from(row[best] - row[expected as usize]);
            assert!(behind < LOGITS_LARGEST, "{best} is ahead of PyTorch's {expected} by {behind}");
            equal += usize::from(best == expected as usize);
        }
        assert!(equal + most >= tokens.len(), "only {equal} of {} tokens are equal", tokens.len());
    }
}

fn an_output_matrix_in_q8_0_costs_little(subject: &Subject) {
    output_matrix_costs_little(subject, OutputMatrix::Q8_0);
}

fn an_output_matrix_in_q6_k_costs_little(subject: &Subject) {
    output_matrix_costs_little(subject, OutputMatrix::Q6K);
}

/// The matrix is the table of embeddings too: what is lost of it is lost twice.
fn output_matrix_costs_little(subject: &Subject, output: OutputMatrix) {
    let [kept, found] = [OutputMatrix::Keep, output].map(|output| perplexity(subject, output, 1));
    let relative = found / kept - 1.0;
    assert!(relative.abs() < OUTPUT_MATRIX, "perplexity {found:.4}, and {kept:.4} with the matrix as it is");
    text_is_that_of_pytorch(subject, output, 2);
}

fn tokens_of_a_ternary_model_are_those_of_llama_3(subject: &Subject) {
    let file = open_file(&subject.models.trained(OutputMatrix::Keep));
    let loaded = subject.backend.vocabulary(&request(&file));
    let vocabulary = loaded.expect("ignored for a backend that cannot tokenise").expect("a valid vocabulary");
    let tokenize = |text: &str, add_special: bool| {
        let mut tokens = Vec::new();
        let options = TokenizeOptions { add_special, parse_special: false };
        vocabulary.tokenize(text, options, &mut tokens).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        tokens
    };
    for Tokenized { text, tokens } in recorded::<Recorded>("recorded.json").tokenized {
        assert_eq!(tokenize(&text, false), tokens, "{text:?}");
    }
    let text = fs::read_to_string(fixture("held-out.txt")).expect("the fixture");
    assert_eq!(tokenize(&text, true), recorded::<HeldOut>("held-out.tokens.json").tokens);
}

/// `-ln p(token)`.
fn surprise(logits: &[f32], token: usize) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
    sum.ln() - f64::from(logits[token] - largest)
}
