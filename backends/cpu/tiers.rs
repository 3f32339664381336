//! The CPU tiers: what each requires of the CPU, and how a compiler is told to use it.
//!
//! Read by the build script, which compiles ggml-cpu once for each row, and by the library, which chooses among the
//! rows at run time; so this file stands alone: plain data, no import.
//!
//! # Invariants, held by `tests/hardware.rs`
//!
//! * `requires` names everything that a compiler may emit under the row's flags, not only what the sources ask for:
//!   `-msse4.2` allows POPCNT, `-march=armv8.2-a` allows LSE, RDM and CRC, `+sve` allows FCMA (gcc 15).
//!   Whoever changes a flag looks at what the compiler then predefines (`gcc FLAGS -dM -E -x c /dev/null`).
//! * Rows stand from slowest to fastest within an architecture, in every rate. The choice among the rows that a CPU
//!   can run is thus the last of them, and a CPU with more features never gets a slower one.
//! * The first row of an architecture is its floor: it requires the baseline only and needs no cargo feature.
//!
//! The rows follow llama.cpp's `GGML_CPU_ALL_VARIANTS` (ggml/src/CMakeLists.txt), with two differences: aarch64 keeps
//! to armv8.2-a and names every extension, because armv8.6-a and armv9-a bring in a dozen that no kernel uses and some
//! CPUs lack; and there is a tier with I8MM and without SVE.
#![allow(dead_code, reason = "the build script, the library and the tests each read a part")]

/// One way to compile ggml-cpu.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tier {
    /// Name: backend id without the `cpu-`, prefix of the tier's symbols.
    pub(crate) id: &'static str,
    /// The cargo feature that builds it; `None` for the floor, which is always built.
    pub(crate) cargo_feature: Option<&'static str>,
    /// The `target_arch` that it is for.
    pub(crate) arch: &'static str,
    /// The `target_os` that it is for; `None` for every one.
    pub(crate) os: Option<&'static str>,
    /// Names of `hardware::CpuFeature`s without which its code must not run.
    pub(crate) requires: &'static [&'static str],
    /// Flags for gcc and clang.
    pub(crate) gnu_flags: &'static [&'static str],
    /// Flags for MSVC; `None` where it cannot build the tier.
    pub(crate) msvc_flags: Option<&'static [&'static str]>,
    /// An instruction of its newest extension, which the assembler must know too: it may be older than the compiler.
    pub(crate) instruction: &'static str,
    /// What ggml's own build defines for the same tier.
    pub(crate) defines: &'static [&'static str],
    /// How fast it is.
    pub(crate) rates: TierRates,
}

/// Multiply-adds per cycle and core, sustained over a whole model, at the 3 GHz that predictions assume.
///
/// Measured, on Zen 4 with two threads: tokens a second times the model's matrix elements, over 6e9 cycles.
///
/// * Quantised: `benches/record/tiers-amd-epyc-family-25-model-17.md`, SmolLM2 in Q4_0, all x86-64 tiers but two. From
///   cascadelake to zen4 the measurements differ by less than their deviation, and so do skylakex and cannonlake: the
///   table lets them rise a little, because the last row that a CPU can run is to win. The other two, alderlake and
///   sapphirerapids, by their ratio to zen4 on Emerald Rapids
///   (`tiers-intel-r-xeon-r-processor-family-6-model-207.md`); one token at a time, alderlake
///   is kept below the row that follows.
/// * Ternary: `benches/record/bitnet-amd-epyc-family-25-model-17.md` for x64, sse42, haswell and zen4; one token at a time on
///   haswell and zen4 from `kernels-amd-epyc-family-25-model-17.md`, where memory does not bind it. Tiers between have
///   the kernels of one of these, and its rate.
/// * Ternary on alderlake and skylakex, whose instructions Zen 4 does not have or splits in two: many tokens at a time by
///   their ratio to haswell on Emerald Rapids (`bitnet-intel-r-xeon-r-processor-family-6-model-207.md`); on sapphirerapids by
///   that to zen4.
///
/// Estimates: one token at a time there, every float rate, and all of aarch64.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TierRates {
    /// Quantised weights, many tokens at a time.
    pub(crate) quantized: f64,
    /// F32, F16 and BF16 weights, many tokens at a time.
    pub(crate) float: f64,
    /// Quantised weights, one token at a time.
    pub(crate) quantized_vector: f64,
    /// F32, F16 and BF16 weights, one token at a time.
    pub(crate) float_vector: f64,
    /// Ternary weights with `backends/bitnet/kernels`, many tokens at a time.
    pub(crate) ternary: f64,
    /// And one token at a time.
    pub(crate) ternary_vector: f64,
}

