//! `allOf`, and what else asks for several things at once: several schemas as one.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::{
    ANNOTATIONS, DEEPEST,
    error::{SchemaError, below, invalid, unsupported},
};

/// One schema that accepts what `fields` accepts, without a reference or an `allOf` at its top. What comes of an `anyOf` with
/// keywords beside it is an `anyOf` alone, with these keywords in each of its schemas.
pub(super) fn merge(document: &Value, fields: &Map<String, Value>, pointer: &str) -> Result<Value, SchemaError> {
    let mut parts = Parts { document, list: Vec::new(), entered: Vec::new(), left: HashSet::new() };
    parts.add_fields(fields, pointer, 0)?;
    let mut parts = parts.list;
    let choice = |part: &Map<String, Value>| ["anyOf", "oneOf"].into_iter().find(|key| part.contains_key(*key));
    let first = parts.iter().enumerate().find_map(|(index, part)| Some((index, choice(part)?)));
    let Some((index, keyword)) = first else { return all(&parts, pointer).map(Value::Object) };
    let schemas = parts[index].shift_remove(keyword).unwrap_or_default();
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() {
        return Ok(json!({ keyword: schemas }));
    }
    let schemas = schemas.as_array().ok_or_else(|| invalid(&below(pointer, keyword), "an array that is not empty"))?;
    // Further choices stay as they are, until each of these schemas is merged with them in its turn.
    let (choices, plain): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| choice(part).is_some());
    let mut rest: Vec<Value> = Vec::new();
    if !plain.is_empty() {
        rest.push(all(&plain, pointer)?.into());
    }
    rest.extend(choices.into_iter().map(Value::Object));
    let with_rest = schemas.iter().map(|schema| {
        let all: Vec<&Value> = std::iter::once(schema).chain(&rest).collect();
        json!({ "allOf": all })
    });
    Ok(json!({ keyword: with_rest.collect::<Vec<_>>() }))
}

/// Schemas that must all be kept, without references among them.
struct Parts<'a> {
    document: &'a Value,
    list: Vec<Map<String, Value>>,
    /// References that are being followed: one that comes again leads in a circle.
    entered: Vec<String>,
    /// References that were followed: what they lead to is in the list already.
    left: HashSet<String>,
}

impl Parts<'_> {
    fn add(&mut self, schema: &Value, pointer: &str, depth: usize) -> Result<(), SchemaError> {
        match schema {
            Value::Bool(true) => Ok(()),
            Value::Bool(false) => Err(SchemaError::Impossible(pointer.to_owned())),
            Value::Object(fields) => self.add_fields(fields, pointer, depth + 1),
            _ => Err(invalid(pointer, "an object or a boolean")),
        }
    }

    fn add_fields(&mut self, fields: &Map<String, Value>, pointer: &str, depth: usize) -> Result<(), SchemaError> {
        if depth == DEEPEST {
            return Err(SchemaError::Depth);
        }
        let mut own = fields.clone();
        own.retain(|key, _| key == "format" || !ANNOTATIONS.contains(&key.as_str()));
        let (reference, all_of) = (own.shift_remove("$ref"), own.shift_remove("allOf"));
        if !own.is_empty() {
            self.list.push(own);
        }
        if let Some(reference) = reference {
            self.follow(&reference, &below(pointer, "$ref"), depth)?;
        }
        if let Some(schemas) = all_of {
            let pointer = below(pointer, "allOf");
            let schemas = schemas.as_array().filter(|schemas| !schemas.is_empty());
            for (index, schema) in
                schemas.ok_or_else(|| invalid(&pointer, "an array that is not empty"))?.iter().enumerate()
            {
                self.add(schema, &below(&pointer, &index.to_string()), depth)?;
            }
        }
        Ok(())
    }

    fn follow(&mut self, reference: &Value, pointer: &str, depth: usize) -> Result<(), SchemaError> {
        let (target, schema) = super::target(self.document, reference, pointer)?;
        if self.entered.contains(&target) {
            return Err(SchemaError::Impossible(target));
        }
        if self.left.insert(target.clone()) {
            self.entered.push(target.clone());
            self.add(schema, &target, depth)?;
            self.entered.pop();
        }
        Ok(())
    }
}

