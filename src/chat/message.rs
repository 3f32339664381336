//! Making and reading messages.

use std::{fmt, str::FromStr};

use serde::de::DeserializeOwned;

use super::{Message, Reply, Role, ToolCall};

impl Message {
    /// A message of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            reasoning: String::new(),
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
        }
    }

    /// Instructions for the whole conversation.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    /// What the user says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// What the model said, or the beginning of what it shall say.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// What came of a call.
    pub fn tool_result(call: &ToolCall, content: impl Into<String>) -> Self {
        let (id, name) = (Some(call.id.clone()), Some(call.name.clone()));
        Self { tool_call_id: id, name, ..Self::new(Role::Tool, content) }
    }

    /// Adds the calls that the assistant makes.
    pub fn with_tool_calls(mut self, calls: Vec<ToolCall>) -> Self {
        self.tool_calls = calls;
        self
    }

    /// Sets what the assistant thought before.
    pub fn with_reasoning(mut self, reasoning: impl Into<String>) -> Self {
        self.reasoning = reasoning.into();
        self
    }
}

impl From<Reply> for Message {
    fn from(reply: Reply) -> Self {
        Self::assistant(reply.content).with_reasoning(reply.reasoning).with_tool_calls(reply.tool_calls)
    }
}

impl ToolCall {
    /// The arguments as a value of a type.
    ///
    /// # Errors
    ///
    /// [`ArgumentsError`] when they are not one. A grammar keeps a model to the schema that it was given, so this tells of
    /// a schema that does not describe `T`, of a reply that was cut off, or of a rule that llama.cpp's converter does not read:
    /// [`ToolChoice::Auto`](super::ToolChoice::Auto) says which.
    pub fn arguments_as<T: DeserializeOwned>(&self) -> Result<T, ArgumentsError> {
        serde_json::from_str(&self.arguments).map_err(|source| ArgumentsError { tool: self.name.clone(), source })
    }
}

/// The arguments of a call do not fit the type that was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the arguments of the call of `{tool}` do not fit")]
pub struct ArgumentsError {
    /// The tool that was called.
    pub tool: String,
    /// What does not fit.
    #[source]
    pub source: serde_json::Error,
}

impl Role {
    /// The name that templates use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Self, UnknownRole> {
        const ALL: [Role; 5] = [Role::System, Role::Developer, Role::User, Role::Assistant, Role::Tool];
        ALL.into_iter().find(|role| role.as_str() == name).ok_or_else(|| UnknownRole(name.to_owned()))
    }
}

/// There is no such role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role; there are system, developer, user, assistant and tool")]
pub struct UnknownRole(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_read_by_the_name_it_is_written_with() {
        for role in [Role::System, Role::Developer, Role::User, Role::Assistant, Role::Tool] {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert_eq!("sytem".parse::<Role>(), Err(UnknownRole("sytem".to_owned())));
    }

    #[test]
    fn messages_are_read_from_json_and_written_to_it() {
        let text = r#"[{"role":"user","content":"Hi"},{"role":"assistant","content":"","tool_calls":[{"id":"1","name":"f","arguments":"{}"}]}]"#;
        let messages: Vec<Message> = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&messages).unwrap(), text);
    }
}
