//! The raw facts of a machine, as the processor and the operating system state them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::Architecture;

/// Everything that [`Hardware`](super::Hardware) is decoded from.
///
/// Plain data that serialises to JSON, so that a user's machine can be attached to an issue and become a test here.
/// Decoding never looks at anything else.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Snapshot {
    /// The instruction set family.
    pub architecture: Architecture,
    /// The operating system as `std::env::consts::OS` names it.
    pub os: String,
    /// What the processor said of itself; x86 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x86: Option<X86Registers>,
    /// What the operating system said of the processor; aarch64 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<ArmRegisters>,
    /// The CPUs that the process may run on; absent where the operating system has no such notion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Vec<u32>>,
    /// Hardware threads, for operating systems without the files that list them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical_cpus: Option<u32>,
    /// Bytes of memory, for operating systems without the files that say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStatus>,
    /// Values of `sysctl`; macOS only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctl: BTreeMap<String, String>,
    /// Files of `/proc` and `/sys` that could be read, by path; Linux only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

/// What an x86 processor says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct X86Registers {
    /// The leaves that were asked for.
    pub cpuid: Vec<CpuidLeaf>,
    /// Register state that the operating system saves; absent when the processor has no XGETBV for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xcr0: Option<u64>,
    /// Whether the operating system let this process use AMX tiles.
    #[serde(default)]
    pub amx_permitted: bool,
    /// EAX of leaf 0x1A by CPU, where the processor is hybrid and the operating system does not sort its CPUs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub core_types: BTreeMap<u32, u32>,
}

/// What an operating system says of an ARM processor.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ArmRegisters {
    /// `AT_HWCAP` of the auxiliary vector; Linux.
    pub hwcap: u64,
    /// `AT_HWCAP2` of the auxiliary vector; Linux.
    pub hwcap2: u64,
    /// Bytes of an SVE register, where there is SVE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sve_vector_bytes: Option<u32>,
    /// Features by name, on operating systems where the standard library asks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub detected: Vec<String>,
}

/// Bytes of memory as an operating system without `/proc/meminfo` states them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MemoryStatus {
    /// Bytes of RAM.
    pub total: u64,
    /// Bytes that can be allocated without swapping.
    pub available: u64,
}

/// One answer of CPUID. In JSON: `LEAF.SUBLEAF EAX EBX ECX EDX`, in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
#[non_exhaustive]
pub struct CpuidLeaf {
    /// EAX before.
    pub leaf: u32,
    /// ECX before.
    pub subleaf: u32,
    /// EAX, EBX, ECX and EDX after.
    pub registers: [u32; 4],
}

impl CpuidLeaf {
    /// An answer.
    pub fn new(leaf: u32, subleaf: u32, registers: [u32; 4]) -> Self {
        Self { leaf, subleaf, registers }
    }
}

/// Text that is not a [`CpuidLeaf`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a CPUID leaf; expected `LEAF.SUBLEAF EAX EBX ECX EDX` in hexadecimal")]
pub struct CpuidLeafError(String);

impl fmt::Display for CpuidLeaf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [eax, ebx, ecx, edx] = self.registers;
        write!(formatter, "{:08x}.{:02x} {eax:08x} {ebx:08x} {ecx:08x} {edx:08x}", self.leaf, self.subleaf)
    }
}

impl FromStr for CpuidLeaf {
    type Err = CpuidLeafError;

    fn from_str(text: &str) -> Result<Self, CpuidLeafError> {
        let number = |digits: &str| u32::from_str_radix(digits, 16).ok();
        let numbers: Option<Vec<u32>> = text.split([' ', '.']).map(number).collect();
        match numbers.as_deref() {
            Some(&[leaf, subleaf, eax, ebx, ecx, edx]) => Ok(Self::new(leaf, subleaf, [eax, ebx, ecx, edx])),
            _ => Err(CpuidLeafError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for CpuidLeaf {
    type Error = CpuidLeafError;

    fn try_from(text: String) -> Result<Self, CpuidLeafError> {
        text.parse()
    }
}

impl From<CpuidLeaf> for String {
    fn from(leaf: CpuidLeaf) -> Self {
        leaf.to_string()
    }
}

impl Snapshot {
    /// Nothing known yet but what the program was built for.
    pub fn new(architecture: Architecture, os: impl Into<String>) -> Self {
        Self {
            architecture,
            os: os.into(),
            x86: None,
            arm: None,
            affinity: None,
            logical_cpus: None,
            memory: None,
            sysctl: BTreeMap::new(),
            files: BTreeMap::new(),
        }
    }

    /// A file without the white space around it.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(|text| text.trim())
    }

    /// A file that holds one number.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// A file that holds a list of CPUs; absent when it lists none.
    pub(super) fn cpus(&self, path: &str) -> Option<Vec<u32>> {
        Some(super::cpu_list::parse(self.text(path)?)).filter(|cpus| !cpus.is_empty())
    }

    /// A `sysctl` that holds a number.
    pub(super) fn sysctl_number(&self, name: &str) -> Option<u64> {
        self.sysctl.get(name)?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::CpuidLeaf;

    #[test]
    fn a_leaf_survives_the_way_through_text() {
        let leaf = CpuidLeaf::new(0x8000_001d, 3, [1, 0xffff_ffff, 0, 0xabcd]);
        assert_eq!(leaf.to_string().parse(), Ok(leaf));
    }

    #[test]
    fn text_that_is_no_leaf_is_an_error() {
        for text in ["", "7", "7.0 1 2 3", "7.0 1 2 3 4 5", "7.0 1 2 3 g", "100000000.0 1 2 3 4"] {
            assert!(text.parse::<CpuidLeaf>().is_err(), "{text}");
        }
    }
}
