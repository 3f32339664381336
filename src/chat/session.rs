//! A conversation that goes on: the messages, and the KV cache that remembers them.

use std::{fmt, ops::ControlFlow, sync::Arc};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    ChatError, ChatPrompt, ChatTemplate, Message, PromptEnding, RenderedPrompt, Reply, ReplyEvent, ReplyOptions, Role,
    reading::Reading,
};
use crate::{
    backend::{CancelToken, SequenceEdit},
    context::Context,
    generation::{FinishReason, GenerateError, GenerateRequest, Start, Usage},
    grammar::Grammar,
    sampling::TokenLogprobs,
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

/// A reply, and what it took.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ChatReply {
    /// What the model said, with the calls that are complete. The session has it too, as its last message.
    pub message: Message,
    /// Why it ended.
    pub finish: FinishReason,
    /// For each token of the reply, where that was asked for; reasoning, calls and markers are tokens too.
    pub logprobs: Vec<TokenLogprobs>,
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

    /// The conversation as it is, to go on with beside this one: in `context`, another one of the same model, which takes over
    /// what this one has computed. To go back to an earlier point in one session, keep a copy of the
    /// [messages](Self::messages): what they share with the context is not computed again.
    ///
    /// # Errors
    ///
    /// [`ChatError::State`] when the context is of another model, has other adapters, or is too short.
    pub fn fork(&mut self, mut context: Context) -> Result<Self, ChatError> {
        context.edit(SequenceEdit::Clear).map_err(GenerateError::Decode)?;
        if !self.context.tokens(0).is_empty() {
            context.restore_sequence(&self.context.save_sequence(0)?, 0)?;
        }
        Ok(Self { context, template: self.template.clone(), messages: self.messages.clone(), calls: self.calls })
    }

    /// Says something as the user, and returns the reply.
    ///
    /// # Errors
    ///
    /// As [`reply`](Self::reply). What was said is then taken back.
    pub fn send(&mut self, text: impl Into<String>) -> Result<ChatReply, ChatError> {
        self.push(Message::user(text));
        let reply = self.reply(&ReplyOptions::default(), |_| ControlFlow::Continue(()));
        if reply.is_err() {
            self.messages.pop();
        }
        reply
    }

    /// Has the model reply to the conversation so far, and adds the reply to it. `on_event` gets the parts as they arrive, and
    /// may break off; it gets nothing more then, and the reply ends as [`FinishReason::BrokenOff`].
    ///
    /// A reply that was cut off before anything was said is not added.
    ///
    /// # Errors
    ///
    /// [`ChatError`]. The conversation is then what it was before, and the session can be used further.
    pub fn reply(
        &mut self,
        options: &ReplyOptions,
        on_event: impl FnMut(&ReplyEvent) -> ControlFlow<()>,
    ) -> Result<ChatReply, ChatError> {
        let reply = self.speak(options, PromptEnding::Reply, on_event)?;
        self.add(&reply);
        Ok(reply)
    }

    /// Has the model continue the last message, which is the assistant's: the beginning of an answer, or one that was cut off.
    /// The message then has both, and so has the [`ChatReply`]; `on_event` gets what is new.
    ///
    /// # Errors
    ///
    /// As [`reply`](Self::reply); [`TemplateError::NothingToContinue`](super::TemplateError::NothingToContinue) when the last
    /// message is not the assistant's, or has calls.
    pub fn continue_reply(
        &mut self,
        options: &ReplyOptions,
        on_event: impl FnMut(&ReplyEvent) -> ControlFlow<()>,
    ) -> Result<ChatReply, ChatError> {
        let mut reply = self.speak(options, PromptEnding::Continue, on_event)?;
        if let Some(begun) = self.messages.pop()
            && reply.message.reasoning.is_empty()
        {
            // Not every template writes what was thought before an answer.
            reply.message.reasoning = begun.reasoning;
        }
        self.messages.push(reply.message.clone());
        Ok(reply)
    }

    /// Has the model reply with a value of a type, by the type's JSON schema.
    ///
    /// # Errors
    ///
    /// As [`reply`](Self::reply); [`ChatError::Unfinished`] when the reply was cut off before the value was complete.
    pub fn reply_as<T: DeserializeOwned + schemars::JsonSchema>(
        &mut self,
        options: &ReplyOptions,
    ) -> Result<T, ChatError> {
        let options = options.clone().with_grammar(Grammar::of::<T>()?);
        let reply = self.speak(&options, PromptEnding::Reply, |_| ControlFlow::Continue(()))?;
        if !matches!(reply.finish, FinishReason::End | FinishReason::Stop) {
            return Err(ChatError::Unfinished(reply.finish));
        }
        let value = serde_json::from_str(reply.message.content.trim()).map_err(ChatError::Value)?;
        self.add(&reply);
        Ok(value)
    }

    /// Generates a reply, and leaves the conversation as it is.
    fn speak(
        &mut self,
        options: &ReplyOptions,
        ending: PromptEnding,
        on_event: impl FnMut(&ReplyEvent) -> ControlFlow<()>,
    ) -> Result<ChatReply, ChatError> {
        let answered = self.messages.last().is_some_and(|last| last.role == Role::Assistant);
        if ending == PromptEnding::Reply && answered {
            return Err(ChatError::NothingToReplyTo);
        }
        if options.grammar.is_some() && !options.tools.is_empty() {
            return Err(GenerateError::GrammarWithTools.into());
        }
        let rendered = self.render(options, ending)?;
        let mut reading = Reading::new(Arc::clone(&rendered.parser), on_event);
        let mut request =
            GenerateRequest::new(rendered).with_start(Start::Reuse).with_sampling(options.sampling.clone());
        request.grammar.clone_from(&options.grammar);
        request.max_tokens = options.max_tokens;
        request.stops.clone_from(&options.stops);
        request.when_full = options.when_full;
        request.logprobs = options.logprobs;
        request.reasoning_budget = options.reasoning_budget;

        let mut generation = self.context.generate(request)?;
        let mut logprobs = Vec::new();
        for piece in generation.by_ref() {
            let piece = piece?;
            logprobs.extend(piece.logprobs);
            if reading.push(&piece.text).is_break() {
                break;
            }
        }
        let ended = generation.finish_reason();
        let (usage, seed) = (generation.usage(), generation.seed());
        let (reply, flow) = reading.finish(matches!(ended, Some(FinishReason::End | FinishReason::Stop)))?;
        let message = self.message_of(reply);
        let finish = match ended {
            Some(FinishReason::End | FinishReason::Stop) if flow.is_continue() && !message.tool_calls.is_empty() => {
                FinishReason::ToolCalls
            }
            Some(finish) if flow.is_continue() => finish,
            _ => FinishReason::BrokenOff,
        };
        Ok(ChatReply { message, finish, logprobs, usage, seed })
    }

    fn message_of(&mut self, reply: Reply) -> Message {
        let mut message = Message::from(reply);
        // Where a reply is cut off, or stopped by a text in the middle of a call, that call is incomplete, and templates could
        // not write it.
        message.tool_calls.retain(|call| serde_json::from_str::<Map<String, Value>>(&call.arguments).is_ok());
        for call in message.tool_calls.iter_mut().filter(|call| call.id.is_empty()) {
            call.id = self.new_call_id();
        }
        message
    }

    /// An id that no call of the conversation has: nine letters and digits, which the strictest templates ask for.
    fn new_call_id(&mut self) -> String {
        loop {
            self.calls = self.calls.wrapping_add(1);
            let id = format!("call{:05}", self.calls % 100_000);
            let has_id = |message: &Message| message.tool_calls.iter().any(|call| call.id == id);
            if !self.messages.iter().any(has_id) {
                return id;
            }
        }
    }

    fn add(&mut self, reply: &ChatReply) {
        let ChatReply { message, finish, .. } = reply;
        let ended = matches!(finish, FinishReason::End | FinishReason::Stop | FinishReason::ToolCalls);
        let says = !(message.content.is_empty() && message.reasoning.is_empty() && message.tool_calls.is_empty());
        if ended || says {
            self.messages.push(message.clone());
        }
    }

    fn render(&self, options: &ReplyOptions, ending: PromptEnding) -> Result<RenderedPrompt, ChatError> {
        let mut prompt = ChatPrompt::new(self.messages.clone())
            .with_tools(options.tools.clone())
            .with_tool_choice(options.tool_choice.clone())
            .with_parallel_tool_calls(options.parallel_tool_calls)
            .with_ending(ending)
            .with_thinking(options.thinking);
        prompt.arguments = options.arguments.clone();
        Ok(self.template.render(&prompt)?)
    }
}

impl fmt::Debug for ChatSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatSession").field("messages", &self.messages).finish_non_exhaustive()
    }
}
