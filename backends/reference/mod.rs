//! Llama and BitNet models in pure Rust: slow, simple, without ggml. The oracle of the tests, and the worked example
//! for whoever writes a backend.
//!
//! Weights stay as the file stores them and are decoded row by row; everything else is F32, but for the activations in
//! front of ternary weights, which are rounded to 8 bits as BitNet does. A result does not depend on the batch size or
//! the number of threads, bit for bit, which is what an oracle is for and more than a fast backend can promise.
#![forbid(unsafe_code)]

mod architecture;
mod cache;
mod context;
mod hyperparameters;
mod matrix;
mod model;
mod pass;
mod ternary;
mod transformer;

use std::{fmt, ops::ControlFlow, sync::Arc};

use crate::{
    backend::{
        Backend, BackendModel, Device, DeviceKind, Ineligible, LoadError, LoadRequest, ModelProfile, Rates, Score,
        Unavailable, roofline,
    },
    gguf::GgufError,
    hardware::Hardware,
};

crate::register_backend!(&Reference);

/// The backend's id, and the name of its engine in errors.
const ID: &str = "reference";

/// Pure Rust on the CPU.
#[derive(Debug)]
struct Reference;

impl Backend for Reference {
    fn id(&self) -> &'static str {
        ID
    }

    fn summary(&self) -> String {
        "pure Rust, slow; for tests and for machines that nothing else supports".to_owned()
    }

    /// One device, the CPU: Rust's standard library is all that this backend needs.
    fn devices(&self, hardware: &Hardware) -> Result<Vec<Device>, Unavailable> {
        Ok(vec![Device {
            id: "cpu".to_owned(),
            name: hardware.cpu.brand.clone(),
            kind: DeviceKind::Cpu,
            memory: hardware.memory.available,
        }])
    }

    fn score(&self, device: &Device, hardware: &Hardware, model: &ModelProfile) -> Result<Score, Ineligible> {
        if architecture::Architecture::from_name(&model.architecture).is_none() {
            return Err(Ineligible::Architecture(model.architecture.clone()));
        }
        if let Some(group) = model.groups.iter().find(|group| !matrix::Matrix::supports(group.tensor_type)) {
            return Err(Ineligible::TensorType(group.tensor_type.to_string()));
        }
        if let Some(available) = device.memory.filter(|&available| model.weight_bytes > available) {
            return Err(Ineligible::Memory { needed: model.weight_bytes, available });
        }
        Ok(roofline(model, &rates(hardware)))
    }

    fn load(
        &self,
        device: &Device,
        request: &LoadRequest<'_>,
        progress: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<Arc<dyn BackendModel>, LoadError> {
        Ok(Arc::new(model::Model::load(device, request, progress)?))
    }
}

/// What this code claims to do on `hardware`: about a tenth of what it does.
///
/// Measured on a Zen 4 server with SmolLM2-135M, compiled for the x86-64 baseline, a core reads 36 tokens of a prompt
/// a second and generates 12: 5e9 and 1.6e9 multiply-adds. That is near llama.cpp's slowest tier, and the oracle shall
/// not be chosen where llama.cpp can run; where it is alone, any number above zero serves.
fn rates(hardware: &Hardware) -> Rates {
    const PROMPT: f64 = 0.5e9;
    const DECODE: f64 = 0.15e9;
    const BANDWIDTH: f64 = 1e9;
    let cores = f64::from(hardware.default_threads().get());
    Rates {
        quantized: PROMPT * cores,
        ternary: PROMPT * cores,
        float: PROMPT * cores,
        quantized_vector: DECODE * cores,
        ternary_vector: DECODE * cores,
        float_vector: DECODE * cores,
        bandwidth: BANDWIDTH,
    }
}

/// The model is not one that this backend can run.
fn refused(message: impl fmt::Display) -> LoadError {
    LoadError::Refused { engine: ID, message: message.to_string() }
}

/// The file could not be read, or holds something else than it did when it was validated.
fn unreadable(error: GgufError) -> LoadError {
    match error {
        GgufError::Io { path, source } => LoadError::Io { path, source },
        other => refused(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backend::WeightGroup, gguf::TensorType};

    fn score(change: impl FnOnce(&mut ModelProfile)) -> Result<Score, Ineligible> {
        let hardware = Hardware::detect();
        let device = Device { id: "cpu".to_owned(), name: String::new(), kind: DeviceKind::Cpu, memory: Some(1000) };
        let mut profile = profile();
        change(&mut profile);
        Reference.score(&device, &hardware, &profile)
    }

    fn profile() -> ModelProfile {
        ModelProfile {
            architecture: "llama".to_owned(),
            weight_bytes: 1000,
            groups: vec![WeightGroup { tensor_type: TensorType::F32, stacked: false, elements: 250, bytes: 1000 }],
            kv_bytes_per_token: 4,
            n_ctx_train: 128,
            n_layer: 1,
            n_vocab: 10,
            vocabulary_only: false,
        }
    }

    #[test]
    fn llama_model_that_fits_is_eligible() {
        assert!(score(|_| ()).is_ok());
    }

    #[test]
    fn bitnet_models_are_eligible() {
        let bitnet = |profile: &mut ModelProfile| {
            profile.architecture = "bitnet-b1.58".to_owned();
            profile.groups[0].tensor_type = TensorType::TQ2_0;
        };
        assert!(score(bitnet).is_ok());
    }

    #[test]
    fn weights_larger_than_the_memory_are_ineligible() {
        let expected = Ineligible::Memory { needed: 1001, available: 1000 };
        assert_eq!(score(|profile| profile.weight_bytes = 1001), Err(expected));
    }

    #[test]
    fn memory_that_is_not_known_is_no_reason_to_refuse() {
        let hardware = Hardware::detect();
        let device = Device { id: "cpu".to_owned(), name: String::new(), kind: DeviceKind::Cpu, memory: None };
        assert!(Reference.score(&device, &hardware, &profile()).is_ok());
    }

    #[test]
    fn element_type_without_a_decoder_is_ineligible() {
        let expected = Ineligible::TensorType("IQ1_S".to_owned());
        assert_eq!(score(|profile| profile.groups[0].tensor_type = TensorType::IQ1_S), Err(expected));
    }
}
