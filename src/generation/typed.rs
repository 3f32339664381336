//! Values of Rust types out of a model.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{FinishReason, GenerateError, GenerateRequest};
use crate::{
    Context,
    grammar::{Grammar, SchemaError},
};

impl Context {
    /// Generates a value of a type, by the type's JSON schema, which takes the place of the request's grammar. For a question in
    /// the form of a chat there is [`ChatSession::reply_as`](crate::chat::ChatSession::reply_as).
    ///
    /// ```no_run
    /// # use gguf_loader::{Model, backend::ContextOptions};
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// struct City {
    ///     name: String,
    ///     population: u32,
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut context = Model::load("model.gguf")?.context(&ContextOptions::default())?;
    /// let city: City = context.generate_as("The largest city of France, as JSON: ")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`TypedError`]; [`TypedError::Unfinished`] when the value was not complete at the request's end.
    pub fn generate_as<T: DeserializeOwned + JsonSchema>(
        &mut self,
        request: impl Into<GenerateRequest>,
    ) -> Result<T, TypedError> {
        let request = request.into().with_grammar(Grammar::of::<T>()?).with_echo(false);
        let completion = self.complete(request)?;
        match completion.finish {
            FinishReason::End | FinishReason::Stop => {
                serde_json::from_str(completion.text.trim()).map_err(TypedError::Value)
            }
            finish => Err(TypedError::Unfinished(finish)),
        }
    }
}

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedError {
    /// The type's schema cannot be a grammar.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Nothing could be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The text was cut off before the value was complete: allow more tokens.
    #[error("the text was cut off before the value was complete ({0:?}): allow more tokens")]
    Unfinished(FinishReason),
    /// The value does not fit the type, whose schema says that it should; or a stop text ended it early.
    #[error("the value does not fit the type")]
    Value(#[source] serde_json::Error),
}
