//! JSON schemas to GBNF.
//!
//! What comes out is a part of what the schema accepts, never more: objects have the properties that the schema names, in its
//! order, and no others; numbers have few digits; `\u` escapes are not used.

mod all_of;
mod error;
mod exclusion;
mod nested;
mod scalar;

use std::collections::HashMap;

use serde_json::{Map, Value};

pub use self::error::SchemaError;
use self::error::{below, invalid, unsupported};
use super::{
    gbnf::{self, GrammarDefect},
    notation::{Rules, any_of},
};

/// Schemas within schemas. What `serde_json` reads is no deeper.
const DEEPEST: usize = 128;
/// Schemas that are made of several. Choices that must all be kept multiply.
const MOST_MERGED: usize = 2000;
/// Blanks between the parts: none, one, or a line break and what indents the next line.
const SPACE: &str = r#"(" " | "\n" [ \t]{0,20})?"#;
/// A character of a string. Code points of surrogates are in no string that Rust reads.
const CHARACTER: &str = r##"[\U00000020-\U00000021\U00000023-\U0000005B\U0000005D-\U0000007E\U00000080-\U0000D7FF\U0000E000-\U0010FFFF] | "\\" ["\\/bfnrt]"##;
/// A number that every reader takes, with few digits.
const NUMBER: &str = r#""-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?"#;

/// Keywords that say nothing about which values fit.
const ANNOTATIONS: [&str; 18] = [
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "$anchor",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "format",
    "nullable",
];

/// The grammar of the JSON texts that `schema` accepts.
pub(super) fn grammar_of(schema: &Value) -> Result<String, SchemaError> {
    let mut writer = Writer::new(schema);
    let root = writer.rules.reserve("root");
    let body = writer.value(schema, "")?;
    writer.rules.define(&root, body);
    let mut pointers = writer.pointers;
    let text = writer.rules.into_gbnf();
    // The rules are well formed; what remains to be found is one that has no end.
    gbnf::parse(&text).map_err(|error| {
        let endless = match &error.defect {
            GrammarDefect::Endless(rule) | GrammarDefect::LeftRecursion(rule) => rule.as_str(),
            _ => "",
        };
        SchemaError::Impossible(pointers.remove(endless).unwrap_or_default())
    })?;
    Ok(text)
}

/// The grammar of any object or array.
pub(super) fn any_json() -> String {
    let nothing = Value::Bool(true);
    let mut writer = Writer::new(&nothing);
    let root = writer.rules.reserve("root");
    writer.any();
    writer.rules.define(&root, "any-object | any-array".to_owned());
    writer.rules.into_gbnf()
}

struct Writer<'a> {
    document: &'a Value,
    rules: Rules,
    /// Rules of what `$ref` refers to, by pointer; and of what was merged, by itself.
    references: HashMap<String, String>,
    /// Where in the schema these rules come from.
    pointers: HashMap<String, String>,
    depth: usize,
    /// Schemas that were made of several.
    merged: usize,
}

impl<'a> Writer<'a> {
    fn new(document: &'a Value) -> Self {
        let (references, pointers) = (HashMap::new(), HashMap::new());
        Self { document, rules: Rules::default(), references, pointers, depth: 0, merged: 0 }
    }

    /// What a value of this schema may look like.
    fn value(&mut self, schema: &Value, pointer: &str) -> Result<String, SchemaError> {
        if self.depth == DEEPEST {
            return Err(SchemaError::Depth);
        }
        self.depth += 1;
        let written = match schema {
            Value::Bool(true) => Ok(self.any()),
            Value::Bool(false) => Err(SchemaError::Impossible(pointer.to_owned())),
            Value::Object(fields) => self.fields(fields, pointer),
            _ => Err(invalid(pointer, "an object or a boolean")),
        };
        self.depth -= 1;
        written
    }

