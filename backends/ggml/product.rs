//! One matrix on a tier.

use std::{num::NonZeroU32, ptr::NonNull};

use llama_cpp_sys_2 as sys;

use super::{
    ffi, model,
    process::{self, CpuRegistration, Reentered, Registered},
    threadpool::{MAX_THREADS, Threadpool},
};
use crate::{
    backend::{Inputs, Matrix, Product, ProductError},
    gguf::TensorType,
};

/// Owner of a `gl_product`.
pub(crate) struct LlamaProduct {
    raw: NonNull<ffi::Product>,
    registration: CpuRegistration,
    rows: usize,
    columns: usize,
    /// Its threads: dropped after `raw`.
    _pool: Threadpool,
}

// SAFETY: one owner, and ggml computes a graph from whatever thread asks.
unsafe impl Send for LlamaProduct {}

impl LlamaProduct {
    /// Puts `matrix` where a model's would lie on the tier of `registration`, which the CPU can execute.
    pub(crate) fn new(
        registration: CpuRegistration,
        matrix: Matrix<'_>,
        threads: NonZeroU32,
    ) -> Result<Self, ProductError> {
        let (Ok(rows), Ok(columns)) = (i64::try_from(matrix.rows), i64::try_from(matrix.columns)) else {
            return Err(ProductError::Shape);
        };
        if !matrix.is_whole() {
            return Err(ProductError::Shape);
        }
        if !multiplies(matrix.tensor_type) {
            return Err(ProductError::Failed(format!("no products with {}", matrix.tensor_type)));
        }
        let (raw, pool) = on_tier(registration, threads, |registered, pool, threads| {
            // SAFETY: the registration is one of ggml's CPU backends, the pool was made by it for this number of threads,
            // and `data` has the length that type and shape ask for.
            unsafe {
                ffi::gl_product_new(
                    registered.as_ptr(),
                    pool.as_ptr(),
                    threads,
                    sys::ggml_type::from(matrix.tensor_type.id()),
                    rows,
                    columns,
                    matrix.data.as_ptr().cast(),
                )
            }
        })?;
        Ok(Self { raw, registration, rows: matrix.rows, columns: matrix.columns, _pool: pool })
    }
}

/// What `make` makes in C on the tier of `registration`, which the CPU can execute, and the threads that it was given: how many is
/// `make`'s last argument. They must outlive it.
pub(super) fn on_tier<T>(
    registration: CpuRegistration,
    threads: NonZeroU32,
    make: impl FnOnce(Registered, &Threadpool, i32) -> *mut T,
) -> Result<(NonNull<T>, Threadpool), ProductError> {
    let failed = |message: &str| ProductError::Failed(message.to_owned());
    let threads = threads.get();
    if threads > MAX_THREADS {
        return Err(ProductError::Failed(format!("at most {MAX_THREADS} threads")));
    }
    let made = process::with_cpu(Some(registration), |registered| {
        let registered = registered.ok_or_else(|| failed("the tier has no registration"))?;
        let pool = Threadpool::new(registered, threads, None).ok_or_else(|| failed("no threads to be had"))?;
        let raw = NonNull::new(make(registered, &pool, threads.cast_signed()));
        Ok((raw.ok_or_else(|| ProductError::Failed(model::message(String::new())))?, pool))
    });
    made.unwrap_or_else(|Reentered| Err(ProductError::Failed(Reentered.to_string())))
}

impl Product for LlamaProduct {
    fn multiply(&mut self, inputs: Inputs<'_>, products: &mut [f32]) -> Result<(), ProductError> {
        let fits = inputs.are_within(self.columns) && inputs.count.checked_mul(self.rows) == Some(products.len());
        let (Ok(stride), Ok(count)) = (i64::try_from(inputs.stride), i64::try_from(inputs.count)) else {
            return Err(ProductError::Shape);
        };
        if !fits {
            return Err(ProductError::Shape);
        }
        let first = &inputs.values[inputs.offset..];
        // SAFETY: `first` has all the rows, `products` has room for theirs, and the product is valid.
        let done = unsafe {
            ffi::gl_product_multiply(self.raw.as_ptr(), first.as_ptr(), stride, count, products.as_mut_ptr())
        };
        if done { Ok(()) } else { Err(ProductError::Failed(model::message(String::new()))) }
    }

    fn bytes(&self) -> u64 {
        // SAFETY: the product is valid.
        unsafe { ffi::gl_product_bytes(self.raw.as_ptr()) }
    }

    fn multiply_adds(&self, rounds: u32) -> Option<u64> {
        self.registration.multiply_adds(rounds)
    }
}

impl Drop for LlamaProduct {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `gl_product_new`, and its threads are still there.
        unsafe { ffi::gl_product_free(self.raw.as_ptr()) };
    }
}

/// The types that ggml multiplies with on the CPU without further ado.
fn multiplies(tensor_type: TensorType) -> bool {
    use TensorType::{
        BF16, F16, F32, IQ4_NL, IQ4_XS, Q2_0, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, TQ1_0, TQ2_0,
    };
    matches!(
        tensor_type,
        F32 | F16
            | BF16
            | IQ4_NL
            | IQ4_XS
            | Q4_0
            | Q4_1
            | Q5_0
            | Q5_1
            | Q8_0
            | Q2_K
            | Q3_K
            | Q4_K
            | Q5_K
            | Q6_K
            | TQ1_0
            | TQ2_0
            | Q2_0
    )
}
