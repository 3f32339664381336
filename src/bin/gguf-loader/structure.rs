//! The options that say what the text must look like.

use std::{fmt::Display, path::PathBuf};

use clap::Args;
use gguf_loader::grammar::Grammar;

use crate::{
    failure::{Exit, Failure},
    input::Source,
};

#[derive(Debug, Args)]
#[command(next_help_heading = "Structure")]
#[group(id = "structure", multiple = false)]
pub(crate) struct StructureArgs {
    /// Write JSON that this schema accepts
    #[arg(long, value_name = "SCHEMA")]
    json_schema: Option<String>,
    /// The same, from a file
    #[arg(long, value_name = "FILE")]
    json_schema_file: Option<PathBuf>,
    /// Write any JSON object or array
    #[arg(long)]
    any_json: bool,
    /// Write what this regular expression matches as a whole
    #[arg(long, value_name = "PATTERN")]
    regex: Option<String>,
    /// Write what this grammar in GBNF allows, from its rule `root`
    #[arg(long, value_name = "GBNF")]
    grammar: Option<String>,
    /// The same, from a file
    #[arg(long, value_name = "FILE")]
    grammar_file: Option<PathBuf>,
}

impl StructureArgs {
    pub(crate) fn grammar(self) -> Result<Option<Grammar>, Failure> {
        let read = |file: PathBuf| Source::File(file).read_text();
        let schema = self.json_schema.map(Ok).or_else(|| self.json_schema_file.map(read)).transpose()?;
        let grammar = self.grammar.map(Ok).or_else(|| self.grammar_file.map(read)).transpose()?;
        Ok(if let Some(schema) = schema {
            let schema = serde_json::from_str(&schema).map_err(|error| wrong("the JSON schema is no JSON", error))?;
            Some(Grammar::json_schema(&schema).map_err(|error| wrong("the JSON schema cannot be kept", error))?)
        } else if self.any_json {
            Some(Grammar::json())
        } else if let Some(pattern) = self.regex {
            Some(Grammar::regex(&pattern).map_err(|error| wrong("the regular expression cannot be kept", error))?)
        } else if let Some(grammar) = grammar {
            Some(Grammar::gbnf(grammar).map_err(|error| wrong("the grammar cannot be used", error))?)
        } else {
            None
        })
    }
}

fn wrong(what: &str, error: impl Display) -> Failure {
    Failure::message(Exit::Usage, format!("{what}: {error}"))
}
