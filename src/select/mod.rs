//! Which backend runs a model on this machine, and why.
//!
//! [`Registry`] knows the backends that were compiled in. [`select()`] asks each of them for its devices and for a
//! prediction in tokens a second, applies the user's [`Policy`], and returns a [`Selection`]: the winner, and every other
//! candidate with its prediction or with the reason why it cannot run. It is pure, so that a choice on any machine is
//! a test on this one. [`choose`] is the same on this machine's registry, with an optional [`Calibration`] and a log.
//!
//! ```
//! use gguf_loader::select::{Policy, Registry};
//!
//! let registry = Registry::global()?;
//! for backend in registry.iter() {
//!     println!("{}: {}", backend.id(), backend.summary());
//! }
//! // A name that is not compiled in is an error, with a proposal.
//! let error = registry.find("cpu-zen44").unwrap_err();
//! assert_eq!(error.suggestion, Some("cpu-zen4"));
//! # Ok::<(), gguf_loader::select::RegistryError>(())
//! ```
#![forbid(unsafe_code)]

mod calibration;
mod choose;
mod features;
mod policy;
mod ranking;
mod registry;
mod report;
mod selection;

pub use calibration::{CacheError, Calibrate, CalibrateError, Calibration, CalibrationCache, Fingerprint};
pub use choose::{ChooseError, ChooseOptions, choose, choose_from};
pub use features::KnownBackend;
pub use policy::{Policy, PolicyError};
pub use ranking::{Request, SelectError, select};
pub use registry::{Registry, RegistryError, UnknownBackend};
pub use selection::{Basis, Candidate, Outcome, Prediction, Selection};
