//! What a tier really does on this machine, for calibration.

use std::{
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use llama_cpp_sys_2 as sys;

use super::{
    ffi,
    process::{self, CpuRegistration, Registered},
    threadpool::Threadpool,
};
use crate::backend::Rates;

/// Rows and columns of the matrices: small enough for the second-level cache, so that multiplying is what is measured.
const SIZE: i64 = 1024;

/// Tokens of a prompt that are multiplied at once.
const TOKENS: i64 = 32;

/// The types that stand for quantised, ternary and float weights.
pub(crate) const QUANTIZED: sys::ggml_type = sys::GGML_TYPE_Q4_K;
#[cfg(feature = "bitnet")]
pub(crate) const TERNARY: sys::ggml_type = sys::GGML_TYPE_TQ2_0;
const FLOAT: sys::ggml_type = sys::GGML_TYPE_F16;

/// Multiplies on the tier of `registration`, which the CPU can execute, for about `budget`. `quantized` stands for all types
/// that are not floats.
///
/// `None` when the tier cannot compute here.
pub(crate) fn measure(
    registration: CpuRegistration,
    quantized: sys::ggml_type,
    threads: u32, budget: Duration) -> Option<Rates> {
    let bandwidth = bandwidth(threads);
    let share = budget / 4;
    process::with_cpu(Some(registration), |registered| {
        let registered = registered?;
        let pool = Threadpool::new(registered, threads)?;
        let rate = |tensor_type, tokens| multiply_adds(registered, &pool, threads, tensor_type, tokens, share);
        Some(Rates {
            quantized: rate(quantized, TOKENS)?,
            float: rate(FLOAT, TOKENS)?,
            quantized_vector: rate(quantized, 1)?,
            float_vector: rate(FLOAT, 1)?,
            bandwidth,
        })
    })
    .ok()?
}

/// Multiply-adds a second.
fn multiply_adds(
    registered: Registered,
    pool: &Threadpool,
    threads: u32,
    tensor_type: sys::ggml_type,
    tokens: i64,
    budget: Duration,
) -> Option<f64> {
    // SAFETY: the registration is one of ggml's CPU backends, the pool was made by it for this number of threads, and a
    // row of `SIZE` elements is a whole number of blocks of either type.
    let seconds = unsafe {
        ffi::gl_measure_product(
            registered.as_ptr(),
            pool.as_ptr(),
            i32::try_from(threads).ok()?,
            tensor_type,
            SIZE,
            tokens,
            budget.as_secs_f64(),
        )
    };
    (seconds > 0.0).then(|| (SIZE * SIZE * tokens) as f64 / seconds)
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
