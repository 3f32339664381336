//! Chat templates and what they make of a conversation: data in and out of the engines that run them.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A chat template as a model file has it: Jinja, by the rules of Python's `transformers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSource {
    /// The template.
    pub text: String,
    /// The text of the token that begins a sequence: `bos_token` in the template.
    pub bos: String,
    /// The text of the token that ends a sequence: `eos_token` in the template.
    pub eos: String,
}

/// A template that an engine has parsed.
pub trait CompiledTemplate: fmt::Debug + Send + Sync {
    /// What the template can express; asked of the template itself, by trial.
    fn abilities(&self) -> TemplateAbilities;

    /// Writes the prompt of a conversation, and says how the reply to it is constrained and read.
    ///
    /// # Errors
    ///
    /// [`TemplateError`].
    fn render(&self, request: &RenderRequest<'_>) -> Result<RenderedPrompt, TemplateError>;
}

/// Reads replies to one prompt.
pub trait ReplyParser: fmt::Debug + Send + Sync {
    /// What `text` says; with `complete` it must be a whole reply, else the beginning of one.
    ///
    /// # Errors
    ///
    /// [`ReplyError`] when the text is not what the template lets a model say.
    fn parse(&self, text: &str, complete: bool) -> Result<Reply, ReplyError>;
}

/// What a template can express.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TemplateAbilities {
    /// It has a place for system messages.
    #[serde(rename = "supports_system_role")]
    pub system_role: bool,
    /// It describes tools to the model.
    #[serde(rename = "supports_tools")]
    pub tools: bool,
    /// It shows calls that the assistant made.
    #[serde(rename = "supports_tool_calls")]
    pub tool_calls: bool,
    /// It shows several calls of one message.
    #[serde(rename = "supports_parallel_tool_calls")]
    pub parallel_tool_calls: bool,
}

/// What is to be written as a prompt.
#[derive(Debug, Clone)]
pub struct RenderRequest<'a> {
    /// The conversation.
    pub messages: &'a [Message],
    /// The tools that the model may call.
    pub tools: &'a [Tool],
    /// Whether it may, or must.
    pub tool_choice: ToolChoice,
    /// Whether it may make several calls in one reply.
    pub parallel_tool_calls: bool,
    /// How the prompt ends.
    pub ending: PromptEnding,
    /// Whether a model that can reason does (`enable_thinking` in the template).
    pub thinking: bool,
    /// Further variables of the template.
    pub arguments: &'a serde_json::Map<String, Value>,
}

/// How a prompt ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PromptEnding {
    /// With the beginning of the assistant's turn (default).
    #[default]
    Reply,
    /// With the last message.
    LastMessage,
    /// Within the last message, which is the assistant's and which the model continues.
    Continue,
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The same; some models tell the two apart.
    Developer,
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
    /// The result of a call that the assistant made.
    Tool,
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    #[serde(default)]
    pub content: String,
    /// What the assistant thought before it said that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
    /// The calls that the assistant makes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a message of a [`Role::Tool`] answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The tool that a message of a [`Role::Tool`] comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ToolCall {
    /// Names the call, for its result.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments: a JSON object, as text, which is incomplete while the reply is.
    pub arguments: String,
}

/// A tool that a model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Tool {
    /// What the model calls it by.
    pub name: String,
    /// What it does: the model decides by this when to call it.
    #[serde(default)]
    pub description: String,
    /// JSON schema of its arguments, which are an object.
    pub parameters: Value,
}

/// Whether the model may call tools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolChoice {
    /// The model decides (default). A call is held to its tool's schema from its marker on, but for what llama.cpp's converter
    /// does not read: bounds of a `number` (those of an `integer` are kept), `multipleOf`, `uniqueItems` and `not`. Check what a
    /// call must not have.
    ///
    /// Where a template's calls have no marker, nothing tells a call from an answer while it is written, and nothing holds it:
    /// [`RenderedPrompt::grammar`] is `None`, and what cannot be read as a call is content.
    #[default]
    Auto,
    /// It must call at least one.
    Required,
    /// It must not; the tools are described to it all the same, if the template has a form for that.
    None,
    /// It must call this one.
    Named(String),
}

/// A prompt, and what may follow it.
#[derive(Debug, Clone)]
pub struct RenderedPrompt {
    /// The text, with the special tokens that the template writes.
    pub text: String,
    /// The end of the text that begins the reply, e.g. `<|im_start|>assistant\n`.
    pub reply_start: String,
    /// What the reply must look like, if the tools ask for anything.
    pub grammar: Option<ReplyGrammar>,
    /// Texts that end a reply, beside the tokens that do.
    pub stops: Vec<String>,
    /// Special tokens that belong to the reply's text: markers of calls and of reasoning.
    pub preserved: Vec<String>,
    /// How the model marks what it thinks before it answers, as far as the template tells.
    pub reasoning: Option<ReasoningMarkers>,
    /// Reads the reply.
    pub parser: Arc<dyn ReplyParser>,
}

