//! Names of microarchitectures.
//!
//! For people who read a report: nothing is decided by them. x86 from Intel's SDM volume 4, table 2-1, and AMD's
//! Processor Programming References; ARM from the Technical Reference Manuals, as arch/arm64/include/asm/cputype.h
//! of the Linux kernel collects them.

/// The name of an x86 processor's microarchitecture.
pub(super) fn of_x86(vendor: &str, family: u32, model: u32, stepping: u32) -> Option<&'static str> {
    match vendor {
        "GenuineIntel" if family == 6 => of_intel(model, stepping),
        "GenuineIntel" if family == 18 || family == 19 => None,
        "AuthenticAMD" => of_amd(family, model),
        "HygonGenuine" => Some("Dhyana (Zen)"),
        _ => None,
    }
}

fn of_intel(model: u32, stepping: u32) -> Option<&'static str> {
    Some(match model {
        0x0f | 0x16 => "Core (Merom)",
        0x17 | 0x1d => "Core (Penryn)",
        0x1a | 0x1e | 0x1f | 0x2e => "Nehalem",
        0x25 | 0x2c | 0x2f => "Westmere",
        0x2a | 0x2d => "Sandy Bridge",
        0x3a | 0x3e => "Ivy Bridge",
        0x3c | 0x3f | 0x45 | 0x46 => "Haswell",
        0x3d | 0x47 | 0x4f | 0x56 => "Broadwell",
        0x4e | 0x5e => "Skylake",
        0x55 if stepping >= 10 => "Cooper Lake",
        0x55 if stepping >= 5 => "Cascade Lake",
        0x55 => "Skylake-X",
        0x8e | 0x9e if stepping >= 10 => "Coffee Lake",
        0x8e | 0x9e => "Kaby Lake",
        0xa5 | 0xa6 => "Comet Lake",
        0x66 => "Cannon Lake",
        0x6a | 0x6c => "Ice Lake-SP",
        0x7d | 0x7e => "Ice Lake",
        0x8c | 0x8d => "Tiger Lake",
        0x8a => "Lakefield",
        0xa7 => "Rocket Lake",
        0x97 | 0x9a => "Alder Lake",
        0xb7 | 0xba | 0xbf => "Raptor Lake",
        0xaa | 0xac => "Meteor Lake",
        0xb5 | 0xc5 | 0xc6 => "Arrow Lake",
        0xbd => "Lunar Lake",
        0xcc => "Panther Lake",
        0x8f => "Sapphire Rapids",
        0xcf => "Emerald Rapids",
        0xad | 0xae => "Granite Rapids",
        0x1c | 0x26 | 0x27 | 0x35 | 0x36 => "Bonnell",
        0x37 | 0x4a | 0x4d | 0x5a | 0x5d => "Silvermont",
        0x4c => "Airmont",
        0x5c | 0x5f => "Goldmont",
        0x7a => "Goldmont Plus",
        0x86 | 0x96 | 0x9c => "Tremont",
        0xbe => "Gracemont",
        0xaf | 0xb6 => "Crestmont",
        0xdd => "Darkmont",
        0x57 => "Knights Landing",
        0x85 => "Knights Mill",
        _ => return None,
    })
}

fn of_amd(family: u32, model: u32) -> Option<&'static str> {
    Some(match (family, model) {
        (0x0f, _) => "K8",
        (0x10 | 0x12, _) => "K10",
        (0x14, _) => "Bobcat",
        (0x15, 0x00..=0x01) => "Bulldozer",
        (0x15, 0x02 | 0x10..=0x1f) => "Piledriver",
        (0x15, 0x30..=0x3f) => "Steamroller",
        (0x15, 0x60..=0x7f) => "Excavator",
        (0x16, 0x00..=0x0f) => "Jaguar",
        (0x16, 0x30..=0x3f) => "Puma",
        (0x17, 0x08 | 0x18) => "Zen+",
        (0x17, 0x00..=0x2f | 0x50..=0x5f) => "Zen",
        (0x17, _) => "Zen 2",
        (0x19, 0x40..=0x4f) => "Zen 3+",
        (0x19, 0x00..=0x0f | 0x20..=0x5f) => "Zen 3",
        (0x19, _) => "Zen 4",
        (0x1a, 0x00..=0x4f | 0x60..=0x7f) => "Zen 5",
        (0x1a, _) => "Zen 6",
        _ => return None,
    })
}

