//! Grammars: what a model is allowed to write.
//!
//! A [`Grammar`] is made from a JSON schema, from a Rust type, from a regular expression, or from GBNF, llama.cpp's notation.
//! Whatever is accepted here is kept by every text that is generated under it: a schema with a rule that no grammar can hold
//! a model to (`uniqueItems`, `not`) is an error that names the rule.
//!
//! ```
//! use gguf_loader::grammar::Grammar;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let schema = serde_json::json!({ "type": "array", "items": { "enum": ["red", "green"] }, "maxItems": 3 });
//! let colours = Grammar::json_schema(&schema)?;
//! let date = Grammar::regex(r"\d{4}-\d{2}-\d{2}")?;
//! let chess = Grammar::gbnf(r#"root ::= [a-h] [1-8] "-" [a-h] [1-8]"#)?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod characters;
mod constraint;
mod gbnf;
mod guided;
mod lark;
mod lexemes;
mod notation;
mod number;
mod regex;
mod schema;

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use schemars::JsonSchema;
use serde_json::Value;

pub use constraint::{Constraint, ConstraintError};
pub use gbnf::{GrammarDefect, GrammarError};
pub use regex::RegexError;
pub use schema::SchemaError;

/// What a model is allowed to write: rules in GBNF, which begin at `root`, and which some finite text fits.
#[derive(Clone)]
pub struct Grammar {
    gbnf: String,
    /// Whether the rules are those of a JSON schema, whose lexemes are known; the same rules by another hand mean the same.
    is_json: bool,
}

impl Grammar {
    /// The rules of a text in GBNF.
    ///
    /// # Errors
    ///
    /// [`GrammarError`], with its place: what is written is no GBNF, or no text could ever fit it.
    pub fn gbnf(text: impl Into<String>) -> Result<Self, GrammarError> {
        let gbnf = text.into();
        gbnf::parse(&gbnf)?;
        Ok(Self { gbnf, is_json: false })
    }

    /// Any JSON value that is an object or an array.
    pub fn json() -> Self {
        Self { gbnf: schema::any_json(), is_json: true }
    }

    /// JSON that a schema accepts. Objects have the properties that it names, in its order.
    ///
    /// # Errors
    ///
    /// [`SchemaError`], with a JSON pointer to what is wrong, or cannot be kept.
    pub fn json_schema(schema: &Value) -> Result<Self, SchemaError> {
        Ok(Self { gbnf: schema::grammar_of(schema)?, is_json: true })
    }

    /// JSON that a `T` is read from.
    ///
    /// # Errors
    ///
    /// [`SchemaError`] when the type's schema has what no grammar can keep, e.g. a `HashSet`.
    pub fn of<T: JsonSchema>() -> Result<Self, SchemaError> {
        Self::json_schema(&schema_of::<T>())
    }

    /// Text that a regular expression matches as a whole. `\d`, `\w` and `\s` are ASCII.
    ///
    /// # Errors
    ///
    /// [`RegexError`].
    pub fn regex(pattern: &str) -> Result<Self, RegexError> {
        Ok(Self { gbnf: regex::grammar_of(pattern)?, is_json: false })
    }

    /// The rules, in GBNF.
    pub fn as_gbnf(&self) -> &str {
        &self.gbnf
    }

    /// The rules in Lark, if they can be said in it.
    fn to_lark(&self) -> Option<lark::Lark> {
        lark::Lark::new(&gbnf::parse(&self.gbnf).ok()?, self.is_json)
    }
}

impl PartialEq for Grammar {
    fn eq(&self, other: &Self) -> bool {
        self.gbnf == other.gbnf
    }
}

impl Eq for Grammar {}

impl Hash for Grammar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.gbnf.hash(state);
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Grammar").field(&self.gbnf).finish()
    }
}

/// The JSON schema of a type.
pub fn schema_of<T: JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()
}
