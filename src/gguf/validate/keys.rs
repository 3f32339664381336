//! The keys of one architecture, with ranges.

use std::ops::RangeInclusive;

use crate::gguf::{Array, Gguf, GgufError, KeyProblem, Metadata, Value};

/// Reads `<architecture>.<name>` keys.
pub(in crate::gguf) struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl<'a> Keys<'a> {
    /// The keys of the file's own architecture.
    pub(in crate::gguf) fn new(gguf: &'a Gguf) -> Result<Self, GgufError> {
        Ok(Self { metadata: gguf.metadata(), architecture: gguf.architecture()? })
    }

    /// `general.architecture`.
    pub(in crate::gguf) fn architecture(&self) -> &'a str {
        self.architecture
    }

    /// The full key of `name`.
    pub(in crate::gguf) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// The value of `name`.
    pub(in crate::gguf) fn get(&self, name: &str) -> Option<&'a Value> {
        self.metadata.get(&self.key(name))
    }

    /// An integer, if the key exists.
    pub(in crate::gguf) fn integer(&self, name: &str) -> Result<Option<u64>, GgufError> {
        let key = self.key(name);
        self.metadata.get(&key).map(|_| self.metadata.u64(&key)).transpose()
    }

    /// An integer that must exist.
    pub(in crate::gguf) fn required(&self, name: &str) -> Result<u64, GgufError> {
        self.metadata.u64(&self.key(name))
    }

    /// An integer within `range`, if the key exists.
    pub(super) fn integer_in(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, GgufError> {
        let value = self.integer(name)?;
        match value {
            Some(value) if !range.contains(&value) => {
                Err(self.wrong(name, value, format!("{} to {}", range.start(), range.end())))
            }
            value => Ok(value),
        }
    }

    /// A float for which `allowed` holds, if the key exists.
    pub(super) fn float(
        &self,
        name: &str,
        expected: &str,
        allowed: impl FnOnce(f64) -> bool,
    ) -> Result<Option<f64>, GgufError> {
        let key = self.key(name);
        if self.metadata.get(&key).is_none() {
            return Ok(None);
        }
        let value = self.metadata.f64(&key)?;
        if allowed(value) { Ok(Some(value)) } else { Err(self.wrong(name, value, expected)) }
    }

    /// One integer a layer: an array of `layers` numbers, or one number for all; `None` without the key.
    pub(in crate::gguf) fn per_layer(&self, name: &str, layers: u64) -> Result<Option<Vec<u64>>, GgufError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let Value::Array(array) = value else {
            return Ok(Some(vec![self.required(name)?; layers as usize]));
        };
        let values = match array {
            Array::Bool(values) => Some(values.iter().map(|&value| value.into()).collect()),
            other => other.to_u64(),
        };
        let Some(values) = values else {
            let found = value.type_name().into_owned();
            let problem = KeyProblem::Type { expected: "non-negative integers", found };
            return Err(self.metadata.problem(&self.key(name), problem));
        };
        if values.len() as u64 != layers {
            return Err(self.wrong(
                name,
                format!("{} numbers", values.len()),
                format!("one for each of {layers} blocks"),
            ));
        }
        Ok(Some(values))
    }

    /// The error for a value that cannot be.
    pub(super) fn wrong(&self, name: &str, found: impl ToString, expected: impl Into<String>) -> GgufError {
        let problem = KeyProblem::Value { found: found.to_string(), expected: expected.into() };
        self.metadata.problem(&self.key(name), problem)
    }

    /// All floats of the architecture.
    pub(super) fn floats(&self) -> impl Iterator<Item = (&'a str, f64)> {
        self.metadata.iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(self.architecture)?.strip_prefix('.')?;
            Some((name, value.as_f64()?))
        })
    }
}
