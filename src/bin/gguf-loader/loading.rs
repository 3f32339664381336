//! Loading a model for a command: progress on a terminal, Ctrl-C, the context and the template.

use std::{num::NonZeroU32, path::Path, time::Duration};

use gguf_loader::{
    backend::ContextOptions,
    chat::ChatTemplate,
    context::Context,
    model::{LoadOptions, Model},
};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{failure::Failure, interrupt::Interrupt, output::Output};

/// Loads a model. Ctrl-C ends it with [`Failure::interrupted`].
pub(crate) fn load(
    path: &Path,
    options: &LoadOptions,
    interrupt: &Interrupt,
    output: &Output,
) -> Result<Model, Failure> {
    let bar = fraction_bar(output, "loading {bar:40} {percent:>3} %");
    let progress = |fraction: f32| {
        show(&bar, fraction);
        interrupt.flow()
    };
    let model = Model::load_with(path, options, progress);
    bar.finish_and_clear();
    Ok(model?)
}

/// Opens a context of `length` tokens that Ctrl-C cancels.
pub(crate) fn open_context(
    model: &Model,
    length: Option<NonZeroU32>,
    interrupt: &Interrupt,
) -> Result<Context, Failure> {
    let mut options = ContextOptions::default().with_cancel(interrupt.token());
    options.length = length;
    Ok(model.context(&options)?)
}

/// The template of this text, or the model's own.
pub(crate) fn chat_template(model: &Model, text: Option<String>) -> Result<ChatTemplate, Failure> {
    let tokenizer = model.tokenizer()?;
    Ok(match text {
        Some(text) => ChatTemplate::parse(&tokenizer.template_source(text))?,
        None => ChatTemplate::of(tokenizer)?,
    })
}

/// Steps of a bar that shows a fraction.
const STEPS: u64 = 1000;

/// A bar for work of which a fraction is known.
pub(crate) fn fraction_bar(output: &Output, template: &str) -> ProgressBar {
    progress_bar(output, STEPS, template)
}

/// Shows a fraction, from 0 to 1.
pub(crate) fn show(bar: &ProgressBar, fraction: f32) {
    bar.set_position((f64::from(fraction) * STEPS as f64) as u64);
}

/// A bar on a terminal; nothing elsewhere, and nothing when only errors are wanted.
pub(crate) fn progress_bar(output: &Output, steps: u64, template: &str) -> ProgressBar {
    if output.is_quiet() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(steps);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
