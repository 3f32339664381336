//! The commands, one file each: its arguments, what it does, and its report.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod detokenize;
pub(crate) mod devices;
pub(crate) mod embed;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod knobs;
pub(crate) mod merge;
pub(crate) mod perplexity;
pub(crate) mod rerank;
pub(crate) mod run;
pub(crate) mod select;
pub(crate) mod tokenize;
