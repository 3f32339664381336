//! One ternary matrix: read from any form, written in another, a few rows at a time.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{ImportError, watch::Reading};
use crate::gguf::{
    Gguf, I2sLayout, TensorInfo, TensorType,
    quantize::{FloatDecoder, float_decoder},
    ternary::{
        self,
        blocks::{self, Packer, Unpacker},
        scale::scale_name,
    },
};

/// Weights that are in memory at once, about.
const BATCH: u64 = 1 << 18;

/// What a scale can be. Trained ones lie around 1; the limits are far out, to catch bytes that are no scale.
const SCALES: std::ops::RangeInclusive<f32> = 1e-10..=1e6;

/// A ternary matrix of a file.
#[derive(Debug, Clone)]
pub(super) struct Matrix {
    path: PathBuf,
    name: String,
    offset: u64,
    rows: u64,
    row: u64,
    stored: Stored,
    /// What a stored weight of one step is: the scale within an I2_S matrix, the magnitude of floats, 1 in blocks.
    step: f32,
    /// What it stands for: the step, times the scale beside the matrix where there is one.
    scale: f32,
}

/// How the file stores the codes.
#[derive(Debug, Clone, Copy)]
enum Stored {
    I2s(I2sLayout),
    /// With block scales of 1.0, and the scale in a tensor beside it.
    Blocks(TensorType, Unpacker),
    /// Zero, the step, and the step negated.
    Floats(TensorType, FloatDecoder),
}

/// How to store the codes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// With the scale behind them.
    I2s(I2sLayout),
    /// With block scales of 1.0.
    Blocks(Packer),
}

impl Matrix {
    /// The matrix `tensor` of `gguf`; I2_S codes stand as `layout` says. `None` for a tensor that is not ternary by its
    /// type, nor a float matrix, which is read to its end.
    pub(super) fn open(
        gguf: &Gguf,
        tensor: &TensorInfo,
        layout: I2sLayout,
        reading: &mut Reading<'_>,
    ) -> Result<Option<Self>, ImportError> {
        let tensor_type = tensor.tensor_type;
        let stored = match (tensor_type, blocks::unpacker(tensor_type), float_decoder(tensor_type)) {
            (TensorType::I2_S, ..) => Stored::I2s(layout),
            (_, Some(unpack), _) => Stored::Blocks(tensor_type, unpack),
            (.., Some(decode)) => Stored::Floats(tensor_type, decode),
            _ => return Ok(None),
        };
        let row = tensor.shape[0];
        let mut matrix = Self {
            path: gguf.parts()[tensor.part].path.clone(),
            name: tensor.name.clone(),
            offset: tensor.offset,
            rows: tensor.elements() / row,
            row,
            stored,
            step: 1.0,
            scale: 1.0,
        };
        if let Stored::I2s(layout) = stored {
            matrix.check_shape(layout)?;
        }
        matrix.step = matrix.read_step(reading)?;
        matrix.check_scale(matrix.step)?;
        matrix.scale = matrix.step;
        if let Some(beside) = scale_name(&tensor.name).and_then(|name| gguf.tensor(&name)) {
            let beside = read_scale(gguf, beside)?;
            matrix.check_scale(beside)?;
            matrix.scale = matrix.product(matrix.step, beside)?;
        }
        Ok(Some(matrix))
    }

    /// Length of a row.
    pub(super) fn row(&self) -> u64 {
        self.row
    }

    /// The scale of all weights.
    pub(super) fn scale(&self) -> f32 {
        self.scale
    }

    /// Whether rows and columns fit `layout`.
    pub(super) fn check_shape(&self, layout: I2sLayout) -> Result<(), ImportError> {
        let Self { rows, row, .. } = *self;
        if rows.is_multiple_of(layout.rows_multiple()) && row.is_multiple_of(layout.row_multiple()) {
            return Ok(());
        }
        Err(ImportError::Layout { path: self.path.clone(), tensor: self.name.clone(), rows, row, layout })
    }

    /// Writes the matrix as `form`. Errors of ours travel inside the [`io::Error`].
    pub(super) fn transcode(&self, form: Form, output: &mut dyn Write) -> io::Result<()> {
        let row = self.row as usize;
        let mut packed = Vec::new();
        self.for_each_batch(|_, codes| {
            packed.clear();
            match form {
                Form::I2s(layout) => layout.pack(codes, row, &mut packed),
                Form::Blocks(pack) => pack(codes, &mut packed),
            }
            output.write_all(&packed)
        })?;
        match form {
            Form::I2s(_) => output.write_all(&ternary::i2s_trailer(self.scale)),
            Form::Blocks(_) => Ok(()),
        }
    }

    /// Calls `take` with the first row and the codes of some whole rows, until all rows were seen.
    fn for_each_batch(&self, mut take: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut floats = Vec::new();
        self.read_batches(|first, bytes, codes| {
            self.unpack(first, bytes, codes, &mut floats).map_err(io::Error::other)?;
            take(first, codes)
        })
    }

