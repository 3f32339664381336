//! The JSON files of a checkpoint.

use std::{fs, io, path::Path};

use serde::de::DeserializeOwned;

use super::ConvertError;

/// Reads a file that every checkpoint has.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConvertError> {
    read_optional(path)?.ok_or_else(|| ConvertError::Missing { path: path.into() })
}

/// Reads a file that a checkpoint may have.
pub(super) fn read_optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ConvertError> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|source| ConvertError::Json { path: path.into(), source })
}

/// Reads the text of a file, if it is there.
pub(super) fn read_text(path: &Path) -> Result<Option<String>, ConvertError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(ConvertError::Read { path: path.into(), source }),
    }
}
