//! A recorded comparison: what was measured, on which CPU, at which commit; as JSON and as a table.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use crate::agreement::{self, Agreement};
use crate::process::capture_text;

/// A comparison of us with a peer.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    /// Commit of this project; ends in `-dirty` when files were changed.
    pub(crate) commit: String,
    pub(crate) cpu: String,
    pub(crate) threads: usize,
    pub(crate) rounds: usize,
    pub(crate) peer: Peer,
    pub(crate) rows: Vec<Row>,
    pub(crate) agreements: Vec<Agreement>,
}

/// Whom we are compared with.
#[derive(Debug, Serialize)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) source: &'static str,
    /// The build's options.
    pub(crate) flags: Vec<String>,
}

/// One model and test: every round's tokens per second on either side, in order.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) model: String,
    /// llama-bench's name: `pp512`, `tg64`.
    pub(crate) test: String,
    /// The backend that we took.
    pub(crate) backend: String,
    pub(crate) ours: Vec<f64>,
    pub(crate) theirs: Vec<f64>,
}

impl Row {
    /// The median of the rounds' ratios, ours over the peer's: what slows a round slows both sides of it.
    pub(crate) fn ratio(&self) -> f64 {
        let ratios: Vec<f64> = self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours / theirs).collect();
        median(&ratios)
    }
}

impl Record {
    /// The table, in Markdown.
    pub(crate) fn table(&self) -> String {
        let Peer { name, source, flags } = &self.peer;
        let mut table = format!(
            "# gguf-loader and {name} on {}\n\nCommit {}, {} threads, medians of {} interleaved rounds, tokens per second; the ratio is the median of the rounds' own.\n\
             {name} is that of {source}, built with {}.\n\n\
             | model | test | backend | ours | {name} | ratio | range ours | range {name} |\n\
             |---|---|---|--:|--:|--:|--:|--:|\n",
            self.cpu,
            self.commit,
            self.threads,
            self.rounds,
            flags.join(" "),
        );
        for row in &self.rows {
            let (ours, theirs) = (range(&row.ours), range(&row.theirs));
            let _ = writeln!(
                table,
                "| {} | {} | {} | {:.1} | {:.1} | {:.2} | {ours} | {theirs} |",
                row.model,
                row.test,
                row.backend,
                median(&row.ours),
                median(&row.theirs),
                row.ratio(),
            );
        }
        table.push_str(&agreement::table(&self.agreements));
        table
    }

    /// Writes `peers-<cpu>.json` and `.md` into a folder; returns their common path without extension.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<PathBuf> {
        let stem = folder.join(format!("peers-{}", slug(&self.cpu)));
        fs::create_dir_all(folder)?;
        fs::write(stem.with_extension("json"), serde_json::to_string_pretty(self)? + "\n")?;
        fs::write(stem.with_extension("md"), self.table())?;
        Ok(stem)
    }
}

/// The commit of the project's folder, with `-dirty` when files were changed.
pub(crate) fn commit(root: &Path) -> String {
    let mut command = Command::new("git");
    command.args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]).current_dir(root);
    capture_text(&mut command).unwrap_or_else(|_| "unknown".to_owned())
}

/// The CPU's name, with family and model where the name alone is ambiguous (as in virtual machines).
pub(crate) fn cpu() -> String {
    if let Ok(text) = fs::read_to_string("/proc/cpuinfo") {
        return cpu_of(&text).unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    }
    capture_text(Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]))
        .unwrap_or_else(|_| std::env::consts::ARCH.to_owned())
}

/// The middle value, or the mean of the two in the middle; NaN of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

fn cpu_of(cpuinfo: &str) -> Option<String> {
    let field = |name: &str| {
        cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, v)| v.trim())
    };
    let name = field("model name")?;
    match (field("cpu family"), field("model")) {
        (Some(family), Some(model)) => Some(format!("{name} (family {family}, model {model})")),
        _ => Some(name.to_owned()),
    }
}

fn range(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{least:.1} to {most:.1}")
}

fn slug(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' }).collect();
    plain.split_whitespace().collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_outliers() {
        assert_eq!(median(&[5.0, 1.0, 900.0]), 5.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_cpu_is_named_with_family_and_model() {
        let cpuinfo = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n";
        let name = cpu_of(cpuinfo).unwrap();
        assert_eq!(name, "AMD EPYC (family 25, model 17)");
        assert_eq!(slug(&name), "amd-epyc-family-25-model-17");
    }

    #[test]
    fn the_table_has_one_line_a_row_with_medians_and_ratio() {
        let record = Record {
            commit: "0123abcd".into(),
            cpu: "Zen 4".into(),
            threads: 2,
            rounds: 3,
            peer: Peer { name: "llama.cpp", source: "a package", flags: vec!["GGML_NATIVE=ON".to_owned()] },
            rows: vec![Row {
                model: "Q4_0".into(),
                test: "pp512".into(),
                backend: "cpu-zen4".into(),
                ours: vec![110.0, 90.0, 105.0],
                theirs: vec![100.0, 101.0, 99.0],
            }],
            agreements: Vec::new(),
        };
        assert!(
            record
                .table()
                .contains("| Q4_0 | pp512 | cpu-zen4 | 105.0 | 100.0 | 1.06 | 90.0 to 110.0 | 99.0 to 101.0 |\n"),
            "{}",
            record.table()
        );
        let folder = tempfile::tempdir().unwrap();
        let stem = record.write(folder.path()).unwrap();
        assert!(stem.with_extension("json").is_file() && stem.with_extension("md").is_file());
    }
}
