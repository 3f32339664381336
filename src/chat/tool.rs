//! Declaring tools.

use std::collections::HashSet;

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
        if !of_object {
            return Err(TemplateError::ToolSchema(self.name.clone()));
        }
        self.check_references()
    }

    /// Engines follow schemas and references by recursion: to a circle, and to what is deep enough, there is no end.
    fn check_references(&self) -> Result<(), TemplateError> {
        let mut references = References { tool: self, entered: Vec::new(), ends: HashSet::new() };
        let mut waiting = vec![(&self.parameters, 0)];
        while let Some((value, depth)) = waiting.pop() {
            if depth > DEEPEST {
                return Err(TemplateError::ToolDepth(self.name.clone()));
            }
            references.follow(value, 0)?;
            match value {
                Value::Object(fields) => waiting.extend(fields.values().map(|value| (value, depth + 1))),
                Value::Array(values) => waiting.extend(values.iter().map(|value| (value, depth + 1))),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Values within values, and references to references. What `serde_json` reads is no deeper.
const DEEPEST: usize = 128;

/// The references in the schema of a tool, as far as they were looked at.
struct References<'a> {
    tool: &'a Tool,
    /// Those that are being followed.
    entered: Vec<&'a str>,
    /// Those that come to an end.
    ends: HashSet<&'a str>,
}

impl<'a> References<'a> {
    /// Follows the references of what stands at the same place: of a schema, and of those that it is put together of.
    fn follow(&mut self, schema: &'a Value, depth: usize) -> Result<(), TemplateError> {
        if depth > DEEPEST {
            return Err(TemplateError::ToolDepth(self.tool.name.clone()));
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str)
            && !self.ends.contains(reference)
        {
            let target = reference.strip_prefix('#').and_then(|pointer| self.tool.parameters.pointer(pointer));
            let target = target.filter(|_| !self.entered.contains(&reference)).ok_or_else(|| {
                TemplateError::ToolReference { tool: self.tool.name.clone(), reference: reference.to_owned() }
            })?;
            self.entered.push(reference);
            self.follow(target, depth + 1)?;
            self.entered.pop();
            self.ends.insert(reference);
        }
        for keyword in ["allOf", "anyOf", "oneOf"] {
            for schema in schema.get(keyword).and_then(Value::as_array).into_iter().flatten() {
                self.follow(schema, depth + 1)?;
            }
        }
        Ok(())
    }
}
