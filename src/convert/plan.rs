//! What a conversion writes: decided and checked before the first byte.

use std::{
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    ConvertError, ConvertOptions, Report, Weights,
    checkpoint::Checkpoint,
    config::Config,
    floats::Floats,
    matrix::Matrix,
    tokenizer::Tokenizer,
    watch::{Progress, Watched},
};
use crate::gguf::{Gguf, TensorType, WriteError, Writer, partial_file::PartialFile};

/// `llama_ftype` of llama.h: mostly TQ2_0.
const FILE_TYPE_TQ2_0: u32 = 37;

/// A file that can be written.
pub(super) struct Plan {
    writer: Writer,
    report: Report,
}

impl Plan {
    /// Reads everything but the weights of the checkpoint in `folder`, and finds a place for every tensor.
    pub(super) fn new(folder: &Path, options: &ConvertOptions) -> Result<Self, ConvertError> {
        if !folder.is_dir() {
            return Err(ConvertError::Missing { path: folder.into() });
        }
        let config = Config::read(folder)?;
        let tokenizer = Tokenizer::read(folder, &config)?;
        let checkpoint = Checkpoint::open(folder)?;
        let mut writer = Writer::new();
        set_general_keys(&mut writer, folder, &config);
        config.set_keys(&mut writer);
        tokenizer.set_keys(&mut writer);
        check_keys(&writer, folder)?;

        let report = Report {
            architecture: config.architecture().to_owned(),
            weights: if config.is_offline() { Weights::Packed } else { Weights::Master },
            matrices: 0,
            tensors: 0,
            tokens: tokenizer.len() as u64,
            pre_tokenizer: tokenizer.pre.to_owned(),
            chat_template: tokenizer.chat_template.is_some(),
            bytes: 0,
        };
        let mut tensors = Tensors { writer, checkpoint, report };
        tensors.add_all(&config, options.embedding.tensor_type())?;
        let Tensors { writer, checkpoint, report } = tensors;
        checkpoint.finish()?;
        Ok(Self { writer, report })
    }

    /// Writes the file beside `path`, and moves it there when it is complete.
    pub(super) fn write_file(self, path: &Path, progress: Progress<'_>) -> Result<Report, ConvertError> {
        let failed = |source| ConvertError::Write(WriteError::Io { path: path.into(), source });
        let partial = PartialFile::create(path).map_err(failed)?;
        let mut output = BufWriter::with_capacity(1 << 20, partial.file());
        let written = self.writer.write(Watched::new(&mut output, self.report.bytes, &mut *progress));
        written.map_err(|error| match ConvertError::from(error) {
            // The writer does not know where its bytes go.
            ConvertError::Write(WriteError::Io { source, .. }) => failed(source),
            other => other,
        })?;
        output.flush().map_err(failed)?;
        drop(output);
        if progress(1.0).is_break() {
            return Err(ConvertError::Cancelled);
        }
        partial.finish().map_err(failed)?;
        Ok(self.report)
    }
}

fn set_general_keys(writer: &mut Writer, folder: &Path, config: &Config) {
    let absolute = folder.canonicalize().unwrap_or_else(|_| PathBuf::from(folder));
    writer.set("general.architecture", config.architecture()).set("general.type", "model");
    if let Some(name) = absolute.file_name() {
        writer.set("general.name", name.to_string_lossy().into_owned());
    }
    writer
        .set("general.file_type", FILE_TYPE_TQ2_0)
        .set("general.quantization_version", 2_u32)
        .set("gguf_loader.source", "a checkpoint in safetensors");
}

/// Asks this crate's validator about the keys before gigabytes are written under them.
fn check_keys(writer: &Writer, folder: &Path) -> Result<(), ConvertError> {
    let mut bytes = Vec::new();
    writer.write(&mut bytes)?;
    let invalid = |source| ConvertError::Invalid { path: folder.into(), source: Box::new(source) };
    Gguf::parse(&bytes).map(drop).map_err(invalid)
}

/// Moves tensors from the checkpoint to the file.
struct Tensors {
    writer: Writer,
    checkpoint: Checkpoint,
    report: Report,
}

