//! `rerank`: documents in the order in which they answer a query.

use std::{fmt, path::PathBuf};

use clap::Args;
use gguf_loader::embedding::Ranked;
use serde::Serialize;

use super::embed::{self, LengthArgs};
use crate::{
    args::{self, BackendArgs, ThreadArgs},
    failure::Failure,
    input::Source,
    interrupt::Interrupt,
    loading,
    output::Output,
};

/// Order documents by how well they answer a query, the best first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gguf-loader rerank reranker.gguf --query 'What is GGUF?' --document 'A file format.' --document 'A fish.'
  gguf-loader rerank reranker.gguf --query 'What is GGUF?' --file documents.txt --json

Needs a model that was made to rank; another is an error (exit code 4). Each line has a score, the more the \
better, and the document. Query and document together may have --ctx tokens.")]
pub(crate) struct Rerank {
    /// The model: a GGUF file, or the first part of a split one
    model: PathBuf,
    /// What the documents are to answer
    #[arg(long, value_name = "TEXT")]
    query: String,
    #[command(flatten)]
    documents: DocumentArgs,
    #[command(flatten)]
    length: LengthArgs,
    #[command(flatten)]
    backend: BackendArgs,
    #[command(flatten)]
    threads: ThreadArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct DocumentArgs {
    /// A document; may be given several times
    #[arg(long, short, value_name = "TEXT")]
    document: Vec<String>,
    /// A file with a document on each line; - is stdin
    #[arg(long, short, value_name = "FILE")]
    file: Option<Source>,
}

#[derive(Debug, Serialize)]
struct Report {
    /// Asked of the running engine itself.
    backend: String,
    results: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    ranked: Ranked,
    document: String,
}

impl Rerank {
    pub(crate) fn execute(self, output: &mut Output) -> Result<(), Failure> {
        let documents = match &self.documents.file {
            Some(source) => embed::lines(source)?,
            None => self.documents.document,
        };
        let knobs = args::knobs(self.backend.backend.as_ref(), self.threads.threads);
        let load_options = args::load_options(&knobs)?;
        let interrupt = Interrupt::install()?;
        let model = loading::load(&self.model, &load_options, &interrupt, output)?;
        output.note(model.selection().explain());
        model.tokenizer()?;
        let mut reranker = model.reranker(&self.length.options(&interrupt))?;
        let file = self.documents.file.as_ref();
        let ranked = reranker.rank(&self.query, &documents).map_err(|error| embed::at_line(error, file))?;
        let rows = ranked.into_iter().map(|ranked| Row { ranked, document: documents[ranked.index].clone() });
        output.result(&Report { backend: reranker.executed_by(), results: rows.collect() })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Row { ranked, document } in &self.results {
            writeln!(formatter, "{:9.4}  {document}", ranked.score)?;
        }
        Ok(())
    }
}
