//! Loads GGUF models and runs them with the fastest code that this machine can execute, out of one static binary.
//!
//! llama.cpp's CPU kernels are compiled in once per instruction set, from plain SSE2 to AVX-512 and AMX, from NEON to SVE2.
//! At run time the library finds what the CPU has and the operating system supports, predicts the speed of every backend
//! that can run, takes the fastest, and says why. Ternary models, such as BitNet b1.58, have kernels of their own.
//!
//! ```no_run
//! use gguf_loader::{Model, backend::ContextOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::load("model.gguf")?;
//! println!("{}", model.selection().explain());
//! let mut context = model.context(&ContextOptions::default())?;
//! for piece in context.generate("The capital of France is")? {
//!     print!("{}", piece?.text);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Concepts
//!
//! * A [`Model`] is weights in memory, on the backend that was chosen for them: [`Model::selection`]. Several models, on
//!   different backends, live side by side.
//! * A [`Context`] is a KV cache and the threads that compute on it. It takes a [`Batch`](backend::Batch) of tokens of one
//!   or more sequences and gives logits; [`Context::generate`] loops over that, as a
//!   [`GenerateRequest`](generation::GenerateRequest) says.
//! * A [`Tokenizer`] turns text into tokens and back; it can be loaded without the weights.
//! * An [`Embedder`](embedding::Embedder) turns texts into vectors, a [`Reranker`](embedding::Reranker) orders documents
//!   by how well they answer a query.
//! * A [`Sampling`](sampling::Sampling) says how tokens are chosen: llama.cpp's samplers, as plain data, and your own.
//! * A [`State`](state::State) is what a context holds, as bytes or a file: another tier or another day goes on with it.
//! * A [`LoraAdapter`](adapter::LoraAdapter) or a [`ControlVector`](adapter::ControlVector) changes what a model says.
//! * A [`ChatSession`](chat::ChatSession) is a conversation: it uses the model's own template, keeps what it computed, and calls
//!   [tools](chat::Tool). A [`Grammar`](grammar::Grammar) is what a model is allowed to write.
//! * A [`Backend`](backend::Backend) is one way to run a model. Backends register themselves at compile time; a program
//!   may add its own with [`register_backend!`].
//! * [`select`] ranks the backends: a pure function of the [`Hardware`](hardware::Hardware), the model's
//!   [`ModelProfile`](backend::ModelProfile) and a [`Policy`](select::Policy). A forced choice that cannot be kept is an
//!   error.
//! * [`gguf`] validates every file before anything else reads it.
//! * [`merge`] writes a LoRA adapter, or another model by a ratio, into a model's weights.
//! * [`import`] makes files of bitnet.cpp (I2_S) into files that run; [`Model::load`] does it by itself, into a cache.
//!   [`convert`] makes GGUF files of BitNet checkpoints.
//!
//! Everything that users hold owns what it needs, is [`Send`], and frees all memory when dropped. No input aborts the
//! process: failures are typed errors, one enum for each operation. What the library logs goes to [`tracing`].
//!
//! # Features
//!
//! | Feature | Adds |
//! |---|---|
//! | `cpu` | llama.cpp on the CPU, with the floor tier of the architecture |
//! | `cpu-<tier>` | one more tier: the README has the list |
//! | `cpu-common` (default) | one tier for each step that matters in speed |
//! | `cpu-all` | every tier |
//! | `bitnet` (default) | ternary kernels in each of these tiers, and the architecture of BitNet b1.58 |
//! | `async` | generations as a `futures` stream |
//! | `reference` | a slow backend in pure Rust, for tests |
//! | `synth` | [`gguf`] writes synthetic models, for tests and benchmarks |
//! | `cli` (default) | the command-line program |
//!
//! A feature only adds a candidate; it changes nothing for what was there before.
#![deny(rustdoc::broken_intra_doc_links)]

pub mod adapter;
pub mod backend;
pub mod benchmark;
pub mod chat;
pub mod context;
pub mod convert;
pub mod embedding;
pub mod generation;
pub mod gguf;
pub mod grammar;
pub mod hardware;
pub mod import;
pub mod knobs;
pub mod merge;
pub mod model;
pub mod perplexity;
pub mod sampling;
pub mod select;
pub mod state;
pub mod tokenizer;

#[path = "../backends/mod.rs"]
mod backends;

pub use context::Context;
pub use model::{LoadError, LoadOptions, Model};
pub use tokenizer::Tokenizer;

#[doc(hidden)]
pub use inventory as __inventory;

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
