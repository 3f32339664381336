//! What an import writes: decided and checked before the first byte.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
};

use super::{
    ImportError, ImportOptions, Report,
    digest::Digest,
    layout::LAYOUT_KEY,
    matrix::{Form, Matrix},
    output_matrix::{self, Quantised},
    unchanged,
    watch::{Progress, Reading, Watched},
};
use crate::gguf::{
    Gguf, I2sLayout, Part, TensorInfo, TensorType, Value, WriteError, Writer, fork,
    partial_file::PartialFile,
    quantize::float_decoder,
    ternary::{blocks, scale::scale_name},
};

/// Says what a file was made from.
const SOURCE_KEY: &str = "gguf_loader.source";

/// `llama_ftype` of llama.h, and I2_S of bitnet.cpp's copy of it.
const FILE_TYPE_TQ2_0: u32 = 37;
const FILE_TYPE_I2_S: u32 = 40;

/// The matrices of a block that BitNet makes ternary.
const MATRICES: [&str; 7] = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

/// A file that can be written.
#[derive(Debug)]
pub(super) struct Plan {
    writer: Writer,
    /// What is read, as it was when it was opened.
    inputs: Vec<Part>,
    report: Report,
    /// The share of the whole work that was done to make the plan.
    done: f32,
}

/// What was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) report: Report,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
}

impl Plan {
    /// `gguf` in a form that engines run. Float matrices are read for it, to their ends.
    pub(super) fn import(gguf: &Gguf, options: &ImportOptions, progress: Progress<'_>) -> Result<Self, ImportError> {
        check_architecture(gguf)?;
        let has_i2_s = super::is_needed(gguf);
        let (layout, evidence) = options.layout.resolve(gguf);
        let mut plan = Self::empty(gguf)?;
        let mut reading = plan.reading(gguf, progress);
        let output = output_matrix::find(gguf).map(|tensor| tensor.name.as_str());
        let is_imported = |tensor: &TensorInfo| tensor.tensor_type == TensorType::I2_S || is_float_matrix(tensor);
        let scales = scales_beside(gguf, is_imported);
        for tensor in gguf.tensors() {
            if scales.contains(&tensor.name) {
                continue;
            }
            if is_imported(tensor)
                && let Some(matrix) = Matrix::open(gguf, tensor, layout, &mut reading)?
            {
                plan.add_blocks(gguf, tensor, matrix)?;
            } else if Some(tensor.name.as_str()) == output
                && let Some(to) = options.output_matrix.tensor_type()
                && to != tensor.tensor_type
            {
                let quantised = Quantised::new(gguf, tensor, to)?;
                plan.add(tensor, to, move |output| quantised.write(output))?;
                plan.report.output_matrix = Some(to.to_string());
            } else {
                plan.copy(gguf, tensor)?;
            }
        }
        let kept = plan.report.output_matrix == output_type(gguf);
        if plan.report.matrices == 0 && kept {
            return Err(ImportError::NotNeeded { path: gguf.parts()[0].path.clone() });
        }
        plan.copy_keys(gguf, &[LAYOUT_KEY], FILE_TYPE_TQ2_0);
        if has_i2_s {
            plan.report.layout = Some(layout);
            plan.report.evidence = Some(evidence);
            plan.writer.set(SOURCE_KEY, format!("I2_S, layout {layout}"));
        } else if plan.report.matrices > 0 {
            plan.writer.set(SOURCE_KEY, "ternary floats");
        }
        Ok(plan)
    }

