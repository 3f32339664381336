//! llama.cpp on the CPU, once per instruction set: backends `cpu-<tier>`.
//!
//! `tiers.rs` is the table, `build.rs` compiles what the cargo features ask for, and the list of what was built registers
//! one [`CpuBackend`] a tier.

mod tiers;

use std::{num::NonZeroU32, ops::ControlFlow, sync::Arc, time::Duration};

use tiers::TIERS;
pub(super) use tiers::Tier;

use super::ggml::{self, CpuRegistration, LlamaAttention, LlamaModel, LlamaProduct};
use crate::{
    backend::{
        Attention, Backend, BackendModel, Cache, CompiledTemplate, Device, DeviceKind, Ineligible, LoadError,
        LoadRequest, Matrix, ModelProfile, Product, ProductError, Rates, Score, TemplateError, TemplateSource,
        Unavailable, Vocabulary, roofline,
    },
    gguf::{TensorInfo, TensorType},
    hardware::Hardware,
};

/// One tier of ggml-cpu.
#[derive(Debug)]
struct CpuBackend {
    id: &'static str,
    tier: &'static Tier,
    registration: CpuRegistration,
}

impl Tier {
    /// The one check that stands between a tier's code and a CPU that does not know it.
    pub(super) fn require(&self, hardware: &Hardware) -> Result<(), Unavailable> {
        let missing = hardware.cpu.features.missing(self.requires);
        if !missing.is_empty() {
            return Err(Unavailable::MissingCpuFeatures(missing.into_iter().map(str::to_owned).collect()));
        }
        // ggml's kernels for SVE end the process on any other length.
        match hardware.cpu.sve_vector_bytes {
            Some(16 | 32 | 64) => Ok(()),
            _ if !self.requires.contains(&"sve") => Ok(()),
            other => Err(Unavailable::VectorLength(other)),
        }
    }

    /// What the tier does on all cores that a context uses by default.
    ///
    /// The table has multiply-adds a cycle and core; clock and bandwidth of a machine that nobody measured are assumed. All
    /// tiers of a machine share the assumption, so it cannot change their order.
    pub(super) fn predicted_rates(&self, hardware: &Hardware) -> Rates {
        /// Cycles a second.
        const CLOCK: f64 = 3.0e9;
        /// Bytes a second that one core reads, and that the memory gives to all of them.
        const CORE_BANDWIDTH: f64 = 12.0e9;
        const MEMORY_BANDWIDTH: f64 = 40.0e9;
        let threads = f64::from(hardware.default_threads().get());
        let rate = |per_cycle: f64| per_cycle * CLOCK * threads;
        Rates {
            quantized: rate(self.rates.quantized),
            // ggml's own kernels for them: the tier's rates of quantised weights, or near.
            ternary: rate(self.rates.quantized),
            float: rate(self.rates.float),
            quantized_vector: rate(self.rates.quantized_vector),
            ternary_vector: rate(self.rates.quantized_vector),
            float_vector: rate(self.rates.float_vector),
            bandwidth: (CORE_BANDWIDTH * threads).min(MEMORY_BANDWIDTH),
        }
    }

    /// Bytes that a matrix takes in the form that ggml makes of it on this tier; `None` where it stays as it is. Follows
    /// `ggml_repack_get_optimal_repack_type` and, for AMX, `qtype_has_amx_kernels`.
    pub(super) fn repacked_bytes(&self, tensor: &TensorInfo) -> Option<u64> {
        use TensorType::{IQ4_NL, IQ4_XS, MXFP4, Q2_K, Q4_0, Q4_1, Q4_K, Q5_K, Q6_K, Q8_0};
        let has = |feature| self.requires.contains(&feature);
        let repacked = match tensor.tensor_type {
            Q4_0 | Q4_K | IQ4_NL | MXFP4 => has("avx2") || has("dotprod"),
            Q5_K | Q6_K | Q8_0 => has("amx-int8") || has("dotprod"),
            Q4_1 | IQ4_XS => has("amx-int8"),
            Q2_K => has("avx512f"),
            _ => false,
        };
        // Rows are interleaved in eights, on some tiers in fours.
        (repacked && tensor.shape.get(1)? % 8 == 0).then_some(tensor.bytes)
    }

    /// What ggml calls the extensions; the full list of requirements is in `tiers.rs` and in a refusal.
    pub(super) fn extensions(&self) -> String {
        let name = |define: &&'static str| define.trim_start_matches("GGML_").trim_start_matches("USE_");
        match self.defines {
            [] => "the architecture's baseline".to_owned(),
            defines => defines.iter().map(name).collect::<Vec<_>>().join(" "),
        }
    }
}

