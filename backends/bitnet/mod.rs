//! Ternary models on the CPU, with kernels of our own: backends `bitnet-<tier>`.
//!
//! * `kernels/`: C++ that each tier compiles with its own flags, as a buffer type of ggml's CPU backend. Weights are repacked
//!   into it when a model is loaded, and products with them go to the kernels, in llama.cpp's graphs and thread pools.
//! * `architecture.cpp`: BitNet b1.58 for libllama, which `cpu-<tier>` runs too, with ggml's kernels.
//! * This file: the choice between the two, which is the selector's. A model with ternary weights, of any architecture, is
//!   predicted to run faster here, unless they are all in stacked experts.

use std::{num::NonZeroU32, ops::ControlFlow, sync::Arc, time::Duration};

use super::{
    cpu::{self, Tier},
    ggml::{self, CpuRegistration, LlamaModel, LlamaProduct, TernaryKernels},
};
use crate::{
    backend::{
        Backend, BackendModel, Device, Ineligible, LoadError, LoadRequest, Matrix, ModelProfile, Product, ProductError,
        Rates, Score, Unavailable, Vocabulary, WeightGroup, roofline,
    },
    gguf::{TensorInfo, TensorType},
    hardware::Hardware,
};

/// One tier of the ternary kernels.
#[derive(Debug)]
struct BitnetBackend {
    id: &'static str,
    tier: &'static Tier,
    registration: CpuRegistration,
}

impl Backend for BitnetBackend {
    fn id(&self) -> &'static str {
        self.id
    }

    fn summary(&self) -> String {
        format!("llama.cpp with ternary kernels, {}", self.tier.extensions())
    }

    fn devices(&self, hardware: &Hardware) -> Result<Vec<Device>, Unavailable> {
        self.tier.require(hardware)?;
        Ok(vec![cpu::device(hardware)])
    }

    fn score(&self, _device: &Device, hardware: &Hardware, model: &ModelProfile) -> Result<Score, Ineligible> {
        if !ggml::knows_architecture(&model.architecture) {
            return Err(Ineligible::Architecture(model.architecture.clone()));
        }
        // Stacked matrices are ggml's: they are multiplied in another way, which the kernels have not.
        let (stacked, plain): (Vec<WeightGroup>, Vec<WeightGroup>) =
            model.groups.iter().partition(|group| group.stacked);
        if !plain.iter().any(|group| group.tensor_type.is_ternary()) {
            return Err(Ineligible::NoTensorOfType("TQ1_0, TQ2_0 or Q2_0 that are not stacked experts"));
        }
        let part = |groups, rates: Rates| roofline(&ModelProfile { groups, ..model.clone() }, &rates);
        let plain = part(plain, self.predicted_rates(hardware));
        if stacked.is_empty() {
            return Ok(plain);
        }
        Ok(plain.in_turn(part(stacked, self.tier.predicted_rates(hardware))))
    }

    fn load(
        &self,
        _device: &Device,
        request: &LoadRequest<'_>,
        progress: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<Arc<dyn BackendModel>, LoadError> {
        // A safe function must not rely on where the device came from: it may have been made for another machine.
        let hardware = Hardware::detect();
        self.tier.require(&hardware)?;
        ggml::require_for_weights(request, &hardware.memory, |tensor| self.repacked_bytes(tensor))?;
        let registration = self.registration.with_ternary_kernels(hardware.default_threads());
        let model = LlamaModel::load(self.id, registration, request, progress)?;
        // To run a model here whose tensors all stayed with ggml would be to pretend.
        if model.ternary().tensors() == 0 && !request.profile().vocabulary_only {
            let message = "the kernels multiply with none of its ternary tensors".to_owned();
            return Err(LoadError::Refused { engine: ggml::ENGINE, message });
        }
        Ok(Arc::new(model))
    }

    fn measure(&self, _device: &Device, budget: Duration) -> Option<Rates> {
        let hardware = Hardware::detect();
        self.tier.require(&hardware).ok()?;
        let threads = hardware.default_threads();
        ggml::measure(self.registration.with_ternary_kernels(threads), threads, budget)
    }

    fn product(
        &self,
        _device: &Device,
        matrix: Matrix<'_>,
        threads: NonZeroU32,
    ) -> Option<Result<Box<dyn Product>, ProductError>> {
        if let Err(unavailable) = self.tier.require(&Hardware::detect()) {
            return Some(Err(ProductError::Failed(unavailable.to_string())));
        }
        let product = LlamaProduct::new(self.registration.with_ternary_kernels(threads), matrix, threads);
        Some(product.map(|product| Box::new(product) as Box<dyn Product>))
    }

    fn vocabulary(&self, request: &LoadRequest<'_>) -> Option<Result<Arc<dyn Vocabulary>, LoadError>> {
        Some(ggml::load_vocabulary(request))
    }
}

impl BitnetBackend {
    /// Bytes that a matrix takes in the form that the kernels, or else ggml, make of it.
    fn repacked_bytes(&self, tensor: &TensorInfo) -> Option<u64> {
        /// Memory is reserved for two bits each, also where they will take 1.6.
        const WEIGHTS_OF_A_BYTE: u64 = 4;
        match tensor.tensor_type {
            ternary if ternary.is_ternary() && !tensor.is_stacked() => Some(tensor.elements() / WEIGHTS_OF_A_BYTE),
            TensorType::Q6_K if !tensor.is_stacked() => Some(tensor.bytes),
            _ => self.tier.repacked_bytes(tensor),
        }
    }

    /// The tier's rates, with those of its ternary kernels in the place of ggml's.
    fn predicted_rates(&self, hardware: &Hardware) -> Rates {
        let of_tier = &self.tier.rates;
        let rates = self.tier.predicted_rates(hardware);
        Rates {
            ternary: rates.ternary / of_tier.quantized * of_tier.ternary,
            ternary_vector: rates.ternary_vector / of_tier.quantized_vector * of_tier.ternary_vector,
            ..rates
        }
    }
}

/// Registers the kernels of one tier that build.rs built.
macro_rules! register_tier {
    ($id:literal, $function:ident, $pack:ident, $multiply_adds:ident) => {
        const _: () = {
            unsafe extern "C" {
                fn $function() -> llama_cpp_sys_2::ggml_backend_reg_t;
                fn $pack(threads: i32);
                fn $multiply_adds(rounds: i64) -> i64;
            }
            static BACKEND: BitnetBackend = BitnetBackend {
                id: concat!("bitnet-", $id),
                tier: cpu::tier($id),
                // SAFETY: build.rs compiled the functions for this tier, and `load` and `measure` call them only where
                // `require` found that the CPU has all of it.
                registration: unsafe {
                    CpuRegistration::new($function, Some(TernaryKernels { pack: $pack, multiply_adds: $multiply_adds }))
                },
            };
            $crate::register_backend!(&BACKEND);
        };
    };
}

include!(concat!(env!("OUT_DIR"), "/built_tiers.rs"));
