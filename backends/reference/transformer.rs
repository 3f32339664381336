//! The weights of a model, read from a file.

use std::{collections::HashSet, ops::ControlFlow};

use super::{hyperparameters::Hyperparameters, matrix::Matrix, refused, unreadable};
use crate::{
    backend::LoadError,
    gguf::{Gguf, TensorInfo, TensorType},
};

/// All weights.
#[derive(Debug)]
pub(super) struct Transformer {
    pub(super) hyperparameters: Hyperparameters,
    /// A row for each token of the vocabulary.
    pub(super) embedding: Matrix,
    pub(super) layers: Vec<Layer>,
    pub(super) output_norm: Vec<f32>,
    /// `None` where the embedding is the output matrix too.
    pub(super) output: Option<Linear>,
    /// RoPE: radians for each step of the position, one number a pair of elements.
    pub(super) rope_frequencies: Vec<f64>,
}

/// One block: attention and feed-forward network, each behind a norm.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    /// BitNet's norm before the output matrix.
    pub(super) attention_sub_norm: Option<Vec<f32>>,
    pub(super) attention_output: Linear,
    pub(super) ffn_norm: Vec<f32>,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    /// BitNet's norm before the matrix that leads back.
    pub(super) ffn_sub_norm: Option<Vec<f32>>,
    pub(super) down: Linear,
}

/// A matrix with what may follow it.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Matrix,
    scale: Option<f32>,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// `scale * weight * input + bias` for each token of `inputs`.
    pub(super) fn apply(&self, inputs: &[f32], threads: usize) -> Vec<f32> {
        let mut outputs = self.weight.multiply(inputs, threads);
        if let Some(scale) = self.scale {
            outputs.iter_mut().for_each(|output| *output *= scale);
        }
        if let Some(bias) = &self.bias {
            for output in outputs.chunks_exact_mut(bias.len()) {
                output.iter_mut().zip(bias).for_each(|(output, bias)| *output += bias);
            }
        }
        outputs
    }
}

impl Transformer {
    /// Reads all tensors of `file`, whose vocabulary has `n_vocab` tokens.
    ///
    /// # Errors
    ///
    /// [`LoadError::Refused`] when a tensor is missing, has another shape, or is none that the graph knows: an oracle
    /// that ignores weights would be wrong without a word.
    pub(super) fn load(
        file: &Gguf,
        n_vocab: usize,
        progress: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<Self, LoadError> {
        let hyperparameters = Hyperparameters::read(file.metadata())?;
        let n_embd = hyperparameters.n_embd;
        let mut reader = Reader::new(file, progress)?;

        let embedding = reader.matrix("token_embd.weight", n_vocab, n_embd)?;
        let rope_factors = reader.optional_vector("rope_freqs.weight", hyperparameters.rope_dimensions / 2)?;
        let layers = (0..hyperparameters.n_layer)
            .map(|index| reader.layer(index, &hyperparameters))
            .collect::<Result<Vec<_>, _>>()?;
        let output_norm = reader.vector("output_norm.weight", n_embd)?;
        let output =
            if file.tensor("output.weight").is_some() { Some(reader.linear("output", n_vocab, n_embd)?) } else { None };
        reader.finish()?;

        let rope_frequencies = rope_frequencies(&hyperparameters, rope_factors.as_deref());
        Ok(Self { hyperparameters, embedding, layers, output_norm, output, rope_frequencies })
    }

    /// Number of tokens in the vocabulary.
    pub(super) fn n_vocab(&self) -> u32 {
        self.embedding.rows as u32
    }

    /// Logits for each row of `hidden`.
    pub(super) fn logits(&self, hidden: &[f32], threads: usize) -> Vec<f32> {
        match &self.output {
            Some(output) => output.apply(hidden, threads),
            None => self.embedding.multiply(hidden, threads),
        }
    }
}

/// `base^(-2i/n)` for pair `i` of `n` rotated elements, scaled, and divided by the model's own factors.
///
/// J. Su et al.: RoFormer: enhanced transformer with rotary position embedding, arXiv:2104.09864.
fn rope_frequencies(hyperparameters: &Hyperparameters, factors: Option<&[f32]>) -> Vec<f64> {
    let dimensions = hyperparameters.rope_dimensions;
    (0..dimensions / 2)
        .map(|pair| {
            let frequency = hyperparameters.rope_base.powf(-2.0 * pair as f64 / dimensions as f64);
            let factor = factors.map_or(1.0, |factors| f64::from(factors[pair]));
            frequency * hyperparameters.rope_scale / factor
        })
        .collect()
}

/// Reads tensors one after the other and reports how far it is.
struct Reader<'a> {
    file: &'a Gguf,
    progress: &'a mut dyn FnMut(f32) -> ControlFlow<()>,
    bytes_read: u64,
    bytes_total: u64,
    taken: HashSet<String>,
}

