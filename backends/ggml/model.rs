//! Owners of `llama_model`.

use std::{
    ffi::{CStr, CString, c_void},
    ops::ControlFlow,
    panic::{self, AssertUnwindSafe},
    path::Path,
    ptr::{self, NonNull},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use llama_cpp_sys_2 as sys;

use super::{
    ENGINE,
    adapter::LlamaAdapter,
    context::LlamaContext,
    embedder::{self, LlamaEmbedder},
    ffi, log,
    process::{self, CpuRegistration, Reentered},
    vocabulary::LlamaVocabulary,
};
use crate::backend::{
    AdapterEngineError, BackendAdapter, BackendContext, BackendEmbedder, BackendModel, ContextError, ContextOptions,
    LoadError, LoadRequest, Mapping, ModelProfile, ModelShape, Pooling, Vocabulary,
};

/// Owner of a `llama_model`. Contexts and vocabularies hold an `Arc` of it.
#[derive(Debug)]
pub(super) struct RawModel(NonNull<sys::llama_model>);

// SAFETY: a loaded model is only read; llama.cpp documents that contexts on several threads share one.
unsafe impl Send for RawModel {}
// SAFETY: as above.
unsafe impl Sync for RawModel {}

impl RawModel {
    pub(super) fn as_ptr(&self) -> *mut sys::llama_model {
        self.0.as_ptr()
    }
}

impl Drop for RawModel {
    fn drop(&mut self) {
        // SAFETY: the pointer came from llama.cpp, and every context on it held an `Arc` of this owner.
        unsafe { sys::llama_model_free(self.0.as_ptr()) };
    }
}

/// A model on one tier.
#[derive(Debug)]
pub(crate) struct LlamaModel {
    pub(super) raw: Arc<RawModel>,
    pub(super) backend: &'static str,
    pub(super) registration: CpuRegistration,
    /// Address of the tier's function that computes graphs: what a context is compared with.
    pub(super) graph_compute: usize,
    pub(super) profile: ModelProfile,
    shape: ModelShape,
    vocabulary: Arc<LlamaVocabulary>,
    #[cfg(feature = "bitnet")]
    ternary: ffi::TernaryUse,
    /// Held where llama.cpp reads or changes the model's list of adapters.
    adapters: Mutex<()>,
}

impl LlamaModel {
    pub(super) fn lock_adapters(&self) -> MutexGuard<'_, ()> {
        self.adapters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads the weights on the tier of `registration`, which the CPU can execute.
    pub(crate) fn load(
        backend: &'static str,
        registration: CpuRegistration,
        request: &LoadRequest<'_>,
        progress: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<Self, LoadError> {
        let profile = request.profile().clone();
        let mut options = Options { vocabulary_only: profile.vocabulary_only, mapping: request.mapping(), progress };
        let raw = Arc::new(load(Some(registration), request, &mut options)?);
        let graph_compute = process::with_cpu(Some(registration), |registered| {
            // SAFETY: the registration is one of ggml's CPU backends.
            registered
                .map_or(0, |registered| unsafe { ffi::gl_registration_graph_compute(registered.as_ptr()) } as usize)
        });
        let graph_compute =
            graph_compute.map_err(|Reentered| LoadError::Refused { engine: ENGINE, message: Reentered.to_string() })?;
        let vocabulary = Arc::new(LlamaVocabulary::new(raw.clone()));
        let shape = shape(&raw, &profile);
        Ok(Self {
            // SAFETY: the model is valid, and its weights are in memory.
            #[cfg(feature = "bitnet")]
            ternary: unsafe { ffi::gl_ternary_use_of(raw.as_ptr()) },
            raw,
            backend,
            registration,
            graph_compute,
            profile,
            shape,
            vocabulary,
            adapters: Mutex::new(()),
        })
    }
}

#[cfg(feature = "bitnet")]
impl LlamaModel {
    /// What the ternary kernels do for the model.
    pub(crate) fn ternary(&self) -> ffi::TernaryUse {
        self.ternary
    }
}

impl BackendModel for LlamaModel {
    fn shape(&self) -> &ModelShape {
        &self.shape
    }

    fn vocabulary(&self) -> Option<Arc<dyn Vocabulary>> {
        Some(self.vocabulary.clone())
    }

    fn context(self: Arc<Self>, options: &ContextOptions) -> Result<Box<dyn BackendContext>, ContextError> {
        Ok(Box::new(LlamaContext::new(self, options)?))
    }

    fn adapter(self: Arc<Self>, path: &Path) -> Result<Arc<dyn BackendAdapter>, AdapterEngineError> {
        Ok(Arc::new(LlamaAdapter::load(self, path)?))
    }

    fn pooling(&self) -> Option<Pooling> {
        // SAFETY: the model is valid.
        embedder::pooling_of(unsafe { ffi::gl_pooling(self.raw.as_ptr()) })
    }

    fn rerank_template(&self) -> Option<String> {
        // SAFETY: the model is valid and the name is NUL-terminated.
        let template = unsafe { sys::llama_model_chat_template(self.raw.as_ptr(), c"rerank".as_ptr()) };
        let template = NonNull::new(template.cast_mut())?;
        // SAFETY: the text is NUL-terminated and lives as long as the model.
        Some(unsafe { CStr::from_ptr(template.as_ptr()) }.to_string_lossy().into_owned())
    }

    fn embedder(
        self: Arc<Self>,
        options: &ContextOptions,
        pooling: Pooling,
    ) -> Result<Box<dyn BackendEmbedder>, ContextError> {
        Ok(Box::new(LlamaEmbedder::new(self, options, pooling)?))
    }
}

/// Loads the vocabulary of a file, with or without weights. No tier is needed.
pub(crate) fn load_vocabulary(request: &LoadRequest<'_>) -> Result<Arc<dyn Vocabulary>, LoadError> {
    let mut options =
        Options { vocabulary_only: true, mapping: Mapping::Map, progress: &mut |_| ControlFlow::Continue(()) };
    let raw = load(None, request, &mut options)?;
    Ok(Arc::new(LlamaVocabulary::new(Arc::new(raw))))
}

struct Options<'a> {
    vocabulary_only: bool,
    mapping: Mapping,
    progress: &'a mut dyn FnMut(f32) -> ControlFlow<()>,
}

fn load(
    registration: Option<CpuRegistration>,
    request: &LoadRequest<'_>,
    options: &mut Options<'_>,
) -> Result<RawModel, LoadError> {
    let path_c = c_path(request.path())?;
    // A NUL in the middle makes it an architecture that nobody knows, which is what it is.
    let architecture = CString::new(request.profile().architecture.as_str()).unwrap_or_default();
    let mut progress = Progress { report: &mut *options.progress, cancelled: false, panic: None };
    // An empty list of devices: the tier computes everything, whatever else is compiled in.
    let mut devices: [sys::ggml_backend_dev_t; 1] = [ptr::null_mut()];
    // SAFETY: a plain function.
    let mut params = unsafe { sys::llama_model_default_params() };
    params.devices = devices.as_mut_ptr();
    params.n_gpu_layers = 0;
    params.vocab_only = options.vocabulary_only;
    params.load_mode = match options.mapping {
        Mapping::Map => sys::LLAMA_LOAD_MODE_MMAP,
        Mapping::Read => sys::LLAMA_LOAD_MODE_NONE,
    };
    params.progress_callback = Some(report_progress);
    params.progress_callback_user_data = (&raw mut progress).cast::<c_void>();
    let (raw, errors) = process::with_cpu(registration, |_| {
        log::capture_errors(|| {
            // SAFETY: both strings are NUL-terminated, and `devices` and `progress` outlive the call.
            unsafe { ffi::gl_model_load(path_c.as_ptr(), architecture.as_ptr(), &params) }
        })
    })
    .map_err(|Reentered| LoadError::Refused { engine: ENGINE, message: Reentered.to_string() })?;
    let Progress { cancelled, panic, .. } = progress;
    let raw = NonNull::new(raw).map(RawModel);
    if let Some(payload) = panic {
        drop(raw);
        panic::resume_unwind(payload);
    }
    raw.ok_or_else(|| match cancelled {
        true => LoadError::Cancelled,
        false => LoadError::Refused { engine: ENGINE, message: message(errors) },
    })
}

/// The engine's own words: its log, or the exception that the shim caught.
pub(super) fn message(log: String) -> String {
    if !log.is_empty() {
        return log;
    }
    // SAFETY: a plain function of the shim.
    let exception = unsafe { ffi::gl_last_error() };
    // SAFETY: it is a NUL-terminated string that lives until the shim's next call on this thread.
    let exception = unsafe { CStr::from_ptr(exception) }.to_string_lossy();
    if exception.is_empty() { "no reason given".to_owned() } else { exception.into_owned() }
}

fn c_path(path: &Path) -> Result<CString, LoadError> {
    let error = |message: &str| LoadError::Io {
        path: path.to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, message.to_owned()),
    };
    #[cfg(unix)]
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    #[cfg(not(unix))]
    let bytes = path.to_str().ok_or_else(|| error("the path is not valid Unicode"))?.as_bytes();
    CString::new(bytes).map_err(|_| error("the path contains a NUL character"))
}