    /// `gguf` with its ternary matrices as I2_S. Float matrices are read for it, to their ends.
    pub(super) fn export(gguf: &Gguf, layout: I2sLayout, progress: Progress<'_>) -> Result<Self, ImportError> {
        check_architecture(gguf)?;
        let mut plan = Self::empty(gguf)?;
        let mut reading = plan.reading(gguf, progress);
        let is_exported =
            |tensor: &TensorInfo| blocks::unpacker(tensor.tensor_type).is_some() || is_float_matrix(tensor);
        if super::is_needed(gguf) && gguf.tensors().iter().any(is_exported) {
            return Err(ImportError::Mixed { path: gguf.parts()[0].path.clone() });
        }
        let scales = scales_beside(gguf, is_exported);
        for tensor in gguf.tensors() {
            if scales.contains(&tensor.name) {
                continue;
            }
            let matrix = match is_exported(tensor) {
                true => Matrix::open(gguf, tensor, layout, &mut reading)?,
                false => None,
            };
            match matrix {
                Some(matrix) => {
                    matrix.check_shape(layout)?;
                    plan.report.matrices += 1;
                    plan.add(tensor, TensorType::I2_S, move |output| matrix.transcode(Form::I2s(layout), output))?;
                }
                None => plan.copy(gguf, tensor)?,
            }
        }
        if plan.report.matrices == 0 {
            return Err(ImportError::NotNeeded { path: gguf.parts()[0].path.clone() });
        }
        plan.copy_keys(gguf, &[SOURCE_KEY, LAYOUT_KEY], FILE_TYPE_I2_S);
        plan.writer.set(LAYOUT_KEY, layout.name());
        Ok(plan)
    }

    /// Bytes that the file will take, but for its header.
    pub(super) fn bytes(&self) -> u64 {
        self.report.bytes_written
    }

    /// Writes the file beside `output` and moves it there when it is complete.
    pub(super) fn write_file(self, output: &Path, progress: Progress<'_>) -> Result<Report, ImportError> {
        let same =
            |input: &Part| matches!((input.path.canonicalize(), output.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if let Some(input) = self.inputs.iter().find(|input| same(input)) {
            return Err(ImportError::SameFile { path: input.path.clone() });
        }
        Ok(self.write(output, progress)?.report)
    }

    /// As [`write_file`](Self::write_file), and says what was written.
    pub(super) fn write(self, output: &Path, progress: Progress<'_>) -> Result<Written, ImportError> {
        let needed = self.bytes();
        let failed = |source| ImportError::of_write(WriteError::Io { path: output.into(), source }, needed);
        let partial = PartialFile::create(output).map_err(failed)?;
        let done = self.done;
        let mut rest = |fraction: f32| progress(done + (1.0 - done) * fraction);
        let mut watched = Watched::new(BufWriter::with_capacity(1 << 20, partial.file()), needed, &mut rest);
        self.writer.write(&mut watched).map_err(|error| match error {
            WriteError::Io { source, .. } => failed(source),
            other => ImportError::Write(other),
        })?;
        let (digest, bytes) = watched.finish();
        unchanged(&self.inputs)?;
        partial.finish().map_err(failed)?;
        Ok(Written { report: self.report, digest, bytes })
    }

    fn empty(gguf: &Gguf) -> Result<Self, ImportError> {
        unchanged(gguf.parts())?;
        let read = bytes_to_plan(gguf) as f32;
        Ok(Self {
            writer: Writer::new(),
            inputs: gguf.parts().to_vec(),
            done: read / (read + gguf.tensors().iter().map(|tensor| tensor.bytes).sum::<u64>().max(1) as f32),
            report: Report {
                matrices: 0,
                layout: None,
                evidence: None,
                output_matrix: output_type(gguf),
                bytes_read: gguf.tensors().iter().map(|tensor| tensor.bytes).sum(),
                bytes_written: 0,
            },
        })
    }

    /// Reports the work that makes the plan.
    fn reading<'a>(&self, gguf: &Gguf, progress: Progress<'a>) -> Reading<'a> {
        Reading::new(bytes_to_plan(gguf), self.done, progress)
    }

