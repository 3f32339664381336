//! Reads the raw facts of this machine. The unsafe code of the module is here.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(windows)]
mod windows;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::{Architecture, Snapshot};

impl Snapshot {
    /// Reads this machine. What cannot be read is left out.
    ///
    /// Where the processor has AMX, this asks Linux for the process's permission to use it.
    pub fn record() -> Self {
        let mut snapshot = Self::new(Architecture::HERE, std::env::consts::OS);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        linux::record(&mut snapshot);
        #[cfg(target_os = "macos")]
        macos::record(&mut snapshot);
        #[cfg(windows)]
        windows::record(&mut snapshot);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        {
            snapshot.logical_cpus =
                std::thread::available_parallelism().ok().and_then(|count| u32::try_from(count.get()).ok());
        }
        #[cfg(target_arch = "x86_64")]
        {
            snapshot.x86 = Some(x86::record(&snapshot));
        }
        #[cfg(all(target_arch = "aarch64", not(any(target_os = "linux", target_os = "android", target_os = "macos"))))]
        {
            snapshot.arm = Some(detected());
        }
        snapshot
    }
}

/// What the standard library knows how to ask this operating system.
#[cfg(all(target_arch = "aarch64", not(any(target_os = "linux", target_os = "android", target_os = "macos"))))]
fn detected() -> super::ArmRegisters {
    use std::arch::is_aarch64_feature_detected as has;

    let answers = [
        ("lse", has!("lse")),
        ("rdm", has!("rdm")),
        ("crc", has!("crc")),
        ("fcma", has!("fcma")),
        ("dotprod", has!("dotprod")),
        ("fp16", has!("fp16")),
        ("bf16", has!("bf16")),
        ("i8mm", has!("i8mm")),
        ("sve", has!("sve")),
        ("sve2", has!("sve2")),
    ];
    let names = answers.into_iter().filter(|&(_, has)| has).map(|(name, _)| name.to_owned());
    super::ArmRegisters { detected: names.collect(), ..Default::default() }
}
