//! What a tier really does on this machine, for calibration.

use std::{
    num::NonZeroU32,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use super::{process::CpuRegistration, product::LlamaProduct};
use crate::{
    backend::{Inputs, Matrix, Product as _, Rates},
    gguf::TensorType,
};

/// Rows and columns of the matrices: small enough for the second-level cache, so that multiplying is what is measured.
const SIZE: usize = 1024;

/// Tokens of a prompt that are multiplied at once.
const TOKENS: usize = 32;

/// The types that stand for quantised, ternary and float weights.
const QUANTIZED: TensorType = TensorType::Q4_K;
const TERNARY: TensorType = TensorType::TQ2_0;
const FLOAT: TensorType = TensorType::F16;

/// Multiplies on the tier of `registration`, which the CPU can execute, for about `budget`.
///
/// `None` when the tier cannot compute here.
pub(crate) fn measure(registration: CpuRegistration, threads: NonZeroU32, budget: Duration) -> Option<Rates> {
    let share = budget / 6;
    let rate = |tensor_type, tokens| multiply_adds(registration, threads, tensor_type, tokens, share);
    Some(Rates {
        quantized: rate(QUANTIZED, TOKENS)?,
        ternary: rate(TERNARY, TOKENS)?,
        float: rate(FLOAT, TOKENS)?,
        quantized_vector: rate(QUANTIZED, 1)?,
        ternary_vector: rate(TERNARY, 1)?,
        float_vector: rate(FLOAT, 1)?,
        bandwidth: bandwidth(threads.get()),
    })
}

/// Multiply-adds a second: in the fastest of the runs that `budget` allows, at least one.
fn multiply_adds(
    registration: CpuRegistration,
    threads: NonZeroU32,
    tensor_type: TensorType,
    tokens: usize,
    budget: Duration,
) -> Option<f64> {
    let blocks = (SIZE * SIZE) as u64 / tensor_type.block_elements();
    let data = vec![0; usize::try_from(blocks * tensor_type.block_bytes()).ok()?];
    let matrix = Matrix { tensor_type, rows: SIZE, columns: SIZE, data: &data };
    let mut product = LlamaProduct::new(registration, matrix, threads).ok()?;
    let inputs = vec![0.0; SIZE * tokens];
    let mut products = vec![0.0; SIZE * tokens];
    let begin = Instant::now();
    let mut least = Duration::MAX;
    loop {
        let start = Instant::now();
        product.multiply(Inputs::new(&inputs, SIZE), &mut products).ok()?;
        least = least.min(start.elapsed());
        if begin.elapsed() >= budget {
            return Some((SIZE * SIZE * tokens) as f64 / least.as_secs_f64().max(f64::EPSILON));
        }
    }
}

/// Bytes a second that `threads` threads read from memory: the same for every tier, so it is measured once.
fn bandwidth(threads: u32) -> f64 {
    /// Larger than most last-level caches; larger still would cost more to allocate than to read.
    const BYTES: usize = 64 << 20;
    static BANDWIDTH: OnceLock<f64> = OnceLock::new();
    *BANDWIDTH.get_or_init(|| {
        // Not zero: the system would map one page of zeros everywhere.
        let data = vec![1u64; BYTES / size_of::<u64>()];
        let chunk = data.len().div_ceil(threads.max(1) as usize);
        let pass = || {
            let start = Instant::now();
            thread::scope(|scope| {
                for part in data.chunks(chunk) {
                    scope.spawn(move || {
                        std::hint::black_box(part.iter().fold(0u64, |sum, &word| sum.wrapping_add(word)))
                    });
                }
            });
            BYTES as f64 / start.elapsed().as_secs_f64()
        };
        pass().max(pass())
    })
}
