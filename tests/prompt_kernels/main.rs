//! Products of block formats with many tokens, on every tier, against exact integers.
//!
//! The inputs are whole numbers of which each block has one of magnitude 127, so that quantising them changes nothing; scales and
//! minima are whole numbers or powers of two. Products are then exact, whatever the order of their sums, and every bit must be right.
#![forbid(unsafe_code)]

mod block256;
mod block32;
#[path = "../kernels/random.rs"]
mod random;

use std::num::NonZeroU32;

use block32::Block32;
use block256::Block256;
use gguf_loader::{
    backend::{Backend, Inputs, Matrix, registered},
    gguf::TensorType,
    hardware::Hardware,
};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use random::{Random, cases};

/// A matrix in one of the formats.
trait Weights {
    /// What stands in a row and a column.
    fn weight(&self, row: usize, column: usize) -> f64;

    /// As a GGUF file stores them.
    fn stored(&self) -> Vec<u8>;
}

/// Columns of a block.
fn block(tensor_type: TensorType) -> usize {
    if block32::TYPES.contains(&tensor_type) { block32::BLOCK } else { block256::BLOCK }
}

fn types() -> impl Iterator<Item = TensorType> {
    block32::TYPES.into_iter().chain(block256::TYPES)
}

/// The tiers that this CPU can run.
fn tiers() -> Vec<&'static dyn Backend> {
    let hardware = Hardware::detect();
    let tiers = registered().filter(|backend| backend.id().starts_with("cpu-"));
    tiers.filter(|backend| backend.devices(&hardware).is_ok()).collect()
}

/// Small enough that the sum of a block is exact in 16 bits of float, as Q8_1 has it, and those of all in 24.
fn inputs(block: usize, columns: usize, tokens: usize, random: &mut Random) -> Vec<f32> {
    let largest = if block == block32::BLOCK { 30 } else { 3 };
    let mut values: Vec<f32> =
        (0..columns * tokens).map(|_| random.below(2 * largest + 1) as f32 - largest as f32).collect();
    for (index, values) in values.chunks_mut(block).enumerate() {
        values[index * 7 % block] = if random.below(2) == 0 { 127.0 } else { -127.0 };
    }
    values
}

/// Every tier's products with `values`, which must be those with the weights themselves.
fn check(tensor_type: TensorType, weights: &dyn Weights, rows: usize, columns: usize, values: &[f32], threads: u32) {
    let stored = weights.stored();
    let matrix = Matrix { tensor_type, rows, columns, data: &stored };
    let tokens = values.len() / columns;
    let exact = |row: usize, token: usize| -> f64 {
        let input = values[token * columns..][..columns].iter().enumerate();
        input.map(|(column, &x)| f64::from(x) * weights.weight(row, column)).sum()
    };
    let expected: Vec<f64> = (0..rows * tokens).map(|index| exact(index % rows, index / rows)).collect();
    for backend in tiers() {
        let device = backend.devices(&Hardware::detect()).expect("usable").remove(0);
        let threads = NonZeroU32::new(threads).expect("not zero");
        let mut product = backend.product(&device, matrix, threads).expect("computes products").expect("a matrix");
        let mut products = vec![f32::NAN; rows * tokens];
        product.multiply(Inputs::new(values, columns), &mut products).expect("a product");
        for (index, (&got, &exact)) in products.iter().zip(&expected).enumerate() {
            assert!(
                f64::from(got) == exact,
                "{}: {tensor_type} {rows} x {columns}, {tokens} tokens, {threads} threads: row {} of token {} is {got}, \
                 not {exact}",
                backend.id(),
                index % rows,
                index / rows,
            );
        }
    }
}

fn check_random(tensor_type: TensorType, rows: usize, columns: usize, tokens: usize, threads: u32, seed: u64) {
    let random = &mut Random::new(seed);
    let weights: Box<dyn Weights> = match block(tensor_type) {
        block32::BLOCK => Box::new(Block32::random(tensor_type, rows, columns, random)),
        _ => Box::new(Block256::random(tensor_type, rows, columns, random)),
    };
    let values = inputs(block(tensor_type), columns, tokens, random);
    check(tensor_type, &*weights, rows, columns, &values, threads);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(96),
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_products_are_exact(
        kind in 0..12_usize, rows in 1_usize..100, columns in 1_usize..640, tokens in 1_usize..40,
        threads in 1_u32..5, seed: u64,
    ) {
        let tensor_type = types().nth(kind).expect("twelve");
        let block = block(tensor_type);
        check_random(tensor_type, rows, columns.div_ceil(block) * block, tokens, threads, seed);
    }
}

#[test]
fn whole_and_broken_panels_stretches_and_tiles_are_exact() {
    for tensor_type in block32::TYPES {
        for (rows, columns, tokens) in [(32, 512, 8), (64, 544, 12), (33, 1056, 13), (8, 32, 9), (200, 64, 150)] {
            check_random(tensor_type, rows, columns, tokens, 2, 1);
        }
    }
    for tensor_type in block256::TYPES {
        for (rows, columns, tokens) in [(32, 512, 8), (64, 768, 12), (33, 1280, 13), (8, 256, 9), (200, 256, 150)] {
            check_random(tensor_type, rows, columns, tokens, 2, 1);
        }
    }
}

/// So few rows that threads share the tokens of a panel.
#[test]
fn tokens_that_are_shared_out_are_exact() {
    for tensor_type in types() {
        for (rows, tokens) in [(8, 200), (33, 150)] {
            check_random(tensor_type, rows, 2 * block(tensor_type), tokens, 4, 1);
        }
    }
}

#[test]
fn the_largest_operands_do_not_overflow() {
    // A row beyond those that are multiplied at once in some forms.
    let (rows, tokens) = (17, 16);
    for (tensor_type, largest) in types().flat_map(|tensor_type| [(tensor_type, false), (tensor_type, true)]) {
        let columns = 2 * block(tensor_type);
        let weights: Box<dyn Weights> = match block(tensor_type) {
            block32::BLOCK => Box::new(Block32::extreme(tensor_type, rows, columns, largest)),
            _ => Box::new(Block256::extreme(tensor_type, rows, columns, largest)),
        };
        for value in [127.0, -127.0] {
            check(tensor_type, &*weights, rows, columns, &vec![value; columns * tokens], 1);
        }
    }
}
