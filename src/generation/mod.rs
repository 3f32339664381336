//! Generating text: a request in, pieces of text out.
//!
//! A [`GenerateRequest`] says what to continue and how; a text alone is one. [`Context::generate`] makes a [`Generation`] of
//! it, an iterator of [`Piece`]s; [`Context::complete`] runs it to its end. A [`CancelToken`](crate::backend::CancelToken)
//! ends it from anywhere, also within a decode.
//!
//! ```no_run
//! use gguf_loader::{Model, backend::ContextOptions, generation::GenerateRequest, sampling::Sampling};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::load("model.gguf")?;
//! let mut context = model.context(&ContextOptions::default())?;
//! let request = GenerateRequest::new("Three colours: red,")
//!     .with_sampling(Sampling::balanced().with_seed(42))
//!     .with_max_tokens(64.try_into()?)
//!     .with_stop("\n");
//! for piece in context.generate(&request)? {
//!     print!("{}", piece?.text);
//! }
//! let completion = context.complete(&request)?;
//! println!("{:?} after {} tokens", completion.finish, completion.tokens.len());
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod choice;
mod error;
mod prompt;
mod reasoning;
mod request;
mod result;
mod run;
#[cfg(feature = "async")]
mod stream;
mod text;
mod typed;

pub use error::GenerateError;
pub use request::{GenerateRequest, Prompt, Start, WhenFull};
pub use result::{Completion, FinishReason, Origin, Piece, Usage};
pub use run::Generation;
#[cfg(feature = "async")]
pub use stream::GenerationStream;
pub use typed::TypedError;

#[cfg(doc)]
use crate::Context;
