//! The contract between the library and the ways to run a model.
//!
//! [`Backend`] -> [`BackendModel`] -> [`BackendContext`]: a backend says what it can do on a machine, loads weights,
//! and opens contexts that turn tokens into logits. Everything that crosses these traits is plain data of this module,
//! [`hardware`](crate::hardware) and [`gguf`](crate::gguf): no C type, no lifetime that a holder would have to carry.
//!
//! # What an implementation may rely on
//!
//! * [`Backend::load`] is called only with a device that [`Backend::devices`] returned and for which
//!   [`Backend::score`] was `Ok`.
//! * The file of a [`LoadRequest`] was validated by [`gguf`](crate::gguf); the type sees to that.
//!
//! # What it must provide
//!
//! * No panic and no abort for any input that satisfies the above; a failure is a typed error.
//! * [`BackendContext::decode`] begins with [`Batch::check`] and [`Batch::check_positions`]: the traits are public,
//!   whoever calls them may be wrong.
//! * `tests/conformance` passes with it: the suite is mounted for every registered backend.
#![forbid(unsafe_code)]

mod adapter;
mod attention;
mod batch;
mod chat;
mod embedding;
mod error;
mod grammar;
mod model;
mod product;
mod profile;
mod registration;
mod roofline;
mod vocabulary;

pub use adapter::{AdapterEngineError, BackendAdapter, Directions};
pub use attention::{Attention, Cache, Queries};
pub use batch::{Batch, BatchError, BatchItem, Position, SequenceId, Token};
pub use chat::{
    CompiledTemplate, GrammarTrigger, Message, PromptEnding, ReasoningMarkers, RenderRequest, RenderedPrompt, Reply,
    ReplyError, ReplyGrammar, ReplyParser, Role, TemplateAbilities, TemplateError, TemplateSource, Tool, ToolCall,
    ToolChoice,
};
pub use embedding::{BackendEmbedder, Pooling};
pub use error::{ContextError, DecodeError, Ineligible, LoadError, Unavailable, VocabularyError};
pub use grammar::{GrammarEngineError, GrammarMatcher, GrammarMismatch};
#[cfg(feature = "cpu")]
pub(crate) use model::CancelFlag;
pub use model::{
    BackendContext, BackendModel, CacheType, CancelToken, ContextLimits, ContextOptions, LoadRequest, Mapping,
    ModelShape, SequenceEdit,
};
pub use product::{Inputs, Matrix, Product, ProductError};
pub use profile::{ModelProfile, WeightGroup};
#[doc(hidden)]
pub use registration::Registration;
pub use registration::registered;
pub use roofline::{Rates, Score, Workload, roofline};
pub use vocabulary::{SpecialTokens, TokenizeOptions, Vocabulary};

use std::{fmt, num::NonZeroU32, ops::ControlFlow, sync::Arc, time::Duration};

use crate::hardware::Hardware;

/// One way to run a model. Registered with [`register_backend!`](crate::register_backend).
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Stable lower-case name, e.g. `cpu-haswell`: log field, override value, tie-breaker.
    fn id(&self) -> &'static str;

    /// One line for people: what runs the model, e.g. `llama.cpp, AVX2 FMA BMI2 F16C`.
    fn summary(&self) -> String;

    /// The devices that this backend can use on `hardware`. Never panics, allocates no device memory.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] says what the machine lacks, e.g. the missing CPU features.
    fn devices(&self, hardware: &Hardware) -> Result<Vec<Device>, Unavailable>;

    /// Predicts how fast `device` runs `model`. Pure: same input, same answer.
    ///
    /// # Errors
    ///
    /// [`Ineligible`] says why this device cannot serve the model.
    fn score(&self, device: &Device, hardware: &Hardware, model: &ModelProfile) -> Result<Score, Ineligible>;

    /// Loads the weights. `progress` gets the fraction done (0 to 1) and may break off.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; a load that `progress` broke off is [`LoadError::Cancelled`]. Nothing stays allocated.
    fn load(
        &self,
        device: &Device,
        request: &LoadRequest<'_>,
        progress: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<Arc<dyn BackendModel>, LoadError>;

    /// Measures what `device` does on this machine within about `budget`; the result may overrule predictions.
    ///
    /// `None` means that this backend has nothing to measure with.
    fn measure(&self, device: &Device, budget: Duration) -> Option<Rates> {
        let _ = (device, budget);
        None
    }

    /// Puts one matrix on `device`, to multiply with `threads` threads: for tests and benchmarks of kernels.
    ///
    /// `None` means that this backend computes whole models only.
    fn product(
        &self,
        device: &Device,
        matrix: Matrix<'_>,
        threads: NonZeroU32,
    ) -> Option<Result<Box<dyn Product>, ProductError>> {
        let _ = (device, matrix, threads);
        None
    }

    /// Puts keys and values on `device`, to attend to with `threads` threads: for tests and benchmarks of kernels.
    ///
    /// `None` means that this backend computes whole models only.
    fn attention(
        &self,
        device: &Device,
        cache: Cache<'_>,
        threads: NonZeroU32,
    ) -> Option<Result<Box<dyn Attention>, ProductError>> {
        let _ = (device, cache, threads);
        None
    }

    /// Loads only the vocabulary of the file, if this backend knows how to.
    ///
    /// `None` means that it does not; another backend is asked.
    fn vocabulary(&self, request: &LoadRequest<'_>) -> Option<Result<Arc<dyn Vocabulary>, LoadError>> {
        let _ = request;
        None
    }

    /// Parses a chat template, if this backend knows how to. No model is needed.
    ///
    /// `None` means that it does not; another backend is asked.
    fn chat_template(&self, source: &TemplateSource) -> Option<Result<Arc<dyn CompiledTemplate>, TemplateError>> {
        let _ = source;
        None
    }
}

/// Something that can hold weights and multiply: the CPU, a GPU.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Device {
    /// Stable name within the backend, e.g. `cpu` or `vulkan0`.
    pub id: String,
    /// What a person calls it, e.g. `AMD EPYC 9R14`.
    pub name: String,
    /// What kind of device it is.
    pub kind: DeviceKind,
    /// Bytes that the device can still allocate; `None` when not known.
    pub memory: Option<u64>,
}

/// The kind of a [`Device`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DeviceKind {
    /// The host's processor and memory.
    Cpu,
    /// A graphics processor.
    Gpu,
}
