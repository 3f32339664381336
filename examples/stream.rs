//! A generation as a stream: `cargo run --release --features async --example stream -- MODEL PROMPT`. Any executor will do.

use std::{
    error::Error,
    io::{Write, stderr, stdout},
};

use futures::{StreamExt, executor::block_on};
use gguf_loader::{Model, backend::ContextOptions, generation::GenerateRequest};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(prompt)) = (arguments.next(), arguments.next()) else {
        return Err("usage: stream MODEL PROMPT".into());
    };
    let context = Model::load(path)?.context(&ContextOptions::default())?;
    let request = GenerateRequest::new(prompt).with_max_tokens(48.try_into()?).with_stop("\n\n");
    block_on(async {
        let mut stream = context.into_stream(request);
        while let Some(piece) = stream.next().await {
            write!(stdout(), "{}", piece?.text)?;
            stdout().flush()?;
        }
        writeln!(stderr(), "\n{:?}: {:?}", stream.finish_reason(), stream.usage())?;
        // The stream had the context; now it can be used again.
        drop(stream.into_context().await);
        Ok(())
    })
}
