//! A conversation that goes on: the messages, and the KV cache that remembers them.

use std::{
    fmt,
    num::NonZeroU32,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    ChatError, ChatPrompt, ChatTemplate, Message, PromptEnding, RenderedPrompt, Reply, ReplyEvent, Role, Tool,
    ToolChoice, delta::Deltas,
};
use crate::{
    backend::{CancelToken, SequenceEdit},
    context::Context,
    generation::{FinishReason, GenerateError, GenerateRequest, Start, Usage},
    grammar::Grammar,
    sampling::Sampling,
};

/// A conversation with a model. Owns its context; may move between threads.
///
/// The messages are plain data that may be read and changed at any time. What the context holds of them is found out when the
/// next reply is asked for: the tokens from the first that differs on are computed anew, and those before are kept.
pub struct ChatSession {
    context: Context,
    template: ChatTemplate,
    messages: Vec<Message>,
    /// Calls so far, to give them ids.
    calls: u32,
}

/// How to reply.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ReplyOptions {
    /// The tools that the model may call (default: none).
    pub tools: Vec<Tool>,
    /// Whether it may, or must (default: as it sees fit).
    pub tool_choice: ToolChoice,
    /// Whether it may make several calls in one reply (default: no).
    pub parallel_tool_calls: bool,
    /// What the reply must look like (default: anything). Not together with tools.
    pub grammar: Option<Grammar>,
    /// How tokens are chosen (default: greedily).
    pub sampling: Sampling,
    /// Texts at which the reply ends, beside those of the template (default: none).
    pub stops: Vec<String>,
    /// Most tokens of the reply; `None` goes on until the model ends or the context is full (default).
    pub max_tokens: Option<NonZeroU32>,
    /// Whether a model that can reason does not (default: it does).
    pub without_thinking: bool,
    /// Further variables of the template (default: none).
    pub arguments: Map<String, Value>,
}

impl ReplyOptions {
    /// Sets the tools that the model may call.
    pub fn with_tools(mut self, tools: Vec<Tool>) -> Self {
        self.tools = tools;
        self
    }

    /// Sets whether the model may, or must, call tools.
    pub fn with_tool_choice(mut self, choice: ToolChoice) -> Self {
        self.tool_choice = choice;
        self
    }

    /// Sets whether the model may make several calls in one reply.
    pub fn with_parallel_tool_calls(mut self, parallel: bool) -> Self {
        self.parallel_tool_calls = parallel;
        self
    }

    /// Sets what the reply must look like.
    pub fn with_grammar(mut self, grammar: Grammar) -> Self {
        self.grammar = Some(grammar);
        self
    }

    /// Sets how tokens are chosen.
    pub fn with_sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = sampling;
        self
    }

    /// Adds a text at which the reply ends.
    pub fn with_stop(mut self, stop: impl Into<String>) -> Self {
        self.stops.push(stop.into());
        self
    }

    /// Sets the most tokens of the reply.
    pub fn with_max_tokens(mut self, max_tokens: NonZeroU32) -> Self {
        self.max_tokens = Some(max_tokens);
        self
    }
}

/// A reply, and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChatReply {
    /// What the model said. The session has it too, as its last message.
    pub message: Message,
    /// Why it ended.
    pub finish: FinishReason,
    /// What it took; of the prompt, which is the conversation so far, what the context held already is not computed again.
    pub usage: Usage,
    /// What lots were drawn from.
    pub seed: u64,
}

impl ChatSession {
    /// A conversation in `context`, with the template that comes with its model. What the context holds is forgotten.
    ///
    /// # Errors
    ///
    /// [`GenerateError::NoTokenizer`], or [`ChatError::Template`] when the model has no template; then see
    /// [`with_template`](Self::with_template).
    pub fn new(context: Context) -> Result<Self, ChatError> {
        let template = ChatTemplate::of(context.model().tokenizer().map_err(|_| GenerateError::NoTokenizer)?)?;
        Self::with_template(context, template)
    }

    /// A conversation in `context`, with a template of one's own.
    ///
    /// # Errors
    ///
    /// [`GenerateError::NoTokenizer`].
    pub fn with_template(mut context: Context, template: ChatTemplate) -> Result<Self, ChatError> {
        context.model().tokenizer().map_err(|_| GenerateError::NoTokenizer)?;
        context.edit(SequenceEdit::Clear).map_err(GenerateError::Decode)?;
        Ok(Self { context, template, messages: Vec::new(), calls: 0 })
    }

    /// The conversation so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The conversation so far, to change it.
    pub fn messages_mut(&mut self) -> &mut Vec<Message> {
        &mut self.messages
    }