/// The keywords of all parts in one schema.
fn all(parts: &[Map<String, Value>], pointer: &str) -> Result<Map<String, Value>, SchemaError> {
    let mut merged = Map::new();
    let has = |part: &Map<String, Value>, key: &str| part.contains_key(key);
    let with_prefix = parts.iter().filter(|part| has(part, "prefixItems")).count();
    let with_items = parts.iter().filter(|part| has(part, "prefixItems") || has(part, "items")).count();
    if with_prefix > 0 && with_items > 1 {
        return Err(unsupported(pointer, "prefixItems together with items of another schema"));
    }
    for (key, value) in parts.iter().flatten() {
        match (key.as_str(), merged.get(key)) {
            // Seen together, below.
            ("properties" | "additionalProperties", _) => {}
            ("const", _) => {
                let one = Value::Array(vec![value.clone()]);
                let values = merged.get("enum").map_or(Ok(one.clone()), |values| common(values, &one, pointer))?;
                merged.insert("enum".to_owned(), values);
            }
            ("enum", Some(before)) => {
                let values = common(before, value, pointer)?;
                merged.insert(key.clone(), values);
            }
            (_, None) => {
                merged.insert(key.clone(), value.clone());
            }
            (_, Some(before)) if before == value => {}
            ("type", Some(before)) => {
                let kinds = common_kinds(before, value, pointer)?;
                merged.insert(key.clone(), kinds);
            }
            ("required", Some(before)) => {
                let mut names = before.as_array().cloned().unwrap_or_default();
                let further = value.as_array().ok_or_else(|| invalid(&below(pointer, key), "an array"))?;
                names.extend(
                    further.iter().filter(|name| !before.as_array().is_some_and(|names| names.contains(name))).cloned(),
                );
                merged.insert(key.clone(), names.into());
            }
            ("items", Some(before)) => {
                let items = both([before, value]);
                merged.insert(key.clone(), items);
            }
            ("minimum" | "exclusiveMinimum" | "minLength" | "minItems", Some(before)) => {
                let larger = if is_below(before, value, &below(pointer, key))? { value } else { before };
                let larger = larger.clone();
                merged.insert(key.clone(), larger);
            }
            ("maximum" | "exclusiveMaximum" | "maxLength" | "maxItems", Some(before)) => {
                let smaller = if is_below(before, value, &below(pointer, key))? { before } else { value };
                let smaller = smaller.clone();
                merged.insert(key.clone(), smaller);
            }
            _ => return Err(unsupported(pointer, &format!("allOf with another `{key}`"))),
        }
    }
    merge_properties(parts, &mut merged, pointer)?;
    Ok(merged)
}

/// A property must keep what each part says of it: by its name, or else of all that the part does not name.
fn merge_properties(
    parts: &[Map<String, Value>],
    merged: &mut Map<String, Value>,
    pointer: &str,
) -> Result<(), SchemaError> {
    let mut properties = Map::new();
    for part in parts {
        let Some(own) = part.get("properties") else { continue };
        let own = own.as_object().ok_or_else(|| invalid(&below(pointer, "properties"), "an object"))?;
        for name in own.keys() {
            if !properties.contains_key(name) {
                let said = parts.iter().filter_map(|part| {
                    part.get("properties").and_then(|own| own.get(name)).or_else(|| part.get("additionalProperties"))
                });
                properties.insert(name.clone(), both(said));
            }
        }
    }
    if !properties.is_empty() || parts.iter().any(|part| part.contains_key("properties")) {
        merged.insert("properties".to_owned(), properties.into());
    }
    let mut others = parts.iter().filter_map(|part| part.get("additionalProperties")).peekable();
    if others.peek().is_some() {
        merged.insert("additionalProperties".to_owned(), both(others));
    }
    Ok(())
}

/// A schema of what fits all of these.
fn both<'a>(schemas: impl IntoIterator<Item = &'a Value>) -> Value {
    let mut different: Vec<&Value> = Vec::new();
    for schema in schemas {
        match schema {
            Value::Bool(false) => return Value::Bool(false),
            Value::Bool(true) => {}
            schema if different.contains(&schema) => {}
            schema => different.push(schema),
        }
    }
    match different.as_slice() {
        [] => Value::Bool(true),
        [one] => (*one).clone(),
        several => json!({ "allOf": several }),
    }
}

fn common(left: &Value, right: &Value, pointer: &str) -> Result<Value, SchemaError> {
    let list = |values: &Value| values.as_array().cloned().ok_or_else(|| invalid(&below(pointer, "enum"), "an array"));
    let (mut left, right) = (list(left)?, list(right)?);
    left.retain(|value| right.contains(value));
    if left.is_empty() { Err(SchemaError::Impossible(pointer.to_owned())) } else { Ok(left.into()) }
}

/// The types that both allow: every integer is a number.
fn common_kinds(left: &Value, right: &Value, pointer: &str) -> Result<Value, SchemaError> {
    let list = |kinds: &Value| match kinds {
        Value::Array(kinds) => kinds.clone(),
        kind => vec![kind.clone()],
    };
    let (left, right) = (list(left), list(right));
    let mut kinds: Vec<Value> = left.iter().filter(|kind| right.contains(kind)).cloned().collect();
    let one_has =
        |kinds: &[Value], others: &[Value]| kinds.contains(&json!("integer")) && others.contains(&json!("number"));
    if !kinds.contains(&json!("integer"))
        && !kinds.contains(&json!("number"))
        && (one_has(&left, &right) || one_has(&right, &left))
    {
        kinds.push(json!("integer"));
    }
    if kinds.is_empty() { Err(SchemaError::Impossible(pointer.to_owned())) } else { Ok(kinds.into()) }
}

