//! JSON schemas to GBNF.
//!
//! What comes out is a part of what the schema accepts, never more: objects have the properties that the schema names, in its
//! order, and no others; numbers have few digits; `\u` escapes are not used.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{
    all_of,
    gbnf::{self, GrammarDefect},
    notation::{Rules, any_of, literal},
    number,
    regex::{self, MOST, RegexError},
};

/// Schemas within schemas. What `serde_json` reads is no deeper.
pub(super) const DEEPEST: usize = 128;
/// Blanks between the parts: none, one, or a line break and what indents the next line.
const SPACE: &str = r#"(" " | "\n" [ \t]{0,20})?"#;
/// A character of a string. Code points of surrogates are in no string that Rust reads.
const CHARACTER: &str = r##"[\U00000020-\U00000021\U00000023-\U0000005B\U0000005D-\U0000007E\U00000080-\U0000D7FF\U0000E000-\U0010FFFF] | "\\" ["\\/bfnrt]"##;
/// A number that every reader takes, with few digits.
const NUMBER: &str = r#""-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?"#;

/// Keywords that say nothing about which values fit.
pub(super) const ANNOTATIONS: [&str; 18] = [
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

/// A schema that every value fits.
static ANYTHING: Value = Value::Bool(true);

/// Why a schema could not be made a grammar. The pointer is a JSON pointer into the schema; where several schemas were merged
/// (`allOf`), it is one into what came of them, in the place of the first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// It is no JSON schema.
    #[error("the schema is wrong at `{pointer}`: {expected} is expected")]
    Invalid {
        /// Where.
        pointer: String,
        /// What should be there.
        expected: &'static str,
    },
    /// No grammar can hold a model to this: leave it out, and check the result.
    #[error("no grammar can keep `{keyword}` at `{pointer}`: leave it out, and check what comes back")]
    Unsupported {
        /// Where.
        pointer: String,
        /// The keyword, or the combination of keywords.
        keyword: String,
    },
    /// A reference to nothing, or to another document.
    #[error("`{reference}` at `{pointer}` is not a reference into the schema")]
    Reference {
        /// Where.
        pointer: String,
        /// What it refers to.
        reference: String,
    },
    /// A pattern is not a regular expression, or none that a grammar can keep.
    #[error("the pattern at `{pointer}` cannot be kept")]
    Pattern {
        /// Where.
        pointer: String,
        /// What is wrong with it.
        #[source]
        source: RegexError,
    },
    /// Nothing fits: bounds that exclude each other, or a value that must hold another of its kind without end.
    #[error("no value fits the schema at `{0}`")]
    Impossible(String),
    /// Schemas within schemas, beyond what JSON readers follow.
    #[error("the schema is nested more than 128 deep")]
    Depth,
}

