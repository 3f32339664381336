//! An emulated CPU, and what the program has to say and do on it.

use std::ffi::OsString;
use std::path::Path;

use crate::TaskResult;
use crate::program::{Answer, Program};

use super::legs::Verdict;
use super::trained::Trained;

/// A CPU model of qemu and the tiers that it has. A tier's backends are `cpu-TIER`, with llama.cpp's kernels, and
/// `bitnet-TIER`, with the ternary ones.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The name that qemu's `-cpu` takes.
    pub(crate) cpu: &'static str,
    /// The tier that is to be chosen.
    pub(crate) tier: &'static str,
    /// Every tier that the CPU can run; one more would end in SIGILL on the real one.
    pub(crate) runs: &'static [&'static str],
}

const PROMPT: &str = "The quick brown fox";
/// Tokens of the comparison: enough that a wrong kernel shows, few enough for an emulator.
const TOKENS: usize = 16;

impl Machine {
    /// The words before the program: `qemu -cpu MODEL` and further options.
    pub(crate) fn emulator(&self, qemu: &Path, options: &[&str]) -> Vec<OsString> {
        let mut words = vec![qemu.into(), "-cpu".into(), self.cpu.into()];
        words.extend(options.iter().map(OsString::from));
        words
    }

    /// Detection, choice and greedy text on this CPU, against the same tier forced on `peer`.
    pub(crate) fn check(&self, here: &Program, peer: &Program, model: &Path) -> TaskResult<Verdict> {
        self.judge_supported(&here.supported_backends()?)?;
        let expected = format!("cpu-{}", self.tier);
        let winner = here.winner(model)?;
        if winner != expected {
            return Err(format!("{winner} was chosen instead of {expected}").into());
        }
        if !peer.supported_backends()?.contains(&expected) {
            return Ok(Verdict::Skipped(format!("{expected} was chosen, but nothing to compare with runs it")));
        }
        let chosen = here.run(model, None, PROMPT, TOKENS)?;
        let forced = peer.run(model, Some(&expected), PROMPT, TOKENS)?;
        judge_texts(&chosen, &forced)?;
        Ok(Verdict::Passed(format!("{expected}, text of {TOKENS} tokens as with the tier forced")))
    }

    /// Import, choice and greedy text of a trained ternary model on this CPU, against what PyTorch wrote.
    pub(crate) fn check_ternary(&self, here: &Program, trained: &Trained) -> TaskResult<Verdict> {
        here.import(&trained.published, &trained.imported)?;
        let answer = here.run(&trained.imported, None, &trained.prompt, trained.tokens.len())?;
        let expected = format!("bitnet-{}", self.tier);
        if answer.backend != expected {
            return Err(format!("{} was chosen instead of {expected}", answer.backend).into());
        }
        trained.judge(&answer)?;
        Ok(Verdict::Passed(format!("{expected}, text of {} tokens as PyTorch's", trained.tokens.len())))
    }

    fn judge_supported(&self, supported: &[String]) -> Result<(), String> {
        for kernels in ["cpu", "bitnet"] {
            let tier = |id: &str| Some(id.strip_prefix(kernels)?.strip_prefix('-')?.to_owned());
            let tiers: Vec<String> = supported.iter().filter_map(|id| tier(id)).collect();
            if !tiers.iter().any(|tier| tier == self.tier) {
                return Err(format!("{kernels}-{} is not among the supported backends {supported:?}", self.tier));
            }
            if let Some(tier) = tiers.iter().find(|tier| !self.runs.contains(&tier.as_str())) {
                return Err(format!("{kernels}-{tier} is said to be supported, but {} cannot run it", self.cpu));
            }
        }
        Ok(())
    }
}

fn judge_texts(chosen: &Answer, forced: &Answer) -> Result<(), String> {
    if chosen.text.trim().is_empty() {
        return Err("no text was generated".into());
    }
    if chosen != forced {
        return Err(format!("the answers differ: {chosen:?} here, {forced:?} with the tier forced"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { cpu: "Nehalem", tier: "sse42", runs: &["x64", "sse42"] };

    fn owned(ids: &[&str]) -> Vec<String> {
        ids.iter().map(ToString::to_string).collect()
    }

    fn answer(backend: &str, text: &str) -> Answer {
        Answer { backend: backend.to_owned(), text: text.to_owned(), tokens: vec![1] }
    }

    #[test]
    fn a_tier_that_the_cpu_cannot_run_fails_the_leg() {
        let both = |tier: &str| [format!("cpu-{tier}"), format!("bitnet-{tier}")];
        let supported = [both("x64"), both("sse42"), [String::from("reference"), String::from("cuda")]].concat();
        assert_eq!(MACHINE.judge_supported(&supported), Ok(()));
        for one_more in both("haswell") {
            assert!(MACHINE.judge_supported(&[&supported[..], &[one_more]].concat()).is_err());
        }
    }

    #[test]
    fn the_tier_must_be_supported_with_both_kinds_of_kernels() {
        assert!(MACHINE.judge_supported(&owned(&["cpu-sse42", "bitnet-sse42"])).is_ok());
        assert!(MACHINE.judge_supported(&owned(&["cpu-sse42", "bitnet-x64"])).is_err());
        assert!(MACHINE.judge_supported(&owned(&["cpu-x64", "bitnet-sse42"])).is_err());
    }

    #[test]
    fn equal_texts_count_only_when_there_is_text_of_the_same_tier() {
        let fox = answer("cpu-sse42", " a fox");
        assert!(judge_texts(&fox, &fox).is_ok());
        assert!(judge_texts(&fox, &answer("cpu-sse42", " a box")).is_err());
        assert!(judge_texts(&fox, &answer("cpu-x64", " a fox")).is_err());
        assert!(judge_texts(&answer("cpu-sse42", "\n"), &answer("cpu-sse42", "\n")).is_err());
    }
}