impl Tier {
    /// Whether the tier can be built for a target.
    pub(crate) fn is_for(&self, arch: &str, os: &str) -> bool {
        self.arch == arch && self.os.is_none_or(|wanted| wanted == os)
    }
}

/// The tiers to build for a target: its architecture's floor, then each whose cargo feature is on. The error says what to do
/// where there is none.
pub(crate) fn wanted(arch: &str, os: &str, feature_is_on: impl Fn(&str) -> bool) -> Result<Vec<&'static Tier>, String> {
    let is_wanted = |tier: &&Tier| tier.is_for(arch, os) && tier.cargo_feature.is_none_or(&feature_is_on);
    let tiers: Vec<_> = TIERS.iter().filter(is_wanted).collect();
    if tiers.is_empty() {
        return Err(format!(
            "there are no CPU tiers for {arch}: build without them, with `--no-default-features --features cli,reference`, or \
             add rows for {arch} to backends/cpu/tiers.rs"
        ));
    }
    Ok(tiers)
}

/// A list of the AVX2 tiers, and what a tier has beyond it.
macro_rules! avx2 {
    (requires $($more:literal)*) => {
        &[
            "sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "avx", "f16c", "fma", "avx2", "bmi1", "bmi2",
            "lzcnt", $($more,)*
        ]
    };
    (flags $($more:literal)*) => {
        &["-msse4.2", "-mavx", "-mf16c", "-mfma", "-mavx2", "-mbmi2", $($more,)*]
    };
    (defines $($more:literal)*) => {
        &["GGML_SSE42", "GGML_AVX", "GGML_F16C", "GGML_FMA", "GGML_AVX2", "GGML_BMI2", $($more,)*]
    };
}

/// A list of the AVX-512 tiers, and what a tier has beyond it.
macro_rules! avx512 {
    (requires $($more:literal)*) => {
        avx2!(requires "avx512f" "avx512cd" "avx512vl" "avx512dq" "avx512bw" $($more)*)
    };
    (flags $($more:literal)*) => {
        avx2!(flags "-mavx512f" "-mavx512cd" "-mavx512vl" "-mavx512dq" "-mavx512bw" $($more)*)
    };
    (defines $($more:literal)*) => {
        avx2!(defines "GGML_AVX512" $($more)*)
    };
}

/// What `-march=armv8.2-a` lets the compiler emit, and what a tier requires beyond it.
macro_rules! armv82 {
    ($($more:literal)*) => {
        &["neon", "lse", "rdm", "crc", $($more,)*]
    };
}