impl Tensors {
    fn add_all(&mut self, config: &Config, embedding: TensorType) -> Result<(), ConvertError> {
        let (width, ffn) = (u64::from(config.hidden_size), u64::from(config.intermediate_size));
        let (kv_width, vocabulary) = (config.kv_width(), u64::from(config.vocab_size));
        self.floats("model.embed_tokens.weight", "token_embd.weight", &[vocabulary, width], embedding)?;
        for layer in 0..config.num_hidden_layers {
            let mut block = Block { tensors: self, config, layer };
            block.norm("input_layernorm", "attn_norm", width)?;
            block.matrix("self_attn.q_proj", "attn_q", [width, width])?;
            block.matrix("self_attn.k_proj", "attn_k", [kv_width, width])?;
            block.matrix("self_attn.v_proj", "attn_v", [kv_width, width])?;
            block.norm("self_attn.attn_sub_norm", "attn_sub_norm", width)?;
            block.matrix("self_attn.o_proj", "attn_output", [width, width])?;
            block.norm("post_attention_layernorm", "ffn_norm", width)?;
            block.matrix("mlp.gate_proj", "ffn_gate", [ffn, width])?;
            block.matrix("mlp.up_proj", "ffn_up", [ffn, width])?;
            block.norm("mlp.ffn_sub_norm", "ffn_sub_norm", ffn)?;
            block.matrix("mlp.down_proj", "ffn_down", [width, ffn])?;
        }
        self.floats("model.norm.weight", "output_norm.weight", &[width], TensorType::F32)?;
        if config.tie_word_embeddings {
            // Some programs write the shared matrix under both names.
            self.checkpoint.take_optional("lm_head.weight");
            return Ok(());
        }
        self.floats("lm_head.weight", "output.weight", &[vocabulary, width], embedding)
    }

    /// Copies floats, stored as `tensor_type`.
    fn floats(&mut self, from: &str, to: &str, shape: &[u64], tensor_type: TensorType) -> Result<(), ConvertError> {
        let floats = Floats::new(self.checkpoint.take(from)?, shape)?;
        self.add(to.to_owned(), shape, tensor_type, move |output| floats.write(tensor_type, output))
    }

    /// Adds a tensor whose shape is given rows first.
    fn add(
        &mut self,
        name: String,
        shape: &[u64],
        tensor_type: TensorType,
        write: impl Fn(&mut dyn Write) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Result<(), ConvertError> {
        let shape: Vec<u64> = shape.iter().rev().copied().collect();
        let elements: u64 = shape.iter().product();
        self.report.tensors += 1;
        self.report.bytes += elements / tensor_type.block_elements() * tensor_type.block_bytes();
        Ok(self.writer.add_tensor_with(name, &shape, tensor_type, write)?)
    }
}

/// The tensors of one block.
struct Block<'a> {
    tensors: &'a mut Tensors,
    config: &'a Config,
    layer: u32,
}

impl Block<'_> {
    fn norm(&mut self, from: &str, to: &str, length: u64) -> Result<(), ConvertError> {
        let from = format!("model.layers.{}.{from}.weight", self.layer);
        let to = format!("blk.{}.{to}.weight", self.layer);
        self.tensors.floats(&from, &to, &[length], TensorType::F32)
    }

    fn matrix(&mut self, from: &str, to: &str, shape: [u64; 2]) -> Result<(), ConvertError> {
        let name = format!("model.layers.{}.{from}", self.layer);
        let matrix = Matrix::take(&mut self.tensors.checkpoint, &name, shape, self.config.scale_meaning())?;
        let report = &mut self.tensors.report;
        // The first matrix says what the checkpoint holds; the others must be alike, and as the configuration says.
        if report.matrices == 0 && !self.config.is_offline() {
            report.weights = matrix.form();
        }
        if matrix.form() != report.weights {
            return Err(matrix.unexpected_form(report.weights));
        }
        report.matrices += 1;
        let (matrix, to) = (Arc::new(matrix), format!("blk.{}.{to}", self.layer));
        let scale = Arc::clone(&matrix);
        let tensor_type = matrix.tensor_type;
        self.tensors.add(format!("{to}.weight"), &shape, tensor_type, move |output| matrix.write(output))?;
        self.tensors.add(format!("{to}.scale"), &[1], TensorType::F32, move |output| {
            output.write_all(&scale.scale()?.to_le_bytes())
        })
    }
}
