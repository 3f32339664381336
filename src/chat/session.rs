//! A conversation that goes on: the messages, and the KV cache that remembers them.

use std::{
    fmt,
    num::NonZeroU32,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    ChatError, ChatPrompt, ChatTemplate, Message, PromptEnding, RenderedPrompt, Reply, ReplyEvent, Role, Tool,
    ToolChoice, decode::Decoding, delta::Deltas, text::ReplyText,
};
use crate::{
    backend::{CancelToken, DecodeError, Position, SequenceEdit, Token, TokenizeOptions},
    context::Context,
    generation::likeliest,
    grammar::{ChooseToken, Constraint, Grammar},
    tokenizer::Tokenizer,
};

/// A conversation with a model. Owns its context; may move between threads.
///
/// The messages are plain data that may be read and changed at any time. What the context holds of them is found out when the
/// next reply is asked for: the tokens from the first that differs on are computed anew, and those before are kept.
pub struct ChatSession {
    context: Context,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    chooser: Box<dyn ChooseToken>,
    messages: Vec<Message>,
    /// The tokens that sequence 0 of the context holds.
    held: Vec<Token>,
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

    /// Sets the most tokens of the reply.
    pub fn with_max_tokens(mut self, max_tokens: NonZeroU32) -> Self {
        self.max_tokens = Some(max_tokens);
        self
    }
}

/// A reply, and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatReply {
    /// What the model said. The session has it too, as its last message.
    pub message: Message,
    /// Why it ended.
    pub finish: ChatFinish,
    /// What it took.
    pub usage: ChatUsage,
}

/// Why a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChatFinish {
    /// The model ended it.
    End,
    /// The model ended it, and waits for the results of its calls.
    ToolCalls,
    /// It has as many tokens as were asked for.
    MaxTokens,
    /// The context holds no further token.
    ContextFull,
    /// The callback broke off.
    Stopped,
    /// The context's [`CancelToken`] was used.
    Cancelled,
}

/// What a reply took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct ChatUsage {
    /// Tokens of the prompt: the conversation so far.
    pub prompt_tokens: usize,
    /// Those of them that the context held already.
    pub reused_tokens: usize,
    /// Tokens of the reply.
    pub reply_tokens: usize,
    /// Time until the first token of the reply.
    pub prompt_time: Duration,
    /// Time for the others.
    pub reply_time: Duration,
}

impl ChatSession {
    /// A conversation in `context`, with the template that comes with its model. What the context holds is forgotten.
    ///
    /// # Errors
    ///
    /// [`ChatError::NoTokenizer`], or [`ChatError::Template`] when the model has no template; then see
    /// [`with_template`](Self::with_template).
    pub fn new(context: Context) -> Result<Self, ChatError> {
        let template = ChatTemplate::of(context.model().tokenizer().map_err(|_| ChatError::NoTokenizer)?)?;
        Self::with_template(context, template)
    }

    /// A conversation in `context`, with a template of one's own.
    ///
    /// # Errors
    ///
    /// [`ChatError::NoTokenizer`].
    pub fn with_template(mut context: Context, template: ChatTemplate) -> Result<Self, ChatError> {
        let tokenizer = context.model().tokenizer().map_err(|_| ChatError::NoTokenizer)?.clone();
        context.edit(SequenceEdit::Clear)?;
        let chooser = Box::new(likeliest);
        Ok(Self { context, tokenizer, template, chooser, messages: Vec::new(), held: Vec::new(), calls: 0 })
    }

