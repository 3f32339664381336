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
    synth::{OptionalTensors, Output, SynthError, SyntheticBitNet, SyntheticModel, Tokenizer},
};

const USAGE: &str = "\
usage: synth_model OUT.gguf [options]
  --preset tiny|smol|large|bitnet-tiny|bitnet-2b
                             the shape to start from (default: tiny)
  --n-embd N --n-layer N --n-head N --n-head-kv N --n-ff N --n-vocab N --n-ctx-train N
                             change the shape
  --vocab spm|bpe            the tokenizer (default: spm; of bitnet: bpe)
  --seed N                   what the weights are drawn from (default: 0)
with a preset of bitnet:
  --ternary TYPE             i2_s tq2_0 q2_0 tq1_0 f32 (default: i2_s)
  --layout LAYOUT            x86 arm rows4 sequential, for i2_s (default: x86)
  --architecture NAME        bitnet-b1.58 bitnet-25 bitnet (default: bitnet-b1.58)
  --embedding TYPE           f16 q8_0 q6_k ... (default: f16)
with the others:
  --output tied|separate     where the output matrix is
  --optional-tensors         add biases and RoPE factors
  --type TYPE                f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q4_k q5_k q6_k (default: f16)
  --block-type TYPE          another type for the matrices of the blocks, tq1_0 tq2_0 q2_0 among them
  --output-type TYPE         another type for the embedding and the output matrix
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
    // First of all, wherever it stands: the other options change what it sets.
    let preset = arguments.iter().skip_while(|argument| *argument != "--preset").nth(1);
    match preset.map_or("tiny", String::as_str) {
        "tiny" => write(arguments, SyntheticModel::tiny()),
        "smol" => write(arguments, SyntheticModel::smol()),
        "large" => write(arguments, SyntheticModel::large()),
        "bitnet-tiny" => write(arguments, SyntheticBitNet::tiny()),
        "bitnet-2b" => write(arguments, SyntheticBitNet::bitnet_2b()),
        other => Err(format!("there is no preset {other}: tiny, smol, large, bitnet-tiny, bitnet-2b").into()),
    }
}

/// A model that options describe.
trait Described {
    /// The size that an option sets; `None` for another option.
    fn size(&mut self, option: &str) -> Option<&mut u32>;
    fn tokenizer(&mut self) -> &mut Tokenizer;
    fn seed(&mut self) -> &mut u64;
    /// Sets what other models do not have. False for an option of those.
    fn set(&mut self, option: &str, value: Value<'_>) -> Result<bool, Box<dyn Error>>;
    fn write_file(&self, path: PathBuf) -> Result<(), SynthError>;
}

/// The argument behind an option, asked for by options that take one.
type Value<'a> = &'a mut dyn FnMut() -> Result<String, String>;

fn write(arguments: Vec<String>, mut model: impl Described) -> Result<(), Box<dyn Error>> {
    let mut path = None;
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--preset" => drop(value()?),
            "--vocab" => {
                *model.tokenizer() = match value()?.as_str() {
                    "spm" => Tokenizer::SentencePiece,
                    "bpe" => Tokenizer::BytePair,
                    other => return Err(format!("--vocab is spm or bpe, not {other}").into()),
                };
            }
            "--seed" => *model.seed() = number(&argument, &value()?)?,
            option if option.starts_with('-') => {
                if let Some(size) = model.size(option) {
                    *size = number(option, &value()?)?;
                } else if !model.set(option, &mut value)? {
                    return Err(format!("there is no option {option}, or not with this preset").into());
                }
            }
            other if path.is_none() => path = Some(PathBuf::from(other)),
            other => return Err(format!("a second path: {other}").into()),
        }
    }
    Ok(model.write_file(path.ok_or("no path was given")?)?)
}

/// What both have, under the same names.
macro_rules! common {
    () => {
        fn size(&mut self, option: &str) -> Option<&mut u32> {
            match option {
                "--n-embd" => Some(&mut self.shape.n_embd),
                "--n-layer" => Some(&mut self.shape.n_layer),
                "--n-head" => Some(&mut self.shape.n_head),
                "--n-head-kv" => Some(&mut self.shape.n_head_kv),
                "--n-ff" => Some(&mut self.shape.n_ff),
                "--n-vocab" => Some(&mut self.shape.n_vocab),
                "--n-ctx-train" => Some(&mut self.shape.n_ctx_train),
                _ => None,
            }
        }

        fn tokenizer(&mut self) -> &mut Tokenizer {
            &mut self.tokenizer
        }

        fn seed(&mut self) -> &mut u64 {
            &mut self.seed
        }

        fn write_file(&self, path: PathBuf) -> Result<(), SynthError> {
            self.write_file(path)
        }
    };
}

impl Described for SyntheticModel {
    common!();

    fn set(&mut self, option: &str, value: Value<'_>) -> Result<bool, Box<dyn Error>> {
        match option {
            "--output" => {
                self.shape.output = match value()?.as_str() {
                    "tied" => Output::Tied,
                    "separate" => Output::Separate,
                    other => return Err(format!("--output is tied or separate, not {other}").into()),
                };
            }
            "--optional-tensors" => self.shape.optional = OptionalTensors::Present,
            "--type" => self.types = tensor_type(&value()?)?.into(),
            "--block-type" => {
                let tensor_type = tensor_type(&value()?)?;
                (self.types.attention, self.types.feed_forward) = (tensor_type, tensor_type);
            }
            "--output-type" => {
                let tensor_type = tensor_type(&value()?)?;
                (self.types.embedding, self.types.output) = (tensor_type, tensor_type);
            }
            "--vocabulary-only" => self.vocabulary_only = true,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Described for SyntheticBitNet {
    common!();

    fn set(&mut self, option: &str, value: Value<'_>) -> Result<bool, Box<dyn Error>> {
        match option {
            "--ternary" => self.ternary = tensor_type(&value()?)?,
            "--layout" => {
                let name = value()?;
                self.layout = I2sLayout::from_name(&name).ok_or_else(|| format!("there is no layout {name}"))?;
            }
            "--embedding" => self.embedding = tensor_type(&value()?)?,
            "--architecture" => self.architecture = value()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn tensor_type(name: &str) -> Result<TensorType, String> {
    TensorType::from_name(name).ok_or_else(|| format!("there is no tensor type {name}"))
}

fn number<T: FromStr<Err: fmt::Display>>(option: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{option} {text}: {error}"))
}
