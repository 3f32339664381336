//! Writes a model with random weights.
//!
//! ```text
//! cargo run --release --features synth --example synth_model -- tiny.gguf --preset tiny --type q4_0 --seed 7
//! ```
#![forbid(unsafe_code)]

use std::{error::Error, fmt, path::PathBuf, process::ExitCode, str::FromStr};

use gguf_loader::gguf::{
    TensorType,
    synth::{Architecture, OptionalTensors, Output, SyntheticModel, Tokenizer},
};

const USAGE: &str = "\
usage: synth_model OUT.gguf [options]
  --preset tiny|smol|large|tiny-bitnet
                             the model to start from (default: tiny); give it first
  --architecture NAME        llama bitnet bitnet-b1.58
  --n-embd N --n-layer N --n-head N --n-head-kv N --n-ff N --n-vocab N --n-ctx-train N
                             change the shape
  --output tied|separate     where the output matrix is
  --optional-tensors         add biases and RoPE factors
  --type TYPE                f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q4_k q5_k q6_k tq1_0 tq2_0 q2_0
  --block-type TYPE          another type for the matrices of the blocks
  --output-type TYPE         another type for the embedding and the output matrix
  --vocab spm|bpe            the tokenizer (default: spm)
  --seed N                   what the weights are drawn from (default: 0)
  --vocabulary-only          no tensors";

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "a program's errors go to stderr")]
            {
                eprintln!("error: {error}\n\n{USAGE}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let (path, model) = parse(arguments)?;
    Ok(model.write_file(path)?)
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<(PathBuf, SyntheticModel), Box<dyn Error>> {
    let mut path = None;
    let mut model = SyntheticModel::tiny();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--preset" => model = preset(&value()?)?,
            "--architecture" => model.architecture = architecture(&value()?)?,
            "--n-embd" => model.shape.n_embd = number(&argument, &value()?)?,
            "--n-layer" => model.shape.n_layer = number(&argument, &value()?)?,
            "--n-head" => model.shape.n_head = number(&argument, &value()?)?,
            "--n-head-kv" => model.shape.n_head_kv = number(&argument, &value()?)?,
            "--n-ff" => model.shape.n_ff = number(&argument, &value()?)?,
            "--n-vocab" => model.shape.n_vocab = number(&argument, &value()?)?,
            "--n-ctx-train" => model.shape.n_ctx_train = number(&argument, &value()?)?,
            "--output" => {
                model.shape.output = match value()?.as_str() {
                    "tied" => Output::Tied,
                    "separate" => Output::Separate,
                    other => return Err(format!("--output is tied or separate, not {other}").into()),
                };
            }
            "--optional-tensors" => model.shape.optional = OptionalTensors::Present,
            "--type" => model = model.with_type(tensor_type(&value()?)?),
            "--block-type" => model = model.with_block_type(tensor_type(&value()?)?),
            "--output-type" => {
                let tensor_type = tensor_type(&value()?)?;
                model.types.embedding = tensor_type;
                model.types.output = tensor_type;
            }
            "--vocab" => {
                model.tokenizer = match value()?.as_str() {
                    "spm" => Tokenizer::SentencePiece,
                    "bpe" => Tokenizer::BytePair,
                    other => return Err(format!("--vocab is spm or bpe, not {other}").into()),
                };
            }
            "--seed" => model.seed = number(&argument, &value()?)?,
            "--vocabulary-only" => model.vocabulary_only = true,
            other if other.starts_with('-') => return Err(format!("unknown option {other}").into()),
            other if path.is_none() => path = Some(PathBuf::from(other)),
            other => return Err(format!("a second path: {other}").into()),
        }
    }
    Ok((path.ok_or("no path was given")?, model))
}

fn preset(name: &str) -> Result<SyntheticModel, String> {
    match name {
        "tiny" => Ok(SyntheticModel::tiny()),
        "smol" => Ok(SyntheticModel::smol()),
        "large" => Ok(SyntheticModel::large()),
        "tiny-bitnet" => Ok(SyntheticModel::tiny_bitnet()),
        other => Err(format!("there is no preset {other}: tiny, smol, large, tiny-bitnet")),
    }
}

fn architecture(name: &str) -> Result<Architecture, String> {
    [Architecture::Llama, Architecture::BitNet, Architecture::BitNetB158]
        .into_iter()
        .find(|architecture| architecture.name() == name)
        .ok_or_else(|| format!("--architecture is llama, bitnet or bitnet-b1.58, not {name}"))
}

fn tensor_type(name: &str) -> Result<TensorType, String> {
    TensorType::from_name(name).ok_or_else(|| format!("there is no tensor type {name}"))
}

fn number<T: FromStr<Err: fmt::Display>>(option: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{option} {text}: {error}"))
}
