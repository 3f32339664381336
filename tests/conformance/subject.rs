//! A backend under test, and how results are compared.

use std::{num::NonZeroU32, ops::ControlFlow, path::Path, sync::Arc};

use gguf_loader::{
    backend::{
        Backend, BackendContext, BackendModel, Batch, ContextOptions, Device, Ineligible, LoadError, LoadRequest,
        Position, SequenceId, Token,
    },
    gguf::{Gguf, TensorType},
    hardware::Hardware,
};

use crate::models::{Model, Models, USUAL};

/// One device of one backend.
pub(crate) struct Subject {
    pub(crate) backend: &'static dyn Backend,
    pub(crate) device: Device,
    pub(crate) hardware: Arc<Hardware>,
    pub(crate) models: Arc<Models>,
    /// What most checks run, where that is not the backend's usual model.
    instead: Option<Model>,
}

impl Subject {
    pub(crate) fn new(
        backend: &'static dyn Backend,
        device: Device,
        hardware: Arc<Hardware>,
        models: Arc<Models>,
    ) -> Self {
        Self { backend, device, hardware, models, instead: None }
    }

    /// The same device, with another model for most checks.
    pub(crate) fn with_usual(&self, model: Model) -> Self {
        let (device, hardware, models) = (self.device.clone(), Arc::clone(&self.hardware), Arc::clone(&self.models));
        Self { instead: Some(model), ..Self::new(self.backend, device, hardware, models) }
    }

    /// What most checks run: quantised, as models are; ternary for a backend that is for those alone.
    pub(crate) fn usual(&self) -> Model {
        let usual = || if self.can_run(USUAL) { USUAL } else { Model::Ternary(TensorType::TQ2_0) };
        self.instead.unwrap_or_else(usual)
    }

    /// A model of one layer.
    pub(crate) fn one_layer(&self) -> Model {
        if self.can_run(Model::OneLayer) { Model::OneLayer } else { Model::BitNetOneLayer }
    }

    /// A model on which a long prompt takes a while.
    pub(crate) fn slow(&self) -> Model {
        if self.can_run(Model::Slow) { Model::Slow } else { Model::SlowTernary }
    }

    /// Whether the backend is for models with tensors like these.
    pub(crate) fn can_run(&self, model: Model) -> bool {
        self.is_for(&self.models.path(model))
    }

    /// The same of any file.
    pub(crate) fn is_for(&self, path: &Path) -> bool {
        let file = open_file(path);
        let score = self.backend.score(&self.device, &self.hardware, request(&file).profile());
        !matches!(score, Err(Ineligible::NoTensorOfType(_)))
    }

    /// Those that the backend is for. At least one: the usual model is among what checks ask for.
    pub(crate) fn runnable(&self, models: impl IntoIterator<Item = Model>) -> Vec<Model> {
        let runnable: Vec<Model> = models.into_iter().filter(|&model| self.can_run(model)).collect();
        assert!(!runnable.is_empty(), "nothing left to check");
        runnable
    }

    /// Tokens of a prompt of the usual model that the backend says it reads in a second.
    pub(crate) fn prompt_speed(&self) -> f64 {
        let file = open_file(&self.models.path(self.usual()));
        let score = self.backend.score(&self.device, &self.hardware, request(&file).profile());
        score.expect("every backend runs the usual model").prompt
    }

    /// Whether the backend knows the model's architecture.
    pub(crate) fn runs(&self, model: Model) -> bool {
        let file = open_file(&self.models.path(model));
        let request = request(&file);
        let profile = request.profile();
        let score = self.backend.score(&self.device, &self.hardware, profile);
        !matches!(score, Err(Ineligible::Architecture(_)))
    }

    /// Loads a model of the suite.
    pub(crate) fn load(&self, model: Model) -> Arc<dyn BackendModel> {
        self.load_path(&self.models.path(model), |_| ControlFlow::Continue(()))
            .unwrap_or_else(|error| panic!("{model:?} did not load: {error}"))
    }

    /// Loads any file.
    pub(crate) fn load_path(
        &self,
        path: &Path,
        mut progress: impl FnMut(f32) -> ControlFlow<()>,
    ) -> Result<Arc<dyn BackendModel>, LoadError> {
        let file = open_file(path);
        self.backend.load(&self.device, &request(&file), &mut progress)
    }

    /// A context of the usual model.
    pub(crate) fn context(&self, options: &ContextOptions) -> Box<dyn BackendContext> {
        open(&self.load(self.usual()), options)
    }
}

