//! Reads messages: from a terminal with an editor and a history, from anything else line by line.

use std::{
    fs,
    io::{BufRead as _, StdinLock, stdin},
    path::PathBuf,
};

use rustyline::{Config, DefaultEditor, error::ReadlineError};

use crate::{
    failure::{Exit, Failure},
    output::Output,
};

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
    Terminal(Box<Terminal>),
    Other(StdinLock<'static>),
}

pub(super) struct Terminal {
    editor: DefaultEditor,
    /// Where what was typed is kept for the next time.
    history: Option<PathBuf>,
}

impl Lines {
    pub(super) fn open(is_interactive: bool, history: Option<PathBuf>) -> Result<Self, Failure> {
        if !is_interactive {
            return Ok(Self::Other(stdin().lock()));
        }
        let config = Config::builder().history_ignore_space(true).build();
        let editor = DefaultEditor::with_config(config).map_err(|error| Failure::new(Exit::Unexpected, &error))?;
        let mut terminal = Terminal { editor, history };
        if let Some(file) = &terminal.history {
            // There is none the first time; what else is wrong with it shows when it is written.
            let _ = terminal.editor.load_history(file);
        }
        Ok(Self::Terminal(Box::new(terminal)))
    }

    /// The next message, of however many lines.
    pub(super) fn read(&mut self, output: &Output) -> Result<Line, Failure> {
        let message = join(|prompt| self.read_line(prompt))?;
        if let (Self::Terminal(terminal), Line::Text(text)) = (self, &message) {
            terminal.remember(text, output);
        }
        Ok(message)
    }

    fn read_line(&mut self, prompt: &str) -> Result<Line, Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Failure::new(Exit::Unexpected, error).with_headline("cannot read stdin")
        };
        match self {
            Self::Terminal(terminal) => match terminal.editor.readline(prompt) {
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

impl Terminal {
    /// At once, and not at the end: a program that is killed has kept what was typed. Whatever goes wrong is no reason to end.
    fn remember(&mut self, text: &str, output: &Output) {
        let is_new = self.editor.add_history_entry(text).unwrap_or(false);
        let Some(file) = self.history.as_ref().filter(|_| is_new) else { return };
        let kept = match file.parent() {
            Some(folder) => fs::create_dir_all(folder).map_err(ReadlineError::Io),
            None => Ok(()),
        };
        if let Err(error) = kept.and_then(|()| self.editor.append_history(file)) {
            output.note(format!("(no history is kept: cannot write {}: {error})", file.display()));
            self.history = None;
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
