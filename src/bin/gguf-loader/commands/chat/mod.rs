//! `chat`: a conversation in the terminal.

mod line;
mod slash;

use std::{
    fs,
    io::IsTerminal as _,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use clap::Args;
use gguf_loader::{
    chat::{ChatReply, ChatSession, Message, ReplyOptions, Role, ToolCall},
    generation::{FinishReason, Usage},
};
use serde::{Deserialize, Serialize};

use self::{
    line::{Line, Lines},
    slash::Slash,
};
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

/// Talk with a model, in the form of its chat template
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader chat model.gguf
  gguf-loader chat model.gguf --system 'Answer in one sentence.' --preset creative
  gguf-loader chat model.gguf --load talk.json
  echo 'Name three colours.' | gguf-loader chat model.gguf --quiet
  gguf-loader chat model.gguf --json < questions.txt > replies.jsonl

A line is a message; one that ends with \\ goes on in the next line, and \"\"\" begins and ends a message of several. \
/help lists the commands. Ctrl-C stops the answer and not the program; Ctrl-D ends it. Where stdin is no terminal \
each line gets a reply, and the first failure, or Ctrl-C (exit code 130), ends the program.

What is typed at a terminal, the last 100 messages, is kept for the next time in a file that only the user may read: \
`history` in gguf-loader in the user's state folder, or the one that GGUF_LOADER_HISTORY names. A message that begins with a \
blank is not kept. Replies are written by /save alone.

Tokens are chosen as --preset balanced does, unless \
told otherwise. `gguf-loader --help` lists all exit codes.")]
pub(crate) struct Chat {
    /// The model: a GGUF file, or the first part of a split one
    model: PathBuf,
    /// Instructions for the model
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Go on with a conversation that /save wrote
    #[arg(long, value_name = "FILE", conflicts_with = "system")]
    load: Option<PathBuf>,
    /// A chat template in Jinja, in place of the model's
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Set a variable of the chat template; may be given again
    #[arg(long, value_name = "KEY=JSON")]
    template_arg: Vec<TemplateArg>,
    /// Let a model that can reason answer at once
    #[arg(long)]
    no_thinking: bool,
    /// Have a model that reasons answer after so many tokens of reasoning; 0: at once
    #[arg(long, value_name = "N", conflicts_with = "no_thinking")]
    reasoning_budget: Option<u32>,
    /// Keep nothing of what is typed for the next time; wins over GGUF_LOADER_HISTORY
    #[arg(long)]
    no_history: bool,
    /// Most tokens of a reply
    #[arg(long, short = 'n', value_name = "N")]
    max_tokens: Option<NonZeroU32>,
    /// End a reply before this text; may be given again
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
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

impl Chat {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        let knobs = args::knobs(self.backend.backend.as_ref(), self.threads.threads);
        let load_options = args::load_options(&knobs)?;
        let history = knobs.history().filter(|_| !self.no_history);
        let mut options = ReplyOptions::default().with_sampling(self.sampling.sampling(Preset::Balanced)?);
        options.grammar = self.structure.grammar()?;
        options.max_tokens = self.max_tokens;
        options.stops = self.stop;
        options.when_full = self.full.when_full();
        options.thinking = !self.no_thinking;
        options.reasoning_budget = self.reasoning_budget;
        options.arguments = template::arguments(self.template_arg);
        let begin = match &self.load {
            Some(file) => read(file)?,
            None => self.system.map(Message::system).into_iter().collect(),
        };
        let template = self.template.map(|file| Source::File(file).read_text()).transpose()?;

        let interrupt = Interrupt::install()?;
        let model = loading::load(&self.model, &load_options, &interrupt, output)?;
        output.note(model.selection().explain());
        let template = loading::chat_template(&model, template)?;
        let context = self.context.open(&model, &interrupt)?;
        let mut session = ChatSession::with_template(context, template)?;
        session.messages_mut().extend(begin);
        let is_interactive = std::io::stdin().is_terminal();
        if is_interactive {
            output.note("/help lists the commands");
        }
        let mut conversation =
            Conversation { session, options, interrupt, is_interactive, forks: Vec::new(), last: None };
        conversation.run(&mut Lines::open(is_interactive, history)?, output)
    }
}

struct Conversation {
    session: ChatSession,
    options: ReplyOptions,
    interrupt: Interrupt,
    /// Whether somebody sits at a terminal, who can go on after an error or a Ctrl-C.
    is_interactive: bool,
    /// What /fork has remembered, the newest last.
    forks: Vec<Vec<Message>>,
    last: Option<Usage>,
}

impl Conversation {
    fn run(&mut self, lines: &mut Lines, output: &mut Output) -> Result<(), Failure> {
        loop {
            let line = match self.is_interactive {
                true => lines.read(output)?,
                false => self.interrupt.wait_for(|| lines.read(output))?,
            };
            let text = match line {
                Line::Text(text) => text,
                Line::Interrupted => {
                    output.note("Ctrl-D or /quit ends the conversation");
                    continue;
                }
                Line::End => return Ok(()),
            };
            let done = match Slash::parse(&text) {
                _ if text.trim().is_empty() => continue,
                None => self.ask(text.strip_prefix('/').unwrap_or(&text), output),
                Some(Ok(Slash::Quit)) => return Ok(()),
                Some(Ok(command)) => self.obey(command, output),
                Some(Err(error)) => Err(error),
            };
            match done {
                // The conversation is what it was before.
                Err(failure) if self.is_interactive && !failure.is_closed_pipe() => _ = failure.report(),
                done => done?,
            }
        }
    }

    fn ask(&mut self, text: &str, output: &mut Output) -> Result<(), Failure> {
        self.session.push(Message::user(text));
        let replied = self.reply(output);
        if replied.is_err() {
            self.session.messages_mut().pop();
        }
        replied
    }

    fn reply(&mut self, output: &mut Output) -> Result<(), Failure> {
        if self.is_interactive {
            self.interrupt.reset();
        }
        let mut speech = Speech::new();
        let reply = self.session.reply(&self.options, |event| speech.show(event, output));
        speech.end(output)?;
        let reply = reply?;
        if reply.finish == FinishReason::Cancelled && !self.is_interactive {
            if !output.is_json() {
                output.end_streamed_line();
            }
            return Err(Failure::interrupted());
        }
        self.last = Some(reply.usage);
        match output.is_json() {
            true => output.json_line(&Said::of(&reply))?,
            false => output.bytes(b"\n")?,
        }
        match reply.finish {
            FinishReason::Cancelled => output.note("(stopped; /retry asks again, /undo takes the question back)"),
            FinishReason::MaxTokens => output.note("(as long as --max-tokens allows)"),
            FinishReason::ContextFull => {
                output.note("(the context is full: /undo or /reset, or begin again with --ctx N)")
            }
            _ => {}
        }
        Ok(())
    }

    fn obey(&mut self, command: Slash, output: &mut Output) -> Result<(), Failure> {
        let messages = self.session.messages_mut();
        match command {
            // Ends the loop before it gets here.
            Slash::Quit => {}
            Slash::Help => output.note(slash::HELP),
            Slash::System(text) => {
                messages.retain(|message| message.role != Role::System);
                if !text.is_empty() {
                    messages.insert(0, Message::system(text));
                }
            }
            Slash::Reset => messages.retain(|message| message.role == Role::System),
            Slash::Undo => {
                if !take_back(messages) {
                    return Err(Failure::message(Exit::Input, "there is nothing to take back"));
                }
            }
            Slash::Retry => {
                let before = messages.clone();
                match last_question(messages) {
                    Some(question) => messages.truncate(question + 1),
                    None => return Err(Failure::message(Exit::Input, "nothing was asked yet")),
                }
                let replied = self.reply(output);
                if replied.is_err() {
                    *self.session.messages_mut() = before;
                }
                return replied;
            }
            Slash::Fork => {
                let fork = messages.clone();
                self.forks.push(fork);
                output.note(format!("/back returns to here ({} forks)", self.forks.len()));
            }
            Slash::Back => match self.forks.pop() {
                Some(fork) => *messages = fork,
                None => return Err(Failure::message(Exit::Input, "there is no fork to go back to")),
            },
            Slash::Save(file) => {
                write(&file, messages)?;
                output.note(format!("{} messages in {}", messages.len(), file.display()));
            }
            Slash::Load(file) => {
                *messages = read(&file)?;
                output.note(format!("{} messages from {}", messages.len(), file.display()));
            }
            Slash::Stats => self.show_stats(output),
        }
        Ok(())
    }

    fn show_stats(&self, output: &Output) {
        let context = self.session.context();
        let (held, limits) = (context.tokens(0).len(), context.limits());
        output.note(format!(
            "{}: {held} of {} tokens of context in use, {} threads",
            context.executed_by(),
            limits.context,
            limits.threads
        ));
        if let Some(usage) = self.last {
            let timings = Timings::from(usage);
            output.note(format!(
                "last reply: {} tokens of prompt ({} of them kept){}, {} generated{}{}",
                usage.prompt_tokens,
                usage.reused_tokens,
                timings.of_prompt(),
                usage.generated_tokens,
                timings.of_generation(),
                timings.of_first_token()
            ));
        }
    }
}

fn last_question(messages: &[Message]) -> Option<usize> {
    messages.iter().rposition(|message| message.role == Role::User)
}

/// Removes the last question and what was said since.
fn take_back(messages: &mut Vec<Message>) -> bool {
    let question = last_question(messages);
    messages.truncate(question.unwrap_or(messages.len()));
    question.is_some()
}

/// A reply as JSON.
#[derive(Serialize)]
struct Said<'a> {
    content: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reasoning: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tool_calls: &'a [ToolCall],
    finish_reason: FinishReason,
    prompt_tokens: usize,
    reused_tokens: usize,
    generated_tokens: usize,
    seed: u64,
    timings: Timings,
}

