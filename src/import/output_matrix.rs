//! The output matrix in fewer bits: half of what a token reads, where it is stored as F16.

use std::{
    fmt,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::PathBuf,
    str::FromStr,
    thread,
};

use super::ImportError;
use crate::gguf::{
    Gguf, TensorInfo, TensorType,
    quantize::{BlockEncoder, FloatDecoder, block_encoder, float_decoder},
};

/// How the output matrix is stored.
///
/// Where it is tied, that is the embedding table too: looking a row up works in every type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OutputMatrix {
    /// As it is.
    #[default]
    Keep,
    /// 8.5 bits a weight.
    Q8_0,
    /// 6.56 bits a weight; rows must be a multiple of 256.
    Q6K,
}

impl OutputMatrix {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::Keep, Self::Q8_0, Self::Q6K];

    /// The type that was asked for; `None` to keep what is there.
    pub fn tensor_type(self) -> Option<TensorType> {
        match self {
            Self::Keep => None,
            Self::Q8_0 => Some(TensorType::Q8_0),
            Self::Q6K => Some(TensorType::Q6_K),
        }
    }
}

impl fmt::Display for OutputMatrix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Keep => "keep",
            Self::Q8_0 => "q8_0",
            Self::Q6K => "q6_k",
        })
    }
}

/// The text is none of the names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of keep, q8_0, q6_k")]
pub struct UnknownOutputMatrix(String);

impl FromStr for OutputMatrix {
    type Err = UnknownOutputMatrix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |matrix: &Self| matrix.to_string() == text;
        Self::ALL.into_iter().find(named).ok_or_else(|| UnknownOutputMatrix(text.to_owned()))
    }
}

/// The output matrix of a model: the embedding table where it is tied.
pub(super) fn find(gguf: &Gguf) -> Option<&TensorInfo> {
    gguf.tensor("output.weight").or_else(|| gguf.tensor("token_embd.weight"))
}

/// A float matrix that is quantised while it is copied.
#[derive(Debug, Clone)]
pub(super) struct Quantised {
    path: PathBuf,
    offset: u64,
    rows: u64,
    row: usize,
    row_bytes: usize,
    decode: FloatDecoder,
    encode: BlockEncoder,
}

impl Quantised {
    /// `tensor` as `to`.
    pub(super) fn new(gguf: &Gguf, tensor: &TensorInfo, to: TensorType) -> Result<Self, ImportError> {
        let (path, row) = (gguf.parts()[tensor.part].path.clone(), tensor.shape[0]);
        match (float_decoder(tensor.tensor_type), block_encoder(to)) {
            (Some(decode), Some(encode)) if row.is_multiple_of(to.block_elements()) => Ok(Self {
                path,
                offset: tensor.offset,
                rows: tensor.elements() / row,
                row: row as usize,
                row_bytes: (row * tensor.tensor_type.block_bytes()) as usize,
                decode,
                encode,
            }),
            _ => {
                Err(ImportError::OutputMatrix { path, tensor: tensor.name.clone(), from: tensor.tensor_type, row, to })
            }
        }
    }

    /// Writes the blocks, computed by as many threads as the process may use. Errors of ours travel inside the
    /// [`io::Error`].
    pub(super) fn write(&self, output: &mut dyn Write) -> io::Result<()> {
        /// Weights that a thread has at once, about: enough that starting the thread does not count.
        const SHARE: usize = 1 << 21;
        let read_error = |source| io::Error::other(ImportError::Read { path: self.path.clone(), source });
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let share = (SHARE / self.row).max(1) * self.row_bytes;
        let mut file = File::open(&self.path).map_err(read_error)?;
        file.seek(SeekFrom::Start(self.offset)).map_err(read_error)?;
        let mut rest = self.rows as usize * self.row_bytes;
        let mut bytes = vec![0; share * threads];
        while rest > 0 {
            let taken = rest.min(bytes.len());
            let bytes = &mut bytes[..taken];
            file.read_exact(bytes).map_err(read_error)?;
            let blocks: Vec<Vec<u8>> = thread::scope(|scope| {
                let workers: Vec<_> = bytes.chunks(share).map(|rows| scope.spawn(|| self.quantise(rows))).collect();
                workers.into_iter().map(|worker| worker.join().expect("arithmetic does not panic")).collect()
            });
            blocks.iter().try_for_each(|blocks| output.write_all(blocks))?;
            rest -= taken;
        }
        Ok(())
    }

    fn quantise(&self, rows: &[u8]) -> Vec<u8> {
        let mut values = vec![0.0; self.row];
        let mut blocks = Vec::new();
        for row in rows.chunks_exact(self.row_bytes) {
            (self.decode)(row, &mut values);
            (self.encode)(&values, &mut blocks);
        }
        blocks
    }
}
