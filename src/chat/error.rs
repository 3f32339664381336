//! What can go wrong in a conversation.

use super::{ChatFinish, ReplyError, TemplateError};
use crate::{
    backend::{DecodeError, GrammarEngineError, VocabularyError},
    grammar::{ConstraintError, SchemaError},
};

/// Why there is no reply. The conversation is what it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The model has no tokenizer that a compiled backend can read.
    #[error("the model has no tokenizer that this program can read")]
    NoTokenizer,
    /// The model computes embeddings, not logits.
    #[error("the model gives no logits: it is not made to generate text")]
    NoLogits,
    /// The model remembers nothing from one batch to the next: an encoder.
    #[error("the model has no memory of what it read: it is not made to generate text")]
    NoMemory,
    /// The model's weights are broken, or its arithmetic overflowed.
    #[error("the model's logits are not numbers: the file may be damaged")]
    NotANumber,
    /// The template wrote nothing.
    #[error("the chat template made an empty prompt")]
    EmptyPrompt,
    /// The conversation does not fit: drop some of its messages, or open a longer context.
    #[error("the conversation has {tokens} tokens, and the context holds {limit} with the reply")]
    PromptTooLong {
        /// Tokens of the conversation.
        tokens: usize,
        /// Tokens that fit.
        limit: u32,
    },
    /// Calls have a form of their own: ask for one or the other.
    #[error("a grammar and tools cannot be combined")]
    GrammarWithTools,
    /// The model has no template, or it refuses the conversation.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The reply is not what the template lets a model say.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// The type's schema cannot be a grammar.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The engine does not take the grammar.
    #[error(transparent)]
    Grammar(#[from] GrammarEngineError),
    /// No token fits the grammar.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// The reply was cut off before the value was complete: allow more tokens.
    #[error("the reply was cut off before the value was complete ({0:?})")]
    Unfinished(ChatFinish),
    /// The value does not fit the type, whose schema says that it should.
    #[error("the value does not fit the type")]
    Value(#[source] serde_json::Error),
    /// A text could not be tokenised.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// A decode failed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The model calls tools again and again.
    #[error("the model still calls tools after {0} rounds")]
    Rounds(u32),
}