    fn fields(&mut self, fields: &Map<String, Value>, pointer: &str) -> Result<String, SchemaError> {
        let rest = |handled: &[&str]| {
            let left = |key: &&String| !handled.contains(&key.as_str()) && !ANNOTATIONS.contains(&key.as_str());
            match fields.keys().find(left) {
                Some(keyword) => Err(unsupported(pointer, keyword)),
                None => Ok(()),
            }
        };
        let combines = ["$ref", "allOf", "anyOf", "oneOf"].iter().any(|key| fields.contains_key(*key));
        if combines && fields.keys().filter(|key| !ANNOTATIONS.contains(&key.as_str())).count() > 1 {
            return self.all_of(fields, pointer);
        }
        if let Some(reference) = fields.get("$ref") {
            return self.reference(reference, pointer);
        }
        if let Some(value) = fields.get("const") {
            rest(&["const", "type"])?;
            return scalar::constants(std::slice::from_ref(value), fields, pointer);
        }
        if let Some(values) = fields.get("enum") {
            rest(&["enum", "type"])?;
            let values = values.as_array().ok_or_else(|| invalid(&below(pointer, "enum"), "an array"))?;
            return scalar::constants(values, fields, pointer);
        }
        if let Some(schemas) = fields.get("allOf") {
            return match schemas.as_array().map(Vec::as_slice) {
                Some([one]) => self.value(one, &below(&below(pointer, "allOf"), "0")),
                _ => self.all_of(fields, pointer),
            };
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(schemas) = fields.get(keyword) {
                return self.combination(keyword, schemas, &below(pointer, keyword));
            }
        }
        let kinds = kinds_of(fields, pointer)?;
        let mut alternatives = Vec::new();
        for kind in &kinds {
            alternatives.push(self.of_kind(kind, fields, pointer)?);
        }
        match alternatives.is_empty() {
            true => {
                rest(&[])?;
                Ok(self.any())
            }
            false => Ok(any_of(alternatives)),
        }
    }

    fn of_kind(&mut self, kind: &str, fields: &Map<String, Value>, pointer: &str) -> Result<String, SchemaError> {
        // Keywords of the other types say nothing about this one; those that are unknown are never skipped.
        let known = |key: &str| KINDS.iter().any(|(_, keywords)| keywords.contains(&key)) || ANNOTATIONS.contains(&key);
        if let Some(keyword) = fields.keys().find(|key| *key != "type" && !known(key)) {
            return Err(unsupported(pointer, keyword));
        }
        match kind {
            "null" => Ok("\"null\"".to_owned()),
            "boolean" => Ok("(\"true\" | \"false\")".to_owned()),
            "integer" => scalar::integer(fields, pointer),
            "number" => self.number(fields, pointer),
            "string" => self.string(fields, pointer),
            "array" => self.array(fields, pointer),
            "object" => self.object(fields, pointer),
            _ => Err(invalid(&below(pointer, "type"), "the name of a JSON type")),
        }
    }

    fn reference(&mut self, reference: &Value, pointer: &str) -> Result<String, SchemaError> {
        let (target, schema) = target(self.document, reference, &below(pointer, "$ref"))?;
        if let Some(rule) = self.references.get(&target) {
            return Ok(rule.clone());
        }
        let name = target.rsplit('/').next().unwrap_or_default();
        self.named(name, target.clone(), schema, &target)
    }

    fn all_of(&mut self, fields: &Map<String, Value>, pointer: &str) -> Result<String, SchemaError> {
        self.merged += 1;
        if self.merged > MOST_MERGED {
            return Err(unsupported(pointer, "so many combinations of choices (`anyOf`, `oneOf`)"));
        }
        let merged = all_of::merge(self.document, fields, pointer)?;
        // No pointer has a blank in front.
        let key = format!(" {merged}");
        match self.references.get(&key) {
            Some(rule) => Ok(rule.clone()),
            None => self.named("all-of", key, &merged, pointer),
        }
    }

    /// A rule of its own for a schema, which is found again by `key`.
    fn named(&mut self, name: &str, key: String, schema: &Value, pointer: &str) -> Result<String, SchemaError> {
        let rule = self.rules.reserve(name);
        // Before the schema is looked at: it may refer to itself.
        self.references.insert(key, rule.clone());
        self.pointers.insert(rule.clone(), pointer.to_owned());
        let body = self.value(schema, pointer)?;
        self.rules.define(&rule, body);
        Ok(rule)
    }

