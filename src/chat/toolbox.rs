//! Tools with the functions behind them, and the loop that runs them.

use std::{fmt, num::NonZeroU32, ops::ControlFlow};

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{ChatError, ChatReply, ChatSession, Message, ReplyEvent, ReplyOptions, Tool, ToolCall, ToolChoice};
use crate::generation::FinishReason;

/// Tools, each with the function that does its work.
#[derive(Default)]
pub struct Toolbox {
    tools: Vec<Tool>,
    functions: Vec<Function>,
}

/// Takes the arguments of a call and returns the text of its result.
type Function = Box<dyn FnMut(&ToolCall) -> String + Send>;

impl Toolbox {
    /// Without tools.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tool whose arguments are an `A`. What `function` returns goes to the model as JSON, an error as its text: it can
    /// try again. Arguments that do not fit are such an error.
    pub fn with<A, R, E>(
        self,
        name: impl Into<String>,
        description: impl Into<String>,
        function: impl FnMut(A) -> Result<R, E> + Send + 'static,
    ) -> Self
    where
        A: DeserializeOwned + JsonSchema,
        R: Serialize,
        E: fmt::Display,
    {
        self.with_tool(Tool::of::<A>(name, description), function)
    }

    /// Adds a tool that is declared already, by a JSON schema say: [`Tool::new`]. Otherwise as [`with`](Self::with); the
    /// arguments may be taken as a [`Value`](serde_json::Value).
    pub fn with_tool<A, R, E>(
        mut self,
        tool: Tool,
        mut function: impl FnMut(A) -> Result<R, E> + Send + 'static,
    ) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        E: fmt::Display,
    {
        self.tools.push(tool);
        self.functions.push(Box::new(move |call| {
            let failed = |error: String| json!({ "error": error }).to_string();
            match call.arguments_as::<A>() {
                Err(error) => failed(format!("{error}: {}", error.source)),
                Ok(arguments) => match function(arguments) {
                    Err(error) => failed(error.to_string()),
                    Ok(result) => serde_json::to_string(&result).unwrap_or_else(|error| failed(error.to_string())),
                },
            }
        }));
        self
    }

    /// The tools.
    pub fn tools(&self) -> &[Tool] {
        &self.tools
    }

    /// Runs a call, and returns the message with its result.
    pub fn run(&mut self, call: &ToolCall) -> Message {
        let index = self.tools.iter().position(|tool| tool.name == call.name);
        let result = match index.and_then(|index| self.functions.get_mut(index)) {
            Some(function) => function(call),
            None => json!({ "error": format!("there is no tool `{}`", call.name) }).to_string(),
        };
        Message::tool_result(call, result)
    }
}

impl fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Toolbox").field("tools", &self.tools).finish_non_exhaustive()
    }
}

impl ChatSession {
    /// Has the model reply, runs the calls that it makes and gives it their results, until it replies without one.
    ///
    /// A call that was asked for (`required`, or a named tool) is asked for in the first round only. Calls, results and the
    /// reply are added to the conversation. Where `on_event` breaks off, at a call that it will not have say, nothing is run any
    /// more: the reply has ended as [`FinishReason::BrokenOff`], with the calls that were complete.
    ///
    /// # Errors
    ///
    /// [`ChatError`]; [`ChatError::Rounds`] when the model still makes calls after `rounds` replies. The calls that were run, and
    /// their results, stay in the conversation: what they did is done.
    pub fn reply_with_tools(
        &mut self,
        toolbox: &mut Toolbox,
        options: &ReplyOptions,
        rounds: NonZeroU32,
        mut on_event: impl FnMut(&ReplyEvent) -> ControlFlow<()>,
    ) -> Result<ChatReply, ChatError> {
        let mut options = options.clone().with_tools(toolbox.tools().to_vec());
        for _ in 0..rounds.get() {
            let reply = self.reply(&options, &mut on_event)?;
            if reply.finish != FinishReason::ToolCalls {
                return Ok(reply);
            }
            for call in &reply.message.tool_calls {
                let result = toolbox.run(call);
                self.push(result);
            }
            if options.tool_choice != ToolChoice::None {
                options.tool_choice = ToolChoice::Auto;
            }
        }
        Err(ChatError::Rounds(rounds.get()))
    }
}
