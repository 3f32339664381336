//! A mixture of two models of the same shape: `cargo run --release --example merge -- ONE OTHER OUT RATIO [PROMPT]`.

use std::{
    error::Error,
    io::{Write, stderr, stdout},
    ops::ControlFlow,
};

use gguf_loader::{Model, backend::ContextOptions, generation::GenerateRequest, merge::merge_models};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [one, other, out, ratio, prompt @ ..] = arguments.as_slice() else {
        return Err("usage: merge ONE OTHER OUT RATIO [PROMPT]".into());
    };
    let mut shown = 0;
    let report = merge_models(one, other, ratio.parse()?, out, |fraction| {
        let percent = (fraction * 100.0) as u32;
        if percent >= shown + 25 {
            shown = percent;
            // Where nobody reads it, there is still something to write.
            let _ = writeln!(stderr(), "{percent} %");
        }
        ControlFlow::Continue(())
    })?;
    writeln!(stdout(), "{} tensors changed, {} of them stored as Q8_0", report.changed, report.as_q8_0)?;
    if let [prompt, ..] = prompt {
        for path in [one, other, out] {
            let mut context = Model::load(path)?.context(&ContextOptions::default())?;
            let completion = context.complete(GenerateRequest::new(prompt).with_max_tokens(24.try_into()?))?;
            writeln!(stdout(), "{path}: {}", completion.text.replace('\n', " "))?;
        }
    }
    Ok(())
}
