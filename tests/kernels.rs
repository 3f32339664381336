//! The ternary kernels of every tier against exact integers.
//!
//! The inputs are whole numbers whose largest magnitude is 127, so that quantising to 8 bits changes nothing, and the scales
//! are powers of two: the products are then exact, and the kernels have to give every bit of them. What is computed goes the
//! way of a model's weights: repacked by the tier, quantised, multiplied and put together by its threads.
#![forbid(unsafe_code)]

#[path = "kernels/random.rs"]
mod random;
#[path = "kernels/stored.rs"]
mod stored;

use std::num::NonZeroU32;

use gguf_loader::{
    backend::{Backend, Inputs, Matrix, Product, ProductError, registered},
    gguf::TensorType,
    hardware::Hardware,
};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use random::{Random, cases};
use stored::{SixBit, Weights};

const TYPES: [TensorType; 3] = [TensorType::TQ1_0, TensorType::TQ2_0, TensorType::Q2_0];

/// Rows of inputs in an array.
struct Rows {
    values: Vec<f32>,
    offset: usize,
    stride: usize,
    count: usize,
}

impl Rows {
    /// `count` rows of `fill`'s values; 127 somewhere in each.
    fn new(columns: usize, count: usize, gap: usize, mut fill: impl FnMut(usize) -> i32) -> Self {
        let stride = columns + gap;
        // What lies between the rows must not matter.
        let mut values = vec![f32::NAN; stride * count];
        for row in 0..count {
            let of_row = &mut values[gap + row * stride..][..columns];
            of_row.iter_mut().enumerate().for_each(|(column, value)| *value = fill(column) as f32);
            of_row[row * 7 % columns] = if row % 2 == 0 { 127.0 } else { -127.0 };
        }
        Self { values, offset: gap, stride, count }
    }

    fn random(columns: usize, count: usize, gap: usize, random: &mut Random) -> Self {
        Self::new(columns, count, gap, |_| random.below(255) as i32 - 127)
    }

    fn row(&self, index: usize, columns: usize) -> &[f32] {
        &self.values[self.offset + index * self.stride..][..columns]
    }
}

/// The tiers of the kernels that this CPU can run.
fn kernels() -> Vec<&'static dyn Backend> {
    let hardware = Hardware::detect();
    let of_kernels = registered().filter(|backend| backend.id().starts_with("bitnet-"));
    of_kernels.filter(|backend| backend.devices(&hardware).is_ok()).collect()
}

fn product(backend: &dyn Backend, weights: &Weights, threads: u32) -> Box<dyn Product> {
    let device = backend.devices(&Hardware::detect()).expect("usable").remove(0);
    let matrix = Matrix {
        tensor_type: weights.tensor_type,
        rows: weights.rows,
        columns: weights.columns,
        data: &weights.stored(),
    };
    let threads = NonZeroU32::new(threads).expect("not zero");
    backend.product(&device, matrix, threads).expect("computes products").expect("a matrix that fits")
}

/// Multiplies with every kernel, and compares every bit with sums of 64-bit integers.
fn check(weights: &Weights, inputs: &Rows, threads: u32) {
    let tokens = 0..inputs.count;
    let exact = tokens.flat_map(|token| weights.times(inputs.row(token, weights.columns)));
    // Sums of 24 bits and more are rounded once, when they become floats.
    let exact: Vec<f64> = exact.map(|exact| f64::from(exact as f32)).collect();
    let rows = Inputs { values: &inputs.values, offset: inputs.offset, stride: inputs.stride, count: inputs.count };
    for backend in kernels() {
        let mut products = vec![f32::NAN; weights.rows * inputs.count];
        product(backend, weights, threads).multiply(rows, &mut products).expect("a product");
        for (index, (&got, &exact)) in products.iter().zip(&exact).enumerate() {
            assert!(
                f64::from(got) == exact,
                "{}: {} {} x {}, {} tokens, {threads} threads: row {} of token {} is {got}, not {exact}",
                backend.id(),
                weights.tensor_type,
                weights.rows,
                weights.columns,
                inputs.count,
                index % weights.rows,
                index / weights.rows,
            );
        }
    }
}