    fn combination(&mut self, keyword: &str, schemas: &Value, pointer: &str) -> Result<String, SchemaError> {
        let schemas = schemas.as_array().filter(|schemas| !schemas.is_empty());
        let schemas = schemas.ok_or_else(|| invalid(pointer, "an array that is not empty"))?;
        for (index, schema) in schemas.iter().enumerate() {
            if keyword == "oneOf" && schemas[..index].iter().any(|other| !self.exclude_each_other(other, schema)) {
                return Err(unsupported(pointer, "oneOf with schemas that one value may fit"));
            }
        }
        let mut alternatives = Vec::new();
        for (index, schema) in schemas.iter().enumerate() {
            let before = self.rules.len();
            match self.value(schema, &below(pointer, &index.to_string())) {
                Ok(alternative) => alternatives.push(alternative),
                // One choice less.
                Err(SchemaError::Impossible(_)) => self.forget(before),
                Err(error) => return Err(error),
            }
        }
        if alternatives.is_empty() {
            return Err(SchemaError::Impossible(pointer.to_owned()));
        }
        Ok(any_of(alternatives))
    }

    /// Forgets the rules after the first `count`, and what they were for.
    fn forget(&mut self, count: usize) {
        self.rules.truncate(count);
        let rules = &self.rules;
        self.references.retain(|_, rule| rules.contains(rule));
        self.pointers.retain(|rule, _| rules.contains(rule));
    }

    fn space(&mut self) -> String {
        self.rules.add("space", SPACE.to_owned())
    }

    /// Any value at all.
    fn any(&mut self) -> String {
        if let Some(rule) = self.references.get("any value") {
            return rule.clone();
        }
        let rule = self.rules.reserve("any");
        // No pointer has a blank in front.
        self.references.insert("any value".to_owned(), rule.clone());
        let character = self.rules.add("char", CHARACTER.to_owned());
        let number = self.rules.add("number", NUMBER.to_owned());
        let space = self.space();
        let map = self.map(&rule);
        let object = self.rules.add("any-object", format!("\"{{\" {space} {map} {space} \"}}\""));
        let array = format!("\"[\" {space} ({rule} (\",\" {space} {rule})*)? {space} \"]\"");
        let array = self.rules.add("any-array", array);
        let text = self.text(&format!("{character}*"));
        let body = format!("{object} | {array} | {text} | {number} | \"true\" | \"false\" | \"null\"");
        self.rules.define(&rule, body);
        rule
    }
}

/// The types, and the keywords that speak of each.
const KINDS: [(&str, &[&str]); 7] = [
    ("object", &["properties", "required", "additionalProperties"]),
    ("array", &["items", "prefixItems", "minItems", "maxItems", "uniqueItems"]),
    ("string", &["pattern", "minLength", "maxLength"]),
    ("number", &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]),
    ("integer", &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]),
    ("boolean", &[]),
    ("null", &[]),
];

/// The types that a schema names, or the first that its keywords speak of; none when they say nothing.
fn kinds_of<'a>(fields: &'a Map<String, Value>, pointer: &str) -> Result<Vec<&'a str>, SchemaError> {
    let wrong = || invalid(&below(pointer, "type"), "the name of a type, or several");
    match fields.get("type") {
        Some(Value::String(kind)) => Ok(vec![kind]),
        Some(Value::Array(kinds)) if !kinds.is_empty() => {
            kinds.iter().map(|kind| kind.as_str().ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
        None => {
            let spoken_of = KINDS.iter().find(|(_, keywords)| keywords.iter().any(|key| fields.contains_key(*key)));
            Ok(spoken_of.map(|(kind, _)| *kind).into_iter().collect())
        }
    }
}

/// The pointer of a reference into the schema, and what is there.
fn target<'a>(document: &'a Value, reference: &Value, pointer: &str) -> Result<(String, &'a Value), SchemaError> {
    let reference = reference.as_str().ok_or_else(|| invalid(pointer, "a text"))?;
    let missing = || SchemaError::Reference { pointer: pointer.to_owned(), reference: reference.to_owned() };
    let target = reference.strip_prefix('#').ok_or_else(missing)?.replace("%24", "$");
    let schema = document.pointer(&target).ok_or_else(missing)?;
    Ok((target, schema))
}
