//! Loading a model: validate the file, choose a backend, load the weights.
#![forbid(unsafe_code)]

use std::{
    num::NonZeroU32,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use crate::{
    backend::{
        self, AdapterEngineError, BackendAdapter, BackendEmbedder, BackendModel, ContextError, ContextOptions,
        LoadRequest, Mapping, ModelProfile, ModelShape, Pooling,
    },
    context::Context,
    gguf::{Fingerprint, Gguf, GgufError},
    hardware::Hardware,
    import::{self, Cache, CacheError, ImportError, ImportOptions, Imported},
    knobs::{KnobError, Knobs},
    select::{ChooseError, ChooseOptions, Selection, choose},
    tokenizer::{Tokenizer, TokenizerError},
};

/// A model in memory, on the backend that was chosen for it. Cheap to clone; the weights are freed with the last handle,
/// contexts included.
#[derive(Debug, Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Keeps the imported file where it is.
    imported: Option<Imported>,
    profile: ModelProfile,
    selection: Selection,
    weights: Arc<dyn BackendModel>,
    threads: Option<NonZeroU32>,
    tokenizer: Result<Tokenizer, TokenizerError>,
    /// Taken when it is first asked for.
    fingerprint: OnceLock<Fingerprint>,
}

/// How to load a model. The default asks the environment ([`knobs`](crate::knobs)) which backends may run, on how many threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// How to choose the backend; `None` asks the environment, and without an answer there takes the fastest.
    pub choose: Option<ChooseOptions>,
    /// Threads of contexts whose options do not say; `None` asks the environment, and without an answer there takes one for each
    /// physical core that the process may use.
    pub threads: Option<NonZeroU32>,
    /// How the weights reach memory.
    pub mapping: Mapping,
    /// How to import a file that no engine reads as it is: I2_S.
    pub import: ImportOptions,
    /// Where imported models are kept; `None` asks the environment.
    pub imports: Option<Cache>,
}

impl LoadOptions {
    /// Sets how to choose the backend, whatever the environment says.
    pub fn with_choose(mut self, choose: ChooseOptions) -> Self {
        self.choose = Some(choose);
        self
    }

    /// Sets the threads of contexts whose options do not say.
    pub fn with_threads(mut self, threads: NonZeroU32) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets how the weights reach memory.
    pub fn with_mapping(mut self, mapping: Mapping) -> Self {
        self.mapping = mapping;
        self
    }

    /// Sets how to import a file that no engine reads as it is.
    pub fn with_import(mut self, import: ImportOptions) -> Self {
        self.import = import;
        self
    }

    /// Sets where imported models are kept, whatever the environment says.
    pub fn with_imports(mut self, imports: Cache) -> Self {
        self.imports = Some(imports);
        self
    }
}

impl LoadOptions {
    fn import(
        &self,
        gguf: &Gguf,
        knobs: &Knobs,
        progress: impl FnMut(f32) -> ControlFlow<()>,
    ) -> Result<Imported, LoadError> {
        let cache = match &self.imports {
            Some(cache) => cache.clone(),
            None => knobs.imports()?.ok_or(ImportError::Cache(CacheError::NoFolder))?,
        };
        Ok(cache.import(gguf, &self.import, progress)?)
    }
}

