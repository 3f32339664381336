//! Loads GGUF models and runs them with the fastest code that this machine can execute.
#![deny(rustdoc::broken_intra_doc_links)]

pub mod backend;
pub mod benchmark;
pub mod context;
pub mod generation;
pub mod gguf;
pub mod hardware;
pub mod knobs;
pub mod model;
pub mod perplexity;
pub mod select;
pub mod tokenizer;

#[path = "../backends/mod.rs"]
mod backends;

#[doc(hidden)]
pub use inventory as __inventory;
