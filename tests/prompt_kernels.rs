//! Products of block formats with many tokens, on every tier, against exact integers.
//!
//! The inputs are whole numbers of which each block has one of magnitude 127, so that quantising them changes nothing; scales and
//! minima are small powers of two. Products are then exact, whatever the order of their sums, and every bit must be right.
#![forbid(unsafe_code)]

#[path = "kernels/random.rs"]
mod random;

use std::{env, num::NonZeroU32};

use gguf_loader::{
    backend::{Backend, Inputs, Matrix, registered},
    gguf::TensorType::{self, IQ4_NL, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0},
    hardware::Hardware,
};
use half::f16;
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use random::Random;

const TYPES: [TensorType; 6] = [Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL];
const BLOCK: usize = 32;

/// The weights that IQ4_NL's codes stand for.
const NON_LINEAR: [i32; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Codes as they are stored, with a scale and a minimum for each block.
struct Weights {
    tensor_type: TensorType,
    columns: usize,
    codes: Vec<i32>,
    scales: Vec<f32>,
    minima: Vec<f32>,
}

impl Weights {
    fn random(tensor_type: TensorType, rows: usize, columns: usize, random: &mut Random) -> Self {
        let code = |random: &mut Random| match tensor_type {
            Q8_0 => random.below(255) as i32 - 127,
            Q5_0 | Q5_1 => random.below(32) as i32,
            _ => random.below(16) as i32,
        };
        let blocks = rows * columns / BLOCK;
        let has_minimum = [Q4_1, Q5_1].contains(&tensor_type);
        Self {
            tensor_type,
            columns,
            codes: (0..rows * columns).map(|_| code(random)).collect(),
            scales: (0..blocks).map(|_| [0.5, 1.0, -2.0][random.below(3) as usize]).collect(),
            minima: (0..blocks)
                .map(|_| if has_minimum { [-4.0, 0.5, 8.0][random.below(3) as usize] } else { 0.0 })
                .collect(),
        }
    }

    /// What a code stands for, before scale and minimum.
    fn integer(&self, index: usize) -> i32 {
        match self.tensor_type {
            Q4_0 => self.codes[index] - 8,
            Q5_0 => self.codes[index] - 16,
            IQ4_NL => NON_LINEAR[self.codes[index] as usize],
            _ => self.codes[index],
        }
    }

    fn times(&self, input: &[f32], row: usize) -> f64 {
        let weight = |column: usize| {
            let index = row * self.columns + column;
            let (scale, minimum) = (self.scales[index / BLOCK], self.minima[index / BLOCK]);
            f64::from(self.integer(index)) * f64::from(scale) + f64::from(minimum)
        };
        input.iter().enumerate().map(|(column, &x)| f64::from(x) * weight(column)).sum()
    }

    /// As a GGUF file stores them.
    fn stored(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (codes, (&scale, &minimum)) in self.codes.chunks(BLOCK).zip(self.scales.iter().zip(&self.minima)) {
            bytes.extend(f16::from_f32(scale).to_le_bytes());
            if [Q4_1, Q5_1].contains(&self.tensor_type) {
                bytes.extend(f16::from_f32(minimum).to_le_bytes());
            }
            if self.tensor_type == Q8_0 {
                bytes.extend(codes.iter().map(|&code| code as i8 as u8));
                continue;
            }
            if [Q5_0, Q5_1].contains(&self.tensor_type) {
                let high = (0..BLOCK).fold(0_u32, |bits, column| bits | (codes[column] as u32 >> 4) << column);
                bytes.extend(high.to_le_bytes());
            }
            // Byte i has columns i and i + 16.
            bytes.extend((0..16).map(|i| (codes[i] & 15) as u8 | ((codes[i + 16] & 15) as u8) << 4));
        }
        bytes
    }
}

/// The tiers that this CPU can run.
fn tiers() -> Vec<&'static dyn Backend> {
    let hardware = Hardware::detect();
    let tiers = registered().filter(|backend| backend.id().starts_with("cpu-"));
    tiers.filter(|backend| backend.devices(&hardware).is_ok()).collect()
}