#[test]
fn there_are_kernels_to_test() {
    assert!(!kernels().is_empty(), "no backend bitnet-* can be used here");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(48),
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_shapes_are_exact(
        tensor_type in prop::sample::select(&TYPES[..]),
        rows in 1_usize..150,
        blocks in 1_usize..6,
        tokens in 1_usize..34,
        threads in 1_u32..9,
        gap in 0_usize..4,
        four_codes: bool,
        scale_of_block: bool,
        seed: u64,
    ) {
        let mut random = Random::new(seed);
        let columns = blocks * tensor_type.block_elements() as usize;
        let weights = Weights::random(tensor_type, rows, columns, four_codes, scale_of_block, &mut random);
        let inputs = Rows::random(columns, tokens, gap, &mut random);
        check(&weights, &inputs, threads);
    }
}

#[test]
fn every_number_of_tokens_is_exact() {
    let mut random = Random::new(1);
    for four_codes in [false, true] {
        let weights = Weights::random(TensorType::TQ2_0, 130, 512, four_codes, false, &mut random);
        for tokens in 1..=33 {
            check(&weights, &Rows::random(512, tokens, 1, &mut random), 2);
        }
    }
}

#[test]
fn tokens_beyond_the_cache_are_exact() {
    let mut random = Random::new(2);
    let weights = Weights::random(TensorType::TQ2_0, 70, 6912, false, false, &mut random);
    let inputs = Rows::random(6912, 200, 0, &mut random);
    check(&weights, &inputs, 3);
}

/// What was packed in the form for three codes has to be packed again.
#[test]
fn a_fourth_code_is_found_wherever_it_stands() {
    let mut random = Random::new(6);
    let weights = Weights::random(TensorType::TQ2_0, 200, 512, false, false, &mut random).ending_with(3);
    for threads in [1, 2, 5] {
        check(&weights, &Rows::random(512, 1, 0, &mut random), threads);
        check(&weights, &Rows::random(512, 9, 0, &mut random), threads);
    }
}

/// Sums of 16 bits would wrap within a few dozen columns, with any mixture of signs.
#[test]
fn the_largest_sums_do_not_wrap() {
    // The products stay below 2^24, so that a float holds them: 2 * 127 * 32768 would be the first beyond.
    const COLUMNS: usize = 32_768;
    for tensor_type in TYPES {
        for code in [0, 2, 3] {
            if code == 3 && tensor_type == TensorType::TQ1_0 {
                continue;
            }
            for sign in [1, -1] {
                // One token, several, a pair, a whole tile of each kernel, and several tiles with a rest.
                for (tokens, columns) in [(1, COLUMNS), (3, COLUMNS), (2, 4096), (4, 4096), (5, 4096), (33, 4096)] {
                    let weights = Weights::of_code(tensor_type, 66, columns, code);
                    check(&weights, &Rows::new(columns, tokens, 0, |_| sign * 127), 2);
                }
            }
        }
    }
}

/// So would sums of 32 bits, of a single token's weights that are not shifted down before they are multiplied.
#[test]
fn the_largest_sums_of_the_longest_rows_do_not_wrap() {
    // 2^31 is 64 * 2 * 127 times 132,104 columns of one plane of four.
    const COLUMNS: usize = 600_064;
    let weights = Weights::of_code(TensorType::TQ2_0, 17, COLUMNS, 2);
    for sign in [1, -1] {
        for tokens in [1, 3] {
            check(&weights, &Rows::new(COLUMNS, tokens, 0, |_| sign * 127), 2);
        }
    }
}

/// Multiplies with every kernel: a few roundings of the sum of blocks, which is in floats, and nothing else, may be off.
fn check_six_bit(weights: &SixBit, inputs: &Rows, threads: u32) {
    let (rows, columns) = (weights.rows(), weights.columns);
    let matrix = Matrix { tensor_type: TensorType::Q6_K, rows, columns, data: &weights.stored() };
    let threads = NonZeroU32::new(threads).expect("not zero");
    let of_rows = Inputs { values: &inputs.values, offset: inputs.offset, stride: inputs.stride, count: inputs.count };
    for backend in kernels() {
        let device = backend.devices(&Hardware::detect()).expect("usable").remove(0);
        let mut product = backend.product(&device, matrix, threads).expect("computes products").expect("fits");
        let mut products = vec![f32::NAN; rows * inputs.count];
        product.multiply(of_rows, &mut products).expect("a product");
        for token in 0..inputs.count {
            let exact = weights.times(inputs.row(token, columns));
            for (row, (exact, magnitude)) in exact.into_iter().enumerate() {
                let got = f64::from(products[token * rows + row]);
                let off = (got - exact).abs();
                assert!(off <= 1e-6 * magnitude, "{}: row {row} of token {token} is {got}, not {exact}", backend.id());
            }
        }
    }
}

