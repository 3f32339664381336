//! A generation for asynchronous programs.

use std::{
    pin::Pin,
    sync::mpsc,
    task::{Context as TaskContext, Poll},
    thread,
};

use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures_core::Stream;

use super::{FinishReason, GenerateError, GenerateRequest, Piece, Usage};
use crate::{backend::CancelToken, context::Context};

/// Text as it is generated: a [`Stream`] of [`Piece`]s, computed by a thread of its own and for any executor.
///
/// A decode blocks, so that it must not run where tasks run. Drop the stream to stop: that cancels what runs, also within a
/// pass over the weights, and the context goes with it. The [`cancel_token`](Self::cancel_token) stops too, and the context
/// is kept.
#[derive(Debug)]
pub struct GenerationStream {
    messages: UnboundedReceiver<Message>,
    cancel: CancelToken,
    ended: Option<Box<Ended>>,
    /// Kept to tell, when there was no thread to run on.
    error: Option<GenerateError>,
    /// Whether the thread has ended, with a word or without.
    over: bool,
}

#[derive(Debug)]
enum Message {
    Piece(Result<Piece, GenerateError>),
    Ended(Box<Ended>),
}

#[derive(Debug)]
struct Ended {
    context: Context,
    finish: Option<FinishReason>,
    usage: Usage,
}

impl GenerationStream {
    pub(crate) fn new(context: Context, request: GenerateRequest) -> Self {
        let cancel = context.cancel_token();
        let (pieces, messages) = unbounded();
        // The context is handed over afterwards, so that it is not lost with a thread that does not start.
        let (hand_over, take_over) = mpsc::channel::<Context>();
        let run = move || {
            if let Ok(context) = take_over.recv() {
                generate(context, &request, &pieces);
            }
        };
        match thread::Builder::new().name("gguf-loader stream".to_owned()).spawn(run) {
            Ok(_) => {
                // The thread waits for it.
                let _ = hand_over.send(context);
                Self { messages, cancel, ended: None, error: None, over: false }
            }
            Err(error) => {
                let ended = Ended { context, finish: None, usage: Usage::default() };
                let error = Some(GenerateError::Thread(error.to_string()));
                Self { messages, cancel, ended: Some(Box::new(ended)), error, over: true }
            }
        }
    }

    /// Cancels the generation, from anywhere. The stream then ends with [`FinishReason::Cancelled`].
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// Why the generation ended; `None` while it runs, and after an error.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.ended.as_ref()?.finish
    }

    /// What it took; `None` while it runs.
    pub fn usage(&self) -> Option<Usage> {
        self.ended.as_ref().map(|ended| ended.usage)
    }

    /// The context, once the generation has ended: pieces that nobody took are dropped. `None` only if the thread panicked.
    pub async fn into_context(mut self) -> Option<Context> {
        while std::future::poll_fn(|task| Pin::new(&mut self).poll_next(task)).await.is_some() {}
        self.ended.take().map(|ended| ended.context)
    }
}

impl Drop for GenerationStream {
    fn drop(&mut self) {
        if !self.over {
            // Nobody waits for what runs. The token is the context's own, and ends nothing else.
            self.cancel.cancel();
        }
    }
}

fn generate(mut context: Context, request: &GenerateRequest, pieces: &UnboundedSender<Message>) {
    let (mut finish, mut usage) = (None, Usage::default());
    match context.generate(request) {
        Ok(mut generation) => {
            for piece in generation.by_ref() {
                // Nobody listens any more.
                if pieces.unbounded_send(Message::Piece(piece)).is_err() {
                    return;
                }
            }
            (finish, usage) = (generation.finish_reason(), generation.usage());
        }
        Err(error) => {
            let _ = pieces.unbounded_send(Message::Piece(Err(error)));
        }
    }
    let _ = pieces.unbounded_send(Message::Ended(Box::new(Ended { context, finish, usage })));
}

impl Stream for GenerationStream {
    type Item = Result<Piece, GenerateError>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if self.over {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.messages).poll_next(task).map(|message| match message {
            Some(Message::Piece(piece)) => Some(piece),
            Some(Message::Ended(ended)) => {
                (self.ended, self.over) = (Some(ended), true);
                None
            }
            // The thread says when it ends, unless it panics.
            None => {
                self.over = true;
                Some(Err(GenerateError::Panicked))
            }
        })
    }
}