impl<'a> Said<'a> {
    fn of(reply: &'a ChatReply) -> Self {
        let (message, usage) = (&reply.message, reply.usage);
        Self {
            content: &message.content,
            reasoning: &message.reasoning,
            tool_calls: &message.tool_calls,
            finish_reason: reply.finish,
            prompt_tokens: usage.prompt_tokens,
            reused_tokens: usage.reused_tokens,
            generated_tokens: usage.generated_tokens,
            seed: reply.seed,
            timings: usage.into(),
        }
    }
}

/// A conversation as a file has it.
#[derive(Serialize, Deserialize)]
struct Saved {
    messages: Vec<Message>,
}

fn read(file: &Path) -> Result<Vec<Message>, Failure> {
    let text = Source::File(file.to_owned()).read_text()?;
    let saved: Saved = serde_json::from_str(&text).map_err(|error| {
        Failure::new(Exit::File, &error).with_headline(format!("{} is no conversation", file.display()))
    })?;
    Ok(saved.messages)
}

/// Writes the file under another name first, so that one that was there is whole until the new one is.
fn write(file: &Path, messages: &[Message]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::File, &error).with_headline(format!("cannot write {}", file.display()))
    };
    let saved = Saved { messages: messages.to_vec() };
    let text = serde_json::to_string_pretty(&saved).map_err(|error| Failure::new(Exit::Unexpected, &error))?;
    let mut beside = file.as_os_str().to_owned();
    beside.push(".part");
    let written = fs::write(&beside, text + "\n").and_then(|()| fs::rename(&beside, file));
    written.map_err(|error| {
        // A beginning of it, on a disk that is full.
        let _ = fs::remove_file(&beside);
        failed(error)
    })
}
