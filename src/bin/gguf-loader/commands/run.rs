//! `run`: continues a prompt.

use std::{num::NonZeroU32, ops::ControlFlow, path::PathBuf, time::Instant};

use clap::{Args, ValueEnum};
use gguf_loader::{
    backend::Token,
    chat::{ChatPrompt, ChatTemplate, Message},
    context::Context,
    generation::{Completion, FinishReason, GenerateRequest, WhenFull},
    sampling::TokenLogprobs,
};
use serde::Serialize;

use crate::{
    args::{self, BackendArgs, ThreadArgs},
    context::ContextArgs,
    failure::{Exit, Failure},
    input::Source,
    interrupt::Interrupt,
    loading,
    output::Output,
    sampling::{Preset, SamplingArgs},
    structure::StructureArgs,
};

/// Continue a prompt; stdout gets only the generated text, piece by piece
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader run model.gguf --prompt 'The capital of France is' --max-tokens 32
  gguf-loader run model.gguf --chat --prompt 'Tell me a joke' --preset creative --seed 1
  gguf-loader run model.gguf --chat --prompt 'A user called Ann' --json-schema-file user.json
  gguf-loader run model.gguf --prompt 'Yes or no?' --regex '(yes|no)' --logprobs 5 --json
  echo 'Once upon a time' | gguf-loader run model.gguf --prompt-file - --stop 'The end' --quiet

Without sampling options generation is greedy: the same prompt gives the same text. An option without --preset \
changes the balanced one. Without --max-tokens it goes on until the model ends its answer or the context is full. \
Ctrl-C stops it; what was printed stays (exit code 130). `gguf-loader --help` lists all exit codes.")]
pub(crate) struct Run {
    /// The model: a GGUF file, or the first part of a split one
    model: PathBuf,
    #[command(flatten)]
    prompt: PromptArgs,
    /// Ask as a user would, in the form of the model's chat template
    #[arg(long)]
    chat: bool,
    /// Instructions for the model, with --chat
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// A chat template in Jinja, in place of the model's, with --chat
    #[arg(long, value_name = "FILE", requires = "chat")]
    template: Option<PathBuf>,
    /// Most tokens to generate
    #[arg(long, short = 'n', value_name = "N")]
    max_tokens: Option<NonZeroU32>,
    /// Stop before this text; may be given again
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on when the model ends its answer
    #[arg(long)]
    ignore_end: bool,
    /// Print the prompt, too
    #[arg(long)]
    echo: bool,
    /// Give each token's log-probability, and those of the N likeliest; with --json
    #[arg(long, value_name = "N")]
    logprobs: Option<u32>,
    #[command(flatten)]
    context: ContextArgs,
    /// When the context is full: stop, or shift the older half of it out and go on
    #[arg(long, value_enum, default_value_t = Full::Stop)]
    when_full: Full,
    /// Tokens at the beginning that a shift leaves
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep: u32,
    #[command(flatten)]
    backend: BackendArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    structure: StructureArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Full {
    Stop,
    Shift,
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
        if self.logprobs.is_some() && !output.is_json() {
            return Err(Failure::message(Exit::Usage, "--logprobs needs --json: text alone has no place for them"));
        }
        let prompt = self.prompt.read()?;
        let template = self.template.map(|file| Source::File(file).read_text()).transpose()?;
        let sampling = self.sampling.sampling(Preset::Greedy)?;
        let grammar = self.structure.grammar()?;
        let knobs = args::knobs(self.backend.backend.as_ref(), self.threads.threads);
        let load_options = args::load_options(&knobs)?;
        let interrupt = Interrupt::install()?;

        let start = Instant::now();
        let model = loading::load(&self.model, &load_options, &interrupt, output)?;
        let load_seconds = start.elapsed().as_secs_f64();
        output.note(model.selection().explain());
        model.tokenizer()?;
        let mut context = self.context.open(&model, &interrupt)?;

        let mut request = match self.chat {
            true => asked(&loading::chat_template(&model, template)?, prompt, self.system)?,
            false => GenerateRequest::new(prompt),
        };
        request.sampling = sampling;
        request.grammar = grammar;
        request.max_tokens = self.max_tokens;
        request.stops = self.stop;
        request.stop_at_end = !self.ignore_end;
        request.logprobs = self.logprobs;
        request.echo = self.echo;
        request.when_full = match self.when_full {
            Full::Stop => WhenFull::Stop,
            Full::Shift => WhenFull::Shift { keep: self.keep },
        };
        let answer = generate(&mut context, &request, load_seconds, output);
        if !output.is_json() {
            output.end_streamed_line();
        }
        let answer = answer?;
        if answer.finish_reason == FinishReason::Cancelled {
            return Err(Failure::interrupted());
        }
        if output.is_json() {
            output.json_line(&answer)?;
        }
        output.note(answer.summary());
        Ok(())
    }
}

/// The prompt as a user's message.
fn asked(template: &ChatTemplate, prompt: String, system: Option<String>) -> Result<GenerateRequest, Failure> {
    let messages = system.map(Message::system).into_iter().chain([Message::user(prompt)]).collect();
    Ok(GenerateRequest::new(template.render(&ChatPrompt::new(messages))?))
}

/// What came of it. Text mode has streamed `text` already.
#[derive(Debug, Serialize)]
struct Answer {
    /// Asked of the running engine itself.
    backend: String,
    text: String,
    tokens: Vec<Token>,
    finish_reason: FinishReason,
    prompt_tokens: usize,
    generated_tokens: usize,
    /// What lots were drawn from.
    seed: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<TokenLogprobs>,
    timings: Timings,
}

#[derive(Debug, Serialize)]
struct Timings {
    load_seconds: f64,
    /// Until the first token.
    prompt_seconds: f64,
    /// From then on.
    generation_seconds: f64,
    prompt_tokens_per_second: Option<f64>,
    /// Absent when nothing was decoded after the prompt.
    generated_tokens_per_second: Option<f64>,
}

fn generate(
    context: &mut Context,
    request: &GenerateRequest,
    load_seconds: f64,
    output: &mut Output,
) -> Result<Answer, Failure> {
    let backend = context.executed_by();
    let mut written = Ok(());
    let completion = context.generate(request)?.for_each_piece(|piece| {
        if !output.is_json() && !piece.text.is_empty() {
            written = output.bytes(piece.text.as_bytes());
        }
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written?;
    let Completion { text, tokens, logprobs, finish, usage, seed, .. } = completion;
    Ok(Answer {
        backend,
        text,
        finish_reason: finish,
        prompt_tokens: usage.prompt_tokens,
        generated_tokens: tokens.len(),
        tokens,
        seed,
        logprobs,
        timings: Timings {
            load_seconds,
            prompt_seconds: usage.prompt_time.as_secs_f64(),
            generation_seconds: usage.generation_time.as_secs_f64(),
            prompt_tokens_per_second: usage.prompt_speed(),
            generated_tokens_per_second: usage.generation_speed(),
        },
    })
}

impl Answer {
    /// One line for people.
    fn summary(&self) -> String {
        let timings = &self.timings;
        let at = |speed: Option<f64>| speed.map(|speed| format!(" at {speed:.1}/s")).unwrap_or_default();
        format!(
            "{} tokens of prompt{}, generated {}{}, loaded in {:.2} s, seed {}",
            self.prompt_tokens,
            at(timings.prompt_tokens_per_second),
            self.generated_tokens,
            at(timings.generated_tokens_per_second),
            timings.load_seconds,
            self.seed
        )
    }
}
