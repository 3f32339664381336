//! x
#![forbid(unsafe_code)]
use schemars::JsonSchema;
use serde_json::Value;
/// s
pub fn schema_of<T: JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()
}