/// The grammar of the JSON texts that `schema` accepts.
pub(super) fn grammar_of(schema: &Value) -> Result<String, SchemaError> {
    let mut writer = Writer::new(schema);
    let root = writer.rules.reserve("root");
    let body = writer.value(schema, "")?;
    writer.rules.define(&root, body);
    let mut pointers = writer.pointers;
    let text = writer.rules.into_gbnf();
    // The rules are well formed; what remains to be found is one that has no end.
    gbnf::check(&text).map_err(|error| {
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
}

impl<'a> Writer<'a> {
    fn new(document: &'a Value) -> Self {
        let (references, pointers) = (HashMap::new(), HashMap::new());
        Self { document, rules: Rules::default(), references, pointers, depth: 0 }
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
            return constants(std::slice::from_ref(value), fields, pointer);
        }
        if let Some(values) = fields.get("enum") {
            rest(&["enum", "type"])?;
            let values = values.as_array().ok_or_else(|| invalid(&below(pointer, "enum"), "an array"))?;
            return constants(values, fields, pointer);
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
            "integer" => integer(fields, pointer),
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
            // `false` among others is one choice less.
            if *schema != Value::Bool(false) {
                alternatives.push(self.value(schema, &below(pointer, &index.to_string()))?);
            }
        }
        if alternatives.is_empty() {
            return Err(SchemaError::Impossible(pointer.to_owned()));
        }
        Ok(any_of(alternatives))
    }

    /// Whether it is plain that no value fits both; of what must fit several schemas, one is enough.
    fn exclude_each_other(&self, left: &Value, right: &Value) -> bool {
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

    fn number(&mut self, fields: &Map<String, Value>, pointer: &str) -> Result<String, SchemaError> {
        let bound = |keyword: &str| match fields.get(keyword) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| invalid(&below(pointer, keyword), "a number")),
        };
        let (low, high) = (bound("minimum")?, bound("maximum")?);
        let (above, under) = (bound("exclusiveMinimum")?, bound("exclusiveMaximum")?);
        if (low, high, above, under) == (None, None, None, None) {
            return Ok(self.rules.add("number", NUMBER.to_owned()));
        }
        // A whole number of more than 53 bits may have become a smaller double, or a larger one.
        let exact = |bound: f64| bound.abs() <= EXACT;
        let low = low.map(|low| if exact(low) { low } else { low.next_up() });
        let high = high.map(|high| if exact(high) { high } else { high.next_down() });
        // The next whole number within an exclusive bound, or the next double: what lies between them is given up.
        let above = above.map(|above| if exact(above) { above.floor() + 1.0 } else { above.next_up().next_up() });
        let under = under.map(|under| if exact(under) { under.ceil() - 1.0 } else { under.next_down().next_down() });
        let low = low.into_iter().chain(above).reduce(f64::max);
        let high = high.into_iter().chain(under).reduce(f64::min);
        number::numbers(low, high).ok_or_else(|| SchemaError::Impossible(pointer.to_owned()))
    }

    fn string(&mut self, fields: &Map<String, Value>, pointer: &str) -> Result<String, SchemaError> {
        let character = self.rules.add("char", CHARACTER.to_owned());
        let (least, most) = (count(fields, "minLength", pointer)?, count(fields, "maxLength", pointer)?);
        if let Some(pattern) = fields.get("pattern") {
            let at = below(pointer, "pattern");
            if least.is_some() || most.is_some() {
                return Err(unsupported(pointer, "pattern together with a length"));
            }
            let pattern = pattern.as_str().ok_or_else(|| invalid(&at, "a text"))?;
            let inner = regex::in_json_string(pattern, &character, &mut self.rules)
                .map_err(|source| SchemaError::Pattern { pointer: at, source })?;
            return Ok(format!("\"\\\"\" {inner} \"\\\"\""));
        }
        if let (None, None, Some(format)) = (least, most, fields.get("format").and_then(Value::as_str))
            && let Some(text) = formatted(format)
        {
            return Ok(format!("\"\\\"\" {text} \"\\\"\""));
        }
        Ok(format!("\"\\\"\" {} \"\\\"\"", repeated(&character, least, most, pointer)?))
    }

    fn array(&mut self, fields: &Map<String, Value>, pointer: &str) -> Result<String, SchemaError> {
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

    fn object(&mut self, fields: &Map<String, Value>, pointer: &str) -> Result<String, SchemaError> {
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

    fn map(&mut self, value: &str) -> String {
        let character = self.rules.add("char", CHARACTER.to_owned());
        let space = self.space();
        let entry = self.rules.add("entry", format!("\"\\\"\" {character}* \"\\\":\" {space} {value}"));
        format!("({entry} (\",\" {space} {entry})*)?")
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
        let body =
            format!("{object} | {array} | \"\\\"\" {character}* \"\\\"\" | {number} | \"true\" | \"false\" | \"null\"");
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

/// The largest whole number up to which a double has all of them: every reader agrees on those.
const EXACT: f64 = ((1_i64 << 53) - 1) as f64;

fn integer(fields: &Map<String, Value>, pointer: &str) -> Result<String, SchemaError> {
    const WIDEST: i128 = EXACT as i128;
    let format = fields.get("format").and_then(Value::as_str);
    let range: Option<(i128, i128)> = match format {
        Some("int8") => Some((i8::MIN.into(), i8::MAX.into())),
        Some("int16") => Some((i16::MIN.into(), i16::MAX.into())),
        Some("int32") => Some((i32::MIN.into(), i32::MAX.into())),
        Some("int64" | "int") => Some((i64::MIN.into(), i64::MAX.into())),
        Some("uint8") => Some((0, u8::MAX.into())),
        Some("uint16") => Some((0, u16::MAX.into())),
        Some("uint32") => Some((0, u32::MAX.into())),
        Some("uint64" | "uint") => Some((0, u64::MAX.into())),
        _ => None,
    };
    // What 64 bits hold: nothing reads more.
    let (mut low, mut high) = range.unwrap_or((i64::MIN.into(), u64::MAX.into()));
    let (mut bounded_below, mut bounded_above) = (range.is_some(), range.is_some());
    for (keyword, is_low, step) in
        [("minimum", true, 0), ("exclusiveMinimum", true, 1), ("maximum", false, 0), ("exclusiveMaximum", false, -1)]
    {
        let Some(bound) = fields.get(keyword) else { continue };
        let wrong = || invalid(&below(pointer, keyword), "a number");
        let whole = bound.as_i64().map(i128::from).or(bound.as_u64().map(i128::from));
        let whole = match whole {
            Some(whole) => whole + step,
            None => {
                let bound = bound.as_f64().ok_or_else(wrong)?;
                // 2.5 and above begins with 3, whether 2.5 itself counts or not.
                let whole = if is_low { bound.ceil() } else { bound.floor() };
                whole as i128 + if whole == bound { step } else { 0 }
            }
        };
        (low, high) = if is_low { (low.max(whole), high) } else { (low, high.min(whole)) };
        (bounded_below, bounded_above) = (bounded_below || is_low, bounded_above || !is_low);
    }
    // Where nothing is said, what every reader agrees on, unless nothing of that is left.
    if !bounded_above && low <= WIDEST {
        high = WIDEST;
    }
    if !bounded_below && high >= -WIDEST {
        low = -WIDEST;
    }
    number::integers(low, high).ok_or_else(|| SchemaError::Impossible(pointer.to_owned()))
}

/// Texts of formats that have one shape; the other formats are comments.
fn formatted(format: &str) -> Option<String> {
    let hex = |count: u32| format!("[0-9a-f]{{{count}}}");
    let date = r#"[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | "1" [0-9] | "2" [0-8])"#;
    let time = r#"([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9]"#;
    Some(match format {
        "date" => date.to_owned(),
        "time" => format!("{time} \"Z\""),
        "date-time" => format!("{date} \"T\" {time} \"Z\""),
        "uuid" => [hex(8), hex(4), hex(4), hex(4), hex(12)].join(" \"-\" "),
        _ => return None,
    })
}

/// A rule so often: as often as the bounds say, or as a grammar can count.
fn repeated(rule: &str, least: Option<u64>, most: Option<u64>, pointer: &str) -> Result<String, SchemaError> {
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

/// The pointer of a reference into the schema, and what is there.
pub(super) fn target<'a>(
    document: &'a Value,
    reference: &Value,
    pointer: &str,
) -> Result<(String, &'a Value), SchemaError> {
    let reference = reference.as_str().ok_or_else(|| invalid(pointer, "a text"))?;
    let missing = || SchemaError::Reference { pointer: pointer.to_owned(), reference: reference.to_owned() };
    let target = reference.strip_prefix('#').ok_or_else(missing)?.replace("%24", "$");
    let schema = document.pointer(&target).ok_or_else(missing)?;
    Ok((target, schema))
}

fn count(fields: &Map<String, Value>, keyword: &str, pointer: &str) -> Result<Option<u64>, SchemaError> {
    match fields.get(keyword) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| invalid(&below(pointer, keyword), "a whole number")),
    }
}

/// One of these values, of those that have the right type.
fn constants(values: &[Value], fields: &Map<String, Value>, pointer: &str) -> Result<String, SchemaError> {
    let kinds = if fields.contains_key("type") { Some(kinds_of(fields, pointer)?) } else { None };
    let is = |value: &Value, kind: &str| match kind {
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => kind == kind_of(value),
    };
    let fits = |value: &&Value| kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| is(value, kind)));
    let alternatives: Vec<String> = values.iter().filter(fits).map(|value| literal(&value.to_string())).collect();
    match alternatives.is_empty() {
        true => Err(SchemaError::Impossible(pointer.to_owned())),
        false => Ok(any_of(alternatives)),
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

fn kind_of(value: &Value) -> &'static str {
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

pub(super) fn below(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

pub(super) fn invalid(pointer: &str, expected: &'static str) -> SchemaError {
    SchemaError::Invalid { pointer: pointer.to_owned(), expected }
}

pub(super) fn unsupported(pointer: &str, keyword: &str) -> SchemaError {
    SchemaError::Unsupported { pointer: pointer.to_owned(), keyword: keyword.to_owned() }
}
