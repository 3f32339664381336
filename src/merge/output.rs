//! The file that is written.

use std::{
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use half::{bf16, f16};

use super::{MergeError, MergeReport, weights};
use crate::gguf::{Gguf, GgufError, TensorInfo, TensorType, WriteError, Writer, partial_file::PartialFile, quantize};

/// Bytes between two reports.
const STEP: u64 = 1 << 20;

/// A model like another one, tensor by tensor.
pub(super) struct Output {
    model: Arc<Gguf>,
    writer: Writer,
    inputs: Vec<PathBuf>,
    report: MergeReport,
}

impl Output {
    pub(super) fn new(model: &Arc<Gguf>) -> Self {
        let mut writer = Writer::new();
        // The output is one file, and what types its weights have is seen by looking at them.
        let keys = model.metadata().iter().filter(|(key, _)| !key.starts_with("split.") && *key != "general.file_type");
        for (key, value) in keys {
            writer.set(key, value.clone());
        }
        let report = MergeReport { changed: 0, as_q8_0: 0, bytes: 0 };
        let mut output = Self { model: Arc::clone(model), writer, inputs: Vec::new(), report };
        output.read_too(&Arc::clone(model));
        output
    }

    /// Notes a model that is read, so that it is not written to.
    pub(super) fn read_too(&mut self, model: &Gguf) {
        self.inputs.extend(model.parts().iter().map(|part| part.path.clone()));
    }

    /// Adds the tensor at `index` as it is.
    pub(super) fn copy(&mut self, index: usize) -> Result<(), MergeError> {
        let model = Arc::clone(&self.model);
        self.add(index, self.model.tensors()[index].tensor_type, move |output| {
            output.write_all(&model.read_tensor(&model.tensors()[index]).map_err(io::Error::other)?)
        })
    }

    /// Adds the tensor at `index` with its weights changed.
    pub(super) fn change(
        &mut self,
        index: usize,
        change: impl Fn(&TensorInfo, &mut [f32]) -> Result<(), GgufError> + Send + Sync + 'static,
    ) -> Result<(), MergeError> {
        let tensor = &self.model.tensors()[index];
        let refused = || MergeError::Type { tensor: tensor.name.clone(), tensor_type: tensor.tensor_type };
        crate::gguf::dequantize::decoder(tensor.tensor_type).ok_or_else(refused)?;
        let row = tensor.shape.first().copied().unwrap_or(1) as usize;
        let stored = match tensor.tensor_type {
            same @ (TensorType::F32 | TensorType::F16 | TensorType::BF16 | TensorType::Q8_0 | TensorType::Q6_K) => same,
            _ => TensorType::Q8_0,
        };
        self.report.changed += 1;
        self.report.as_q8_0 += usize::from(stored != tensor.tensor_type);
        let model = Arc::clone(&self.model);
        self.add(index, stored, move |output| {
            let tensor = &model.tensors()[index];
            let Some(weights) = weights::read(&model, tensor) else { return Ok(()) };
            let mut weights = weights.map_err(io::Error::other)?;
            change(tensor, &mut weights).map_err(io::Error::other)?;
            let mut bytes = Vec::new();
            for row in weights.chunks(row) {
                bytes.clear();
                encode(stored, row, &mut bytes);
                output.write_all(&bytes)?;
            }
            Ok(())
        })
    }

    fn add(
        &mut self,
        index: usize,
        tensor_type: TensorType,
        stream: impl Fn(&mut dyn Write) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<(), MergeError> {
        let tensor = &self.model.tensors()[index];
        self.report.bytes += tensor_type.bytes_of(&tensor.shape).unwrap_or(0);
        Ok(self.writer.add_tensor_with(&tensor.name, &tensor.shape, tensor_type, stream)?)
    }

    pub(super) fn write(
        self,
        path: &Path,
        progress: impl FnMut(f32) -> ControlFlow<()>,
    ) -> Result<MergeReport, MergeError> {
        let target = path.canonicalize().ok();
        if let Some(input) = self.inputs.iter().find(|input| target.is_some() && input.canonicalize().ok() == target) {
            return Err(MergeError::SameFile { path: input.clone() });
        }
        let failed = |source| MergeError::Write(WriteError::Io { path: path.into(), source });
        let partial = PartialFile::create(path).map_err(failed)?;
        let file = BufWriter::with_capacity(1 << 20, partial.file());
        let mut watched = Watched { file, progress, expected: self.report.bytes, written: 0, next: 0, broken: false };
        let written = self
            .writer
            .write(&mut watched)
            .and_then(|()| watched.flush().map_err(|source| WriteError::Io { path: path.into(), source }));
        if watched.broken {
            return Err(MergeError::Cancelled);
        }
        drop(watched);
        match written {
            Ok(()) => {}
            Err(WriteError::Io { source, .. }) => return Err(of_write(source, path)),
            Err(other) => return Err(other.into()),
        }
        partial.finish().map_err(failed)?;
        Ok(self.report)
    }
}

/// A failure to write, or to read what was to be written.
fn of_write(source: io::Error, path: &Path) -> MergeError {
    match source.downcast::<GgufError>() {
        Ok(error) => error.into(),
        Err(source) => WriteError::Io { path: path.into(), source }.into(),
    }
}

fn encode(tensor_type: TensorType, row: &[f32], bytes: &mut Vec<u8>) {
    match tensor_type {
        TensorType::F32 => bytes.extend(row.iter().flat_map(|weight| weight.to_le_bytes())),
        TensorType::F16 => bytes.extend(row.iter().flat_map(|&weight| f16::from_f32(weight).to_le_bytes())),
        TensorType::BF16 => bytes.extend(row.iter().flat_map(|&weight| bf16::from_f32(weight).to_le_bytes())),
        blocks => {
            if let Some(encode) = quantize::block_encoder(blocks) {
                encode(row, bytes);
            }
        }
    }
}

/// Passes bytes on, and reports how far the work is.
struct Watched<W, P> {
    file: W,
    progress: P,
    expected: u64,
    written: u64,
    /// Where to report next.
    next: u64,
    broken: bool,
}

impl<W: Write, P: FnMut(f32) -> ControlFlow<()>> Write for Watched<W, P> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written >= self.next {
            self.next = self.written + STEP;
            let fraction = (self.written as f64 / self.expected.max(1) as f64).min(1.0);
            self.broken |= (self.progress)(fraction as f32).is_break();
        }
        if self.broken {
            return Err(io::Error::other("cancelled"));
        }
        let count = self.file.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
