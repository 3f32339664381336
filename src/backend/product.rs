//! A single matrix product, computed as a loaded model computes it.
//!
//! Tests hold kernels against exact integers with it, and benchmarks time them, without a model around them.

use crate::gguf::TensorType;

/// A matrix in the form in which a GGUF file stores it.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// Element type.
    pub tensor_type: TensorType,
    /// Rows: the length of a product.
    pub rows: usize,
    /// Columns: the length of an input. A whole number of the type's blocks.
    pub columns: usize,
    /// The rows, one after another.
    pub data: &'a [u8],
}

impl Matrix<'_> {
    /// Whether `data` has the length that type and shape ask for.
    pub fn is_whole(&self) -> bool {
        let block = usize::try_from(self.tensor_type.block_elements()).unwrap_or(usize::MAX);
        let block_bytes = usize::try_from(self.tensor_type.block_bytes()).unwrap_or(usize::MAX);
        let bytes = || (self.columns / block).checked_mul(block_bytes)?.checked_mul(self.rows);
        self.rows > 0 && self.columns > 0 && self.columns.is_multiple_of(block) && bytes() == Some(self.data.len())
    }
}

/// A [`Matrix`] on a backend, repacked where the backend repacks, with the threads that multiply with it.
pub trait Product: Send {
    /// Multiplies with the rows of `inputs`, and writes a row of products for each into `products`.
    ///
    /// # Errors
    ///
    /// [`ProductError`].
    fn multiply(&mut self, inputs: Inputs<'_>, products: &mut [f32]) -> Result<(), ProductError>;

    /// Bytes of the matrix in the form in which it is multiplied: what a single input makes the backend read.
    fn bytes(&self) -> u64;

    /// Does multiply-adds on one thread with the instructions of the product's kernel but without its memory, `rounds` times
    /// some hundreds, and says how many: the limit of any product.
    ///
    /// `None` means that the backend has no such loop.
    fn multiply_adds(&self, rounds: u32) -> Option<u64> {
        let _ = rounds;
        None
    }
}

/// Rows of floats in a larger array.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The array.
    pub values: &'a [f32],
    /// Where the first row begins.
    pub offset: usize,
    /// How far apart the rows begin; at least the number of columns.
    pub stride: usize,
    /// How many rows there are.
    pub count: usize,
}

impl<'a> Inputs<'a> {
    /// Rows of `columns` values, one after another.
    pub fn new(values: &'a [f32], columns: usize) -> Self {
        Self { values, offset: 0, stride: columns, count: values.len() / columns.max(1) }
    }

    /// Whether the rows, of `columns` values, lie within the array and apart.
    pub fn are_within(&self, columns: usize) -> bool {
        let end =
            || self.stride.checked_mul(self.count.checked_sub(1)?)?.checked_add(self.offset)?.checked_add(columns);
        self.stride >= columns && end().is_some_and(|end| end <= self.values.len())
    }
}

/// Why a product, or attention, could not be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProductError {
    /// What is multiplied and what comes of it do not fit each other.
    #[error("the sizes of what is multiplied, and of the memory for the results, do not fit each other")]
    Shape,
    /// The engine failed: memory, or an element type that it does not multiply with.
    #[error("{0}")]
    Failed(String),
}
