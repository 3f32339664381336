//! Backends that exist only in their claims: features that they require, devices, speeds.
#![allow(dead_code, reason = "the tests and the benchmark each use a part")]

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gguf_loader::{
    backend::{
        Backend, BackendModel, Device, DeviceKind, Ineligible, LoadError, LoadRequest, ModelProfile, Rates, Score,
        Unavailable, WeightGroup, roofline,
    },
    gguf::TensorType,
    hardware::{Architecture, CpuFeature, CpuFeatures, Hardware, Snapshot},
    select::Registry,
};

/// A backend that requires CPU features and claims a speed on each of its devices.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) id: &'static str,
    pub(crate) requires: CpuFeatures,
    pub(crate) devices: Vec<Claim>,
    /// Measured rates; `None` has nothing to measure with.
    pub(crate) measured: Option<Rates>,
    /// How often it was asked for its devices.
    pub(crate) asked: AtomicUsize,
    /// How often it was measured.
    pub(crate) measurements: AtomicUsize,
}

/// What a fake says of the speed of a device.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Claim {
    /// Whatever the model, and be it nonsense.
    Score(Score),
    /// By the roofline.
    Rates(Rates),
    /// Cannot run the model.
    Refuses,
}

/// A fake that runs on every CPU, with the same speed for prompt and decode.
pub(crate) fn fake(id: &'static str, speed: f64) -> Fake {
    Fake {
        id,
        requires: CpuFeatures::EMPTY,
        devices: vec![Claim::Score(Score { prompt: speed, decode: speed })],
        measured: None,
        asked: AtomicUsize::new(0),
        measurements: AtomicUsize::new(0),
    }
}

impl Fake {
    pub(crate) fn requiring(mut self, features: CpuFeatures) -> Self {
        self.requires = features;
        self
    }

    pub(crate) fn with_devices(mut self, devices: impl IntoIterator<Item = Claim>) -> Self {
        self.devices = devices.into_iter().collect();
        self
    }

    pub(crate) fn measuring(mut self, rates: Rates) -> Self {
        self.measured = Some(rates);
        self
    }

    /// Registered backends live as long as the program; these do too, a few hundred bytes each.
    pub(crate) fn leak(self) -> &'static Self {
        Box::leak(Box::new(self))
    }
}

/// A registry of `fakes`.
pub(crate) fn registry(fakes: impl IntoIterator<Item = Fake>) -> Registry {
    let backends = fakes.into_iter().map(|fake| fake.leak() as &'static dyn Backend);
    Registry::from_backends(backends).expect("the ids are good and differ")
}

impl Backend for Fake {
    fn id(&self) -> &'static str {
        self.id
    }

    fn summary(&self) -> String {
        "a fake".to_owned()
    }

    fn devices(&self, hardware: &Hardware) -> Result<Vec<Device>, Unavailable> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let missing = self.requires.iter().filter(|&feature| !hardware.cpu.features.contains(feature));
        let missing: Vec<_> = missing.map(|feature| feature.name().to_owned()).collect();
        if !missing.is_empty() {
            return Err(Unavailable::MissingCpuFeatures(missing));
        }
        let device = |index| Device {
            id: format!("device{index}"),
            name: "a fake device".to_owned(),
            kind: DeviceKind::Cpu,
            memory: hardware.memory.available,
        };
        Ok((0..self.devices.len()).map(device).collect())
    }

    fn score(&self, device: &Device, _: &Hardware, model: &ModelProfile) -> Result<Score, Ineligible> {
        let index: usize = device.id["device".len()..].parse().expect("a device of this fake");
        match &self.devices[index] {
            Claim::Score(score) => Ok(*score),
            Claim::Rates(rates) => Ok(roofline(model, rates)),
            Claim::Refuses => Err(Ineligible::Architecture(model.architecture.clone())),
        }
    }

    fn load(
        &self,
        _: &Device,
        _: &LoadRequest<'_>,
        _: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<Arc<dyn BackendModel>, LoadError> {
        Err(LoadError::Refused { engine: "fake", message: "there is nothing to run with".to_owned() })
    }

    fn measure(&self, _: &Device, _: Duration) -> Option<Rates> {
        self.measurements.fetch_add(1, Ordering::Relaxed);
        self.measured
    }
}

/// A machine of which no more is known than four CPUs and these features.
pub(crate) fn machine(features: impl IntoIterator<Item = CpuFeature>) -> Hardware {
    let mut snapshot = Snapshot::new(Architecture::X86_64, "linux");
    snapshot.logical_cpus = Some(4);
    let mut machine = Hardware::from_snapshot(&snapshot);
    machine.cpu.features = features.into_iter().collect();
    machine
}

/// Rates with one speed for every kind of weight.
pub(crate) fn rates(multiply_adds: f64, bandwidth: f64) -> Rates {
    Rates {
        quantized: multiply_adds,
        ternary: multiply_adds,
        float: multiply_adds,
        quantized_vector: multiply_adds,
        ternary_vector: multiply_adds,
        float_vector: multiply_adds,
        bandwidth,
    }
}

/// A llama with these matrices.
pub(crate) fn model(groups: Vec<WeightGroup>) -> ModelProfile {
    ModelProfile {
        architecture: "llama".to_owned(),
        weight_bytes: groups.iter().map(|group| group.bytes).fold(0, u64::saturating_add),
        groups,
        kv_bytes_per_token: 23_040,
        n_ctx_train: 2048,
        n_layer: 30,
        n_vocab: 49_152,
        vocabulary_only: false,
    }
}

/// SmolLM2-135M in Q4_1 with a Q8_0 embedding, near enough.
pub(crate) fn smollm2() -> ModelProfile {
    let group = |tensor_type: TensorType, elements: u64| WeightGroup {
        tensor_type,
        stacked: false,
        elements,
        bytes: elements / tensor_type.block_elements() * tensor_type.block_bytes(),
    };
    model(vec![group(TensorType::Q4_1, 106_168_320), group(TensorType::Q8_0, 28_311_552)])
}
