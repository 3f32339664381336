//! The tensors of a synthetic model.
//!
//! Weights are normal numbers whose deviation is a gain over the root of the row length, so that a row times a normed
//! input has the gain as its deviation. The gains make a model that behaves like a trained one where it matters to a
//! test: attention is neither flat nor stuck on one token, the blocks outweigh the embedding in the residual stream
//! (else a tied output would repeat the last token for ever), and the best logit stands clear of the second.

use std::io::Write;

use super::{OptionalTensors, Output, SynthError, SyntheticModel, quantize, random::Random, vocabulary};
use crate::gguf::{TensorType, Writer};

/// Deviation of the logits.
const LOGIT_GAIN: f32 = 2.5;
/// Queries and keys: their products, the scores of attention, have the square of it as deviation.
const SCORE_GAIN: f32 = 1.6;
/// Deviation of a bias.
const BIAS_DEVIATION: f32 = 0.2;
/// What a block's two halves add to the residual stream.
const BLOCK_GAIN: f32 = 3.0;
/// Rows of control tokens are this much smaller, so that a greedy answer does not end by chance.
const CONTROL_GAIN: f32 = 0.1;

/// Adds every tensor that llama.cpp expects.
pub(super) fn add_tensors(writer: &mut Writer, model: &SyntheticModel) -> Result<(), SynthError> {
    let shape = &model.shape;
    let (n_embd, n_ff) = (shape.n_embd, shape.n_ff);
    let n_embd_kv = n_embd / shape.n_head * shape.n_head_kv;
    let types = &model.types;
    let mut tensors = Tensors { writer, seed: model.seed, optional: shape.optional };

    tensors.tokens("token_embd", n_embd, shape.n_vocab, types.embedding)?;
    if shape.optional == OptionalTensors::Present {
        tensors.rope_factors(n_embd / shape.n_head)?;
    }
    for layer in 0..shape.n_layer {
        let name = |part: &str| format!("blk.{layer}.{part}");
        tensors.norm(&name("attn_norm"), n_embd)?;
        tensors.linear(&name("attn_q"), n_embd, n_embd, types.attention, SCORE_GAIN)?;
        tensors.linear(&name("attn_k"), n_embd, n_embd_kv, types.attention, SCORE_GAIN)?;
        tensors.linear(&name("attn_v"), n_embd, n_embd_kv, types.attention, 1.0)?;
        tensors.linear(&name("attn_output"), n_embd, n_embd, types.attention, BLOCK_GAIN)?;
        tensors.norm(&name("ffn_norm"), n_embd)?;
        tensors.linear(&name("ffn_gate"), n_embd, n_ff, types.feed_forward, 1.0)?;
        tensors.linear(&name("ffn_up"), n_embd, n_ff, types.feed_forward, 1.0)?;
        tensors.linear(&name("ffn_down"), n_ff, n_embd, types.feed_forward, 2.0 * BLOCK_GAIN)?;
    }
    tensors.norm("output_norm", n_embd)?;
    if shape.output == Output::Separate {
        tensors.tokens("output", n_embd, shape.n_vocab, types.output)?;
    }
    Ok(())
}

struct Tensors<'a> {
    writer: &'a mut Writer,
    seed: u64,
    optional: OptionalTensors,
}

impl Tensors<'_> {
    /// A matrix with a row for each token.
    fn tokens(&mut self, name: &str, columns: u32, rows: u32, tensor_type: TensorType) -> Result<(), SynthError> {
        let deviation = LOGIT_GAIN / (columns as f32).sqrt();
        self.matrix(name, columns, rows, tensor_type, move |row| match row {
            0..vocabulary::CONTROL_TOKENS => deviation * CONTROL_GAIN,
            _ => deviation,
        })
    }

    /// A matrix of a block, and its bias.
    fn linear(
        &mut self,
        name: &str,
        columns: u32,
        rows: u32,
        tensor_type: TensorType,
        gain: f32,
    ) -> Result<(), SynthError> {
        let deviation = gain / (columns as f32).sqrt();
        self.matrix(name, columns, rows, tensor_type, move |_| deviation)?;
        match self.optional {
            OptionalTensors::Absent => Ok(()),
            OptionalTensors::Present => {
                self.vector(format!("{name}.bias"), rows, |random| BIAS_DEVIATION * random.normal())
            }
        }
    }

    fn matrix(
        &mut self,
        name: &str,
        columns: u32,
        rows: u32,
        tensor_type: TensorType,
        deviation_of_row: impl Fn(u32) -> f32 + Send + Sync + 'static,
    ) -> Result<(), SynthError> {
        let encode = quantize::encoder(tensor_type).ok_or(SynthError::TensorType(tensor_type))?;
        let name = format!("{name}.weight");
        let random = Random::new(self.seed, &name);
        let shape = [u64::from(columns), u64::from(rows)];
        Ok(self.writer.add_tensor_with(name, &shape, tensor_type, move |output: &mut dyn Write| {
            let mut random = random.clone();
            let mut weights = vec![0.0; columns as usize];
            let mut bytes = Vec::new();
            for row in 0..rows {
                let deviation = deviation_of_row(row);
                weights.fill_with(|| deviation * random.normal());
                bytes.clear();
                encode(&weights, &mut bytes);
                output.write_all(&bytes)?;
            }
            Ok(())
        })?)
    }

    /// Around one, so that a norm that is left out shows.
    fn norm(&mut self, name: &str, length: u32) -> Result<(), SynthError> {
        self.vector(format!("{name}.weight"), length, |random| 1.0 + 0.1 * random.normal())
    }

    /// Rising from 1 to 8 as in Llama 3.1, where low frequencies are slowed down most.
    fn rope_factors(&mut self, head_dim: u32) -> Result<(), SynthError> {
        let pairs = head_dim / 2;
        let mut pair = 0.0;
        self.vector("rope_freqs.weight".to_owned(), pairs, |_| {
            pair += 1.0;
            1.0 + 7.0 * pair / pairs as f32
        })
    }

    fn vector(
        &mut self,
        name: String,
        length: u32,
        mut draw: impl FnMut(&mut Random) -> f32,
    ) -> Result<(), SynthError> {
        let mut random = Random::new(self.seed, &name);
        let bytes = (0..length).flat_map(|_| draw(&mut random).to_le_bytes()).collect();
        Ok(self.writer.add_tensor(name, &[u64::from(length)], TensorType::F32, bytes)?)
    }
}