    /// Calls `take` with the first row, the stored bytes and room for the codes of some whole rows.
    fn read_batches(&self, mut take: impl FnMut(u64, &[u8], &mut [u8]) -> io::Result<()>) -> io::Result<()> {
        let read_error = |source| io::Error::other(ImportError::Read { path: self.path.clone(), source });
        let mut file = File::open(&self.path).map_err(read_error)?;
        file.seek(SeekFrom::Start(self.offset)).map_err(read_error)?;
        // A multiple of 4 rows, for the layout that interleaves as many.
        let batch = (BATCH / self.row).next_multiple_of(4).max(4);
        let (mut bytes, mut codes) = (Vec::new(), Vec::new());
        for first in (0..self.rows).step_by(batch as usize) {
            let rows = batch.min(self.rows - first);
            bytes.resize(self.bytes_of(rows) as usize, 0);
            codes.resize((rows * self.row) as usize, 0);
            file.read_exact(&mut bytes).map_err(read_error)?;
            take(first, &bytes, &mut codes)?;
        }
        Ok(())
    }

    /// Bytes of as many rows.
    fn bytes_of(&self, rows: u64) -> u64 {
        let weights = rows * self.row;
        match self.stored {
            Stored::I2s(_) => weights / 4,
            Stored::Blocks(tensor_type, _) | Stored::Floats(tensor_type, _) => {
                weights / tensor_type.block_elements() * tensor_type.block_bytes()
            }
        }
    }

    fn unpack(&self, first: u64, bytes: &[u8], codes: &mut [u8], floats: &mut Vec<f32>) -> Result<(), ImportError> {
        match self.stored {
            Stored::I2s(layout) => layout.unpack(bytes, self.row as usize, codes),
            Stored::Blocks(_, unpack) => {
                if !unpack(bytes, codes) {
                    let (path, tensor) = (self.path.clone(), self.name.clone());
                    return Err(ImportError::BlockScale { path, tensor, row: first });
                }
            }
            Stored::Floats(_, decode) => {
                floats.resize(codes.len(), 0.0);
                decode(bytes, floats);
                self.codes_of(first, floats, codes)?;
            }
        }
        match ternary::first_invalid(codes) {
            None => Ok(()),
            Some(at) => Err(ImportError::Code {
                path: self.path.clone(),
                tensor: self.name.clone(),
                row: first + at as u64 / self.row,
                column: at as u64 % self.row,
            }),
        }
    }

    fn codes_of(&self, first: u64, floats: &[f32], codes: &mut [u8]) -> Result<(), ImportError> {
        for (at, (code, &weight)) in codes.iter_mut().zip(floats).enumerate() {
            *code = match weight {
                0.0 => 1,
                _ if weight == self.step => 2,
                _ if weight == -self.step => 0,
                found => {
                    let (path, tensor, row) = (self.path.clone(), self.name.clone(), first + at as u64 / self.row);
                    return Err(ImportError::NotTernary { path, tensor, row, found, scale: self.step });
                }
            };
        }
        Ok(())
    }

    fn read_step(&self, reading: &mut Reading<'_>) -> Result<f32, ImportError> {
        match self.stored {
            Stored::I2s(_) => read_f32(&self.path, self.offset + self.rows * self.row / 4),
            // A matrix that llama.cpp quantised has block scales and no other; those are checked as they are read.
            Stored::Blocks(..) => Ok(1.0),
            Stored::Floats(_, decode) => self.largest(decode, reading).map_err(|error| match error.downcast() {
                Ok(ours) => ours,
                Err(source) => ImportError::Read { path: self.path.clone(), source },
            }),
        }
    }

    /// One scale in place of two, unless something would be lost.
    fn product(&self, step: f32, beside: f32) -> Result<f32, ImportError> {
        // Two numbers of 24 bits have a product of 48, which F64 holds.
        let exact = f64::from(step) * f64::from(beside);
        let scale = exact as f32;
        if f64::from(scale) != exact {
            return Err(ImportError::TwoScales { path: self.path.clone(), tensor: self.name.clone(), step, beside });
        }
        self.check_scale(scale)?;
        Ok(scale)
    }

    fn check_scale(&self, scale: f32) -> Result<(), ImportError> {
        if SCALES.contains(&scale) {
            return Ok(());
        }
        Err(ImportError::Scale { path: self.path.clone(), tensor: self.name.clone(), scale })
    }

    /// The largest magnitude among the weights of a float matrix.
    fn largest(&self, decode: FloatDecoder, reading: &mut Reading<'_>) -> io::Result<f32> {
        let mut largest = 0.0_f32;
        let mut floats = Vec::new();
        self.read_batches(|_, bytes, codes| {
            floats.resize(codes.len(), 0.0);
            decode(bytes, &mut floats);
            largest = floats.iter().fold(largest, |largest, weight| largest.max(weight.abs()));
            reading.add(bytes.len() as u64).map_err(io::Error::other)
        })?;
        Ok(largest)
    }
}

/// The scale in the tensor `beside` a matrix, with which graphs multiply what comes of it.
fn read_scale(gguf: &Gguf, beside: &TensorInfo) -> Result<f32, ImportError> {
    let path = &gguf.parts()[beside.part].path;
    if beside.tensor_type == TensorType::F32 && beside.elements() == 1 {
        return read_f32(path, beside.offset);
    }
    let TensorInfo { name: tensor, tensor_type, shape, .. } = beside.clone();
    Err(ImportError::ScaleTensor { path: path.clone(), tensor, tensor_type, shape })
}

fn read_f32(path: &Path, offset: u64) -> Result<f32, ImportError> {
    let read = || {
        let mut bytes = [0; 4];
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut bytes)?;
        Ok(f32::from_le_bytes(bytes))
    };
    read().map_err(|source| ImportError::Read { path: path.into(), source })
}
