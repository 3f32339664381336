//! CPUID, XCR0 and the permission for AMX.

use raw_cpuid::native_cpuid::cpuid_count;

use crate::hardware::{CpuidLeaf, Snapshot, X86Registers};

/// The leaves that decoding reads. CPUID traps in a virtual machine, so that a leaf for nothing costs microseconds.
const LEAVES: [(u32, u32); 15] = [
    (0x0, 0),
    (0x1, 0),
    (0x7, 0),
    (0x7, 1),
    (0xb, 0),
    (0x16, 0),
    (0x1a, 0),
    (0x24, 0),
    (0x8000_0000, 0),
    (0x8000_0001, 0),
    (0x8000_0002, 0),
    (0x8000_0003, 0),
    (0x8000_0004, 0),
    (0x8000_0008, 0),
    (0x8000_001e, 0),
];

/// The leaves that describe the caches, one cache in each subleaf; Intel's and AMD's.
const CACHE_LEAVES: [u32; 2] = [0x4, 0x8000_001d];

pub(super) fn record(snapshot: &Snapshot) -> X86Registers {
    let mut registers = X86Registers::default();
    for (leaf, subleaf) in LEAVES {
        ask(&mut registers, leaf, subleaf);
    }
    if !cfg!(any(target_os = "linux", target_os = "android")) {
        for leaf in CACHE_LEAVES {
            // The type in the low bits of EAX is 0 after the last cache.
            (0..crate::hardware::cache::MOST_CACHES)
                .take_while(|&cache| ask(&mut registers, leaf, cache)[0] & 0x1f != 0)
                .count();
        }
    }
    const OSXSAVE: u32 = 1 << 27;
    if answer(&registers, 1)[2] & OSXSAVE != 0 {
        registers.xcr0 = Some(xcr0());
    }
    const AMX_TILE: u32 = 1 << 24;
    const HYBRID: u32 = 1 << 15;
    let [_, _, _, edx] = answer(&registers, 7);
    if edx & AMX_TILE != 0 {
        registers.amx_permitted = request_amx();
    }
    if edx & HYBRID != 0 && snapshot.cpus(crate::hardware::topology::ATOM).is_none() {
        registers.core_types = core_types(snapshot);
    }
    registers
}

/// Records a leaf that the processor has. Above the highest, Intel repeats another one.
fn ask(registers: &mut X86Registers, leaf: u32, subleaf: u32) -> [u32; 4] {
    let base = leaf & 0x8000_0000;
    if leaf != base && leaf > answer(registers, base)[0] {
        return [0; 4];
    }
    let result = cpuid_count(leaf, subleaf);
    let answer = [result.eax, result.ebx, result.ecx, result.edx];
    registers.cpuid.push(CpuidLeaf::new(leaf, subleaf, answer));
    answer
}

fn answer(registers: &X86Registers, leaf: u32) -> [u32; 4] {
    let entry = registers.cpuid.iter().find(|entry| entry.leaf == leaf && entry.subleaf == 0);
    entry.map_or([0; 4], |entry| entry.registers)
}

/// The register state that the operating system saves. Only with OSXSAVE.
fn xcr0() -> u64 {
    #[target_feature(enable = "xsave")]
    fn read() -> u64 {
        // SAFETY: register 0 exists wherever the instruction does.
        unsafe { std::arch::x86_64::_xgetbv(0) }
    }
    // SAFETY: the caller has seen OSXSAVE, which says that XGETBV is there and that programs may use it.
    unsafe { read() }
}

/// Asks Linux to let this process use AMX tiles, and looks whether it did. Linux 5.16; a no before that.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn request_amx() -> bool {
    const ARCH_GET_XCOMP_PERM: libc::c_ulong = 0x1022;
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const TILE_DATA: libc::c_ulong = 18;
    let mut permitted = 0_u64;
    // SAFETY: the request takes a number and touches no memory of ours; a kernel that does not know it returns EINVAL.
    let requested = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) };
    // SAFETY: the kernel writes one u64 to `permitted`, which lives until the call returns.
    let answered = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &raw mut permitted) };
    requested == 0 && answered == 0 && permitted >> TILE_DATA & 1 == 1
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn request_amx() -> bool {
    false
}

/// Leaf 0x1A of each CPU, read there: for hybrid processors whose kernel or container does not list the kinds.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn core_types(snapshot: &Snapshot) -> std::collections::BTreeMap<u32, u32> {
    let cpus = snapshot.affinity.clone().unwrap_or_default();
    // A thread of its own, so that this one's affinity stays as it is.
    let visit =
        move || cpus.into_iter().filter(|&cpu| move_to(cpu)).map(|cpu| (cpu, cpuid_count(0x1a, 0).eax)).collect();
    std::thread::spawn(visit).join().unwrap_or_default()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn core_types(_: &Snapshot) -> std::collections::BTreeMap<u32, u32> {
    std::collections::BTreeMap::new()
}

/// Moves the calling thread to a CPU. Says whether it is there.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn move_to(cpu: u32) -> bool {
    let mut mask = [0_u64; 128];
    let Some(word) = mask.get_mut(cpu as usize / 64) else { return false };
    *word = 1 << (cpu % 64);
    // SAFETY: the kernel reads the given number of bytes, which is the size of `mask`.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast()) };
    result == 0
}