/// Small enough that the sum of a block is exact in 16 bits of float, as Q8_1 has it.
fn inputs(columns: usize, tokens: usize, random: &mut Random) -> Vec<f32> {
    let mut values: Vec<f32> = (0..columns * tokens).map(|_| random.below(61) as f32 - 30.0).collect();
    for (index, block) in values.chunks_mut(BLOCK).enumerate() {
        block[index * 7 % BLOCK] = if random.below(2) == 0 { 127.0 } else { -127.0 };
    }
    values
}

fn check(tensor_type: TensorType, rows: usize, columns: usize, tokens: usize, threads: u32, seed: u64) {
    let random = &mut Random::new(seed);
    let weights = Weights::random(tensor_type, rows, columns, random);
    let values = inputs(columns, tokens, random);
    let stored = weights.stored();
    let matrix = Matrix { tensor_type, rows, columns, data: &stored };
    for backend in tiers() {
        let device = backend.devices(&Hardware::detect()).expect("usable").remove(0);
        let threads = NonZeroU32::new(threads).expect("not zero");
        let mut product = backend.product(&device, matrix, threads).expect("computes products").expect("a matrix");
        let mut products = vec![f32::NAN; rows * tokens];
        product.multiply(Inputs::new(&values, columns), &mut products).expect("a product");
        for (index, &got) in products.iter().enumerate() {
            let (row, token) = (index % rows, index / rows);
            let exact = weights.times(&values[token * columns..][..columns], row);
            assert!(
                f64::from(got) == exact,
                "{}: {tensor_type} {rows} x {columns}, {tokens} tokens, {threads} threads: row {row} of token {token} is \
                 {got}, not {exact}",
                backend.id(),
            );
        }
    }
}

/// As many random cases as proptest's own variable says: an emulator takes its time.
fn cases(usual: u32) -> u32 {
    let asked_for = env::var("PROPTEST_CASES").ok();
    asked_for.map_or(usual, |cases| cases.parse().expect("PROPTEST_CASES is a number"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(64),
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_products_are_exact(
        kind in 0..TYPES.len(), rows in 1_usize..100, blocks in 1_usize..20, tokens in 1_usize..40,
        threads in 1_u32..5, seed: u64,
    ) {
        check(TYPES[kind], rows, blocks * BLOCK, tokens, threads, seed);
    }
}

#[test]
fn whole_and_broken_panels_stretches_and_tiles_are_exact() {
    for tensor_type in TYPES {
        for (rows, columns, tokens) in [(32, 512, 8), (64, 544, 12), (33, 1056, 13), (8, 32, 9), (200, 64, 150)] {
            check(tensor_type, rows, columns, tokens, 2, 1);
        }
    }
}

#[test]
fn the_largest_operands_do_not_overflow() {
    for tensor_type in TYPES {
        let (rows, columns, tokens) = (16, 64, 16);
        for code in [0, 15] {
            let code = if tensor_type == Q8_0 { [-127, 127][code / 15] } else { code as i32 };
            let code = if [Q5_0, Q5_1].contains(&tensor_type) && code == 15 { 31 } else { code };
            let blocks = rows * columns / BLOCK;
            let weights = Weights {
                tensor_type,
                columns,
                codes: vec![code; rows * columns],
                scales: vec![1.0; blocks],
                minima: vec![0.0; blocks],
            };
            for value in [127.0_f32, -127.0] {
                let stored = weights.stored();
                let matrix = Matrix { tensor_type, rows, columns, data: &stored };
                let values = vec![value; columns * tokens];
                for backend in tiers() {
                    let device = backend.devices(&Hardware::detect()).expect("usable").remove(0);
                    let mut product =
                        backend.product(&device, matrix, NonZeroU32::MIN).expect("products").expect("a matrix");
                    let mut products = vec![f32::NAN; rows * tokens];
                    product.multiply(Inputs::new(&values, columns), &mut products).expect("a product");
                    let exact = weights.times(&values[..columns], 0);
                    assert!(
                        products.iter().all(|&got| f64::from(got) == exact),
                        "{}: {tensor_type}, {code} times {value}: {} and not {exact}",
                        backend.id(),
                        products[0]
                    );
                }
            }
        }
    }
}
