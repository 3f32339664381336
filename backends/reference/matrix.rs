//! Weights as they are stored, and the product with them.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    thread,
};

use super::ternary::{self, Activations};
use crate::gguf::{
    TensorType,
    dequantize::{Decoder, decoder},
};

/// A weight matrix: `rows` outputs, `columns` inputs, each row a whole number of blocks.
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    row_bytes: usize,
    storage: Storage,
    data: Vec<u8>,
}

/// How rows are stored, and with it how they are multiplied.
enum Storage {
    /// Decoded to floats.
    Floats(Decoder),
    /// Codes that are multiplied with activations of 8 bits.
    Ternary(ternary::Layout),
}

impl Matrix {
    /// Takes the bytes of a tensor; `None` when the type is not known or the sizes do not agree.
    pub(super) fn new(tensor_type: TensorType, rows: usize, columns: usize, data: Vec<u8>) -> Option<Self> {
        let blocks = (columns as u64).checked_div(tensor_type.block_elements())?;
        let row_bytes = usize::try_from(blocks * tensor_type.block_bytes()).ok()?;
        let whole_blocks = blocks * tensor_type.block_elements() == columns as u64;
        let complete = rows.checked_mul(row_bytes)? == data.len();
        let storage = match ternary::Layout::of(tensor_type) {
            Some(layout) => Storage::Ternary(layout),
            None => Storage::Floats(decoder(tensor_type)?),
        };
        (whole_blocks && complete).then_some(Self { rows, columns, row_bytes, storage, data })
    }

    /// Whether rows of this type can be read.
    pub(super) fn supports(tensor_type: TensorType) -> bool {
        ternary::Layout::of(tensor_type).is_some() || decoder(tensor_type).is_some()
    }

    /// Reads one row: `output` has `columns` elements.
    pub(super) fn read_row(&self, row: usize, output: &mut [f32]) {
        match &self.storage {
            Storage::Floats(decode) => decode(self.row(row), output),
            Storage::Ternary(layout) => {
                let mut weights = ternary::Row::default();
                layout.read(self.row(row), &mut weights);
                weights.dequantize(output);
            }
        }
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
        match &self.storage {
            Storage::Floats(decode) => for_each_run(&mut by_row, tokens, work, threads, |first, products| {
                let mut weights = vec![0.0; self.columns];
                for (offset, products) in products.chunks_exact_mut(tokens).enumerate() {
                    decode(self.row(first + offset), &mut weights);
                    for (product, input) in products.iter_mut().zip(inputs.chunks_exact(self.columns)) {
                        *product = dot(&weights, input);
                    }
                }
            }),
            Storage::Ternary(layout) => {
                let inputs: Vec<Activations> = inputs.chunks_exact(self.columns).map(Activations::quantize).collect();
                for_each_run(&mut by_row, tokens, work, threads, |first, products| {
                    let mut weights = ternary::Row::default();
                    for (offset, products) in products.chunks_exact_mut(tokens).enumerate() {
                        layout.read(self.row(first + offset), &mut weights);
                        for (product, input) in products.iter_mut().zip(&inputs) {
                            *product = weights.dot(input);
                        }
                    }
                });
            }
        }
        if tokens == 1 { by_row } else { transpose(&by_row, self.rows, tokens) }
    }

    /// The bytes of one row.
    fn row(&self, row: usize) -> &[u8] {
        &self.data[row * self.row_bytes..][..self.row_bytes]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|index| (index * index % 97) as f32 / 48.0 - 1.0).collect()
    }

    fn matrix(rows: usize, columns: usize) -> Matrix {
        let data = numbers(rows * columns).iter().flat_map(|value| value.to_le_bytes()).collect();
        Matrix::new(TensorType::F32, rows, columns, data).unwrap()
    }

    #[test]
    fn product_is_a_row_for_each_token() {
        let (rows, columns, tokens) = (5, 19, 3);
        let (weights, inputs) = (numbers(rows * columns), numbers(tokens * columns));
        let product = matrix(rows, columns).multiply(&inputs, 1);
        for token in 0..tokens {
            for row in 0..rows {
                let expected: f32 =
                    (0..columns).map(|i| weights[row * columns + i] * inputs[token * columns + i]).sum();
                let found = product[token * rows + row];
                assert!((found - expected).abs() < 1e-4, "token {token}, row {row}: {found} instead of {expected}");
            }
        }
    }

    #[test]
    fn threads_and_batch_do_not_change_a_bit() {
        let (rows, columns, tokens) = (300, 515, 7);
        let (matrix, inputs) = (matrix(rows, columns), numbers(tokens * columns));
        let together = matrix.multiply(&inputs, 4);
        assert_eq!(together, matrix.multiply(&inputs, 1));
        let singly: Vec<f32> = inputs.chunks(columns).flat_map(|input| matrix.multiply(input, 2)).collect();
        assert_eq!(together, singly);
    }

    #[test]
    fn ternary_matrix_multiplies_activations_of_8_bits() {
        // Two rows of 64: all 1 with the scale 2, and all -1 with the scale 0.5.
        let row = |codes: u8, scale: u8| [&[0x00, scale], &[codes; 16][..]].concat();
        let data = [row(0b10_10_10_10, 0x40), row(0, 0x38)].concat();
        let matrix = Matrix::new(TensorType::Q2_0, 2, 64, data).unwrap();
        // 0.4 is less than half a step of 1 and vanishes; a second token has its own scale, where it is the largest.
        let (mut first, mut second) = ([0.0; 64], [0.0; 64]);
        (first[0], first[1], second[1]) = (127.0, 0.4, 0.4);
        let products = matrix.multiply(&[first, second].concat(), 1);
        let largest = 127.0 * (0.4 / 127.0);
        assert_eq!(products, [254.0, -63.5, 2.0 * largest, -0.5 * largest]);
    }

    #[test]
    fn every_chunk_is_computed_once() {
        for (chunks, threads) in [(1, 4), (3, 8), (1000, 3), (1000, 1)] {
            let mut output = vec![0.0; 2 * chunks];
            for_each_run(&mut output, 2, 1 << 20, threads, |first, run| {
                for (offset, chunk) in run.chunks_exact_mut(2).enumerate() {
                    chunk.iter_mut().for_each(|value| *value += (first + offset + 1) as f32);
                }
            });
            let expected: Vec<f32> = (0..2 * chunks).map(|index| (index / 2 + 1) as f32).collect();
            assert_eq!(output, expected, "{chunks} chunks, {threads} threads");
        }
    }

    #[test]
    fn tensors_of_unknown_type_or_wrong_size_are_refused() {
        assert!(Matrix::new(TensorType::IQ2_XXS, 1, 256, vec![0; 66]).is_none());
        assert!(Matrix::new(TensorType::Q8_0, 1, 33, vec![0; 34]).is_none());
        assert!(Matrix::new(TensorType::Q8_0, 2, 32, vec![0; 34]).is_none());
    }
}
