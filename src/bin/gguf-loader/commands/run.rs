//! `run`: continues a prompt.

use std::{num::NonZeroU32, path::PathBuf, time::Instant};

use clap::Args;
use gguf_loader::{
    backend::Token,
    context::Context,
    generation::{FinishReason, GenerateOptions},
};
use serde::Serialize;

use crate::{
    args::{self, BackendArgs, ThreadArgs},
    failure::{Exit, Failure},
    input::Source,
    interrupt::Interrupt,
    loading,
    output::Output,
};

/// Continue a prompt; stdout gets only the generated text, piece by piece
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader run model.gguf --prompt 'The capital of France is' --max-tokens 32
  gguf-loader run model.gguf --prompt-file question.txt --backend cpu-haswell --threads 4
  echo 'Once upon a time' | gguf-loader run model.gguf --prompt-file - --quiet

Generation is greedy: the same prompt gives the same text. Without --max-tokens it goes on until the \
model ends its answer or the context is full. Ctrl-C stops it; what was printed stays (exit code 130). \
`gguf-loader --help` lists all exit codes.")]
pub(crate) struct Run {
    /// The model: a GGUF file, or the first part of a split one
    model: PathBuf,
    #[command(flatten)]
    prompt: PromptArgs,
    /// Most tokens to generate
    #[arg(long, short = 'n', value_name = "N")]
    max_tokens: Option<NonZeroU32>,
    /// Tokens of context, prompt included [default: what the model was trained for, at most 4096]
    #[arg(long, value_name = "N")]
    ctx: Option<NonZeroU32>,
    #[command(flatten)]
    backend: BackendArgs,
    #[command(flatten)]
    threads: ThreadArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct PromptArgs {
    /// The text to continue
    #[arg(long, short, value_name = "TEXT")]
    prompt: Option<String>,
    /// A file with the text to continue, taken byte for byte; - is stdin
    #[arg(long, short = 'f', value_name = "FILE")]
    prompt_file: Option<Source>,
}

impl PromptArgs {
    fn read(self) -> Result<String, Failure> {
        match (self.prompt, self.prompt_file) {
            (Some(text), _) => Ok(text),
            (None, Some(source)) => source.read_text(),
            (None, None) => Err(Failure::message(Exit::Usage, "give --prompt or --prompt-file")),
        }
    }
}

impl Run {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        let prompt = self.prompt.read()?;
        let knobs = args::knobs(self.backend.backend.as_ref(), self.threads.threads);
        let (choose, threads) = (knobs.choose_options()?, knobs.threads()?);
        let interrupt = Interrupt::install()?;

        let start = Instant::now();
        let model = loading::load(&self.model, choose, &interrupt, output)?;
        let load_seconds = start.elapsed().as_secs_f64();
        output.note(model.selection().explain());
        model.tokenizer()?;
        let mut context = loading::open_context(&model, self.ctx, threads, &interrupt)?;

        let mut options = GenerateOptions::default();
        options.max_tokens = self.max_tokens;
        let answer = generate(&mut context, &prompt, &options, load_seconds, output);
        if !output.is_json() {
            output.end_streamed_line();
        }
        let answer = answer?;
        if output.is_json() {
            output.json_line(&answer)?;
        }
        output.note(answer.summary());
        Ok(())
    }
}

/// What came of it. Text mode has streamed `text` already.
#[derive(Debug, Serialize)]
struct Answer {
    /// Asked of the running engine itself.
    backend: String,
    text: String,
    tokens: Vec<Token>,
    finish_reason: Option<FinishReason>,
    prompt_tokens: usize,
    generated_tokens: usize,
    timings: Timings,
}

#[derive(Debug, Serialize)]
struct Timings {
    load_seconds: f64,
    /// Until the first token.
    prompt_seconds: f64,
    /// From then on.
    generation_seconds: f64,
    prompt_tokens_per_second: f64,
    /// Absent when nothing was decoded after the prompt.
    generated_tokens_per_second: Option<f64>,
}

fn generate(
    context: &mut Context,
    prompt: &str,
    options: &GenerateOptions,
    load_seconds: f64,
    output: &mut Output,
) -> Result<Answer, Failure> {
    let backend = context.executed_by();
    let (mut text, mut tokens) = (String::new(), Vec::new());
    let start = Instant::now();
    let mut generation = context.generate(prompt, options)?;
    let mut prompt_end = None;
    for piece in generation.by_ref() {
        let piece = piece?;
        prompt_end.get_or_insert_with(Instant::now);
        tokens.push(piece.token);
        if output.is_json() {
            text.push_str(&piece.text);
        } else if !piece.text.is_empty() {
            output.bytes(piece.text.as_bytes())?;
        }
    }
    let end = Instant::now();
    let prompt_end = prompt_end.unwrap_or(end);
    let finish_reason = generation.finish_reason();
    let prompt_tokens = generation.prompt_tokens();
    let prompt_seconds = (prompt_end - start).as_secs_f64();
    let generation_seconds = (end - prompt_end).as_secs_f64();
    // The prompt's pass gives the first token, and each further pass one; the last may give the end.
    let ends = usize::from(finish_reason == Some(FinishReason::End));
    let passes = (tokens.len() + ends).saturating_sub(1);
    Ok(Answer {
        backend,
        generated_tokens: tokens.len(),
        text,
        tokens,
        finish_reason,
        prompt_tokens,
        timings: Timings {
            load_seconds,
            prompt_seconds,
            generation_seconds,
            prompt_tokens_per_second: prompt_tokens as f64 / prompt_seconds,
            generated_tokens_per_second: (passes > 0).then(|| passes as f64 / generation_seconds),
        },
    })
}

impl Answer {
    /// One line for people.
    fn summary(&self) -> String {
        let timings = &self.timings;
        let generated = match timings.generated_tokens_per_second {
            Some(speed) => format!("generated {} at {speed:.1}/s", self.generated_tokens),
            None => format!("generated {}", self.generated_tokens),
        };
        format!(
            "{} tokens of prompt at {:.1}/s, {generated}, loaded in {:.2} s",
            self.prompt_tokens, timings.prompt_tokens_per_second, timings.load_seconds
        )
    }
}