/// Who made an ARM processor, by the first field of MIDR_EL1.
pub(super) fn arm_implementer(implementer: u32) -> Option<&'static str> {
    Some(match implementer {
        0x41 => "ARM",
        0x42 => "Broadcom",
        0x43 => "Cavium",
        0x46 => "Fujitsu",
        0x48 => "HiSilicon",
        0x4e => "NVIDIA",
        0x51 => "Qualcomm",
        0x53 => "Samsung",
        0x61 => "Apple",
        0x6d => "Microsoft",
        0xc0 => "Ampere",
        _ => return None,
    })
}

/// The name of an ARM processor's microarchitecture.
pub(super) fn of_arm(implementer: u32, part: u32) -> Option<&'static str> {
    Some(match (implementer, part) {
        (0x41, 0xd03) => "Cortex-A53",
        (0x41, 0xd04) => "Cortex-A35",
        (0x41, 0xd05) => "Cortex-A55",
        (0x41, 0xd07) => "Cortex-A57",
        (0x41, 0xd08) => "Cortex-A72",
        (0x41, 0xd09) => "Cortex-A73",
        (0x41, 0xd0a) => "Cortex-A75",
        (0x41, 0xd0b) => "Cortex-A76",
        (0x41, 0xd0c) => "Neoverse N1",
        (0x41, 0xd0d) => "Cortex-A77",
        (0x41, 0xd0e) => "Cortex-A76AE",
        (0x41, 0xd40) => "Neoverse V1",
        (0x41, 0xd41) => "Cortex-A78",
        (0x41, 0xd42) => "Cortex-A78AE",
        (0x41, 0xd44) => "Cortex-X1",
        (0x41, 0xd46) => "Cortex-A510",
        (0x41, 0xd47) => "Cortex-A710",
        (0x41, 0xd48) => "Cortex-X2",
        (0x41, 0xd49) => "Neoverse N2",
        (0x41, 0xd4a) => "Neoverse E1",
        (0x41, 0xd4b) => "Cortex-A78C",
        (0x41, 0xd4c) => "Cortex-X1C",
        (0x41, 0xd4d) => "Cortex-A715",
        (0x41, 0xd4e) => "Cortex-X3",
        (0x41, 0xd4f) => "Neoverse V2",
        (0x41, 0xd80) => "Cortex-A520",
        (0x41, 0xd81) => "Cortex-A720",
        (0x41, 0xd82) => "Cortex-X4",
        (0x41, 0xd83 | 0xd84) => "Neoverse V3",
        (0x41, 0xd85) => "Cortex-X925",
        (0x41, 0xd87) => "Cortex-A725",
        (0x41, 0xd8e) => "Neoverse N3",
        (0x43, 0x0af) => "ThunderX2",
        (0x46, 0x001) => "A64FX",
        (0x46, 0x003) => "Monaka",
        (0x48, 0xd01) => "TaiShan v110",
        (0x4e, 0x003) => "Denver 2",
        (0x4e, 0x004) => "Carmel",
        (0x4e, 0x010) => "Olympus",
        (0x51, 0x001) => "Oryon",
        (0x61, 0x020..=0x029) => "M1",
        (0x61, 0x030..=0x039) => "M2",
        (0x6d, 0xd49) => "Cobalt 100 (Neoverse N2)",
        (0xc0, 0xac3) => "AmpereOne",
        (0xc0, 0xac4 | 0xac5) => "AmpereOne A",
        _ => return None,
    })
}

/// The generation in a name such as `Apple M2 Pro`.
pub(super) fn of_apple(brand: &str) -> Option<&str> {
    brand.strip_prefix("Apple ")?.split(' ').next().filter(|name| !name.is_empty())
}
