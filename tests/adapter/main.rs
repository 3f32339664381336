//! Adapters that the tests write: applied, they equal models whose weights were changed by hand, in logits.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the functions that the tests share are tests too")]

mod bitnet;
mod control;
mod lora;
mod merge;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use gguf_loader::{
    Context, LoadOptions, Model,
    backend::{Batch, ContextOptions},
    gguf::{Gguf, TensorType, Writer, synth::SyntheticModel},
    select::{ChooseOptions, Policy},
};

/// A folder with a small model in F32, in which a change of a weight is a change of that weight alone.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self::with(|base| SyntheticModel::tiny().with_type(TensorType::F32).write_file(base).unwrap())
    }

    fn with(write: impl Fn(&Path)) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        write(&folder.base());
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn base(&self) -> PathBuf {
        self.path("base.gguf")
    }

    /// The model with its tensors changed, and others added.
    fn changed(&self, name: &str, change: impl Fn(&str, &mut Vec<f32>), added: &[(String, Vec<f32>)]) -> PathBuf {
        let gguf = Gguf::open(self.base()).unwrap();
        let mut writer = Writer::new();
        for (key, value) in gguf.metadata().iter() {
            writer.set(key, value.clone());
        }
        for tensor in gguf.tensors() {
            let mut numbers = floats(&gguf.read_tensor(tensor).unwrap());
            change(&tensor.name, &mut numbers);
            writer.add_tensor(&tensor.name, &tensor.shape, TensorType::F32, bytes(&numbers)).unwrap();
        }
        for (name, numbers) in added {
            writer.add_tensor(name, &[numbers.len() as u64], TensorType::F32, bytes(numbers)).unwrap();
        }
        let path = self.path(name);
        writer.write_file(&path).unwrap();
        path
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Numbers around zero, the same for the same seed.
fn noise(seed: u64, count: usize, size: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5) * 2.0 * size
    };
    (0..count).map(|_| next()).collect()
}

/// `None`, with a message, when no backend of llama.cpp is compiled in.
fn load(path: &Path) -> Option<Model> {
    let model = Model::load(path).unwrap();
    if model.backend() == "reference" {
        println!("skipped: no compiled backend takes adapters");
        return None;
    }
    Some(model)
}

fn on_backend(path: &Path, id: &str) -> Model {
    let choose = ChooseOptions::default().with_policy(Policy::Named(id.to_owned()));
    Model::load_with(path, &LoadOptions::default().with_choose(choose), |_| ControlFlow::Continue(())).unwrap()
}

fn context(model: &Model) -> Context {
    model.context(&ContextOptions::default()).unwrap()
}

/// The logits after a few tokens.
fn logits(context: &mut Context) -> Vec<f32> {
    let mut batch = Batch::new();
    let first = context.next_position(0);
    assert_eq!(first, 0, "what was held is forgotten");
    batch.extend(&[5, 17, 80, 3, 44, 9], 0, 0);
    context.decode(&batch).unwrap();
    context.logits(5).unwrap().to_vec()
}

/// The root mean square of the difference, in deviations of the expected logits.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    let mean = expected.iter().sum::<f32>() / expected.len() as f32;
    let variance: f32 = expected.iter().map(|logit| (logit - mean).powi(2)).sum();
    let squares: f32 = found.iter().zip(expected).map(|(found, expected)| (found - expected).powi(2)).sum();
    (squares / variance).sqrt()
}
