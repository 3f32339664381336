//! Writes a model with random weights.
//!
//! ```text
//! cargo run --release --features synth --example synth_model -- tiny.gguf --preset tiny --type q4_0 --seed 7
//! cargo xtask synth 2b.gguf --preset bitnet-2b --ternary i2_s
//! ```
#![forbid(unsafe_code)]

use std::{error::Error, fmt, path::PathBuf, process::ExitCode, str::FromStr};

use gguf_loader::gguf::{
    I2sLayout, TensorType,
    synth::{OptionalTensors, Output, SyntheticBitNet, SyntheticModel, Tokenizer},
};

const USAGE: &str = "\
usage: synth_model OUT.gguf [options]
  --preset tiny|smol|large|bitnet-tiny|bitnet-2b
                             the shape to start from (default: tiny); of the others only --seed and the following go
                             with bitnet:
  --ternary TYPE             i2_s tq2_0 q2_0 tq1_0 f32 (default: i2_s)
  --layout LAYOUT            x86 arm rows4 sequential, for i2_s (default: x86)
  --architecture NAME        bitnet-b1.58 bitnet-25 bitnet (default: bitnet-b1.58)
  --embedding TYPE           f16 q8_0 q6_k ... (default: f16)
  --n-embd N --n-layer N --n-head N --n-head-kv N --n-ff N --n-vocab N --n-ctx-train N
                             change the shape
  --output tied|separate     where the output matrix is
  --optional-tensors         add biases and RoPE factors
  --type TYPE                f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q4_k q5_k q6_k (default: f16)
  --block-type TYPE          another type for the matrices of the blocks, tq1_0 tq2_0 q2_0 among them
  --output-type TYPE         another type for the embedding and the output matrix
  --vocab spm|bpe            the tokenizer (default: spm)
  --seed N                   what the weights are drawn from (default: 0)
  --vocabulary-only          no tensors";

fn main() -> ExitCode {
    if std::env::args().any(|argument| ["--help", "-h", "--help-model"].contains(&argument.as_str())) {
        #[allow(clippy::print_stdout, reason = "what was asked for goes to stdout")]
        {
            println!("{USAGE}");
        }
        return ExitCode::SUCCESS;
    }
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
    let arguments: Vec<String> = arguments.collect();
    if arguments.iter().any(|argument| argument.starts_with("bitnet-")) {
        let (path, model) = parse_bitnet(arguments.into_iter())?;
        return Ok(model.write_file(path)?);
    }
    let (path, model) = parse(arguments.into_iter())?;
    Ok(model.write_file(path)?)
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<(PathBuf, SyntheticModel), Box<dyn Error>> {
    let mut path = None;
    let mut model = SyntheticModel::tiny();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--preset" => model.shape = preset(&value()?)?.shape,
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

fn parse_bitnet(mut arguments: impl Iterator<Item = String>) -> Result<(PathBuf, SyntheticBitNet), Box<dyn Error>> {
    let mut path = None;
    let mut model = SyntheticBitNet::tiny();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--preset" => {
                model.shape = match value()?.as_str() {
                    "bitnet-tiny" => SyntheticBitNet::tiny().shape,
                    "bitnet-2b" => SyntheticBitNet::bitnet_2b().shape,
                    other => return Err(format!("there is no preset {other}: bitnet-tiny, bitnet-2b").into()),
                };
            }
            "--ternary" => model.ternary = tensor_type(&value()?)?,
            "--layout" => {
                let name = value()?;
                model.layout = I2sLayout::from_name(&name).ok_or_else(|| format!("there is no layout {name}"))?;
            }
            "--embedding" => model.embedding = tensor_type(&value()?)?,
            "--architecture" => model.architecture = value()?,
            "--seed" => model.seed = number(&argument, &value()?)?,
            other if other.starts_with('-') => return Err(format!("{other} does not go with bitnet").into()),
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
        other => Err(format!("there is no preset {other}: tiny, smol, large")),
    }
}

fn tensor_type(name: &str) -> Result<TensorType, String> {
    TensorType::from_name(name).ok_or_else(|| format!("there is no tensor type {name}"))
}

fn number<T: FromStr<Err: fmt::Display>>(option: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{option} {text}: {error}"))
}