fn is_below(left: &Value, right: &Value, pointer: &str) -> Result<bool, SchemaError> {
    // Whole numbers of more than 53 bits are compared as what they are.
    let whole = |value: &Value| value.as_i64().map(i128::from).or(value.as_u64().map(i128::from));
    let number = |value: &Value| value.as_f64().ok_or_else(|| invalid(pointer, "a number"));
    Ok(match (whole(left), whole(right)) {
        (Some(left), Some(right)) => left < right,
        _ => number(left)? < number(right)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(schema: Value) -> Result<Value, SchemaError> {
        merge(&schema, schema.as_object().unwrap(), "")
    }

    #[test]
    fn bounds_become_narrower_and_types_fewer() {
        let schema = json!({"allOf": [
            {"type": ["number", "null"], "minimum": 1, "maximum": 9.5},
            {"type": ["integer", "string"], "minimum": 2, "maximum": 12},
        ]});
        assert_eq!(merged(schema), Ok(json!({"type": ["integer"], "minimum": 2, "maximum": 9.5})));
        let schema =
            json!({"allOf": [{"minLength": 2, "maxLength": 5}, {"minLength": 1, "maxLength": 4, "pattern": "a"}]});
        assert_eq!(merged(schema), Ok(json!({"minLength": 2, "maxLength": 4, "pattern": "a"})));
        let constants = json!({"allOf": [{"enum": [1, 2, 3]}, {"const": 2}, {"enum": [2, 3]}]});
        assert_eq!(merged(constants), Ok(json!({"enum": [2]})));
    }

    #[test]
    fn a_property_keeps_what_every_part_says_of_it() {
        let (a, b, c) = (json!({"minimum": 1}), json!({"maximum": 2}), json!({"type": "null"}));
        let schema = json!({"allOf": [
            {"properties": {"x": a, "y": a}, "required": ["x"], "additionalProperties": false},
            {"properties": {"y": b, "z": c}, "required": ["x", "y"]},
            {"additionalProperties": c},
        ]});
        assert_eq!(
            merged(schema),
            Ok(json!({
                "required": ["x", "y"],
                "properties": {"x": {"allOf": [a, c]}, "y": {"allOf": [a, b, c]}, "z": false},
                "additionalProperties": false,
            }))
        );
    }

    #[test]
    fn references_are_followed_once_and_not_in_a_circle() {
        let schema = json!({
            "$defs": {"a": {"minimum": 1, "$ref": "#/$defs/b"}, "b": {"maximum": 2}},
            "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b", "title": "B"}, {"$ref": "#/$defs/a"}],
        });
        assert_eq!(merged(schema), Ok(json!({"minimum": 1, "maximum": 2})));
        let circle = json!({"allOf": [{"type": "string"}, {"$ref": "#"}]});
        assert_eq!(merged(circle), Err(SchemaError::Impossible(String::new())));
    }

    #[test]
    fn what_stands_beside_a_choice_holds_for_each() {
        let schema = json!({"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}]});
        let rest = json!({"type": "object"});
        assert_eq!(
            merged(schema),
            Ok(json!({"anyOf": [{"allOf": [{"required": ["a"]}, rest]}, {"allOf": [{"required": ["b"]}, rest]}]}))
        );
        let (a, b, c) = (json!({"minimum": 1}), json!({"maximum": 2}), json!({"type": "integer"}));
        let two = json!({"allOf": [{"anyOf": [a, b]}, {"oneOf": [b, a], "type": "integer"}]});
        let other = json!({"oneOf": [b, a], "type": "integer"});
        assert_eq!(merged(two), Ok(json!({"anyOf": [{"allOf": [a, other]}, {"allOf": [b, other]}]})));
        let other = json!({"oneOf": [a, b]});
        let three = json!({"anyOf": [a, b], "allOf": [c, other]});
        assert_eq!(merged(three), Ok(json!({"anyOf": [{"allOf": [a, c, other]}, {"allOf": [b, c, other]}]})));
    }

    #[test]
    fn what_cannot_be_merged_is_an_error() {
        let patterns = json!({"allOf": [{"pattern": "a"}, {"pattern": "b"}]});
        assert_eq!(merged(patterns), Err(unsupported("", "allOf with another `pattern`")));
        for impossible in
            [json!({"allOf": [{"type": "string"}, {"type": "null"}]}), json!({"allOf": [{"const": 1}, {"const": 2}]})]
        {
            assert_eq!(merged(impossible), Err(SchemaError::Impossible(String::new())));
        }
        let nowhere = json!({"type": "string", "$ref": "#/$defs/no"});
        assert!(matches!(merged(nowhere), Err(SchemaError::Reference { .. })));
    }
}
