//! Why a schema could not be made a grammar, and where.

use crate::grammar::RegexError;

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

pub(super) fn below(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

pub(super) fn invalid(pointer: &str, expected: &'static str) -> SchemaError {
    SchemaError::Invalid { pointer: pointer.to_owned(), expected }
}

pub(super) fn unsupported(pointer: &str, keyword: &str) -> SchemaError {
    SchemaError::Unsupported { pointer: pointer.to_owned(), keyword: keyword.to_owned() }
}