    /// Sets how tokens are chosen; until then it is the likeliest one.
    pub fn set_chooser(&mut self, chooser: impl ChooseToken + 'static) {
        self.chooser = Box::new(chooser);
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
        let start = Instant::now();
        if options.grammar.is_some() && !options.tools.is_empty() {
            return Err(ChatError::GrammarWithTools);
        }
        let rendered = self.render(options)?;
        let tokens = self.tokens_of(&rendered.text)?;
        let constraint = self.constraint(&rendered, options.grammar.as_ref())?;
        let reused_tokens = self.keep_common(&tokens)?;
        let mut usage = ChatUsage { prompt_tokens: tokens.len(), reused_tokens, ..ChatUsage::default() };

        let mut text = ReplyText::new(&self.tokenizer, &rendered)?;
        let mut decoding = Decoding::new(&mut self.context, &mut self.held, constraint, options.max_tokens);
        // What the prompt has of the reply already is not news.
        let mut deltas = Deltas::after(rendered.parser.parse("", false).unwrap_or_default());
        let mut events = Vec::new();
        let (mut last_read, mut reading) = (start, Duration::ZERO);
        decoding.prompt(&tokens)?;
        let finish = 'reply: loop {
            let token = match decoding.next(&self.tokenizer, self.chooser.as_mut()) {
                Ok(Ok(token)) => token,
                Ok(Err(finish)) => break finish,
                Err(ChatError::Decode(DecodeError::Cancelled)) => break ChatFinish::Cancelled,
                Err(error) => return Err(error),
            };
            usage.reply_tokens += 1;
            if usage.reply_tokens == 1 {
                usage.prompt_time = start.elapsed();
            }
            // A parser reads from the beginning each time. In a long reply it rests between two readings for longer than one
            // takes, so that it never costs more than a small part of the time.
            if text.push(token)? && last_read.elapsed() >= reading * 20 {
                let begin = Instant::now();
                let reply = rendered.parser.parse(text.visible(), false);
                (last_read, reading) = (Instant::now(), begin.elapsed());
                deltas.push(&reply.unwrap_or_default(), &mut events);
                for event in events.drain(..) {
                    if on_event(&event).is_break() {
                        break 'reply ChatFinish::Stopped;
                    }
                }
            }
            if text.is_stopped() {
                break ChatFinish::End;
            }
        };
        text.finish();
        let whole = finish == ChatFinish::End;
        let reply = rendered.parser.parse(text.visible(), whole).or_else(|error| match whole {
            // A reply that was not forced into a form may end in the middle of one.
            true => rendered.parser.parse(text.visible(), false).map_err(|_| error),
            false => Err(error),
        })?;
        deltas.push(&reply, &mut events);
        for event in &events {
            // The reply has ended: there is nothing left to break off.
            let _ = on_event(event);
        }
        usage.reply_time = start.elapsed().saturating_sub(usage.prompt_time);
        Ok(self.finish(reply, finish, usage))
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
            ChatFinish::End => serde_json::from_str(message.content.trim()).map_err(ChatError::Value),
            _ => Err(ChatError::Unfinished(finish)),
        }
    }

    fn finish(&mut self, reply: Reply, mut finish: ChatFinish, usage: ChatUsage) -> ChatReply {
        let mut message = Message::from(reply);
        if finish != ChatFinish::End {
            // The last call may be incomplete, and then templates could not write it.
            message.tool_calls.retain(|call| serde_json::from_str::<Map<String, Value>>(&call.arguments).is_ok());
        }
        for call in message.tool_calls.iter_mut().filter(|call| call.id.is_empty()) {
            self.calls += 1;
            // Nine letters and digits: what the strictest templates ask for.
            call.id = format!("call{:05}", self.calls % 100_000);
        }
        if finish == ChatFinish::End && !message.tool_calls.is_empty() {
            finish = ChatFinish::ToolCalls;
        }
        if self.messages.last().is_some_and(|last| last.role == Role::Assistant) {
            // The reply begins with the message that it continues.
            self.messages.pop();
        }
        self.messages.push(message.clone());
        ChatReply { message, finish, usage }
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

    /// The tokens of a prompt, with one BOS where the model wants one, whether the template writes it or not.
    fn tokens_of(&self, prompt: &str) -> Result<Vec<Token>, ChatError> {
        let plain = TokenizeOptions { add_special: false, parse_special: true };
        let mut tokens = self.tokenizer.tokenize(prompt, plain)?;
        let special = self.tokenizer.special();
        if let (true, Some(bos)) = (special.add_bos, special.bos)
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
        }
        let limit = self.context.limits().context;
        match tokens.len() {
            0 => Err(ChatError::EmptyPrompt),
            length if length >= limit as usize => Err(ChatError::PromptTooLong { tokens: length, limit }),
            _ => Ok(tokens),
        }
    }

    fn constraint(&self, rendered: &RenderedPrompt, own: Option<&Grammar>) -> Result<Option<Constraint>, ChatError> {
        if let Some(grammar) = own {
            return Ok(Some(Constraint::new(&self.tokenizer, grammar)?));
        }
        let Some(grammar) = &rendered.grammar else { return Ok(None) };
        let mut constraint = Constraint::of_engine(&self.tokenizer, &grammar.gbnf, grammar.triggers.as_deref())?;
        if grammar.triggers.is_none() {
            // This grammar describes the reply from the beginning of the turn, which the prompt has.
            let plain = TokenizeOptions { add_special: false, parse_special: true };
            for token in self.tokenizer.tokenize(&rendered.reply_start, plain)? {
                constraint.accept(token).map_err(|mismatch| ChatError::Constraint(mismatch.into()))?;
            }
        }
        Ok(Some(constraint))
    }

    /// Forgets what the context holds beyond what it shares with `tokens`, of which one at least is left to compute.
    fn keep_common(&mut self, tokens: &[Token]) -> Result<usize, ChatError> {
        let shared = self.held.iter().zip(tokens).take_while(|(held, token)| held == token).count();
        let shared = shared.min(tokens.len() - 1);
        if shared == self.held.len() {
            return Ok(shared);
        }
        let from = Position::try_from(shared).unwrap_or(Position::MAX);
        // A recurrent model cannot forget the end alone.
        if self.context.edit(SequenceEdit::Truncate { sequence: 0, from }).is_ok() {
            self.held.truncate(shared);
            return Ok(shared);
        }
        self.context.edit(SequenceEdit::Clear)?;
        self.held.clear();
        Ok(0)
    }
}

impl fmt::Debug for ChatSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatSession").field("messages", &self.messages).finish_non_exhaustive()
    }
}
