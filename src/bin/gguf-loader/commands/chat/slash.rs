//! Commands within a conversation.

use std::path::PathBuf;

use crate::failure::{Exit, Failure};

/// What `/help` says.
pub(super) const HELP: &str = "\
/system TEXT   set the instructions; without a text there are none
/undo          take the last question back, with its answer
/retry         answer the last question again
/reset         forget everything but the instructions
/fork          remember the conversation as it is
/back          return to the last /fork
/save FILE     write the conversation, as JSON
/load FILE     go on with a conversation that was written
/stats         what the last reply took, and how full the context is
/help          this
/quit          end; so does Ctrl-D

A line that ends with \\ goes on in the next one; \"\"\" begins and ends a message of several lines.
Ctrl-C stops an answer.";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Slash {
    Help,
    System(String),
    Undo,
    Retry,
    Reset,
    Fork,
    Back,
    Save(PathBuf),
    Load(PathBuf),
    Stats,
    Quit,
}

impl Slash {
    /// The command in a line; `None` for what is said to the model. `//` begins a message with a slash.
    pub(super) fn parse(line: &str) -> Option<Result<Self, Failure>> {
        let text = line.trim();
        if !text.starts_with('/') || text.starts_with("//") || text.contains('\n') {
            return None;
        }
        let (command, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        let file = || match rest {
            "" => Err(Failure::message(Exit::Usage, format!("{command} needs the name of a file"))),
            name => Ok(PathBuf::from(name)),
        };
        Some(match command {
            "/help" | "/?" => Ok(Self::Help),
            "/system" => Ok(Self::System(rest.to_owned())),
            "/undo" => Ok(Self::Undo),
            "/retry" => Ok(Self::Retry),
            "/reset" | "/clear" => Ok(Self::Reset),
            "/fork" => Ok(Self::Fork),
            "/back" => Ok(Self::Back),
            "/save" => file().map(Self::Save),
            "/load" => file().map(Self::Load),
            "/stats" => Ok(Self::Stats),
            "/quit" | "/exit" | "/bye" => Ok(Self::Quit),
            other => Err(Failure::message(Exit::Usage, format!("there is no command {other}"))
                .with_help("/help lists them; a message may begin with a slash after another one: //")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_at_the_beginning_is_a_command_and_two_are_none() {
        let parse = |line: &str| Slash::parse(line).map(|command| command.ok());
        assert_eq!(parse("hello /undo"), None);
        assert_eq!(parse("//undo"), None);
        assert_eq!(parse(" /undo "), Some(Some(Slash::Undo)));
        assert_eq!(parse("/system  Be kind. "), Some(Some(Slash::System("Be kind.".to_owned()))));
        assert_eq!(parse("/save my talk.json"), Some(Some(Slash::Save("my talk.json".into()))));
        assert_eq!(parse("/save"), Some(None));
        assert_eq!(parse("/nonsense"), Some(None));
        assert!(HELP.lines().filter(|line| line.starts_with('/')).all(|line| {
            let command = line.split_whitespace().next().unwrap();
            Slash::parse(&format!("{command} file")).is_some_and(|command| command.is_ok())
        }));
    }
}