struct Progress<'a> {
    report: &'a mut dyn FnMut(f32) -> ControlFlow<()>,
    cancelled: bool,
    panic: Option<Box<dyn std::any::Any + Send>>,
}

/// Returns whether to go on. The caller's closure may panic; the panic waits until llama.cpp has cleaned up.
unsafe extern "C" fn report_progress(fraction: f32, user: *mut c_void) -> bool {
    // SAFETY: `load` passes a `Progress` that outlives the call, and llama.cpp reports from the calling thread only.
    let progress = unsafe { &mut *user.cast::<Progress<'_>>() };
    match panic::catch_unwind(AssertUnwindSafe(|| (progress.report)(fraction.clamp(0.0, 1.0)))) {
        Ok(ControlFlow::Continue(())) => true,
        Ok(ControlFlow::Break(())) => {
            progress.cancelled = true;
            false
        }
        Err(payload) => {
            progress.panic = Some(payload);
            false
        }
    }
}

fn shape(raw: &RawModel, profile: &ModelProfile) -> ModelShape {
    let model = raw.as_ptr();
    let count = |value: i32| u32::try_from(value).unwrap_or(0);
    // SAFETY: the model is valid.
    let vocab = unsafe { sys::llama_model_get_vocab(model) };
    ModelShape {
        // SAFETY: the vocabulary lives as long as its model.
        n_vocab: count(unsafe { sys::llama_vocab_n_tokens(vocab) }),
        n_ctx_train: profile.n_ctx_train,
        // SAFETY: the model is valid.
        n_embd: count(unsafe { sys::llama_model_n_embd(model) }),
        n_layer: profile.n_layer,
        weight_bytes: profile.weight_bytes,
        // SAFETY: the model is valid.
        parameters: unsafe { sys::llama_model_n_params(model) },
    }
}
