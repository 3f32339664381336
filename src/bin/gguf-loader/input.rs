//! Text from a file or from stdin, byte for byte.

use std::{
    convert::Infallible,
    fmt, fs,
    io::{self, Read as _},
    path::PathBuf,
    str::FromStr,
};

use crate::failure::{Exit, Failure};

/// Where to read from. On the command line `-` is stdin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Stdin,
    File(PathBuf),
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "-" { Self::Stdin } else { Self::File(text.into()) })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => formatter.write_str("stdin"),
            Self::File(path) => path.display().fmt(formatter),
        }
    }
}

impl Source {
    /// All of it. Nothing is trimmed: a line break at the end is part of the text.
    pub(crate) fn read_text(&self) -> Result<String, Failure> {
        let bytes = match self {
            Self::Stdin => {
                let mut bytes = Vec::new();
                let read = io::stdin().lock().read_to_end(&mut bytes);
                read.map_err(|error| Failure::new(Exit::Unexpected, &error).with_headline("cannot read stdin"))?;
                bytes
            }
            Self::File(path) => fs::read(path).map_err(|error| Failure::unreadable(path, &error))?,
        };
        String::from_utf8(bytes).map_err(|error| {
            let (offset, byte) = (error.utf8_error().valid_up_to(), error.as_bytes());
            let byte = byte.get(offset).copied().unwrap_or_default();
            let message = format!("{self} is not valid UTF-8: byte {offset} is {byte:#04x}");
            Failure::message(Exit::Input, message).with_help("convert the text to UTF-8, e.g. with iconv")
        })
    }
}