impl Model {
    /// Loads `path`, or the split file that starts with it, on the fastest backend.
    ///
    /// A BitNet file with I2_S matrices is imported first, into the cache, and found there the next time: see
    /// [`import`].
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        Self::load_with(path, &LoadOptions::default(), |_| ControlFlow::Continue(()))
    }

    /// Like [`load`](Self::load), with options. `progress` gets the fraction done, from 0 to 1; when it breaks, the load
    /// ends with [`backend::LoadError::Cancelled`] (or [`ImportError::Cancelled`]) and nothing stays allocated.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn load_with(
        path: impl AsRef<Path>,
        options: &LoadOptions,
        mut progress: impl FnMut(f32) -> ControlFlow<()>,
    ) -> Result<Self, LoadError> {
        /// Share of the progress that an import takes.
        const IMPORT: f32 = 0.9;
        let path = path.as_ref();
        let mut file = Gguf::open(path)?;
        let knobs = Knobs::from_environment();
        let choose_options = match &options.choose {
            Some(options) => options.clone(),
            None => knobs.choose_options()?,
        };
        let threads = match options.threads {
            Some(threads) => Some(threads),
            None => knobs.threads()?,
        };
        // An import writes gigabytes: what is wrong with the choice is said before. The profile is that of the
        // imported form, but for an output matrix that the import is to make smaller.
        let selection = choose(&Hardware::detect(), &file.profile()?, &choose_options)?;
        let imported = match import::is_needed(&file) {
            true => Some(options.import(&file, &knobs, |fraction| progress(IMPORT * fraction))?),
            false => None,
        };
        let start = if imported.is_some() { IMPORT } else { 0.0 };
        let mut progress = |fraction: f32| progress(start + (1.0 - start) * fraction);
        if let Some(imported) = &imported {
            file = Gguf::open(imported.path())?;
        }
        let request = LoadRequest::new(&file)?.with_mapping(options.mapping);
        let weights = selection.backend().load(selection.device(), &request, &mut progress)?;
        let tokenizer = match weights.vocabulary() {
            Some(vocabulary) => Ok(Tokenizer::new(vocabulary)),
            None => Tokenizer::of_request(&request),
        };
        let (path, profile) = (path.to_owned(), request.profile().clone());
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                imported,
                profile,
                selection,
                weights,
                threads,
                tokenizer,
                fingerprint: OnceLock::new(),
            }),
        })
    }

    /// The file that was asked for.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// What was made of that file to run it; `None` when it runs as it is.
    pub fn imported(&self) -> Option<&Imported> {
        self.inner.imported.as_ref()
    }

    /// The id of the backend that runs the model.
    pub fn backend(&self) -> &'static str {
        self.inner.selection.backend().id()
    }

    /// Which backend was chosen, and why not the others.
    pub fn selection(&self) -> &Selection {
        &self.inner.selection
    }

    /// What the file holds.
    pub fn profile(&self) -> &ModelProfile {
        &self.inner.profile
    }

    /// The model's sizes.
    pub fn shape(&self) -> &ModelShape {
        self.inner.weights.shape()
    }

    /// The model's tokenizer.
    ///
    /// # Errors
    ///
    /// [`TokenizerError`] when no compiled backend can read the vocabulary.
    pub fn tokenizer(&self) -> Result<&Tokenizer, &TokenizerError> {
        self.inner.tokenizer.as_ref()
    }

    /// What tells this model from others: see [`Fingerprint`].
    ///
    /// # Errors
    ///
    /// [`GgufError`] when the file cannot be read any more.
    pub fn fingerprint(&self) -> Result<&Fingerprint, GgufError> {
        if let Some(fingerprint) = self.inner.fingerprint.get() {
            return Ok(fingerprint);
        }
        let fingerprint = Fingerprint::of(&Gguf::open(self.engine_path())?)?;
        Ok(self.inner.fingerprint.get_or_init(|| fingerprint))
    }

    /// Opens a context: a KV cache and the threads that compute on it.
    ///
    /// # Errors
    ///
    /// [`ContextError`], among others when the memory does not suffice.
    pub fn context(&self, options: &ContextOptions) -> Result<Context, ContextError> {
        // A token may be that of many contexts; one of them can be cancelled alone.
        let cancel = options.cancel.child();
        let options = self.with_threads(options).with_cancel(cancel.clone());
        let inner = self.inner.weights.clone().context(&options)?;
        Ok(Context::new(self.clone(), inner, cancel))
    }

    /// How the model's file wants the states of its tokens pooled; `None` for models that are not made for embeddings.
    pub fn default_pooling(&self) -> Option<Pooling> {
        self.inner.weights.pooling()
    }

    /// The file that the engine reads.
    pub(crate) fn engine_path(&self) -> &Path {
        self.imported().map_or(self.path(), Imported::path)
    }

    pub(crate) fn load_adapter(&self, path: &Path) -> Result<Arc<dyn BackendAdapter>, AdapterEngineError> {
        self.inner.weights.clone().adapter(path)
    }

    pub(crate) fn rerank_template(&self) -> Option<String> {
        self.inner.weights.rerank_template()
    }

    pub(crate) fn open_embedder(
        &self,
        options: &ContextOptions,
        pooling: Pooling,
    ) -> Result<Box<dyn BackendEmbedder>, ContextError> {
        self.inner.weights.clone().embedder(&self.with_threads(options), pooling)
    }

    fn with_threads(&self, options: &ContextOptions) -> ContextOptions {
        let mut options = options.clone();
        options.threads = options.threads.or(self.inner.threads);
        options
    }
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file is not a GGUF model that can be loaded safely.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The file could not be brought into a form that engines run.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// An environment variable makes no sense.
    #[error(transparent)]
    Knob(#[from] KnobError),
    /// No backend may or can run the model.
    #[error(transparent)]
    Choose(#[from] ChooseError),
    /// The chosen backend could not load it.
    #[error(transparent)]
    Backend(#[from] backend::LoadError),
}
