//! Arrays and objects.

use serde_json::{Map, Value};

use super::{
    CHARACTER, Writer,
    error::{SchemaError, below, invalid, unsupported},
};
use crate::grammar::{notation::literal, regex::MOST};

/// A schema that every value fits.
static ANYTHING: Value = Value::Bool(true);

impl Writer<'_> {
    pub(super) fn array(&mut self, fields: &Map<String, Value>, pointer: &str) -> Result<String, SchemaError> {
        if fields.get("uniqueItems").is_some_and(|unique| *unique != Value::Bool(false)) {
            return Err(unsupported(pointer, "uniqueItems"));
        }
        let (least, most) = (count(fields, "minItems", pointer)?, count(fields, "maxItems", pointer)?);
        let tuple = match fields.get("prefixItems") {
            None => &[][..],
            Some(items) => items.as_array().ok_or_else(|| invalid(&below(pointer, "prefixItems"), "an array"))?,
        };
        if !tuple.is_empty() {
            // All of them and no more, which must be within the bounds.
            let length = tuple.len() as u64;
            if least.is_some_and(|least| least > length) || most.is_some_and(|most| most < length) {
                return Err(unsupported(pointer, "prefixItems together with another length"));
            }
            let mut parts = Vec::new();
            for (index, item) in tuple.iter().enumerate() {
                parts.push(self.value(item, &below(&below(pointer, "prefixItems"), &index.to_string()))?);
            }
            let space = self.space();
            return Ok(format!("\"[\" {space} {} {space} \"]\"", parts.join(&format!(" \",\" {space} "))));
        }
        if most.is_some_and(|most| most < least.unwrap_or(0)) {
            return Err(SchemaError::Impossible(pointer.to_owned()));
        }
        let space = self.space();
        let item = match fields.get("items") {
            None => self.any(),
            Some(Value::Bool(false)) if least.unwrap_or(0) == 0 => return Ok(format!("\"[\" {space} \"]\"")),
            Some(_) if most == Some(0) => return Ok(format!("\"[\" {space} \"]\"")),
            Some(items) => self.value(items, &below(pointer, "items"))?,
        };
        if most == Some(0) {
            return Ok(format!("\"[\" {space} \"]\""));
        }
        let item = self.rules.add("item", item);
        let further = self.rules.add("further", format!("\",\" {space} {item}"));
        let (least, most) = (least.unwrap_or(0), most.map(|most| most - 1));
        let items = format!("{item} {}", repeated(&further, Some(least.saturating_sub(1)), most, pointer)?);
        let items = if least == 0 { format!("({items})?") } else { items };
        Ok(format!("\"[\" {space} {items} {space} \"]\""))
    }

    pub(super) fn object(&mut self, fields: &Map<String, Value>, pointer: &str) -> Result<String, SchemaError> {
        let at = below(pointer, "properties");
        let required = match fields.get("required") {
            None => Vec::new(),
            Some(names) => {
                let at = below(pointer, "required");
                let names = names.as_array().ok_or_else(|| invalid(&at, "an array"))?;
                let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
                names.ok_or_else(|| invalid(&at, "an array of texts"))?
            }
        };
        let properties = match fields.get("properties") {
            None => None,
            Some(properties) => Some(properties.as_object().ok_or_else(|| invalid(&at, "an object"))?),
        };
        let others = fields.get("additionalProperties");
        let mut members = Vec::new();
        for (name, schema) in properties.into_iter().flatten() {
            let is_required = required.contains(&name.as_str());
            // What no value fits can only be left out.
            if *schema != Value::Bool(false) || is_required {
                members.push((self.member(name, schema, &below(&at, name))?, is_required));
            }
        }
        for name in required {
            if properties.is_none_or(|properties| !properties.contains_key(name)) {
                let schema = others.unwrap_or(&ANYTHING);
                members.push((self.member(name, schema, &below(pointer, "additionalProperties"))?, true));
            }
        }
        let space = self.space();
        let inner = match members.is_empty() {
            false => self.members(&members),
            // Nothing is named: a map, unless there can be nothing in it.
            true if others == Some(&Value::Bool(false))
                || properties.is_some_and(|properties| !properties.is_empty()) =>
            {
                "\"\"".to_owned()
            }
            true => {
                let value = self.value(others.unwrap_or(&ANYTHING), &below(pointer, "additionalProperties"))?;
                self.map(&value)
            }
        };
        Ok(format!("\"{{\" {space} {inner} {space} \"}}\""))
    }

    fn member(&mut self, name: &str, schema: &Value, pointer: &str) -> Result<String, SchemaError> {
        let value = self.value(schema, pointer)?;
        let key = literal(&format!("{}:", Value::from(name)));
        let space = self.space();
        Ok(self.rules.add(&format!("{name}-member"), format!("{key} {space} {value}")))
    }

    /// The members in their order, of which those that are not required may be missing.
    fn members(&mut self, members: &[(String, bool)]) -> String {
        let space = self.space();
        // From the last to the first: what may follow a member, and what may come where none has been yet.
        let (mut after, mut first) = ("\"\"".to_owned(), Some("\"\"".to_owned()));
        for (member, is_required) in members.iter().rev() {
            let alone = format!("{member} {after}");
            first = Some(match first.filter(|_| !is_required) {
                Some(without) => self.rules.add("first", format!("{alone} | {without}")),
                None => self.rules.add("first", alone),
            });
            let next = format!("\",\" {space} {member}");
            let body = if *is_required { format!("{next} {after}") } else { format!("({next})? {after}") };
            after = self.rules.add("after", body);
        }
        first.unwrap_or_default()
    }

    pub(super) fn map(&mut self, value: &str) -> String {
        let character = self.rules.add("char", CHARACTER.to_owned());
        let space = self.space();
        let key = self.rules.add("key", format!("\"\\\"\" {character}* \"\\\":\""));
        let entry = self.rules.add("entry", format!("{key} {space} {value}"));
        format!("({entry} (\",\" {space} {entry})*)?")
    }
}

/// A rule so often: as often as the bounds say, or as a grammar can count.
pub(super) fn repeated(
    rule: &str,
    least: Option<u64>,
    most: Option<u64>,
    pointer: &str,
) -> Result<String, SchemaError> {
    let least = least.unwrap_or(0);
    if most.is_some_and(|most| most < least) {
        return Err(SchemaError::Impossible(pointer.to_owned()));
    }
    if least > u64::from(MOST) {
        return Err(unsupported(pointer, &format!("a length of at least {least}")));
    }
    Ok(match (least, most) {
        (0, None) => format!("{rule}*"),
        (least, None) => format!("{rule}{{{least},}}"),
        (least, Some(most)) => format!("{rule}{{{least},{}}}", most.min(u64::from(MOST))),
    })
}

pub(super) fn count(fields: &Map<String, Value>, keyword: &str, pointer: &str) -> Result<Option<u64>, SchemaError> {
    match fields.get(keyword) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| invalid(&below(pointer, keyword), "a whole number")),
    }
}
