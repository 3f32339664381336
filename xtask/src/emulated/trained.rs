//! The trained ternary model of the tests, and the text that PyTorch wrote with it.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;

use crate::TaskResult;
use crate::program::Answer;
use crate::workspace::Workspace;

/// A model in the form in which BitNet is published, and one greedy continuation.
#[derive(Debug)]
pub(crate) struct Trained {
    pub(crate) published: PathBuf,
    /// Where each leg imports it to: importing is part of what an emulated CPU has to get right.
    pub(crate) imported: PathBuf,
    pub(crate) prompt: String,
    pub(crate) tokens: Vec<u32>,
    text: String,
}

#[derive(Debug, Deserialize)]
struct Recorded {
    continuations: Vec<Continuation>,
}

#[derive(Debug, Deserialize)]
struct Continuation {
    prompt: String,
    tokens: Vec<u32>,
    text: String,
    /// The least lead, in logits, that a chosen token had over the next.
    margin: f64,
}

impl Trained {
    /// Takes the clearest of the recorded continuations.
    pub(crate) fn read(workspace: &Workspace) -> TaskResult<Self> {
        let folder = workspace.root().join("tests/fixtures/bitnet");
        let recorded: Recorded = serde_json::from_str(&fs::read_to_string(folder.join("recorded.json"))?)?;
        let Continuation { prompt, tokens, text, .. } = recorded.clearest().ok_or("nothing is recorded")?;
        let imported = workspace.target().join("xtask-trained.gguf");
        Ok(Self { published: folder.join("scribe.gguf"), imported, prompt, tokens, text })
    }

    /// Whether an answer to the prompt is the recorded one.
    pub(crate) fn judge(&self, answer: &Answer) -> Result<(), String> {
        if answer.tokens != self.tokens || answer.text != self.text {
            return Err(format!("{:?} was written instead of {:?}", answer.text, self.text));
        }
        Ok(())
    }
}

impl Recorded {
    /// The continuation whose tokens were chosen most clearly: greedy text is the same on every CPU only where the leads
    /// are larger than what another order of additions changes.
    fn clearest(self) -> Option<Continuation> {
        self.continuations.into_iter().max_by(|one, other| one.margin.total_cmp(&other.margin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_recorded_answer_is_right() {
        let trained = Trained::read(&Workspace::locate().unwrap()).unwrap();
        let answer = |tokens: &[u32], text: &str| Answer {
            backend: "bitnet-x64".to_owned(),
            text: text.to_owned(),
            tokens: tokens.to_owned(),
        };
        assert!(trained.tokens.len() >= 16);
        assert_eq!(trained.judge(&answer(&trained.tokens, &trained.text)), Ok(()));
        assert!(trained.judge(&answer(&trained.tokens[1..], &trained.text)).is_err());
        assert!(trained.judge(&answer(&trained.tokens, "")).is_err());
    }

    #[test]
    fn of_several_continuations_the_clearest_is_taken() {
        let continuation =
            |margin| Continuation { prompt: format!("{margin}"), tokens: vec![1], text: String::new(), margin };
        let recorded = Recorded { continuations: [0.04, 0.14, 0.03].map(continuation).into() };
        assert_eq!(recorded.clearest().map(|clearest| clearest.prompt).as_deref(), Some("0.14"));
        assert!(Recorded { continuations: Vec::new() }.clearest().is_none());
    }
}