/// The CPU, as a device of any of its backends.
pub(super) fn device(hardware: &Hardware) -> Device {
    Device {
        id: "cpu".to_owned(),
        name: hardware.cpu.brand.clone(),
        kind: DeviceKind::Cpu,
        memory: hardware.memory.available,
    }
}

impl Backend for CpuBackend {
    fn id(&self) -> &'static str {
        self.id
    }

    fn summary(&self) -> String {
        format!("llama.cpp, {}", self.tier.extensions())
    }

    fn devices(&self, hardware: &Hardware) -> Result<Vec<Device>, Unavailable> {
        self.tier.require(hardware)?;
        Ok(vec![device(hardware)])
    }

    fn score(&self, _device: &Device, hardware: &Hardware, model: &ModelProfile) -> Result<Score, Ineligible> {
        if !ggml::knows_architecture(&model.architecture) {
            return Err(Ineligible::Architecture(model.architecture.clone()));
        }
        Ok(roofline(model, &self.tier.predicted_rates(hardware)))
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
        ggml::require_for_weights(request, &hardware.memory, |tensor| self.tier.repacked_bytes(tensor))?;
        Ok(Arc::new(LlamaModel::load(self.id, self.registration, request, progress)?))
    }

    fn measure(&self, _device: &Device, budget: Duration) -> Option<Rates> {
        let hardware = Hardware::detect();
        self.tier.require(&hardware).ok()?;
        ggml::measure(self.registration, hardware.default_threads(), budget)
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
        let product = LlamaProduct::new(self.registration, matrix, threads);
        Some(product.map(|product| Box::new(product) as Box<dyn Product>))
    }

    fn attention(
        &self,
        _device: &Device,
        cache: Cache<'_>,
        threads: NonZeroU32,
    ) -> Option<Result<Box<dyn Attention>, ProductError>> {
        if let Err(unavailable) = self.tier.require(&Hardware::detect()) {
            return Some(Err(ProductError::Failed(unavailable.to_string())));
        }
        let attention = LlamaAttention::new(self.registration, cache, threads);
        Some(attention.map(|attention| Box::new(attention) as Box<dyn Attention>))
    }

    fn vocabulary(&self, request: &LoadRequest<'_>) -> Option<Result<Arc<dyn Vocabulary>, LoadError>> {
        Some(ggml::load_vocabulary(request))
    }

    fn chat_template(&self, source: &TemplateSource) -> Option<Result<Arc<dyn CompiledTemplate>, TemplateError>> {
        Some(ggml::compile_template(source))
    }
}

/// The row of the table with this id.
pub(super) const fn tier(id: &str) -> &'static Tier {
    let mut index = 0;
    while index < TIERS.len() {
        if same(TIERS[index].id.as_bytes(), id.as_bytes()) {
            return &TIERS[index];
        }
        index += 1;
    }
    panic!("build.rs built a tier that the table does not have")
}

/// `==` for constants.
const fn same(left: &[u8], right: &[u8]) -> bool {
    let mut index = 0;
    while index < left.len() && index < right.len() && left[index] == right[index] {
        index += 1;
    }
    index == left.len() && index == right.len()
}

/// Registers the backend of one tier that build.rs built: its name and its renamed `ggml_backend_cpu_reg`, and the functions of
/// the ternary kernels if they were compiled with it.
macro_rules! register_tier {
    ($id:literal, $function:ident) => {
        register_tier!($id, $function, None, {});
    };
    ($id:literal, $function:ident, $pack:ident, $multiply_adds:ident) => {
        register_tier!($id, $function, Some(ggml::TernaryKernels { pack: $pack, multiply_adds: $multiply_adds }), {
            fn $pack(threads: i32);
            fn $multiply_adds(rounds: i64) -> i64;
        });
    };
    ($id:literal, $function:ident, $ternary:expr, { $($declaration:item)* }) => {
        const _: () = {
            unsafe extern "C" {
                fn $function() -> llama_cpp_sys_2::ggml_backend_reg_t;
                $($declaration)*
            }
            static BACKEND: CpuBackend = CpuBackend {
                id: concat!("cpu-", $id),
                tier: tier($id),
                // SAFETY: build.rs compiled the function for this tier, and `load` and `measure` call it only where
                // `require` found that the CPU has all of it.
                registration: unsafe { CpuRegistration::new($function, $ternary) },
            };
            $crate::register_backend!(&BACKEND);
        };
    };
}