/// A validated file.
pub(crate) fn open_file(path: &Path) -> Gguf {
    Gguf::open(path).unwrap_or_else(|error| panic!("{} is not valid: {error}", path.display()))
}

/// What the library asks a backend to load.
pub(crate) fn request(file: &Gguf) -> LoadRequest<'_> {
    LoadRequest::new(file).expect("a model in a file")
}

/// Opens a context.
pub(crate) fn open(model: &Arc<dyn BackendModel>, options: &ContextOptions) -> Box<dyn BackendContext> {
    Arc::clone(model).context(options).unwrap_or_else(|error| panic!("no context: {error}"))
}

/// A short context on one thread: trials run on all cores already, and threads that wait for each other at every node of a
/// graph are slow where there is no core for each.
pub(crate) fn options() -> ContextOptions {
    ContextOptions::default().with_length(count(256)).with_threads(count(1))
}

/// The same on two threads, for checks of what each of them computes.
pub(crate) fn two_threads() -> ContextOptions {
    options().with_threads(count(2))
}

/// A number above zero.
pub(crate) fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("a count above zero")
}

/// Tokens of the tiny model's vocabulary; `seed` chooses which.
pub(crate) fn prompt(length: usize, seed: u32) -> Vec<Token> {
    (0..length as u32).map(|index| 3 + (index * index * 31 + index * 7 + seed * 101) % 500).collect()
}

/// Feeds `tokens` at once and returns the logits after the last.
pub(crate) fn feed(
    context: &mut dyn BackendContext,
    tokens: &[Token],
    first: Position,
    sequence: SequenceId,
) -> Vec<f32> {
    let mut batch = Batch::new();
    batch.extend(tokens, first, sequence);
    context.decode(&batch).unwrap_or_else(|error| panic!("{} tokens were not decoded: {error}", tokens.len()));
    context.logits(tokens.len() - 1).expect("logits after the last token").to_vec()
}

/// Feeds `tokens` one by one and returns the logits after the last.
pub(crate) fn feed_singly(
    context: &mut dyn BackendContext,
    tokens: &[Token],
    first: Position,
    sequence: SequenceId,
) -> Vec<f32> {
    let mut logits = Vec::new();
    for (offset, &token) in tokens.iter().enumerate() {
        logits = feed(context, &[token], first + offset as Position, sequence);
    }
    logits
}

/// How far `found` is from `expected`: the root mean square of the difference over the deviation of `expected`.
pub(crate) fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len(), "rows of different length");
    let count = expected.len() as f64;
    let mean = expected.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let variance = expected.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
    let error = found.iter().zip(expected).map(|(&found, &expected)| f64::from(found - expected).powi(2)).sum::<f64>();
    (error / count / variance).sqrt()
}

/// Tolerance for the same computation done in another order: batches, ubatches and threads change the order of sums,
/// and with it now and then the rounding of an activation to 8 bits.
const SAME: f64 = 0.02;

/// Asserts that two ways to compute the same logits agree. Logits of another prompt are at a distance of about 1.4.
#[track_caller]
pub(crate) fn assert_same(found: &[f32], expected: &[f32]) {
    let distance = distance(found, expected);
    assert!(distance < SAME, "the logits differ by {distance:.4} of their deviation, {SAME} is allowed");
}

/// Asserts that two ways to compute logits agree by the median of several prompts: single tokens and prompts have kernels of
/// their own, and one activation of a tiny model that is rounded the other way alone makes a distance of 0.01 to 0.024.
#[track_caller]
pub(crate) fn assert_mostly_same(pairs: impl Iterator<Item = (Vec<f32>, Vec<f32>)>) {
    let mut distances: Vec<f64> = pairs.map(|(found, expected)| distance(&found, &expected)).collect();
    distances.sort_by(f64::total_cmp);
    let median = distances[distances.len() / 2];
    assert!(median < SAME, "the logits differ by {distances:.4?} of their deviation, in the middle {SAME} is allowed");
}

/// The token with the largest logit.
pub(crate) fn best(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&left, &right| logits[left].total_cmp(&logits[right])).expect("a row of logits")
}

/// Says what is not checked here; nothing passes in silence. On stdout, like libtest's reports: `cargo xtask test` counts there.
pub(crate) fn skipped(reason: &str) {
    #[expect(clippy::print_stdout, reason = "a test binary without a harness speaks for itself")]
    {
        println!("skipped: {reason}");
    }
}
