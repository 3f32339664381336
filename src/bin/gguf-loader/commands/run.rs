//! `run`: continues a prompt.

use std::{num::NonZeroU32, path::PathBuf, sync::Arc, time::Instant};

use clap::Args;
use gguf_loader::{
    backend::Token,
    chat::{ChatError, ChatPrompt, Message, Reply, ReplyReader},
    context::Context,
    generation::{Completion, FinishReason, GenerateRequest, Origin, Prompt},
    sampling::TokenLogprobs,
};
use serde::Serialize;

use crate::{
    args::{self, BackendArgs, ThreadArgs},
    context::{ContextArgs, FullArgs},
    failure::{Exit, Failure},
    input::Source,
    interrupt::Interrupt,
    loading,
    output::Output,
    sampling::{Preset, SamplingArgs},
    speech::Speech,
    structure::StructureArgs,
    template::{self, TemplateArg},
    timings::Timings,
};

/// Continue a prompt; stdout gets only the generated text, piece by piece
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader run model.gguf --prompt 'The capital of France is' --max-tokens 32
  gguf-loader run model.gguf --chat --prompt 'Tell me a joke' --preset creative --seed 1
  gguf-loader run gpt-oss.gguf --chat --prompt 'What is 2+2?' --template-arg 'reasoning_effort=\"low\"'
  gguf-loader run model.gguf --chat --prompt 'A user called Ann' --json-schema-file user.json
  gguf-loader run model.gguf --prompt 'Yes or no?' --regex '(yes|no)' --logprobs 5 --json
  echo 'Once upon a time' | gguf-loader run model.gguf --prompt-file - --stop 'The end' --quiet

Without sampling options generation is greedy: the same prompt gives the same text. An option without --preset \
changes the balanced one. Without --max-tokens it goes on until the model ends its answer or the context is full. \
With --chat, what the model thinks before it answers goes to stderr. \
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
    /// Set a variable of the chat template, with --chat; may be given again
    #[arg(long, value_name = "KEY=JSON", requires = "chat")]
    template_arg: Vec<TemplateArg>,
    /// Let a model that can reason answer at once, with --chat
    #[arg(long, requires = "chat")]
    no_thinking: bool,
    /// Have a model that reasons answer after so many tokens of reasoning, with --chat; 0: at once
    #[arg(long, value_name = "N", requires = "chat", conflicts_with = "no_thinking")]
    reasoning_budget: Option<u32>,
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
    #[command(flatten)]
    full: FullArgs,
    #[command(flatten)]
    backend: BackendArgs,
    #[command(flatten)]
    threads: ThreadArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    structure: StructureArgs,
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
            true => {
                let messages = self.system.map(Message::system).into_iter().chain([Message::user(prompt)]);
                let mut prompt = ChatPrompt::new(messages.collect()).with_thinking(!self.no_thinking);
                prompt.arguments = template::arguments(self.template_arg);
                GenerateRequest::new(loading::chat_template(&model, template)?.render(&prompt)?)
            }
            false => GenerateRequest::new(prompt),
        };
        request.sampling = sampling;
        request.grammar = grammar;
        request.max_tokens = self.max_tokens;
        request.stops = self.stop;
        request.stop_at_end = !self.ignore_end;
        request.logprobs = self.logprobs;
        request.reasoning_budget = self.reasoning_budget;
        request.echo = self.echo;
        request.when_full = self.full.when_full();
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

/// What came of it. Text mode has streamed `text` already, or with --chat what is content of it.
#[derive(Debug, Serialize)]
struct Answer {
    /// Asked of the running engine itself.
    backend: String,
    /// All that was generated, reasoning and markers too.
    text: String,
    /// What that says, with --chat.
    #[serde(flatten)]
    reply: Option<Reply>,
    tokens: Vec<Token>,
    finish_reason: FinishReason,
    prompt_tokens: usize,
    generated_tokens: usize,
    /// What lots were drawn from.
    seed: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logprobs: Vec<TokenLogprobs>,
    timings: AllTimings,
}

#[derive(Debug, Serialize)]
struct AllTimings {
    load_seconds: f64,
    #[serde(flatten)]
    generation: Timings,
}

fn generate(
    context: &mut Context,
    request: &GenerateRequest,
    load_seconds: f64,
    output: &mut Output,
) -> Result<Answer, Failure> {
    let backend = context.executed_by();
    let mut speech = Speech::new();
    let mut reader = match &request.prompt {
        Prompt::Rendered(rendered) => Some(ReplyReader::new(Arc::clone(&rendered.parser))),
        _ => None,
    };
    let completion = context.generate(request)?.for_each_piece(|piece| match &mut reader {
        Some(reader) if piece.origin == Origin::Model => {
            reader.push(&piece.text).iter().try_for_each(|event| speech.show(event, output))
        }
        _ => speech.print(&piece.text, output),
    });
    let completion = match completion {
        Ok(completion) => completion,
        Err(error) => return speech.end(output).and(Err(error.into())),
    };
    let Completion { text, tokens, logprobs, finish, usage, seed, .. } = completion;
    let whole = matches!(finish, FinishReason::End | FinishReason::Stop);
    let read = reader.map(|reader| reader.finish(whole)).transpose();
    if let Ok(Some((_, rest))) = &read {
        // What breaks off is known to `speech`.
        let _ = rest.iter().try_for_each(|event| speech.show(event, output));
    }
    speech.end(output)?;
    let reply = read.map_err(ChatError::Reply)?.map(|(reply, _)| reply);
    Ok(Answer {
        backend,
        text,
        reply,
        finish_reason: finish,
        prompt_tokens: usage.prompt_tokens,
        generated_tokens: tokens.len(),
        tokens,
        seed,
        logprobs,
        timings: AllTimings { load_seconds, generation: usage.into() },
    })
}

impl Answer {
    /// One line for people.
    fn summary(&self) -> String {
        let AllTimings { load_seconds, generation } = &self.timings;
        format!(
            "{} tokens of prompt{}, generated {}{}{}, loaded in {load_seconds:.2} s, seed {}",
            self.prompt_tokens,
            generation.of_prompt(),
            self.generated_tokens,
            generation.of_generation(),
            generation.of_first_token(),
            self.seed
        )
    }
}
