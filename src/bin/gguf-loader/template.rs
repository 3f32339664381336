//! The variables of a chat template, on the command line.

use std::{error::Error, str::FromStr};

use serde_json::{Map, Value};

/// A variable and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TemplateArg {
    name: String,
    value: Value,
}

impl FromStr for TemplateArg {
    type Err = Box<dyn Error + Send + Sync>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "write KEY=JSON, e.g. reasoning_effort='\"low\"' or tools_in_user_message=false";
        let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or(FORM)?;
        let value = serde_json::from_str(value).map_err(|error| format!("`{value}` is no JSON ({error}): {FORM}"))?;
        Ok(Self { name: name.to_owned(), value })
    }
}

/// The variables as a template takes them; of a name that is given again, the last.
pub(crate) fn arguments(given: Vec<TemplateArg>) -> Map<String, Value> {
    given.into_iter().map(|TemplateArg { name, value }| (name, value)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_variable_is_a_name_and_json() {
        let given = ["a=1", "b={\"c\": \"=\"}", "a=[true]"].map(|text| text.parse().unwrap());
        assert_eq!(Value::from(arguments(given.to_vec())), json!({"a": [true], "b": {"c": "="}}));
        for text in ["a", "=1", "a=low", "a="] {
            let error = text.parse::<TemplateArg>().unwrap_err().to_string();
            assert!(error.contains("KEY=JSON"), "{text}: {error}");
        }
    }
}