/// The texts around what a model thinks at the beginning of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasoningMarkers {
    /// Begins it, e.g. `<think>`; empty where no text does.
    pub start: String,
    /// Texts that end it, e.g. `</think>`.
    pub ends: Vec<String>,
    /// Whether the prompt has begun it, so that the reply begins within it.
    pub open: bool,
}

/// What a reply must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyGrammar {
    /// The grammar, in GBNF.
    pub gbnf: String,
    /// What sets the grammar to work; `None` when it rules from the beginning.
    ///
    /// Without triggers it describes the reply with [`RenderedPrompt::reply_start`] before it.
    pub triggers: Option<Vec<GrammarTrigger>>,
}

/// Sets a grammar to work, which then begins with the trigger's text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", content = "text", rename_all = "snake_case")]
pub enum GrammarTrigger {
    /// This text anywhere in the reply.
    Word(String),
    /// A match of this regular expression; the grammar begins with its first group, if it has one.
    Pattern(String),
    /// The same for the reply as a whole.
    PatternFull(String),
}

/// What a reply says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// What is said.
    pub content: String,
    /// What the model thought before.
    pub reasoning: String,
    /// The calls, in order; the last one may be incomplete while the reply is.
    pub tool_calls: Vec<ToolCall>,
}

/// Why a chat template could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The model has no template: give one.
    #[error("the model has no chat template: give one")]
    Missing,
    /// No compiled backend runs templates: build with a `cpu-*` feature.
    #[error("no compiled backend runs chat templates; build with a cpu feature")]
    Unsupported,
    /// The template is not Jinja that the engine understands.
    #[error("the chat template cannot be parsed{}: {message}", at(*.line))]
    Syntax {
        /// The line, from 1, where the engine says it.
        line: Option<u32>,
        /// The engine's own words.
        message: String,
    },
    /// The template refused the conversation, e.g. for the order of its roles, or failed otherwise.
    #[error("the chat template failed{}: {message}", at(*.line))]
    Render {
        /// The line, from 1, where the engine says it.
        line: Option<u32>,
        /// What the template, or the engine, says about it.
        message: String,
    },
    /// The last message is to be continued, and is not the assistant's, or waits for the results of its calls.
    #[error("there is no message of the assistant to continue")]
    NothingToContinue,
    /// The tool that must be called is not among those given.
    #[error("there is no tool `{0}` among those given")]
    NoSuchTool(String),
    /// A call must be made, and there are no tools.
    #[error("a tool call is required, and no tools are given")]
    NoTools,
    /// The template has no form for calls, so that none could be asked for or read: give a template that has one. With
    /// [`ToolChoice::None`] the tools are described to the model, if the template describes any.
    #[error("the chat template has no form for tool calls")]
    NoToolCalls,
    /// The name of a tool is empty or has characters that no template expects.
    #[error("`{0}` cannot be the name of a tool: use letters, digits, `_` and `-`")]
    ToolName(String),
    /// Two tools share a name.
    #[error("two tools are named `{0}`")]
    ToolTwice(String),
    /// The parameters of a tool are not the schema of an object.
    #[error("the parameters of the tool `{0}` are not a JSON schema of an object")]
    ToolSchema(String),
    /// A reference in the schema of a tool is not one into that schema, or refers to itself.
    #[error("`{reference}` in the parameters of the tool `{tool}` leads nowhere, or in a circle")]
    ToolReference {
        /// The tool.
        tool: String,
        /// The reference.
        reference: String,
    },
    /// The parameters of a tool are schemas within schemas, beyond what JSON readers follow.
    #[error("the parameters of the tool `{0}` are nested more than 128 deep")]
    ToolDepth(String),
    /// The arguments of a call in the conversation are not a JSON object.
    #[error("the arguments of the call of `{tool}` are not a JSON object: {message}")]
    CallArguments {
        /// The tool that was called.
        tool: String,
        /// What is wrong with the arguments.
        message: String,
    },
}

fn at(line: Option<u32>) -> String {
    line.map(|line| format!(" at line {line}")).unwrap_or_default()
}

/// Why a reply could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the reply is not what the chat template lets a model say: {message}")]
pub struct ReplyError {
    /// The engine's own words.
    pub message: String,
}
