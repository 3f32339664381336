//! CPU features by name.

/// Declares [`CpuFeature`] and the table of its names.
macro_rules! features {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// An instruction set extension that a tier may need.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum CpuFeature {
            $($(#[$doc])* $variant,)*
        }

        impl CpuFeature {
            /// Every feature, in the order of the declaration.
            pub const ALL: &'static [CpuFeature] = &[$(CpuFeature::$variant,)*];

            /// The name that compilers and `/proc/cpuinfo` use, lower case.
            pub fn name(self) -> &'static str {
                match self {
                    $(CpuFeature::$variant => $name,)*
                }
            }
        }
    };
}

features! {
    /// SSE2, part of every x86-64.
    Sse2 = "sse2",
    /// SSE3.
    Sse3 = "sse3",
    /// SSSE3.
    Ssse3 = "ssse3",
    /// SSE4.1.
    Sse41 = "sse4.1",
    /// SSE4.2.
    Sse42 = "sse4.2",
    /// POPCNT.
    Popcnt = "popcnt",
    /// AVX, with YMM state saved by the operating system.
    Avx = "avx",
    /// Half-precision conversion.
    F16c = "f16c",
    /// Fused multiply-add with three operands.
    Fma = "fma",
    /// AVX2.
    Avx2 = "avx2",
    /// LZCNT, which AMD calls ABM.
    Lzcnt = "lzcnt",
    /// BMI1.
    Bmi1 = "bmi1",
    /// BMI2.
    Bmi2 = "bmi2",
    /// VNNI in VEX encoding.
    AvxVnni = "avxvnni",
    /// AVX-512 foundation, with ZMM and mask state saved by the operating system.
    Avx512f = "avx512f",
    /// AVX-512 conflict detection.
    Avx512cd = "avx512cd",
    /// AVX-512 vector length.
    Avx512vl = "avx512vl",
    /// AVX-512 doubleword and quadword.
    Avx512dq = "avx512dq",
    /// AVX-512 byte and word.
    Avx512bw = "avx512bw",
    /// AVX-512 vector byte manipulation.
    Avx512vbmi = "avx512vbmi",
    /// AVX-512 VNNI.
    Avx512vnni = "avx512vnni",
    /// AVX-512 BF16.
    Avx512bf16 = "avx512bf16",
    /// AMX tiles, with the operating system's permission.
    AmxTile = "amx-tile",
    /// AMX int8.
    AmxInt8 = "amx-int8",
    /// AMX bf16.
    AmxBf16 = "amx-bf16",
    /// Advanced SIMD, part of every aarch64 with an operating system of ours.
    Neon = "neon",
    /// Atomic instructions (Large System Extensions).
    Lse = "lse",
    /// Rounding doubling multiply-accumulate.
    Rdm = "rdm",
    /// CRC32 instructions.
    Crc = "crc",
    /// Complex arithmetic.
    Fcma = "fcma",
    /// Int8 dot product.
    DotProd = "dotprod",
    /// Half-precision arithmetic in Advanced SIMD.
    Fp16 = "fp16",
    /// BF16 instructions.
    Bf16 = "bf16",
    /// Int8 matrix multiplication.
    I8mm = "i8mm",
    /// Scalable vectors.
    Sve = "sve",
    /// Scalable vectors 2.
    Sve2 = "sve2",
    /// Scalable matrices.
    Sme = "sme",
}

impl CpuFeature {
    /// The feature of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|feature| feature.name() == name)
    }
}

/// A set of [`CpuFeature`]s.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CpuFeatures(u64);

impl CpuFeatures {
    /// The empty set.
    pub const EMPTY: Self = Self(0);

    /// Adds a feature.
    pub fn insert(&mut self, feature: CpuFeature) {
        self.0 |= 1 << feature as u64;
    }

    /// Removes a feature.
    pub fn remove(&mut self, feature: CpuFeature) {
        self.0 &= !(1 << feature as u64);
    }

    /// Whether the set has the feature.
    pub fn contains(self, feature: CpuFeature) -> bool {
        self.0 & (1 << feature as u64) != 0
    }

    /// Which of the named features the set lacks, in the order given. A name that is not known counts as lacking.
    pub fn missing(self, names: &[&'static str]) -> Vec<&'static str> {
        let has = |name: &str| CpuFeature::from_name(name).is_some_and(|feature| self.contains(feature));
        names.iter().copied().filter(|name| !has(name)).collect()
    }

    /// The features in the order of their declaration.
    pub fn iter(self) -> impl Iterator<Item = CpuFeature> {
        CpuFeature::ALL.iter().copied().filter(move |&feature| self.contains(feature))
    }
}

impl FromIterator<CpuFeature> for CpuFeatures {
    fn from_iter<I: IntoIterator<Item = CpuFeature>>(features: I) -> Self {
        let mut set = Self::EMPTY;
        features.into_iter().for_each(|feature| set.insert(feature));
        set
    }
}

impl std::fmt::Debug for CpuFeatures {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.iter().map(CpuFeature::name)).finish()
    }
}

impl serde::Serialize for CpuFeatures {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(CpuFeature::name))
    }
}
