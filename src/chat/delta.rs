//! What a reply gained since it was last looked at.

use super::Reply;

/// A part of a reply, as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyEvent {
    /// More of what the model says.
    Content(String),
    /// More of what it thinks before.
    Reasoning(String),
    /// A call begins.
    ToolCall {
        /// Which call of the reply, from 0.
        index: usize,
        /// The tool.
        name: String,
    },
    /// More of a call's arguments, as JSON text.
    Arguments {
        /// Which call of the reply, from 0.
        index: usize,
        /// The text.
        delta: String,
    },
}

/// Turns the states of a reply into events.
#[derive(Debug, Default)]
pub(super) struct Deltas {
    shown: Reply,
}

impl Deltas {
    /// Starts from a reply that is known already: the beginning that the model continues.
    pub(super) fn after(shown: Reply) -> Self {
        Self { shown }
    }

    /// What `reply` has more than what was shown.
    ///
    /// A state that takes back something is passed over: while a marker is incomplete, a parser may take it for content.
    pub(super) fn push(&mut self, reply: &Reply, events: &mut Vec<ReplyEvent>) {
        let shown = &mut self.shown;
        events.extend(gain(&mut shown.reasoning, &reply.reasoning).map(ReplyEvent::Reasoning));
        events.extend(gain(&mut shown.content, &reply.content).map(ReplyEvent::Content));
        for (index, call) in reply.tool_calls.iter().enumerate() {
            if call.name.is_empty() {
                break;
            }
            if index == shown.tool_calls.len() {
                // A name that may still grow is not known yet: the arguments come after it.
                if call.arguments.is_empty() {
                    break;
                }
                let name = call.name.clone();
                shown.tool_calls.push(super::ToolCall { name: name.clone(), ..Default::default() });
                events.push(ReplyEvent::ToolCall { index, name });
            }
            let delta = gain(&mut shown.tool_calls[index].arguments, &call.arguments);
            events.extend(delta.map(|delta| ReplyEvent::Arguments { index, delta }));
        }
    }
}

fn gain(shown: &mut String, now: &str) -> Option<String> {
    let delta = now.strip_prefix(shown.as_str()).filter(|delta| !delta.is_empty())?.to_owned();
    shown.push_str(&delta);
    Some(delta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::ToolCall;

    #[test]
    fn events_add_up_to_the_reply() {
        let call =
            |arguments: &str| ToolCall { name: "f".to_owned(), arguments: arguments.to_owned(), ..Default::default() };
        let states = [
            Reply { reasoning: "h".to_owned(), ..Reply::default() },
            Reply { reasoning: "hm".to_owned(), content: "<to".to_owned(), ..Reply::default() },
            Reply { reasoning: "hm".to_owned(), tool_calls: vec![call("")], ..Reply::default() },
            Reply { reasoning: "hm".to_owned(), tool_calls: vec![call("{\"a")], ..Reply::default() },
            Reply { reasoning: "hm".to_owned(), tool_calls: vec![call("{\"a\":1}"), call("{}")], ..Reply::default() },
        ];
        let (mut deltas, mut events) = (Deltas::default(), Vec::new());
        states.iter().for_each(|state| deltas.push(state, &mut events));
        let of_call = |index, delta: &str| ReplyEvent::Arguments { index, delta: delta.to_owned() };
        assert_eq!(
            events,
            [
                ReplyEvent::Reasoning("h".to_owned()),
                ReplyEvent::Reasoning("m".to_owned()),
                ReplyEvent::Content("<to".to_owned()),
                ReplyEvent::ToolCall { index: 0, name: "f".to_owned() },
                of_call(0, "{\"a"),
                of_call(0, "\":1}"),
                ReplyEvent::ToolCall { index: 1, name: "f".to_owned() },
                of_call(1, "{}"),
            ]
        );
    }
}
