//! `knobs`: the environment variables.

use std::fmt;

use clap::Args;
use gguf_loader::knobs::{self, Knob, Knobs};
use serde::Serialize;

use crate::{failure::Failure, output::Output};

/// List the environment variables: what each is for, its default, and its value now
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader knobs
  GGUF_LOADER_BACKEND='!cpu-zen4' gguf-loader knobs --json

An argument wins over its variable. A variable that is empty counts as not set.")]
pub(crate) struct KnobsTable {}

impl KnobsTable {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        let environment = Knobs::from_environment();
        let row = |knob: &Knob| Row { value: environment.value(knob).map(|value| value.into_owned()), knob: *knob };
        output.result(&Table(knobs::ALL.iter().map(row).collect()))
    }
}

#[derive(Debug, Serialize)]
struct Table(Vec<Row>);

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    knob: Knob,
    /// As it is in the environment; absent when it is not set.
    value: Option<String>,
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Row { knob, value } in &self.0 {
            match value {
                Some(value) => writeln!(formatter, "{}={value}", knob.name)?,
                None => writeln!(formatter, "{} is not set", knob.name)?,
            }
            writeln!(formatter, "    {}", knob.help)?;
            writeln!(formatter, "    allowed: {}", knob.allowed)?;
            writeln!(formatter, "    default: {}", knob.default)?;
        }
        Ok(())
    }
}