include!(concat!(env!("OUT_DIR"), "/built_tiers.rs"));

#[cfg(test)]
#[cfg(feature = "synth")]
mod tests {
    use super::*;
    use crate::{
        backend::Mapping,
        gguf::{Gguf, synth::SyntheticModel},
        hardware::{Memory, Snapshot},
    };

    #[test]
    fn tiers_with_sve_are_for_the_vector_lengths_that_ggml_knows() {
        let recorded = include_str!("../../tests/fixtures/hardware/neoverse-v1.json");
        let mut fixture: serde_json::Value = serde_json::from_str(recorded).unwrap();
        let snapshot: Snapshot = serde_json::from_value(fixture["snapshot"].take()).unwrap();
        let mut hardware = Hardware::from_snapshot(&snapshot);
        for (bytes, runs) in [(16, true), (32, true), (64, true), (48, false), (128, false), (256, false)] {
            hardware.cpu.sve_vector_bytes = Some(bytes);
            let expected = if runs { Ok(()) } else { Err(Unavailable::VectorLength(Some(bytes))) };
            assert_eq!(tier("armv8-sve").require(&hardware), expected);
            assert_eq!(tier("armv8-i8mm").require(&hardware), Ok(()));
        }
        hardware.cpu.sve_vector_bytes = None;
        assert_eq!(tier("armv8-sve").require(&hardware), Err(Unavailable::VectorLength(None)));
    }

    const AVX2: &Tier = tier("haswell");

    /// The memory of a recorded container, with another limit.
    fn container(limit: u64) -> Memory {
        let recorded = include_str!("../../tests/fixtures/hardware/pod-quota.json");
        let mut fixture: serde_json::Value = serde_json::from_str(recorded).unwrap();
        let mut snapshot: Snapshot = serde_json::from_value(fixture["snapshot"].take()).unwrap();
        let limited = |(path, text): &(&String, &mut String)| path.ends_with("/memory.max") && *text != "max\n";
        let limits = snapshot.files.iter_mut().filter(limited);
        assert_eq!(limits.map(|(_, text)| *text = format!("{limit}\n")).count(), 1);
        snapshot.files.retain(|path, _| !path.ends_with("/memory.current"));
        Hardware::from_snapshot(&snapshot).memory
    }

    /// What the weights of a model take on a tier, as the refusal of a machine with next to no memory says it.
    fn needed(tensor_type: TensorType, mapping: Mapping, tier: &Tier) -> Option<(u64, u64)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        SyntheticModel::tiny().with_type(tensor_type).write_file(&path).unwrap();
        let file = Gguf::open(&path).unwrap();
        let request = LoadRequest::new(&file).unwrap().with_mapping(mapping);
        let require =
            |limit| ggml::require_for_weights(&request, &container(limit), |tensor| tier.repacked_bytes(tensor));
        let refusal = |result| match result {
            Err(LoadError::Memory { needed, available }) => Some((needed, available)),
            Err(error) => panic!("{error}"),
            Ok(()) => None,
        };
        let (needed, available) = refusal(require(1))?;
        assert_eq!(available, 1);
        assert_eq!(refusal(require(needed)), None);
        assert_eq!(refusal(require(needed - 1)), Some((needed, needed - 1)));
        Some((needed, request.profile().weight_bytes))
    }

    #[test]
    fn weights_that_are_read_are_refused_where_the_control_group_leaves_too_little() {
        let (needed, stored) = needed(TensorType::F16, Mapping::Read, AVX2).unwrap();
        assert_eq!(needed, stored);
    }

    #[test]
    fn of_mapped_weights_only_those_that_are_repacked_must_fit() {
        assert_eq!(needed(TensorType::F16, Mapping::Map, AVX2), None);
        assert_eq!(needed(TensorType::Q4_0, Mapping::Map, tier("x64")), None);
        let (needed, stored) = needed(TensorType::Q4_0, Mapping::Map, AVX2).unwrap();
        assert!((stored / 2..stored).contains(&needed), "{needed} of {stored} bytes");
    }

    #[test]
    fn amx_repacks_what_other_tiers_leave_mapped() {
        assert_eq!(needed(TensorType::Q8_0, Mapping::Map, tier("zen4")), None);
        assert!(needed(TensorType::Q8_0, Mapping::Map, tier("sapphirerapids")).is_some());
    }
}
