//! Schemas of which no value fits both: what makes a `oneOf` an `anyOf`.

use serde_json::Value;

use super::Writer;

impl Writer<'_> {
    /// Whether it is plain that no value fits both; of what must fit several schemas, one is enough.
    pub(super) fn exclude_each_other(&self, left: &Value, right: &Value) -> bool {
        let (left, right) = (self.parts(left), self.parts(right));
        left.iter().any(|left| right.iter().any(|right| self.exclude_each_other_alone(left, right)))
    }

    fn parts<'b>(&'b self, schema: &'b Value) -> Vec<&'b Value> {
        match self.followed(schema)["allOf"].as_array() {
            Some(parts) => parts.iter().collect(),
            None => vec![schema],
        }
    }

    /// Whether it is plain that no value fits both: other types, other constants, or other constants in a property that both
    /// ask for.
    fn exclude_each_other_alone(&self, left: &Value, right: &Value) -> bool {
        let (left, right) = (self.followed(left), self.followed(right));
        if let (Some(left), Some(right)) = (constants_of(left), constants_of(right)) {
            return !left.iter().any(|value| right.contains(value));
        }
        if let (Some(left), Some(right)) = (types_of(left), types_of(right))
            && !left.iter().any(|kind| right.iter().any(|other| overlap(kind, other)))
        {
            return true;
        }
        let required = |schema: &Value, name: &str| {
            schema["required"].as_array().is_some_and(|names| names.iter().any(|other| other == name))
        };
        let of_objects = |schema: &Value| types_of(schema).is_some_and(|types| types == ["object"]);
        of_objects(left)
            && of_objects(right)
            && left["properties"].as_object().into_iter().flatten().any(|(name, property)| {
                let other = &right["properties"][name];
                required(left, name)
                    && required(right, name)
                    && !other.is_null()
                    && self.exclude_each_other_plainly(property, other)
            })
    }

    fn exclude_each_other_plainly(&self, left: &Value, right: &Value) -> bool {
        match (constants_of(self.followed(left)), constants_of(self.followed(right))) {
            (Some(left), Some(right)) => !left.iter().any(|value| right.contains(value)),
            _ => false,
        }
    }

    /// The schema that a reference leads to, over at most a few references.
    fn followed<'b>(&'b self, mut schema: &'b Value) -> &'b Value {
        for _ in 0..8 {
            let target = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
            match target.and_then(|target| self.document.pointer(target)) {
                Some(target) => schema = target,
                None => break,
            }
        }
        schema
    }
}

fn constants_of(schema: &Value) -> Option<Vec<&Value>> {
    let one = schema.get("const").map(|value| vec![value]);
    one.or_else(|| schema.get("enum")?.as_array().map(|values| values.iter().collect()))
}

fn types_of(schema: &Value) -> Option<Vec<&str>> {
    match schema.get("type") {
        Some(Value::String(kind)) => Some(vec![kind]),
        Some(Value::Array(kinds)) => kinds.iter().map(Value::as_str).collect(),
        _ => Some(constants_of(schema)?.into_iter().map(kind_of).collect()),
    }
}

/// Whether a value can have both types: every integer is a number.
fn overlap(left: &str, right: &str) -> bool {
    left == right || matches!((left, right), ("number", "integer") | ("integer", "number"))
}

pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
