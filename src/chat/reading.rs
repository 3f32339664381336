//! Reading a reply while it is written.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Reply, ReplyError, ReplyEvent, delta::Deltas};
use crate::backend::ReplyParser;

/// Reads a reply as it grows: what a [`RenderedPrompt`](super::RenderedPrompt)'s own parser makes of the text that a model
/// writes. [`ChatSession`](super::ChatSession) does this by itself; it is for whoever generates from a rendered prompt.
///
/// ```no_run
/// # use std::sync::Arc;
/// use gguf_loader::{Context, chat::{RenderedPrompt, ReplyEvent, ReplyReader}, generation::FinishReason};
///
/// # fn answer(context: &mut Context, prompt: RenderedPrompt) -> Result<(), Box<dyn std::error::Error>> {
/// let mut reader = ReplyReader::new(Arc::clone(&prompt.parser));
/// let mut generation = context.generate(prompt)?;
/// for piece in generation.by_ref() {
///     for event in reader.push(&piece?.text) {
///         if let ReplyEvent::Content(text) = event {
///             print!("{text}");
///         }
///     }
/// }
/// let whole = matches!(generation.finish_reason(), Some(FinishReason::End | FinishReason::Stop));
/// let (reply, rest) = reader.finish(whole)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ReplyReader {
    parser: Arc<dyn ReplyParser>,
    deltas: Deltas,
    text: String,
    /// When the text was last read, and for how long nothing needs to read it again.
    last: Instant,
    rest: Duration,
}

/// A parser reads from the beginning each time. In a long reply it rests between two readings for so many times as long as
/// one takes, so that it never costs more than a small part of the time.
const REST: u32 = 20;

impl ReplyReader {
    /// A reader of one reply.
    pub fn new(parser: Arc<dyn ReplyParser>) -> Self {
        // What the prompt has of the reply already is not news.
        let deltas = Deltas::after(parser.parse("", false).unwrap_or_default());
        Self { parser, deltas, text: String::new(), last: Instant::now(), rest: Duration::ZERO }
    }

    /// Takes more of the text, and gives what is new. What this text brings may be given later, in the end at last.
    pub fn push(&mut self, text: &str) -> Vec<ReplyEvent> {
        self.text.push_str(text);
        if self.text.is_empty() || self.last.elapsed() < self.rest {
            return Vec::new();
        }
        let begin = Instant::now();
        let reply = self.parser.parse(&self.text, false);
        self.last = Instant::now();
        self.rest = (self.last - begin) * REST;
        self.news(&reply.unwrap_or_default())
    }

    /// The reply, which is `whole` or was cut off, and what of it is new.
    ///
    /// # Errors
    ///
    /// [`ReplyError`] when the text is not what the template lets a model say.
    pub fn finish(mut self, whole: bool) -> Result<(Reply, Vec<ReplyEvent>), ReplyError> {
        let reply = self.parser.parse(&self.text, whole).or_else(|error| match whole {
            // A reply that was not forced into a form may end in the middle of one.
            true => self.parser.parse(&self.text, false).map_err(|_| error),
            false => Err(error),
        })?;
        let news = self.news(&reply);
        Ok((reply, news))
    }

    fn news(&mut self, reply: &Reply) -> Vec<ReplyEvent> {
        let mut events = Vec::new();
        self.deltas.push(reply, &mut events);
        events
    }
}

/// Reads a reply as it grows, and hands what is new to a callback, until that breaks off: after that it gets nothing more.
pub(super) struct Reading<F> {
    reader: ReplyReader,
    on_event: F,
    flow: ControlFlow<()>,
}

impl<F: FnMut(&ReplyEvent) -> ControlFlow<()>> Reading<F> {
    pub(super) fn new(parser: Arc<dyn ReplyParser>, on_event: F) -> Self {
        Self { reader: ReplyReader::new(parser), on_event, flow: ControlFlow::Continue(()) }
    }

    /// Takes more of the text. What it brings may be handed out later.
    pub(super) fn push(&mut self, text: &str) -> ControlFlow<()> {
        let events = self.reader.push(text);
        hand_out(&events, &mut self.flow, &mut self.on_event);
        self.flow
    }

    /// The reply, which is `whole` or was cut off, and whether the callback broke off by now.
    pub(super) fn finish(mut self, whole: bool) -> Result<(Reply, ControlFlow<()>), ReplyError> {
        let (reply, events) = self.reader.finish(whole)?;
        hand_out(&events, &mut self.flow, &mut self.on_event);
        Ok((reply, self.flow))
    }
}

fn hand_out(
    events: &[ReplyEvent],
    flow: &mut ControlFlow<()>,
    on_event: &mut impl FnMut(&ReplyEvent) -> ControlFlow<()>,
) {
    if flow.is_continue() {
        *flow = events.iter().try_for_each(on_event);
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;
    use crate::chat::ToolCall;

    /// Takes `f(` for the beginning of a call, and its time.
    #[derive(Debug)]
    struct Slow(Duration);

    impl ReplyParser for Slow {
        fn parse(&self, text: &str, _complete: bool) -> Result<Reply, ReplyError> {
            sleep(self.0);
            let (content, call) = text.split_once("f(").map_or((text, None), |(content, call)| (content, Some(call)));
            let call = call.map(|arguments| ToolCall {
                name: "f".to_owned(),
                arguments: arguments.to_owned(),
                ..Default::default()
            });
            Ok(Reply { content: content.to_owned(), tool_calls: call.into_iter().collect(), ..Reply::default() })
        }
    }

    /// What is handed out of a reply in these pieces, to a callback that breaks off at a call.
    fn handed_out(time: Duration, pieces: &[&str]) -> (Vec<ReplyEvent>, bool) {
        let mut events = Vec::new();
        let mut reading = Reading::new(Arc::new(Slow(time)), |event: &ReplyEvent| {
            events.push(event.clone());
            match event {
                ReplyEvent::ToolCall { .. } => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        for piece in pieces {
            if reading.push(piece).is_break() {
                break;
            }
        }
        let (_, flow) = reading.finish(true).unwrap();
        (events, flow.is_break())
    }

    #[test]
    fn nothing_is_handed_out_after_a_break_whenever_it_comes() {
        let expected =
            vec![ReplyEvent::Content("a".to_owned()), ReplyEvent::ToolCall { index: 0, name: "f".to_owned() }];
        // Read at once, and so slowly that the call is only seen when the reply has ended.
        for time in [Duration::ZERO, Duration::from_millis(50)] {
            assert_eq!(handed_out(time, &["a", "f(1", "2", "3"]), (expected.clone(), true), "{time:?}");
        }
        assert!(!handed_out(Duration::ZERO, &["a", "b"]).1);
    }
}
