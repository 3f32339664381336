//! Reads messages: from a terminal with an editor and a history, from anything else line by line.

use std::io::{BufRead as _, StdinLock, stdin};

use rustyline::{DefaultEditor, error::ReadlineError};

use crate::failure::{Exit, Failure};

/// What marks the beginning and the end of a message of several lines.
const FENCE: &str = "\"\"\"";

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text(String),
    /// Ctrl-C where a message was to be written.
    Interrupted,
    End,
}

pub(super) enum Lines {
    Terminal(Box<DefaultEditor>),
    Other(StdinLock<'static>),
}

impl Lines {
    pub(super) fn open(is_interactive: bool) -> Result<Self, Failure> {
        if !is_interactive {
            return Ok(Self::Other(stdin().lock()));
        }
        let editor = DefaultEditor::new().map_err(|error| Failure::new(Exit::Unexpected, &error))?;
        Ok(Self::Terminal(Box::new(editor)))
    }

    /// The next message, of however many lines.
    pub(super) fn read(&mut self) -> Result<Line, Failure> {
        let message = join(|prompt| self.read_line(prompt))?;
        if let (Self::Terminal(editor), Line::Text(text)) = (self, &message) {
            // Without it a message cannot be called back: no reason to end.
            let _ = editor.add_history_entry(text);
        }
        Ok(message)
    }

    fn read_line(&mut self, prompt: &str) -> Result<Line, Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Failure::new(Exit::Unexpected, error).with_headline("cannot read stdin")
        };
        match self {
            Self::Terminal(editor) => match editor.readline(prompt) {
                Ok(text) => Ok(Line::Text(text)),
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(error) => Err(failed(&error)),
            },
            Self::Other(stdin) => {
                let mut bytes = Vec::new();
                if stdin.read_until(b'\n', &mut bytes).map_err(|error| failed(&error))? == 0 {
                    return Ok(Line::End);
                }
                let text = String::from_utf8(bytes)
                    .map_err(|_| Failure::message(Exit::Input, "a line of stdin is not valid UTF-8"))?;
                Ok(Line::Text(text.trim_end_matches(['\n', '\r']).to_owned()))
            }
        }
    }
}

/// Joins lines to a message: after a backslash at the end, and between two fences. `next` is given a prompt.
fn join(mut next: impl FnMut(&str) -> Result<Line, Failure>) -> Result<Line, Failure> {
    let mut text = match next("> ")? {
        Line::Text(text) => text,
        other => return Ok(other),
    };
    if let Some(begun) = text.trim_start().strip_prefix(FENCE) {
        let mut message = begun.to_owned();
        while !message.trim_end().ends_with(FENCE) {
            match next(". ")? {
                Line::Text(line) => message = message + "\n" + &line,
                // What is open at the end of the input is closed by it.
                Line::End => return Ok(Line::Text(message.trim_matches('\n').to_owned())),
                Line::Interrupted => return Ok(Line::Interrupted),
            }
        }
        let message = message.trim_end().trim_end_matches(FENCE);
        return Ok(Line::Text(message.trim_matches('\n').to_owned()));
    }
    while let Some(begun) = text.strip_suffix('\\') {
        match next(". ")? {
            Line::Text(line) => text = format!("{begun}\n{line}"),
            Line::End => return Ok(Line::Text(begun.to_owned())),
            Line::Interrupted => return Ok(Line::Interrupted),
        }
    }
    Ok(Line::Text(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(input: &str) -> Vec<String> {
        let mut lines = input.lines();
        let mut next = |_: &str| Ok(lines.next().map_or(Line::End, |line| Line::Text(line.to_owned())));
        let mut messages = Vec::new();
        while let Line::Text(message) = join(&mut next).unwrap() {
            messages.push(message);
        }
        messages
    }

    #[test]
    fn a_message_has_one_line_or_several() {
        assert_eq!(messages("one\ntwo"), ["one", "two"]);
        assert_eq!(messages("one\\\nand more\\\nof it\ntwo"), ["one\nand more\nof it", "two"]);
        assert_eq!(messages("\"\"\"\none\n\nand more\n\"\"\"\ntwo"), ["one\n\nand more", "two"]);
        assert_eq!(messages("\"\"\"one\"\"\"\ntwo"), ["one", "two"]);
    }

    #[test]
    fn the_end_of_the_input_ends_a_message() {
        assert_eq!(messages("one\\"), ["one"]);
        assert_eq!(messages("\"\"\"one\ntwo"), ["one\ntwo"]);
    }

    #[test]
    fn ctrl_c_gives_a_message_up() {
        let mut lines = [Line::Text("one\\".to_owned()), Line::Interrupted].into_iter();
        assert_eq!(join(|_| Ok(lines.next().unwrap())).unwrap(), Line::Interrupted);
    }
}
