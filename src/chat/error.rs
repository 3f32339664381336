//! What can go wrong in a conversation.

use super::{ReplyError, TemplateError};
use crate::{
    generation::{FinishReason, GenerateError},
    grammar::SchemaError,
    state::StateError,
};

/// Why there is no reply. The conversation is what it was before, except where tools have run:
/// [`reply_with_tools`](super::ChatSession::reply_with_tools).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The model has no template, or it refuses the conversation.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The reply could not be generated: the conversation is too long, say.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The last message is the assistant's. Push a message that the model can reply to, or have it go on with
    /// [`continue_reply`](super::ChatSession::continue_reply).
    #[error("the last message is the assistant's: say something to reply to, or have the model continue it")]
    NothingToReplyTo,
    /// The reply is not what the template lets a model say.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// The type's schema cannot be a grammar.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The reply was cut off before the value was complete: allow more tokens.
    #[error("the reply was cut off before the value was complete ({0:?}): allow more tokens")]
    Unfinished(FinishReason),
    /// The value does not fit the type, whose schema says that it should.
    #[error("the value does not fit the type")]
    Value(#[source] serde_json::Error),
    /// Another context cannot take over what the session's has computed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The model calls tools again and again: allow more rounds, or let it call none.
    #[error("the model still calls tools after {0} rounds: allow more, or let it call none")]
    Rounds(u32),
}
