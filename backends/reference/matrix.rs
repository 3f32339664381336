//! Weights as they are stored, and the product with them.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    thread,
};

use super::dequantize::{Decoder, decoder};
use crate::gguf::TensorType;

/// A weight matrix: `rows` outputs, `columns` inputs, each row a whole number of blocks.
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    row_bytes: usize,
    decode: Decoder,
    data: Vec<u8>,
}

impl Matrix {
    /// Takes the bytes of a tensor; `None` when the type is not known or the sizes do not agree.
    pub(super) fn new(tensor_type: TensorType, rows: usize, columns: usize, data: Vec<u8>) -> Option<Self> {
        let blocks = (columns as u64).checked_div(tensor_type.block_elements())?;
        let row_bytes = usize::try_from(blocks * tensor_type.block_bytes()).ok()?;
        let whole_blocks = blocks * tensor_type.block_elements() == columns as u64;
        let complete = rows.checked_mul(row_bytes)? == data.len();
        (whole_blocks && complete).then_some(Self { rows, columns, row_bytes, decode: decoder(tensor_type)?, data })
    }

    /// Reads one row: `output` has `columns` elements.
    pub(super) fn read_row(&self, row: usize, output: &mut [f32]) {
        (self.decode)(&self.data[row * self.row_bytes..][..self.row_bytes], output);
    }

    /// Multiplies: `inputs` has `columns` floats for each token, the result `rows` floats for each token.
    ///
    /// A weight row is decoded once for all tokens. Every product is summed in the same order however the work is
    /// divided, so that neither the batch size nor the number of threads changes a bit of the result.
    pub(super) fn multiply(&self, inputs: &[f32], threads: usize) -> Vec<f32> {
        let tokens = inputs.len() / self.columns;
        // Rows are divided among the threads, so the product is computed with the tokens of a row side by side.
        let mut by_row = vec![0.0; self.rows * tokens];
        let work = self.columns * tokens;
        for_each_run(&mut by_row, tokens, work, threads, |first, products| {
            let mut weights = vec![0.0; self.columns];
            for (offset, products) in products.chunks_exact_mut(tokens).enumerate() {
                self.read_row(first + offset, &mut weights);
                for (product, input) in products.iter_mut().zip(inputs.chunks_exact(self.columns)) {
                    *product = dot(&weights, input);
                }
            }
        });
        if tokens == 1 { by_row } else { transpose(&by_row, self.rows, tokens) }
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Matrix({} x {}, {} bytes)", self.rows, self.columns, self.data.len())
    }
}

/// Divides `output`, which is made of chunks of `chunk` elements, into runs of chunks, and has up to `threads` threads
/// call `compute` with the index of a run's first chunk and the run. `work` is the multiply-adds that a chunk costs.
pub(super) fn for_each_run(
    output: &mut [f32],
    chunk: usize,
    work: usize,
    threads: usize,
    compute: impl Fn(usize, &mut [f32]) + Sync,
) {
    /// Starting a thread costs about as much as this many multiply-adds.
    const WORK_OF_A_THREAD: usize = 1 << 17;
    let chunks = output.len() / chunk;
    let threads = threads.min(chunks.saturating_mul(work) / WORK_OF_A_THREAD).max(1);
    // Several runs a thread, so that one that is held up leaves the rest to the others.
    let chunks_of_a_run = if threads == 1 { chunks } else { chunks.div_ceil(4 * threads) }.max(1);
    let runs = Mutex::new(output.chunks_mut(chunks_of_a_run * chunk).enumerate());
    let next = || runs.lock().unwrap_or_else(PoisonError::into_inner).next();
    let drain = || {
        while let Some((index, run)) = next() {
            compute(index * chunks_of_a_run, run);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // The runs of a thread that the operating system refuses are done by the others.
            let _ = thread::Builder::new().spawn_scoped(scope, drain);
        }
        drain();
    });
}

/// The inner product, in sixteen sums side by side: the compiler turns them into vector registers.
pub(super) fn dot(left: &[f32], right: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (left, left_rest) = left.as_chunks::<LANES>();
    let (right, right_rest) = right.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (left, right) in left.iter().zip(right) {
        for lane in 0..LANES {
            sums[lane] += left[lane] * right[lane];
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    sums.iter().sum::<f32>() + rest
}

/// `rows` by `columns` to `columns` by `rows`.
fn transpose(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut transposed = vec![0.0; matrix.len()];
    for (column, output) in transposed.chunks_exact_mut(rows).enumerate() {
        for (value, row) in output.iter_mut().zip(matrix.chunks_exact(columns)) {
            *value = row[column];
        }
    }
    transposed
}
