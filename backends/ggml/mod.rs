//! What all llama.cpp-based backends share: owners of raw pointers, process set-up, the C++ shims.
//!
//! This folder and the tiers' registrations are the only places that call llama.cpp. Three rules keep them sound:
//!
//! * **No exception and no panic crosses the border.** What may throw is called through `shim.cpp`,
//!   `chat.cpp` and `grammar.cpp`; callbacks catch panics.
//! * **No call reaches a GGML_ASSERT.** Files are validated by [`gguf`](crate::gguf) first, batches by
//!   [`Batch::check`](crate::backend::Batch::check), and each function here states the checks that it relies on.
//! * **A model's tier is fixed when it is loaded.** See [`process`].

mod adapter;
mod attention;
mod chat;
mod context;
mod embedder;
pub(crate) mod ffi;
mod forks;
mod grammar;
mod log;
mod measure;
mod memory;
mod model;
pub(crate) mod process;
mod product;
mod sequences;
mod threadpool;
mod vocabulary;

pub(crate) use attention::LlamaAttention;
pub(crate) use chat::compile_template;
pub(crate) use measure::measure;
pub(crate) use memory::require_for_weights;
pub(crate) use model::{LlamaModel, load_vocabulary};
pub(crate) use process::CpuRegistration;
#[cfg(feature = "bitnet")]
pub(crate) use process::TernaryKernels;
pub(crate) use product::LlamaProduct;

/// How errors name this engine.
pub(crate) const ENGINE: &str = "llama.cpp";

/// Whether llama.cpp has a graph for this value of `general.architecture`.
///
/// Those whose decoder needs the output of another graph first are not counted: it is asserted to be there.
pub(crate) fn knows_architecture(name: &str) -> bool {
    const TWO_GRAPHS: &[&str] = &["t5", "t5encoder", "eagle3", "dflash", "gemma4-assistant"];
    let Ok(name_c) = std::ffi::CString::new(name) else { return false };
    // SAFETY: the pointer is to a NUL-terminated string that outlives the call.
    !TWO_GRAPHS.contains(&name) && unsafe { ffi::gl_knows_architecture(name_c.as_ptr()) }
}
