//! Damaged files against the real program with llama.cpp behind it: each ends with a documented exit code, none with a
//! signal. What the validator lets through must be something that llama.cpp can refuse, or run.
#![cfg(all(feature = "cpu", feature = "cli", feature = "synth", unix))]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
};

use gguf_loader::gguf::synth::{SyntheticModel, Tokenizer};

/// Damaged variants of each model.
const VARIANTS: u64 = 150;

/// The region that holds the counts and the model's sizes, and the one that holds all keys and tensor descriptions.
const REGIONS: [usize; 2] = [1_300, 13_000];

/// xorshift64: the same damage in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Flips a bit, sets a byte, or writes one of the numbers that programs trip over.
fn damage(file: &mut [u8], region: usize, random: &mut Random) {
    const NUMBERS: [u32; 8] = [0, 1, 2, 64, 1 << 20, i32::MAX as u32, 1 << 31, u32::MAX];
    for _ in 0..1 + random.below(3) {
        let place = random.below(region);
        match random.below(3) {
            0 => file[place] ^= 1 << random.below(8),
            1 => file[place] = random.below(256) as u8,
            _ => file[place..place + 4].copy_from_slice(&NUMBERS[random.below(8)].to_le_bytes()),
        }
    }
}

fn run(path: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gguf-loader"));
    command.args(["run", "--prompt", "hello world", "--max-tokens", "2", "--threads", "1", "--ctx", "64"]).arg(path);
    command.output().expect("the program starts")
}

#[test]
fn no_damaged_file_kills_the_program() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("damaged.gguf");
    let mut codes: BTreeMap<i32, u64> = BTreeMap::new();
    for (seed, tokenizer) in (1..).zip([Tokenizer::SentencePiece, Tokenizer::BytePair]) {
        SyntheticModel::tiny().with_tokenizer(tokenizer).write_file(&path).expect("the model is written");
        let sound = fs::read(&path).expect("it can be read");
        let mut random = Random(0x9e37_79b9_7f4a_7c15 * seed);
        for variant in 0..VARIANTS {
            let mut file = sound.clone();
            damage(&mut file, REGIONS[(variant % 2) as usize], &mut random);
            fs::write(&path, file).expect("there is room");
            let output = run(&path);
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            let code =
                output.status.code().unwrap_or_else(|| panic!("{tokenizer:?} {variant}: {}: {errors}", output.status));
            // 0: the damage did no harm. 3: not a valid file. 4: not a model that llama.cpp runs. 6: not enough memory.
            // 7: the prompt cannot be tokenised with what is left of the vocabulary.
            assert!([0, 3, 4, 6, 7].contains(&code), "{tokenizer:?} {variant}: code {code}: {errors}");
            *codes.entry(code).or_default() += 1;
        }
    }
    // The damage must be neither harmless nor so coarse that everything falls at the first check.
    let count = |code: i32| codes.get(&code).copied().unwrap_or(0);
    assert!(count(0) > 20 && count(3) > 100 && count(4) > 5, "{codes:?}");
}