/// Every tier, slowest first within its architecture.
pub(crate) const TIERS: &[Tier] = &[
    // What every x86-64 has.
    Tier {
        id: "x64",
        cargo_feature: None,
        arch: "x86_64",
        os: None,
        requires: &["sse2"],
        gnu_flags: &["-mtune=generic"],
        msvc_flags: Some(&[]),
        instruction: "pmaddwd %xmm0, %xmm1",
        defines: &[],
        rates: TierRates {
            quantized: 0.78,
            float: 1.0,
            quantized_vector: 0.65,
            float_vector: 0.8,
            ternary: 8.2,
            ternary_vector: 6.2,
        },
    },
    // Intel from Nehalem (2008) and Silvermont, AMD from Bulldozer and Jaguar.
    Tier {
        id: "sse42",
        cargo_feature: Some("cpu-sse42"),
        arch: "x86_64",
        os: None,
        requires: &["sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt"],
        gnu_flags: &["-msse4.2", "-mtune=nehalem"],
        msvc_flags: Some(&["/arch:SSE4.2"]),
        instruction: "pcmpgtq %xmm0, %xmm1",
        defines: &["GGML_SSE42"],
        rates: TierRates {
            quantized: 5.0,
            float: 1.2,
            quantized_vector: 2.36,
            float_vector: 0.9,
            ternary: 20.9,
            ternary_vector: 11.8,
        },
    },
    Tier {
        id: "sandybridge",
        cargo_feature: Some("cpu-sandybridge"),
        arch: "x86_64",
        os: None,
        requires: &["sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "avx"],
        gnu_flags: &["-msse4.2", "-mavx", "-mtune=sandybridge"],
        msvc_flags: Some(&["/arch:AVX"]),
        instruction: "vaddps %ymm0, %ymm1, %ymm2",
        defines: &["GGML_SSE42", "GGML_AVX"],
        rates: TierRates {
            quantized: 6.8,
            float: 2.4,
            quantized_vector: 2.64,
            float_vector: 1.2,
            ternary: 21.0,
            ternary_vector: 11.9,
        },
    },
    Tier {
        id: "ivybridge",
        cargo_feature: Some("cpu-ivybridge"),
        arch: "x86_64",
        os: None,
        requires: &["sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "avx", "f16c"],
        gnu_flags: &["-msse4.2", "-mavx", "-mf16c", "-mtune=ivybridge"],
        msvc_flags: None,
        instruction: "vcvtph2ps %xmm0, %ymm1",
        defines: &["GGML_SSE42", "GGML_AVX", "GGML_F16C"],
        rates: TierRates {
            quantized: 6.9,
            float: 3.0,
            quantized_vector: 2.77,
            float_vector: 1.5,
            ternary: 21.1,
            ternary_vector: 12.0,
        },
    },
    Tier {
        id: "piledriver",
        cargo_feature: Some("cpu-piledriver"),
        arch: "x86_64",
        os: None,
        requires: &["sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "avx", "f16c", "fma"],
        gnu_flags: &["-msse4.2", "-mavx", "-mf16c", "-mfma", "-mtune=bdver2"],
        msvc_flags: None,
        instruction: "vfmadd231ps %ymm0, %ymm1, %ymm2",
        defines: &["GGML_SSE42", "GGML_AVX", "GGML_F16C", "GGML_FMA"],
        rates: TierRates {
            quantized: 7.4,
            float: 3.6,
            quantized_vector: 2.9,
            float_vector: 1.8,
            ternary: 21.2,
            ternary_vector: 12.1,
        },
    },
    // Intel from Haswell (2013), AMD from Excavator and Zen. MSVC's `/arch:AVX2` may emit BMI1 and LZCNT, so they
    // are required although the other compilers' flags leave them out: every CPU with AVX2 and FMA has them.
    Tier {
        id: "haswell",
        cargo_feature: Some("cpu-haswell"),
        arch: "x86_64",
        os: None,
        requires: avx2!(requires),
        gnu_flags: avx2!(flags "-mtune=haswell"),
        msvc_flags: Some(&["/arch:AVX2", "/D__BMI2__"]),
        instruction: "vpmaddubsw %ymm0, %ymm1, %ymm2",
        defines: avx2!(defines),
        rates: TierRates {
            quantized: 14.3,
            float: 7.0,
            quantized_vector: 4.31,
            float_vector: 2.5,
            ternary: 43.0,
            ternary_vector: 27.1,
        },
    },
    Tier {
        id: "alderlake",
        cargo_feature: Some("cpu-alderlake"),
        arch: "x86_64",
        os: None,
        requires: avx2!(requires "avxvnni"),
        gnu_flags: avx2!(flags "-mavxvnni" "-mtune=alderlake"),
        msvc_flags: Some(&["/arch:AVX2", "/D__BMI2__", "/D__AVXVNNI__"]),
        instruction: "{vex} vpdpbusd %ymm0, %ymm1, %ymm2",
        defines: avx2!(defines "GGML_AVX_VNNI"),
        rates: TierRates {
            quantized: 15.8,
            float: 7.2,
            quantized_vector: 4.48,
            float_vector: 2.6,
            ternary: 51.0,
            ternary_vector: 28.0,
        },
    },
    Tier {
        id: "skylakex",
        cargo_feature: Some("cpu-skylakex"),
        arch: "x86_64",
        os: None,
        requires: avx512!(requires),
        gnu_flags: avx512!(flags "-mtune=skylake-avx512"),
        msvc_flags: Some(&["/arch:AVX512", "/D__BMI2__"]),
        instruction: "vpmaddubsw %zmm0, %zmm1, %zmm2",
        defines: avx512!(defines),
        rates: TierRates {
            quantized: 16.8,
            float: 11.0,
            quantized_vector: 4.49,
            float_vector: 3.2,
            ternary: 53.2,
            ternary_vector: 29.0,
        },
    },
    Tier {
        id: "cannonlake",
        cargo_feature: Some("cpu-cannonlake"),
        arch: "x86_64",
        os: None,
        requires: avx512!(requires "avx512vbmi"),
        gnu_flags: avx512!(flags "-mavx512vbmi" "-mtune=cannonlake"),
        msvc_flags: Some(&["/arch:AVX512", "/D__BMI2__", "/D__AVX512VBMI__"]),
        instruction: "vpermb %zmm0, %zmm1, %zmm2",
        defines: avx512!(defines "GGML_AVX512_VBMI"),
        rates: TierRates {
            quantized: 16.9,
            float: 11.1,
            quantized_vector: 4.5,
            float_vector: 3.3,
            ternary: 53.3,
            ternary_vector: 29.2,
        },
    },
    Tier {
        id: "cascadelake",
        cargo_feature: Some("cpu-cascadelake"),
        arch: "x86_64",
        os: None,
        requires: avx512!(requires "avx512vnni"),
        gnu_flags: avx512!(flags "-mavx512vnni" "-mtune=cascadelake"),
        msvc_flags: Some(&["/arch:AVX512", "/D__BMI2__", "/D__AVX512VNNI__"]),
        instruction: "vpdpbusd %zmm0, %zmm1, %zmm2",
        defines: avx512!(defines "GGML_AVX512_VNNI"),
        rates: TierRates {
            quantized: 19.2,
            float: 11.2,
            quantized_vector: 4.52,
            float_vector: 3.4,
            ternary: 64.8,
            ternary_vector: 32.0,
        },
    },
    Tier {
        id: "icelake",
        cargo_feature: Some("cpu-icelake"),
        arch: "x86_64",
        os: None,
        requires: avx512!(requires "avx512vbmi" "avx512vnni"),
        gnu_flags: avx512!(flags "-mavx512vbmi" "-mavx512vnni" "-mtune=icelake-server"),
        msvc_flags: Some(&["/arch:AVX512", "/D__BMI2__", "/D__AVX512VBMI__", "/D__AVX512VNNI__"]),
        instruction: "vpdpbusd %zmm0, %zmm1, %zmm2",
        defines: avx512!(defines "GGML_AVX512_VBMI" "GGML_AVX512_VNNI"),
        rates: TierRates {
            quantized: 19.3,
            float: 11.3,
            quantized_vector: 4.53,
            float_vector: 3.5,
            ternary: 64.9,
            ternary_vector: 32.1,
        },
    },
    Tier {
        id: "cooperlake",
        cargo_feature: Some("cpu-cooperlake"),
        arch: "x86_64",
        os: None,
        requires: avx512!(requires "avx512vnni" "avx512bf16"),
        gnu_flags: avx512!(flags "-mavx512vnni" "-mavx512bf16" "-mtune=cooperlake"),
        msvc_flags: None,
        instruction: "vdpbf16ps %zmm0, %zmm1, %zmm2",
        defines: avx512!(defines "GGML_AVX512_VNNI" "GGML_AVX512_BF16"),
        rates: TierRates {
            quantized: 19.4,
            float: 12.0,
            quantized_vector: 4.54,
            float_vector: 3.6,
            ternary: 65.0,
            ternary_vector: 32.2,
        },
    },
    // `-mtune=znver4` would need gcc 12.3. With `-mtune=znver3` ggml's flash attention takes 1.6 times as long, and a prompt of 512
    // tokens of SmolLM2 1.14 to 1.2 times (gcc 12, on Zen 4).
    Tier {
        id: "zen4",
        cargo_feature: Some("cpu-zen4"),
        arch: "x86_64",
        os: None,
        requires: avx512!(requires "avx512vbmi" "avx512vnni" "avx512bf16"),
        gnu_flags: avx512!(flags "-mavx512vbmi" "-mavx512vnni" "-mavx512bf16" "-mtune=icelake-server"),
        msvc_flags: None,
        instruction: "vdpbf16ps %zmm0, %zmm1, %zmm2",
        defines: avx512!(defines "GGML_AVX512_VBMI" "GGML_AVX512_VNNI" "GGML_AVX512_BF16"),
        rates: TierRates {
            quantized: 19.5,
            float: 12.5,
            quantized_vector: 4.56,
            float_vector: 3.7,
            ternary: 65.1,
            ternary_vector: 32.3,
        },
    },
    // Tuned for its own name, gcc 12 makes vectors of 256 bits and a prompt in Q4_0 takes a tenth longer.
    Tier {
        id: "sapphirerapids",
        cargo_feature: Some("cpu-sapphirerapids"),
        arch: "x86_64",
        os: None,
        requires: avx512!(requires "avx512vbmi" "avx512vnni" "avx512bf16" "amx-tile" "amx-int8"),
        gnu_flags: avx512!(
            flags "-mavx512vbmi" "-mavx512vnni" "-mavx512bf16" "-mamx-tile" "-mamx-int8" "-mtune=generic"
        ),
        msvc_flags: None,
        instruction: "tdpbssd %tmm0, %tmm1, %tmm2",
        defines: avx512!(
            defines "GGML_AVX512_VBMI" "GGML_AVX512_VNNI" "GGML_AVX512_BF16" "GGML_AMX_TILE" "GGML_AMX_INT8"
        ),
        rates: TierRates {
            quantized: 46.2,
            float: 13.0,
            quantized_vector: 11.3,
            float_vector: 3.9,
            ternary: 145.0,
            ternary_vector: 32.4,
        },
    },
    // What every 64-bit ARM with an operating system of ours has.
    Tier {
        id: "armv8",
        cargo_feature: None,
        arch: "aarch64",
        os: None,
        requires: &["neon"],
        gnu_flags: &["-march=armv8-a", "-mtune=generic"],
        msvc_flags: Some(&[]),
        instruction: "fmla v0.4s, v1.4s, v2.4s",
        defines: &[],
        rates: TierRates {
            quantized: 1.5,
            float: 2.5,
            quantized_vector: 1.0,
            float_vector: 1.0,
            ternary: 8.0,
            ternary_vector: 5.0,
        },
    },
    Tier {
        id: "armv8-dotprod",
        cargo_feature: Some("cpu-armv8-dotprod"),
        arch: "aarch64",
        os: None,
        requires: armv82!("dotprod"),
        gnu_flags: &["-march=armv8.2-a+dotprod", "-mtune=cortex-a76"],
        msvc_flags: None,
        instruction: "sdot v0.4s, v1.16b, v2.16b",
        defines: &["GGML_USE_DOTPROD"],
        rates: TierRates {
            quantized: 6.0,
            float: 2.6,
            quantized_vector: 2.5,
            float_vector: 1.1,
            ternary: 24.0,
            ternary_vector: 14.0,
        },
    },
    Tier {
        id: "armv8-fp16",
        cargo_feature: Some("cpu-armv8-fp16"),
        arch: "aarch64",
        os: None,
        requires: armv82!("dotprod" "fp16"),
        gnu_flags: &["-march=armv8.2-a+dotprod+fp16", "-mtune=neoverse-n1"],
        msvc_flags: None,
        instruction: "fmla v0.8h, v1.8h, v2.8h",
        defines: &["GGML_USE_DOTPROD", "GGML_USE_FP16_VECTOR_ARITHMETIC"],
        rates: TierRates {
            quantized: 6.2,
            float: 4.0,
            quantized_vector: 2.6,
            float_vector: 1.8,
            ternary: 24.2,
            ternary_vector: 14.2,
        },
    },
    // For Snapdragon X, AmpereOne, Apple in a virtual machine.
    Tier {
        id: "armv8-i8mm",
        cargo_feature: Some("cpu-armv8-i8mm"),
        arch: "aarch64",
        os: None,
        requires: armv82!("dotprod" "fp16" "i8mm"),
        gnu_flags: &["-march=armv8.2-a+dotprod+fp16+i8mm", "-mtune=generic"],
        msvc_flags: None,
        instruction: "smmla v0.4s, v1.16b, v2.16b",
        defines: &["GGML_USE_DOTPROD", "GGML_USE_FP16_VECTOR_ARITHMETIC", "GGML_USE_MATMUL_INT8"],
        rates: TierRates {
            quantized: 12.0,
            float: 4.2,
            quantized_vector: 3.0,
            float_vector: 1.9,
            ternary: 24.4,
            ternary_vector: 14.4,
        },
    },
    Tier {
        id: "armv8-sve",
        cargo_feature: Some("cpu-armv8-sve"),
        arch: "aarch64",
        os: None,
        requires: armv82!("dotprod" "fp16" "i8mm" "fcma" "sve"),
        gnu_flags: &["-march=armv8.2-a+dotprod+fp16+i8mm+sve", "-mtune=neoverse-v1"],
        msvc_flags: None,
        instruction: "sdot z0.s, z1.b, z2.b",
        defines: &["GGML_USE_DOTPROD", "GGML_USE_FP16_VECTOR_ARITHMETIC", "GGML_USE_MATMUL_INT8", "GGML_USE_SVE"],
        rates: TierRates {
            quantized: 12.5,
            float: 5.0,
            quantized_vector: 3.1,
            float_vector: 2.0,
            ternary: 24.6,
            ternary_vector: 14.6,
        },
    },
    Tier {
        id: "armv9-sve2",
        cargo_feature: Some("cpu-armv9-sve2"),
        arch: "aarch64",
        os: None,
        requires: armv82!("dotprod" "fp16" "i8mm" "fcma" "sve" "sve2"),
        gnu_flags: &["-march=armv8.2-a+dotprod+fp16+i8mm+sve2", "-mtune=neoverse-n2"],
        msvc_flags: None,
        instruction: "sqrdmlah z0.s, z1.s, z2.s",
        defines: &[
            "GGML_USE_DOTPROD",
            "GGML_USE_FP16_VECTOR_ARITHMETIC",
            "GGML_USE_MATMUL_INT8",
            "GGML_USE_SVE",
            "GGML_USE_SVE2",
        ],
        rates: TierRates {
            quantized: 13.0,
            float: 5.2,
            quantized_vector: 3.2,
            float_vector: 2.1,
            ternary: 24.8,
            ternary_vector: 14.8,
        },
    },
    // `+sme` brings BF16 with it. gcc 14, clang 16.
    Tier {
        id: "armv9-sme",
        cargo_feature: Some("cpu-armv9-sme"),
        arch: "aarch64",
        os: None,
        requires: armv82!("dotprod" "fp16" "i8mm" "bf16" "fcma" "sve" "sve2" "sme"),
        gnu_flags: &["-march=armv8.2-a+dotprod+fp16+i8mm+sve2+sme", "-mtune=neoverse-n2"],
        msvc_flags: None,
        instruction: "smstart",
        defines: &[
            "GGML_USE_DOTPROD",
            "GGML_USE_FP16_VECTOR_ARITHMETIC",
            "GGML_USE_MATMUL_INT8",
            "GGML_USE_SVE",
            "GGML_USE_SVE2",
            "GGML_USE_SME",
        ],
        rates: TierRates {
            quantized: 13.5,
            float: 5.4,
            quantized_vector: 3.3,
            float_vector: 2.2,
            ternary: 25.0,
            ternary_vector: 15.0,
        },
    },
    Tier {
        id: "apple-m1",
        cargo_feature: Some("cpu-apple-m1"),
        arch: "aarch64",
        os: Some("macos"),
        requires: armv82!("dotprod" "fp16"),
        gnu_flags: &["-march=armv8.2-a+dotprod+fp16", "-mtune=apple-m1"],
        msvc_flags: None,
        instruction: "fmla v0.8h, v1.8h, v2.8h",
        defines: &["GGML_USE_DOTPROD", "GGML_USE_FP16_VECTOR_ARITHMETIC"],
        rates: TierRates {
            quantized: 14.0,
            float: 8.0,
            quantized_vector: 4.0,
            float_vector: 3.0,
            ternary: 60.0,
            ternary_vector: 30.0,
        },
    },
    Tier {
        id: "apple-m2",
        cargo_feature: Some("cpu-apple-m2"),
        arch: "aarch64",
        os: Some("macos"),
        requires: armv82!("dotprod" "fp16" "i8mm"),
        gnu_flags: &["-march=armv8.2-a+dotprod+fp16+i8mm", "-mtune=apple-m1"],
        msvc_flags: None,
        instruction: "smmla v0.4s, v1.16b, v2.16b",
        defines: &["GGML_USE_DOTPROD", "GGML_USE_FP16_VECTOR_ARITHMETIC", "GGML_USE_MATMUL_INT8"],
        rates: TierRates {
            quantized: 24.0,
            float: 8.4,
            quantized_vector: 4.5,
            float_vector: 3.2,
            ternary: 60.5,
            ternary_vector: 30.5,
        },
    },
    Tier {
        id: "apple-m4",
        cargo_feature: Some("cpu-apple-m4"),
        arch: "aarch64",
        os: Some("macos"),
        requires: armv82!("dotprod" "fp16" "i8mm" "bf16" "sme"),
        gnu_flags: &["-march=armv8.2-a+dotprod+fp16+i8mm+sme", "-mtune=apple-m1"],
        msvc_flags: None,
        instruction: "smstart",
        defines: &["GGML_USE_DOTPROD", "GGML_USE_FP16_VECTOR_ARITHMETIC", "GGML_USE_MATMUL_INT8", "GGML_USE_SME"],
        rates: TierRates {
            quantized: 25.0,
            float: 9.0,
            quantized_vector: 5.0,
            float_vector: 3.4,
            ternary: 61.0,
            ternary_vector: 31.0,
        },
    },
];
