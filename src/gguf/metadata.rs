//! The keys of a file, in its order.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{Array, GgufError, KeyProblem, Value};

/// Key-value pairs in the order of the file.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
    /// The file that the pairs came from, for errors.
    path: PathBuf,
}

#[derive(Debug, Clone)]
struct Entry {
    key: String,
    value: Value,
    /// Where the key stands in the file.
    offset: u64,
}

impl Metadata {
    /// No keys; errors will name `path`.
    pub(super) fn of_file(path: &Path) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The pairs in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|entry| (entry.key.as_str(), &entry.value))
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// An integer of any width, not negative.
    ///
    /// # Errors
    ///
    /// [`GgufError::Key`] when it is missing or has another type; the same holds for the other typed getters.
    pub fn u64(&self, key: &str) -> Result<u64, GgufError> {
        self.typed(key, "a non-negative integer", Value::as_u64)
    }

    /// A float of either width.
    ///
    /// # Errors
    ///
    /// See [`u64`](Self::u64).
    pub fn f64(&self, key: &str) -> Result<f64, GgufError> {
        self.typed(key, "a float", Value::as_f64)
    }

    /// A string.
    ///
    /// # Errors
    ///
    /// See [`u64`](Self::u64).
    pub fn str(&self, key: &str) -> Result<&str, GgufError> {
        self.typed(key, "a string", Value::as_str)
    }

    /// A boolean.
    ///
    /// # Errors
    ///
    /// See [`u64`](Self::u64).
    pub fn bool(&self, key: &str) -> Result<bool, GgufError> {
        self.typed(key, "a boolean", Value::as_bool)
    }

    /// An array of any type.
    ///
    /// # Errors
    ///
    /// See [`u64`](Self::u64).
    pub fn array(&self, key: &str) -> Result<&Array, GgufError> {
        self.typed(key, "an array", Value::as_array)
    }

    /// Sets a key; a key that exists keeps its place and gets the new value.
    pub(super) fn set(&mut self, key: impl Into<String>, value: Value, offset: u64) {
        let key = key.into();
        if let Some(&index) = self.index.get(&key) {
            self.entries[index] = Entry { key, value, offset };
        } else {
            self.index.insert(key.clone(), self.entries.len());
            self.entries.push(Entry { key, value, offset });
        }
    }

    /// The error for `key`, with its place in the file.
    pub(super) fn problem(&self, key: &str, problem: KeyProblem) -> GgufError {
        GgufError::Key {
            path: self.path.clone(),
            key: key.to_owned(),
            offset: self.entry(key).map_or(0, |entry| entry.offset),
            problem,
        }
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.index.get(key).map(|&index| &self.entries[index])
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, GgufError> {
        let Some(value) = self.get(key) else {
            return Err(GgufError::MissingKey { path: self.path.clone(), key: key.to_owned() });
        };
        read(value).ok_or_else(|| {
            let found = match value {
                Value::Array(_) | Value::String(_) | Value::Bool(_) => value.type_name().into_owned(),
                number => format!("{} {number}", number.type_name()),
            };
            self.problem(key, KeyProblem::Type { expected, found })
        })
    }
}

/// Two metadata are equal when they hold the same pairs in the same order, wherever these came from.
impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl serde::Serialize for Metadata {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}
