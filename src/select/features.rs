//! Which cargo feature brings which backend, so that an error can say how to get one that is not compiled in.

/// A backend that the library has, whether this program was built with it or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownBackend {
    /// Its id.
    pub id: &'static str,
    /// The cargo features that compile it.
    pub features: &'static [&'static str],
    /// The only processor architecture that it is for, as in [`std::env::consts::ARCH`].
    pub architecture: Option<&'static str>,
}

const X86_64: &str = "x86_64";
const AARCH64: &str = "aarch64";

/// The pure Rust backend, and two for each tier: ggml's kernels and the ternary ones.
macro_rules! backends {
    ($($tier:literal $feature:literal $architecture:ident,)*) => {
        &[
            KnownBackend { id: "reference", features: &["reference"], architecture: None },
            $(
                KnownBackend {
                    id: concat!("cpu-", $tier),
                    features: &[$feature],
                    architecture: Some($architecture),
                },
                KnownBackend {
                    id: concat!("bitnet-", $tier),
                    features: &["bitnet", $feature],
                    architecture: Some($architecture),
                },
            )*
        ]
    };
}

/// Every backend of the library; a test compares it with Cargo.toml.
pub(super) const BACKENDS: &[KnownBackend] = backends! {
    "x64" "cpu" X86_64,
    "sse42" "cpu-sse42" X86_64,
    "sandybridge" "cpu-sandybridge" X86_64,
    "ivybridge" "cpu-ivybridge" X86_64,
    "piledriver" "cpu-piledriver" X86_64,
    "haswell" "cpu-haswell" X86_64,
    "alderlake" "cpu-alderlake" X86_64,
    "skylakex" "cpu-skylakex" X86_64,
    "cannonlake" "cpu-cannonlake" X86_64,
    "cascadelake" "cpu-cascadelake" X86_64,
    "icelake" "cpu-icelake" X86_64,
    "cooperlake" "cpu-cooperlake" X86_64,
    "zen4" "cpu-zen4" X86_64,
    "sapphirerapids" "cpu-sapphirerapids" X86_64,
    "armv8" "cpu" AARCH64,
    "armv8-dotprod" "cpu-armv8-dotprod" AARCH64,
    "armv8-fp16" "cpu-armv8-fp16" AARCH64,
    "armv8-i8mm" "cpu-armv8-i8mm" AARCH64,
    "armv8-sve" "cpu-armv8-sve" AARCH64,
    "armv9-sve2" "cpu-armv9-sve2" AARCH64,
    "armv9-sme" "cpu-armv9-sme" AARCH64,
    "apple-m1" "cpu-apple-m1" AARCH64,
    "apple-m2" "cpu-apple-m2" AARCH64,
    "apple-m4" "cpu-apple-m4" AARCH64,
};

/// The backend of this id.
pub(super) fn backend(id: &str) -> Option<&'static KnownBackend> {
    BACKENDS.iter().find(|backend| backend.id == id)
}

#[cfg(test)]
#[allow(clippy::duplicate_mod, reason = "the backend has the table too, where it is compiled in")]
#[path = "../../backends/cpu/tiers.rs"]
mod tiers;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{BACKENDS, tiers::TIERS};

    /// Features that do not stand for one backend.
    const OTHERS: [&str; 6] = ["default", "async", "cli", "synth", "cpu-common", "cpu-all"];

    #[test]
    fn every_backend_feature_of_the_manifest_is_listed() {
        let manifest = include_str!("../../Cargo.toml");
        let section = manifest.split("\n[features]\n").nth(1).expect("a section of features");
        let section = section.split("\n[").next().expect("the section's own text");
        let declared: BTreeSet<&str> = section
            .lines()
            .filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()))
            .filter_map(|line| line.split_once(" = ").map(|(feature, _)| feature))
            .filter(|feature| !OTHERS.contains(feature))
            .collect();
        let listed: BTreeSet<&str> = BACKENDS.iter().flat_map(|backend| backend.features).copied().collect();
        assert_eq!(declared, listed);
    }

    #[test]
    fn the_tiers_are_those_of_the_table_with_their_features_and_architectures() {
        let listed: BTreeSet<_> = BACKENDS
            .iter()
            .filter_map(|backend| Some((backend.id.strip_prefix("cpu-")?, backend.features, backend.architecture?)))
            .map(|(tier, features, architecture)| (tier, features.to_vec(), architecture))
            .collect();
        let table: BTreeSet<_> =
            TIERS.iter().map(|tier| (tier.id, vec![tier.cargo_feature.unwrap_or("cpu")], tier.arch)).collect();
        assert_eq!(listed, table);
    }

    #[test]
    fn every_id_is_listed_once_and_can_be_spelt_in_a_policy() {
        let ids: BTreeSet<&str> = BACKENDS.iter().map(|backend| backend.id).collect();
        assert_eq!(ids.len(), BACKENDS.len());
        assert!(ids.into_iter().all(super::super::registry::is_id));
    }
}
