//! Declaring tools.

use schemars::JsonSchema;
use serde_json::Value;

use super::{TemplateError, Tool};

impl Tool {
    /// A tool whose arguments are a `T`: the model is given its schema, with the comments on its fields.
    pub fn of<T: JsonSchema>(name: impl Into<String>, description: impl Into<String>) -> Self {
        Self::new(name, description, crate::grammar::schema_of::<T>())
    }

    /// A tool whose arguments fit a JSON schema, which must be one of an object.
    pub fn new(name: impl Into<String>, description: impl Into<String>, parameters: Value) -> Self {
        Self { name: name.into(), description: description.into(), parameters }
    }

    pub(super) fn check(&self) -> Result<(), TemplateError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if self.name.is_empty() || !self.name.chars().all(fits) {
            return Err(TemplateError::ToolName(self.name.clone()));
        }
        let schema = self.parameters.as_object();
        // A schema without a type may still be one: without properties either, it is a tool without arguments.
        let of_object = schema.is_some_and(|schema| match schema.get("type") {
            Some(kind) => kind == "object",
            None => schema.is_empty() || schema.contains_key("properties"),
        });
        of_object.then_some(()).ok_or_else(|| TemplateError::ToolSchema(self.name.clone()))
    }
}
