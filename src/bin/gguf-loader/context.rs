//! The options that say what a context is made of: its length, its cache, and what changes the model in it.

use std::{convert::Infallible, num::NonZeroU32, path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};
use gguf_loader::{
    adapter::{ControlVector, LoraAdapter},
    backend::{CacheType, ContextOptions},
    context::Context,
    generation::WhenFull,
    model::Model,
};

use crate::{failure::Failure, interrupt::Interrupt};

#[derive(Debug, Args)]
pub(crate) struct ContextArgs {
    /// Tokens of context, prompt included [default: what the model was trained for, at most 4096]
    #[arg(long, value_name = "N")]
    ctx: Option<NonZeroU32>,
    #[command(flatten)]
    cache: CacheArgs,
    /// Apply a LoRA adapter in GGUF, with a scale [default: 1]; may be given again
    #[arg(long, value_name = "FILE[=SCALE]")]
    lora: Vec<Scaled>,
    /// Add a control vector in GGUF, with a scale [default: 1]; may be given again
    #[arg(long, value_name = "FILE[=SCALE]")]
    control_vector: Vec<Scaled>,
}

/// The options that say what happens when a context is full.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct FullArgs {
    /// When the context is full: stop, or shift the older half of it out and go on
    #[arg(long, value_enum, default_value_t = Full::Stop)]
    when_full: Full,
    /// Tokens at the beginning that a shift leaves, fewer than --ctx less one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Full {
    Stop,
    Shift,
}

impl FullArgs {
    pub(crate) fn when_full(self) -> WhenFull {
        match self.when_full {
            Full::Stop => WhenFull::Stop,
            Full::Shift => WhenFull::Shift { keep: self.keep },
        }
    }
}

/// The options that say how a context remembers.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct CacheArgs {
    /// Type of the KV cache: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1 or q4_0 [default: f16]
    #[arg(long, value_name = "TYPE", value_parser = cache_type)]
    pub(crate) cache_type: Option<CacheType>,
    /// Compute attention without a matrix of scores [default: where the model allows it]
    #[arg(long, value_enum, value_name = "ON|OFF")]
    flash_attention: Option<Switch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// A file, and how much of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scaled {
    pub(crate) file: PathBuf,
    pub(crate) scale: f32,
}

impl FromStr for Scaled {
    type Err = Infallible;

    /// What follows the last `=` is a scale if it is a number, and else a part of the name.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let scaled = text.rsplit_once('=').and_then(|(file, scale)| Some((file, scale.parse().ok()?)));
        let (file, scale) = scaled.unwrap_or((text, 1.0));
        Ok(Self { file: file.into(), scale })
    }
}

fn cache_type(name: &str) -> Result<CacheType, String> {
    serde_json::from_value(name.to_lowercase().into()).map_err(|_| format!("`{name}` is no type of a KV cache"))
}

impl CacheArgs {
    pub(crate) fn set(&self, options: &mut ContextOptions) {
        (options.keys, options.values) = (self.cache_type, self.cache_type);
        options.flash_attention = self.flash_attention();
    }

    pub(crate) fn flash_attention(&self) -> Option<bool> {
        self.flash_attention.map(|switch| switch == Switch::On)
    }
}

impl ContextArgs {
    /// Opens a context that Ctrl-C cancels.
    pub(crate) fn open(&self, model: &Model, interrupt: &Interrupt) -> Result<Context, Failure> {
        let mut options = ContextOptions::default().with_cancel(interrupt.token());
        options.length = self.ctx;
        self.cache.set(&mut options);
        let mut context = model.context(&options)?;
        if !self.lora.is_empty() {
            let load = |adapter: &Scaled| Ok((LoraAdapter::load(model, &adapter.file)?, adapter.scale));
            let adapters = self.lora.iter().map(load).collect::<Result<Vec<_>, Failure>>()?;
            context.set_adapters(&adapters.iter().map(|(adapter, scale)| (adapter, *scale)).collect::<Vec<_>>())?;
        }
        if !self.control_vector.is_empty() {
            let load = |vector: &Scaled| Ok((ControlVector::load(&vector.file)?, vector.scale));
            let vectors = self.control_vector.iter().map(load).collect::<Result<Vec<_>, Failure>>()?;
            let vectors: Vec<_> = vectors.iter().map(|(vector, scale)| (vector, *scale)).collect();
            context.set_control_vectors(&vectors, None)?;
        }
        Ok(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_follows_the_last_equals_sign() {
        let of = |text: &str| text.parse::<Scaled>().map(|scaled| (scaled.file, scaled.scale)).unwrap();
        assert_eq!(of("a.gguf"), ("a.gguf".into(), 1.0));
        assert_eq!(of("a=b.gguf=-0.5"), ("a=b.gguf".into(), -0.5));
        assert_eq!(of("a=b.gguf"), ("a=b.gguf".into(), 1.0));
        assert_eq!(cache_type("Q8_0"), Ok(CacheType::Q8_0));
        assert!(cache_type("q9").is_err());
    }
}
