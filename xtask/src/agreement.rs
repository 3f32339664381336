//! Whether we say what native llama.cpp says: greedy text, perplexity, and how long either takes to its first token.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde::Serialize;

use crate::TaskResult;
use crate::process::capture_output;
use crate::program::Program;
use crate::record::median;

const PROMPT: &str = "The capital of France is";
const TOKENS: usize = 64;
const CONTEXT: u32 = 512;
/// Bytes of the text whose perplexity is measured.
const TEXT_BYTES: usize = 20_000;

/// What the two say of one model.
#[derive(Debug, Serialize)]
pub(crate) struct Agreement {
    pub(crate) model: String,
    pub(crate) backend: String,
    /// What llama.cpp continues the prompt with, greedily.
    pub(crate) their_text: String,
    pub(crate) our_text: String,
    pub(crate) their_perplexity: f64,
    pub(crate) our_perplexity: f64,
    /// From the start of the program to the end of one token, in seconds, in order; the file is in the page cache.
    pub(crate) their_start: Vec<f64>,
    pub(crate) our_start: Vec<f64>,
}

impl Agreement {
    /// Asks both. `theirs` makes a command of llama.cpp's programs.
    pub(crate) fn measure(
        ours: &Program,
        theirs: &dyn Fn(&str) -> Command,
        model: &Path,
        text: &Path,
        threads: usize,
        rounds: usize,
    ) -> TaskResult<Self> {
        let completion = |tokens: usize| {
            let mut command = theirs("llama-completion");
            command.arg("-m").arg(model).args(["-p", PROMPT, "-n", &tokens.to_string(), "-t", &threads.to_string()]);
            command.args(["--temp", "0", "-no-cnv", "--no-display-prompt", "--no-warmup", "-c", "512"]);
            command
        };
        let answer = ours.run(model, None, PROMPT, TOKENS)?;
        let their_text = String::from_utf8(capture_output(&mut completion(TOKENS))?.stdout)?;
        let (mut our_start, mut their_start) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let begin = Instant::now();
            ours.run(model, None, PROMPT, 1)?;
            our_start.push(begin.elapsed().as_secs_f64());
            let begin = Instant::now();
            capture_output(&mut completion(1))?;
            their_start.push(begin.elapsed().as_secs_f64());
        }
        let mut perplexity = theirs("llama-perplexity");
        perplexity.arg("-m").arg(model).arg("-f").arg(text).args(["-c", &CONTEXT.to_string()]);
        let said = capture_output(perplexity.args(["-t", &threads.to_string()]))?;
        let said = [String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr)].concat();
        Ok(Self {
            model: model.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            backend: answer.backend,
            // llama.cpp writes the mark that ends a text, and a line break of its own.
            their_text: their_text.replace("[end of text]", "").trim_end().to_owned(),
            our_text: answer.text.trim_end().to_owned(),
            their_perplexity: final_estimate(&said).ok_or("llama-perplexity gives no final estimate")?,
            our_perplexity: ours.perplexity(model, text, CONTEXT, threads)?,
            their_start,
            our_start,
        })
    }

    fn says_the_same(&self) -> bool {
        self.our_text == self.their_text
    }
}

/// The number in `Final estimate: PPL = 12.3456 +/- 0.12345`.
fn final_estimate(said: &str) -> Option<f64> {
    said.split_once("Final estimate: PPL = ")?.1.split_whitespace().next()?.parse().ok()
}

/// The table, in Markdown.
pub(crate) fn table(agreements: &[Agreement]) -> String {
    let mut table = format!(
        "\n{TOKENS} greedy tokens after \"{PROMPT}\"; perplexity of {TEXT_BYTES} bytes of this project's own texts, context \
         {CONTEXT}; seconds from the program's start to one token, medians.\n\n\
         | model | backend | same greedy text | perplexity ours | llama.cpp | difference | start ours | llama.cpp | ratio |\n\
         |---|---|---|--:|--:|--:|--:|--:|--:|\n"
    );
    for agreement in agreements {
        let Agreement { model, backend, our_perplexity, their_perplexity, .. } = agreement;
        let (ours, theirs) = (median(&agreement.our_start), median(&agreement.their_start));
        let _ = writeln!(
            table,
            "| {model} | {backend} | {} | {our_perplexity:.4} | {their_perplexity:.4} | {:+.2} % | {ours:.3} | {theirs:.3} | {:.2} |",
            if agreement.says_the_same() { "yes" } else { "no" },
            (our_perplexity / their_perplexity - 1.0) * 100.0,
            ours / theirs,
        );
    }
    table
}

/// A text to measure: the beginning of what is written in this repository.
pub(crate) fn text(root: &Path) -> TaskResult<String> {
    let mut text = String::new();
    for file in ["ARCHITECTURE.md", "README.md", "CHANGELOG.md"] {
        text.push_str(&std::fs::read_to_string(root.join(file))?);
    }
    text.truncate(text.floor_char_boundary(TEXT_BYTES));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_estimate_is_found_among_other_lines() {
        let said = "[1]9.1,[2]8.2,\nFinal estimate: PPL = 8.2345 +/- 0.12345\nmore";
        assert_eq!(final_estimate(said), Some(8.2345));
        assert_eq!(final_estimate("[1]9.1"), None);
    }

    #[test]
    fn the_table_tells_differences() {
        let agreement = |our_text: &str| Agreement {
            model: "m".into(),
            backend: "cpu-x64".into(),
            their_text: " Paris.".into(),
            our_text: our_text.into(),
            their_perplexity: 10.0,
            our_perplexity: 10.02,
            their_start: vec![0.5, 0.4, 0.6],
            our_start: vec![0.2, 0.3, 0.25],
        };
        let table = table(&[agreement(" Paris."), agreement(" Rome.")]);
        assert!(
            table.contains("| m | cpu-x64 | yes | 10.0200 | 10.0000 | +0.20 % | 0.250 | 0.500 | 0.50 |"),
            "{table}"
        );
        assert!(table.contains("| m | cpu-x64 | no |"), "{table}");
    }
}
