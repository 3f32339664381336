//! An emulated CPU, and what the program has to say and do on it.

use std::ffi::OsString;
use std::path::Path;

use crate::TaskResult;
use crate::program::Program;

use super::legs::Verdict;

/// A CPU model of qemu and the tiers that it has.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The name that qemu's `-cpu` takes.
    pub(crate) cpu: &'static str,
    /// The tier that is to be chosen.
    pub(crate) tier: &'static str,
    /// Every tier that the CPU can run; one more would end in SIGILL on the real one.
    pub(crate) runs: &'static [&'static str],
}

/// Tokens of the comparison: enough that a wrong kernel shows, few enough for an emulator.
const TOKENS: u32 = 16;

impl Machine {
    /// The words before the program: `qemu -cpu MODEL` and further options.
    pub(crate) fn emulator(&self, qemu: &Path, options: &[&str]) -> Vec<OsString> {
        let mut words = vec![qemu.into(), "-cpu".into(), self.cpu.into()];
        words.extend(options.iter().map(OsString::from));
        words
    }

    /// Detection, choice and greedy text on this CPU, against the same tier forced on `peer`.
    pub(crate) fn check(&self, here: &Program, peer: &Program, model: &Path) -> TaskResult<Verdict> {
        self.judge_supported(&here.supported_tiers()?)?;
        let winner = here.winner(model)?;
        if winner != self.tier {
            return Err(format!("{winner} was chosen instead of {}", self.tier).into());
        }
        if !peer.supported_tiers()?.iter().any(|tier| tier == self.tier) {
            return Ok(Verdict::Skipped(format!("{} was chosen, but nothing to compare with runs it", self.tier)));
        }
        let chosen = here.generate(model, None, TOKENS)?;
        let forced = peer.generate(model, Some(self.tier), TOKENS)?;
        judge_texts(&chosen, &forced)?;
        Ok(Verdict::Passed(format!("{}, {TOKENS} tokens equal to the forced tier's", self.tier)))
    }

    fn judge_supported(&self, supported: &[String]) -> Result<(), String> {
        if !supported.iter().any(|tier| tier == self.tier) {
            return Err(format!("{} is not among the supported tiers {supported:?}", self.tier));
        }
        match supported.iter().find(|tier| !self.runs.contains(&tier.as_str())) {
            Some(tier) => Err(format!("{tier} is said to be supported, but {} cannot run it", self.cpu)),
            None => Ok(()),
        }
    }
}

fn judge_texts(chosen: &[u8], forced: &[u8]) -> Result<(), String> {
    if chosen.iter().all(u8::is_ascii_whitespace) {
        return Err("no text was generated".into());
    }
    if chosen != forced {
        let (chosen, forced) = (String::from_utf8_lossy(chosen), String::from_utf8_lossy(forced));
        return Err(format!("the texts differ: {chosen:?} here, {forced:?} with the tier forced"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { cpu: "Nehalem", tier: "cpu-sse42", runs: &["cpu-x64", "cpu-sse42"] };

    fn owned(tiers: &[&str]) -> Vec<String> {
        tiers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_tier_that_the_cpu_cannot_run_fails_the_leg() {
        assert!(MACHINE.judge_supported(&owned(&["cpu-x64", "cpu-sse42"])).is_ok());
        assert!(MACHINE.judge_supported(&owned(&["cpu-x64", "cpu-sse42", "cpu-haswell"])).is_err());
        assert!(MACHINE.judge_supported(&owned(&["cpu-x64"])).is_err());
    }

    #[test]
    fn equal_texts_count_only_when_there_is_text() {
        assert!(judge_texts(b" a fox", b" a fox").is_ok());
        assert!(judge_texts(b" a fox", b" a box").is_err());
        assert!(judge_texts(b"\n", b"\n").is_err());
    }
}