    /// Adds a message.
    pub fn push(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// The template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The context, for what it can hold and what runs it.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The context, e.g. to save or restore its state: what it holds of the conversation is found out when the next reply is
    /// asked for.
    pub fn context_mut(&mut self) -> &mut Context {
        &mut self.context
    }

    /// Cancels a reply, also while it is computed. What the model has said by then stays.
    pub fn cancel_token(&self) -> CancelToken {
        self.context.cancel_token()
    }

    /// Says something as the user, and returns the reply.
    ///
    /// # Errors
    ///
    /// As [`reply`](Self::reply).
    pub fn send(&mut self, text: impl Into<String>) -> Result<ChatReply, ChatError> {
        self.push(Message::user(text));
        self.reply(&ReplyOptions::default(), |_| ControlFlow::Continue(()))
    }

    /// Has the model reply to the conversation so far, and adds the reply to it. Where the last message is the assistant's,
    /// the model continues it. `on_event` gets the parts as they arrive, and may break off.
    ///
    /// # Errors
    ///
    /// [`ChatError`]. The conversation is then what it was before, and the session can be used further.
    pub fn reply(
        &mut self,
        options: &ReplyOptions,
        mut on_event: impl FnMut(&ReplyEvent) -> ControlFlow<()>,
    ) -> Result<ChatReply, ChatError> {
        if options.grammar.is_some() && !options.tools.is_empty() {
            return Err(GenerateError::GrammarWithTools.into());
        }
        let rendered = self.render(options)?;
        let parser = Arc::clone(&rendered.parser);
        let mut request =
            GenerateRequest::new(rendered).with_start(Start::Reuse).with_sampling(options.sampling.clone());
        request.grammar.clone_from(&options.grammar);
        request.max_tokens = options.max_tokens;
        request.stops.clone_from(&options.stops);
        let mut generation = self.context.generate(request)?;

        // What the prompt has of the reply already is not news.
        let mut deltas = Deltas::after(parser.parse("", false).unwrap_or_default());
        let (mut text, mut events) = (String::new(), Vec::new());
        let (mut last_read, mut reading) = (Instant::now(), Duration::ZERO);
        let mut stopped = false;
        for piece in generation.by_ref() {
            text.push_str(&piece?.text);
            // A parser reads from the beginning each time. In a long reply it rests between two readings for longer than one
            // takes, so that it never costs more than a small part of the time.
            if text.is_empty() || last_read.elapsed() < reading * 20 {
                continue;
            }
            let begin = Instant::now();
            let reply = parser.parse(&text, false);
            (last_read, reading) = (Instant::now(), begin.elapsed());
            deltas.push(&reply.unwrap_or_default(), &mut events);
            stopped = events.drain(..).any(|event| on_event(&event).is_break());
            if stopped {
                break;
            }
        }
        let finish = generation.finish_reason().filter(|_| !stopped).unwrap_or(FinishReason::BrokenOff);
        let (usage, seed) = (generation.usage(), generation.seed());
        let whole = matches!(finish, FinishReason::End | FinishReason::Stop);
        let reply = parser.parse(&text, whole).or_else(|error| match whole {
            // A reply that was not forced into a form may end in the middle of one.
            true => parser.parse(&text, false).map_err(|_| error),
            false => Err(error),
        })?;
        deltas.push(&reply, &mut events);
        for event in &events {
            // The reply has ended: there is nothing left to break off.
            let _ = on_event(event);
        }
        Ok(self.finish(reply, finish, usage, seed))
    }

    /// Has the model reply with a value of a type, by the type's JSON schema.
    ///
    /// # Errors
    ///
    /// [`ChatError`]; [`ChatError::Unfinished`] when the reply was cut off before the value was complete.
    pub fn reply_as<T: DeserializeOwned + schemars::JsonSchema>(
        &mut self,
        options: &ReplyOptions,
    ) -> Result<T, ChatError> {
        let options = options.clone().with_grammar(Grammar::of::<T>()?);
        let ChatReply { message, finish, .. } = self.reply(&options, |_| ControlFlow::Continue(()))?;
        match finish {
            FinishReason::End | FinishReason::Stop => {
                serde_json::from_str(message.content.trim()).map_err(ChatError::Value)
            }
            _ => Err(ChatError::Unfinished(finish)),
        }
    }

    fn finish(&mut self, reply: Reply, mut finish: FinishReason, usage: Usage, seed: u64) -> ChatReply {
        let mut message = Message::from(reply);
        if !matches!(finish, FinishReason::End | FinishReason::Stop) {
            // The last call may be incomplete, and then templates could not write it.
            message.tool_calls.retain(|call| serde_json::from_str::<Map<String, Value>>(&call.arguments).is_ok());
        }
        for call in message.tool_calls.iter_mut().filter(|call| call.id.is_empty()) {
            self.calls += 1;
            // Nine letters and digits: what the strictest templates ask for.
            call.id = format!("call{:05}", self.calls % 100_000);
        }
        if matches!(finish, FinishReason::End | FinishReason::Stop) && !message.tool_calls.is_empty() {
            finish = FinishReason::ToolCalls;
        }
        if self.messages.last().is_some_and(|last| last.role == Role::Assistant) {
            // The reply begins with the message that it continues.
            self.messages.pop();
        }
        self.messages.push(message.clone());
        ChatReply { message, finish, usage, seed }
    }

    fn render(&self, options: &ReplyOptions) -> Result<RenderedPrompt, ChatError> {
        let continues = self.messages.last().is_some_and(|last| last.role == Role::Assistant);
        let mut prompt = ChatPrompt::new(self.messages.clone())
            .with_tools(options.tools.clone())
            .with_tool_choice(options.tool_choice.clone())
            .with_parallel_tool_calls(options.parallel_tool_calls)
            .with_ending(if continues { PromptEnding::Continue } else { PromptEnding::Reply })
            .with_thinking(!options.without_thinking);
        prompt.arguments = options.arguments.clone();
        Ok(self.template.render(&prompt)?)
    }
}

impl fmt::Debug for ChatSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatSession").field("messages", &self.messages).finish_non_exhaustive()
    }
}