    /// A ternary matrix, and its scale.
    fn add_blocks(&mut self, gguf: &Gguf, tensor: &TensorInfo, matrix: Matrix) -> Result<(), ImportError> {
        let form = blocks::type_for_row(matrix.row()).and_then(|form| Some((form, blocks::packer(form)?)));
        let (Some((form, pack)), Some(scale_name)) = (form, scale_name(&tensor.name)) else {
            let path = gguf.parts()[tensor.part].path.clone();
            return Err(ImportError::Row { path, tensor: tensor.name.clone(), row: matrix.row() });
        };
        let scale = matrix.scale().to_le_bytes().to_vec();
        self.report.matrices += 1;
        self.add(tensor, form, move |output| matrix.transcode(Form::Blocks(pack), output))?;
        self.report.bytes_written += scale.len() as u64;
        self.writer.add_tensor(scale_name, &[1], TensorType::F32, scale).map_err(ImportError::Write)
    }

    fn copy(&mut self, gguf: &Gguf, tensor: &TensorInfo) -> Result<(), ImportError> {
        let (path, offset, bytes) = (gguf.parts()[tensor.part].path.clone(), tensor.offset, tensor.bytes);
        self.add(tensor, tensor.tensor_type, move |output| copy_range(&path, offset, bytes, output))
    }

    /// A tensor of the name and shape of `tensor`.
    fn add(
        &mut self,
        tensor: &TensorInfo,
        tensor_type: TensorType,
        stream: impl Fn(&mut dyn Write) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<(), ImportError> {
        self.report.bytes_written += tensor_type.bytes_of(&tensor.shape).unwrap_or(0);
        self.writer.add_tensor_with(&tensor.name, &tensor.shape, tensor_type, stream).map_err(ImportError::Write)
    }

    /// All keys but `dropped` and those of a split file, which the output is not.
    fn copy_keys(&mut self, gguf: &Gguf, dropped: &[&str], file_type: u32) {
        for (key, value) in gguf.metadata().iter() {
            if dropped.contains(&key) || key.starts_with("split.") {
                continue;
            }
            let value = if key == "general.file_type" { Value::U32(file_type) } else { value.clone() };
            self.writer.set(key, value);
        }
    }
}

fn check_architecture(gguf: &Gguf) -> Result<(), ImportError> {
    let architecture = gguf.architecture()?;
    if fork::is_bitnet(architecture) {
        return Ok(());
    }
    Err(ImportError::Architecture { path: gguf.parts()[0].path.clone(), architecture: architecture.to_owned() })
}

/// Names of the scales beside matrices that are transcoded: what they say goes into the matrix, or into a new one beside it.
fn scales_beside(gguf: &Gguf, is_transcoded: impl Fn(&TensorInfo) -> bool) -> HashSet<String> {
    gguf.tensors().iter().filter(|tensor| is_transcoded(tensor)).filter_map(|tensor| scale_name(&tensor.name)).collect()
}

/// Whether a BitNet model's tensor is one that must be ternary, stored as floats.
fn is_float_matrix(tensor: &TensorInfo) -> bool {
    float_decoder(tensor.tensor_type).is_some()
        && tensor.block().is_some()
        && tensor.shape.len() == 2
        && tensor.name.ends_with(".weight")
        && MATRICES.contains(&tensor.stem())
}

fn output_type(gguf: &Gguf) -> Option<String> {
    output_matrix::find(gguf).map(|tensor| tensor.tensor_type.to_string())
}

/// Bytes that are read to make a plan: what a float matrix holds is not known before.
fn bytes_to_plan(gguf: &Gguf) -> u64 {
    gguf.tensors().iter().filter(|tensor| is_float_matrix(tensor)).map(|tensor| tensor.bytes).sum()
}

fn copy_range(path: &Path, offset: u64, bytes: u64, output: &mut dyn Write) -> io::Result<()> {
    let read_error = |source| io::Error::other(ImportError::Read { path: path.into(), source });
    let mut file = File::open(path).map_err(read_error)?;
    file.seek(SeekFrom::Start(offset)).map_err(read_error)?;
    let mut buffer = vec![0; bytes.min(1 << 20) as usize];
    let mut rest = bytes;
    while rest > 0 {
        let count = rest.min(buffer.len() as u64) as usize;
        file.read_exact(&mut buffer[..count]).map_err(read_error)?;
        output.write_all(&buffer[..count])?;
        rest -= count as u64;
    }
    Ok(())
}
