//! Machine code, decoded.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{CpuidFeature, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

/// Extensions, and how many instructions need each.
pub(crate) type Excess = BTreeMap<String, usize>;

/// What the instructions of an object file need beyond `required` (names of CPU features).
pub(crate) fn beyond(file: &object::File<'_>, required: &[&str]) -> Excess {
    let mut excess = Excess::new();
    for instruction in code(file) {
        for feature in missing(&instruction, required) {
            *excess.entry(format!("{feature:?}")).or_default() += 1;
        }
    }
    excess
}

/// The functions of a linked file whose instructions need more than `required`.
pub(crate) fn owners_beyond(file: &object::File<'_>, required: &[&str]) -> BTreeMap<String, Excess> {
    let mut functions: Vec<_> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && !symbol.is_undefined())
        .map(|symbol| (symbol.address(), symbol.size(), symbol.name().unwrap_or("(no name)").to_owned()))
        .collect();
    functions.sort();
    let owner = |address: u64| {
        let before = functions.partition_point(|(start, ..)| *start <= address);
        let inside = |(start, size, _): &&(u64, u64, String)| address < start + (*size).max(1);
        functions[..before].iter().rev().take(4).find(inside).map_or("(no symbol)", |(.., name)| name)
    };
    let mut owners: BTreeMap<String, Excess> = BTreeMap::new();
    for instruction in code(file) {
        for feature in missing(&instruction, required) {
            let excess = owners.entry(owner(instruction.ip()).to_owned()).or_default();
            *excess.entry(format!("{feature:?}")).or_default() += 1;
        }
    }
    owners
}

/// The features beyond `required` that an instruction needs. TZCNT is REP BSF: a CPU without BMI1 passes over the prefix, and
/// compilers write it for every CPU where the operand is not zero, which is where the two differ.
fn missing(instruction: &Instruction, required: &[&str]) -> impl Iterator<Item = CpuidFeature> {
    let is_there = move |feature: &CpuidFeature| required_name(*feature).is_none_or(|name| required.contains(&name));
    let features = if instruction.mnemonic() == Mnemonic::Tzcnt { &[] } else { instruction.cpuid_features() };
    features.iter().copied().filter(move |feature| !is_there(feature))
}

/// For each LDTILECFG of an object file, whether the widths and heights of the eight tiles, bytes 16 to 31 and 48 to 55 of the 64 that it
/// reads, were all stored shortly before as something other than zeros, or whether a STTILECFG wrote all of them. A compiler drops the stores where an intrinsic does not say
/// what it reads, and the first instruction on a tile is then illegal.
pub(crate) fn tile_sizes_are_stored(file: &object::File<'_>) -> Vec<bool> {
    const NEARBY: usize = 48;
    let mut found = Vec::new();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let code: Vec<_> = decoded(section.data().expect("the section has data"), section.address()).collect();
        let loads = code.iter().enumerate().filter(|(_, instruction)| instruction.mnemonic() == Mnemonic::Ldtilecfg);
        for (index, load) in loads {
            let config = load.memory_displacement64();
            let (mut zeros, mut stored) = (BTreeSet::new(), BTreeSet::new());
            for instruction in &code[index.saturating_sub(NEARBY)..index] {
                let target = instruction.op0_register().full_register();
                match instruction.op0_kind() {
                    OpKind::Register if is_zeroing(instruction) => drop(zeros.insert(target)),
                    OpKind::Register => drop(zeros.remove(&target)),
                    OpKind::Memory
                        if instruction.memory_base() == load.memory_base()
                            && !zeros.contains(&instruction.op1_register().full_register()) =>
                    {
                        let from = instruction.memory_displacement64().wrapping_sub(config).cast_signed();
                        stored.extend(from..from + instruction.memory_size().size() as i64);
                    }
                    _ => {}
                }
            }
            let saved = code[..index].iter().any(|instruction| {
                instruction.mnemonic() == Mnemonic::Sttilecfg
                    && instruction.memory_base() == load.memory_base()
                    && instruction.memory_index() == load.memory_index()
                    && instruction.memory_displacement64() == config
            });
            found.push(saved || (16..32).chain(48..56).all(|offset| stored.contains(&offset)));
        }
    }
    found
}

/// Whether it writes zeros to its first register, by a difference of something from itself.
fn is_zeroing(instruction: &Instruction) -> bool {
    use Mnemonic::{Vpxor, Vpxord, Vpxorq, Vxorpd, Vxorps};
    matches!(instruction.mnemonic(), Vpxor | Vpxord | Vpxorq | Vxorps | Vxorpd)
        && instruction.op1_register() == instruction.op2_register()
}

/// The instructions of a file.
fn code(file: &object::File<'_>) -> impl Iterator<Item = Instruction> {
    file.sections()
        .filter(|section| section.kind() == SectionKind::Text)
        .flat_map(|section| decoded(section.data().expect("the section has data"), section.address()))
}

fn decoded(code: &[u8], address: u64) -> impl Iterator<Item = Instruction> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
        .filter(|instruction| !instruction.is_invalid())
}

/// The name of a feature in the table of tiers; `None` for what every x86-64 has.
fn required_name(feature: CpuidFeature) -> Option<&'static str> {
    Some(match feature {
        CpuidFeature::SSE3 => "sse3",
        CpuidFeature::SSSE3 => "ssse3",
        CpuidFeature::SSE4_1 => "sse4.1",
        CpuidFeature::SSE4_2 => "sse4.2",
        CpuidFeature::POPCNT => "popcnt",
        CpuidFeature::LZCNT => "lzcnt",
        CpuidFeature::BMI1 => "bmi1",
        CpuidFeature::BMI2 => "bmi2",
        CpuidFeature::AVX => "avx",
        CpuidFeature::F16C => "f16c",
        CpuidFeature::FMA => "fma",
        CpuidFeature::AVX2 => "avx2",
        CpuidFeature::AVX_VNNI => "avxvnni",
        CpuidFeature::AVX512F => "avx512f",
        CpuidFeature::AVX512CD => "avx512cd",
        CpuidFeature::AVX512VL => "avx512vl",
        CpuidFeature::AVX512DQ => "avx512dq",
        CpuidFeature::AVX512BW => "avx512bw",
        CpuidFeature::AVX512_VBMI => "avx512vbmi",
        CpuidFeature::AVX512_VNNI => "avx512vnni",
        CpuidFeature::AVX512_BF16 => "avx512bf16",
        CpuidFeature::AMX_TILE => "amx-tile",
        CpuidFeature::AMX_INT8 => "amx-int8",
        CpuidFeature::AMX_BF16 => "amx-bf16",
        CpuidFeature::INTEL8086
        | CpuidFeature::INTEL186
        | CpuidFeature::INTEL286
        | CpuidFeature::INTEL386
        | CpuidFeature::INTEL486
        | CpuidFeature::X64
        | CpuidFeature::CMOV
        | CpuidFeature::CPUID
        | CpuidFeature::CX8
        | CpuidFeature::FPU
        | CpuidFeature::FPU287
        | CpuidFeature::FPU387
        | CpuidFeature::FXSR
        | CpuidFeature::MMX
        | CpuidFeature::MULTIBYTENOP
        | CpuidFeature::PAUSE
        | CpuidFeature::SSE
        | CpuidFeature::SSE2
        | CpuidFeature::SYSCALL
        | CpuidFeature::TSC => return None,
        // CET's ENDBR64 is a NOP where it is not known.
        CpuidFeature::CET_IBT => return None,
        // Anything else is required by no tier.
        _ => "(in no tier)",
    })
}
