//! The template that writes a conversation as a prompt.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    Message, PromptEnding, RenderedPrompt, Role, TemplateAbilities, TemplateError, TemplateSource, Tool, ToolChoice,
};
use crate::{
    backend::{CompiledTemplate, RenderRequest},
    select::Registry,
    tokenizer::Tokenizer,
};

/// A chat template, ready to write prompts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    plain: Arc<dyn CompiledTemplate>,
    /// Some models have a second template, for conversations with tools.
    tool_use: Option<Arc<dyn CompiledTemplate>>,
}

impl ChatTemplate {
    /// The template that comes with the model of `tokenizer`.
    ///
    /// # Errors
    ///
    /// [`TemplateError::Missing`] when there is none; then give one with [`parse`](Self::parse).
    pub fn of(tokenizer: &Tokenizer) -> Result<Self, TemplateError> {
        let source = |text| tokenizer.template_source(text);
        let tool_use = tokenizer.chat_template(Some("tool_use"));
        let plain = tokenizer.chat_template(None).or_else(|| tool_use.clone()).ok_or(TemplateError::Missing)?;
        let plain = compile(&source(plain))?;
        let tool_use = tool_use.map(|text| compile(&source(text))).transpose()?;
        Ok(Self { plain, tool_use })
    }

    /// A template of one's own.
    ///
    /// # Errors
    ///
    /// [`TemplateError::Syntax`] when it is not Jinja that the engine understands.
    pub fn parse(source: &TemplateSource) -> Result<Self, TemplateError> {
        Ok(Self { plain: compile(source)?, tool_use: None })
    }

    /// What the template can express.
    pub fn abilities(&self) -> TemplateAbilities {
        let plain = self.plain.abilities();
        match &self.tool_use {
            Some(tool_use) => TemplateAbilities { system_role: plain.system_role, ..tool_use.abilities() },
            None => plain,
        }
    }

    /// Writes a conversation as a prompt.
    ///
    /// # Errors
    ///
    /// [`TemplateError`]: the tools make no sense, the template has no form for them, or it refuses the conversation.
    pub fn render(&self, prompt: &ChatPrompt) -> Result<RenderedPrompt, TemplateError> {
        prompt.check()?;
        let template = match &self.tool_use {
            Some(tool_use) if !prompt.tools.is_empty() => tool_use,
            _ => &self.plain,
        };
        let render = |choice: &ToolChoice| {
            template.render(&RenderRequest {
                messages: &prompt.messages,
                tools: &prompt.tools,
                tool_choice: choice.clone(),
                parallel_tool_calls: prompt.parallel_tool_calls,
                ending: prompt.ending,
                thinking: prompt.thinking,
                arguments: &prompt.arguments,
            })
        };
        let rendered = render(&prompt.tool_choice)?;
        let has_no_form = match prompt.tool_choice {
            _ if rendered.grammar.is_some() || prompt.tools.is_empty() => false,
            ToolChoice::None => false,
            // A form without a marker sets no grammar to work: one that must be kept tells whether there is a form at all.
            ToolChoice::Auto => render(&ToolChoice::Required)?.grammar.is_none(),
            ToolChoice::Required | ToolChoice::Named(_) => true,
        };
        if has_no_form { Err(TemplateError::NoToolCalls) } else { Ok(rendered) }
    }
}

/// What is to be written as a prompt.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ChatPrompt {
    /// The conversation.
    pub messages: Vec<Message>,
    /// The tools that the model may call (default: none).
    pub tools: Vec<Tool>,
    /// Whether it may, or must (default: as it sees fit).
    pub tool_choice: ToolChoice,
    /// Whether it may make several calls in one reply (default: no).
    pub parallel_tool_calls: bool,
    /// How the prompt ends (default: with the beginning of the reply).
    pub ending: PromptEnding,
    /// Whether a model that can reason does (default: yes).
    pub thinking: bool,
    /// Further variables of the template (default: none).
    pub arguments: Map<String, Value>,
}

impl ChatPrompt {
    /// A prompt of these messages.
    pub fn new(messages: Vec<Message>) -> Self {
        Self {
            messages,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: false,
            ending: PromptEnding::Reply,
            thinking: true,
            arguments: Map::new(),
        }
    }

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

    /// Sets how the prompt ends.
    pub fn with_ending(mut self, ending: PromptEnding) -> Self {
        self.ending = ending;
        self
    }

    /// Sets whether a model that can reason does.
    pub fn with_thinking(mut self, thinking: bool) -> Self {
        self.thinking = thinking;
        self
    }

    /// Sets a variable of the template.
    pub fn with_argument(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.arguments.insert(name.into(), value.into());
        self
    }

    /// What no template could make sense of.
    fn check(&self) -> Result<(), TemplateError> {
        for (index, tool) in self.tools.iter().enumerate() {
            tool.check()?;
            if self.tools[..index].iter().any(|other| other.name == tool.name) {
                return Err(TemplateError::ToolTwice(tool.name.clone()));
            }
        }
        match &self.tool_choice {
            ToolChoice::Required if self.tools.is_empty() => return Err(TemplateError::NoTools),
            ToolChoice::Named(name) if !self.tools.iter().any(|tool| tool.name == *name) => {
                return Err(TemplateError::NoSuchTool(name.clone()));
            }
            _ => {}
        }
        let can_go_on = |message: &Message| message.role == Role::Assistant && message.tool_calls.is_empty();
        if self.ending == PromptEnding::Continue && !self.messages.last().is_some_and(can_go_on) {
            return Err(TemplateError::NothingToContinue);
        }
        for call in self.messages.iter().flat_map(|message| &message.tool_calls) {
            serde_json::from_str::<Map<String, Value>>(&call.arguments).map_err(|error| {
                TemplateError::CallArguments { tool: call.name.clone(), message: error.to_string() }
            })?;
        }
        Ok(())
    }
}

fn compile(source: &TemplateSource) -> Result<Arc<dyn CompiledTemplate>, TemplateError> {
    let registry = Registry::global().map_err(|_| TemplateError::Unsupported)?;
    registry.iter().find_map(|backend| backend.chat_template(source)).ok_or(TemplateError::Unsupported)?
}