#[test]
fn six_bit_weights_are_exact_but_for_the_sums_of_blocks() {
    let mut random = Random::new(5);
    for (rows, columns, tokens, threads) in [(1, 256, 1, 1), (70, 512, 1, 2), (130, 1280, 7, 3), (33, 2560, 33, 2)] {
        let weights = SixBit::random(rows, columns, &mut random);
        let mut inputs = Rows::random(columns, tokens, 1, &mut random);
        // Each block of 256 has a scale of its own: 127 in each keeps the integers.
        for row in 0..tokens {
            for block in 0..columns / 256 {
                inputs.values[inputs.offset + row * inputs.stride + block * 256 + 3] = 127.0;
            }
        }
        check_six_bit(&weights, &inputs, threads);
    }
}

/// The largest products that two bytes can have, in every lane and of either sign.
#[test]
fn the_largest_six_bit_sums_do_not_wrap() {
    for (code, scale) in [(0, -128), (63, -128), (63, 127)] {
        let weights = SixBit::of_code(66, 2560, code, scale);
        for sign in [1, -1] {
            for tokens in [1, 2, 5, 11] {
                check_six_bit(&weights, &Rows::new(2560, tokens, 0, |_| sign * 127), 2);
            }
        }
    }
}

#[test]
fn a_row_of_zeros_gives_zeros() {
    let mut random = Random::new(3);
    let weights = Weights::random(TensorType::Q2_0, 40, 256, true, true, &mut random);
    for backend in kernels() {
        let mut products = vec![f32::NAN; 80];
        let zeros = vec![0.0; 512];
        product(backend, &weights, 1).multiply(Inputs::new(&zeros, 256), &mut products).expect("a product");
        assert!(products.iter().all(|&product| product == 0.0), "{}", backend.id());
    }
}

#[test]
fn inputs_are_rounded_to_the_nearest_of_255_steps() {
    let weights = Weights::of_code(TensorType::TQ2_0, 16, 256, 2);
    // Each value is a step and a little less than half of one; the halves go to even.
    let mut values = vec![3.49_f32; 256];
    values[0] = 127.0;
    values[1] = 4.5;
    values[2] = 5.5;
    let exact = 127.0 + 4.0 + 6.0 + 253.0 * 3.0;
    for backend in kernels() {
        let mut products = vec![0.0; 16];
        product(backend, &weights, 1).multiply(Inputs::new(&values, 256), &mut products).expect("a product");
        assert!(products.iter().all(|&product| product == exact), "{}: {}", backend.id(), products[0]);
    }
}

#[test]
fn sizes_that_do_not_fit_are_an_error() {
    let mut random = Random::new(4);
    let weights = Weights::random(TensorType::TQ2_0, 8, 256, true, false, &mut random);
    let backend = *kernels().first().expect("kernels");
    let mut product = product(backend, &weights, 1);
    let values = vec![0.0; 300];
    let mut products = vec![0.0; 8];
    let inputs = |offset, stride, count| Inputs { values: &values, offset, stride, count };
    for wrong in [inputs(45, 256, 1), inputs(0, 256, 2), inputs(0, 255, 1), inputs(0, 256, 0)] {
        assert_eq!(product.multiply(wrong, &mut products), Err(ProductError::Shape));
    }
    assert_eq!(product.multiply(inputs(0, 256, 1), &mut products[..7]), Err(ProductError::Shape));
    assert_eq!(product.multiply(inputs(44, 256, 1), &mut products), Ok(()));
    let device = backend.devices(&Hardware::detect()).expect("usable").remove(0);
    let short = Matrix { tensor_type: TensorType::TQ2_0, rows: 8, columns: 256, data: &[0; 65] };
    let refused = backend.product(&device, short, NonZeroU32::MIN).expect("computes products");
    assert_eq!(refused.err(), Some(ProductError::Shape));
}
