//! A generation that is given a second: `cargo run --release --example cancel -- MODEL PROMPT`. It shows what there is as it comes.
//!
//! A callback can break off between two tokens; the token of another thread also ends a long prompt in the middle.

use std::{
    error::Error,
    io::{Write, stdout},
    ops::ControlFlow,
    thread,
    time::Duration,
};

use gguf_loader::{Model, backend::ContextOptions, generation::GenerateRequest};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(prompt)) = (arguments.next(), arguments.next()) else {
        return Err("usage: cancel MODEL PROMPT".into());
    };
    let mut context = Model::load(path)?.context(&ContextOptions::default())?;
    let request = GenerateRequest::new(prompt).with_stop_at_end(false);

    let cancel = context.cancel_token();
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(1));
        cancel.cancel();
    });
    let cancelled = context.complete(&request)?;
    writeln!(stdout(), "{:?} after {} tokens", cancelled.finish, cancelled.tokens.len())?;

    // The context is as good as new. Twenty pieces are enough this time, or nobody reads any more.
    let mut pieces = 0;
    let broken = context.generate(&request)?.for_each_piece(|piece| {
        pieces += 1;
        let written = write!(stdout(), "{}", piece.text).and_then(|()| stdout().flush());
        if pieces < 20 && written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    writeln!(stdout(), "\n{:?} after {} tokens", broken.finish, broken.tokens.len())?;
    Ok(())
}