impl<'a> Reader<'a> {
    fn new(file: &'a Gguf, progress: &'a mut dyn FnMut(f32) -> ControlFlow<()>) -> Result<Self, LoadError> {
        let bytes_total = file.tensors().iter().map(|tensor| tensor.bytes).sum();
        let mut reader = Self { file, progress, bytes_read: 0, bytes_total, taken: HashSet::new() };
        reader.report()?;
        Ok(reader)
    }

    fn layer(&mut self, index: usize, hyperparameters: &Hyperparameters) -> Result<Layer, LoadError> {
        let &Hyperparameters { n_embd, n_ff, .. } = hyperparameters;
        let (query_width, kv_width) = (hyperparameters.query_width(), hyperparameters.kv_width());
        let name = |part: &str| format!("blk.{index}.{part}");
        Ok(Layer {
            attention_norm: self.vector(&name("attn_norm.weight"), n_embd)?,
            query: self.linear(&name("attn_q"), query_width, n_embd)?,
            key: self.linear(&name("attn_k"), kv_width, n_embd)?,
            value: self.linear(&name("attn_v"), kv_width, n_embd)?,
            attention_sub_norm: self.sub_norm(&name("attn_sub_norm.weight"), query_width, hyperparameters)?,
            attention_output: self.linear(&name("attn_output"), n_embd, query_width)?,
            ffn_norm: self.vector(&name("ffn_norm.weight"), n_embd)?,
            gate: self.linear(&name("ffn_gate"), n_ff, n_embd)?,
            up: self.linear(&name("ffn_up"), n_ff, n_embd)?,
            ffn_sub_norm: self.sub_norm(&name("ffn_sub_norm.weight"), n_ff, hyperparameters)?,
            down: self.linear(&name("ffn_down"), n_embd, n_ff)?,
        })
    }

    fn linear(&mut self, name: &str, rows: usize, columns: usize) -> Result<Linear, LoadError> {
        let scale = self.optional_vector(&format!("{name}.scale"), 1)?.map(|scale| scale[0]);
        Ok(Linear {
            weight: self.matrix(&format!("{name}.weight"), rows, columns)?,
            scale,
            bias: self.optional_vector(&format!("{name}.bias"), rows)?,
        })
    }

    fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix, LoadError> {
        let tensor = self.find(name)?;
        if tensor.shape != [columns as u64, rows as u64] {
            return Err(refused(format!("`{name}` has the shape {:?} instead of [{columns}, {rows}]", tensor.shape)));
        }
        let data = self.read(tensor)?;
        Matrix::new(tensor.tensor_type, rows, columns, data)
            .ok_or_else(|| refused(format!("`{name}` has the type {}, which is not supported", tensor.tensor_type)))
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, LoadError> {
        let tensor = self.find(name)?;
        if tensor.tensor_type != TensorType::F32 || tensor.shape.iter().product::<u64>() != length as u64 {
            let (found, shape) = (tensor.tensor_type, &tensor.shape);
            return Err(refused(format!("`{name}` is {found} {shape:?} instead of {length} times F32")));
        }
        let data = self.read(tensor)?;
        Ok(data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }

    /// The norm that BitNet has and Llama has not.
    fn sub_norm(
        &mut self,
        name: &str,
        length: usize,
        hyperparameters: &Hyperparameters,
    ) -> Result<Option<Vec<f32>>, LoadError> {
        if hyperparameters.architecture.has_sub_norms() { self.vector(name, length).map(Some) } else { Ok(None) }
    }

    fn optional_vector(&mut self, name: &str, length: usize) -> Result<Option<Vec<f32>>, LoadError> {
        if self.file.tensor(name).is_none() {
            return Ok(None);
        }
        self.vector(name, length).map(Some)
    }

    fn find(&self, name: &str) -> Result<&'a TensorInfo, LoadError> {
        self.file.tensor(name).ok_or_else(|| refused(format!("the tensor `{name}` is missing")))
    }

    fn read(&mut self, tensor: &TensorInfo) -> Result<Vec<u8>, LoadError> {
        let data = self.file.read_tensor(tensor).map_err(unreadable)?;
        self.taken.insert(tensor.name.clone());
        self.bytes_read += tensor.bytes;
        self.report()?;
        Ok(data)
    }

    fn report(&mut self) -> Result<(), LoadError> {
        let done = self.bytes_read as f64 / self.bytes_total.max(1) as f64;
        if (self.progress)(done as f32).is_break() { Err(LoadError::Cancelled) } else { Ok(()) }
    }

    /// Makes sure that the graph uses every tensor of the file.
    fn finish(self) -> Result<(), LoadError> {
        match self.file.tensors().iter().find(|tensor| !self.taken.contains(&tensor.name)) {
            Some(tensor) => Err(refused(format!("the graph has no place for the tensor `{}`", tensor.name))),
            None => Ok(()),
        }
    }
}
