//! The report of a selection for people.

use std::fmt;

use super::{Basis, Candidate, Outcome, Policy, Selection};

impl Selection {
    /// Why the winner won, in one line: for a log, or under a heading.
    pub fn explain(&self) -> String {
        let winner = self.backend().id();
        let speed = speed(self.prediction().tokens_per_second);
        let speed = match self.prediction().basis {
            Basis::Estimate => format!("{speed} tokens/s predicted"),
            Basis::Measurement => format!("{speed} tokens/s predicted from measurements"),
        };
        match self.policy() {
            Policy::Named(_) => format!("{winner}: asked for, {speed}"),
            Policy::Preference(ids) if !ids.is_empty() => {
                format!("{winner}: first of `{}` that can run, {speed}", self.policy())
            }
            _ => format!("{winner}: {speed}, {}", self.lead()),
        }
    }

    /// How far the winner is ahead of the next.
    fn lead(&self) -> String {
        let Some((next, prediction)) = self.eligible().nth(1) else {
            return "the only one that can run".to_owned();
        };
        let ratio = self.prediction().tokens_per_second / prediction.tokens_per_second;
        let next = match &next.device {
            Some(device) if next.id == self.backend().id() => format!("{} on {}", next.id, device.id),
            _ => next.id.to_owned(),
        };
        if ratio == 1.0 {
            let (own, other) = (self.prediction().score, prediction.score);
            let reason = if own.prompt > other.prompt {
                "faster with prompts"
            } else if own.decode > other.decode {
                "faster without"
            } else {
                "first by name"
            };
            format!("level with {next} and {reason}")
        } else if ratio < 1.1 {
            format!("{ratio:.2} times the next, {next}")
        } else {
            format!("{ratio:.1} times the next, {next}")
        }
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<Row> = self.candidates().iter().map(Row::of).collect();
        let width = |title: &str, cell: fn(&Row) -> &str| {
            rows.iter().map(|row| cell(row).chars().count()).chain([title.len()]).max().unwrap_or_default()
        };
        let id = width("backend", |row| row.id);
        let device = width("device", |row| &row.device);
        let speed = width("tokens/s", |row| &row.speed);
        let prompt = width("prompt", |row| &row.prompt);
        let decode = width("decode", |row| &row.decode);

        writeln!(formatter, "{}", self.explain())?;
        writeln!(
            formatter,
            "  {:id$}  {:device$}  {:>speed$}  {:>prompt$}  {:>decode$}",
            "backend", "device", "tokens/s", "prompt", "decode"
        )?;
        for (index, row) in rows.iter().enumerate() {
            let mark = if index == 0 { '*' } else { ' ' };
            writeln!(
                formatter,
                "{mark} {:id$}  {:device$}  {:>speed$}  {:>prompt$}  {:>decode$}  {}",
                row.id, row.device, row.speed, row.prompt, row.decode, row.note
            )?;
        }
        Ok(())
    }
}

/// A candidate as the report writes it.
struct Row {
    id: &'static str,
    device: String,
    speed: String,
    prompt: String,
    decode: String,
    note: String,
}

impl Row {
    fn of(candidate: &Candidate) -> Self {
        let dash = || "-".to_owned();
        let (speed, prompt, decode, note) = match &candidate.outcome {
            Outcome::Eligible(prediction) => (
                speed(prediction.tokens_per_second),
                speed(prediction.score.prompt),
                speed(prediction.score.decode),
                candidate.summary.clone(),
            ),
            Outcome::Ineligible(reason) => (dash(), dash(), dash(), reason.to_string()),
        };
        let device = candidate.device.as_ref().map_or_else(dash, |device| device.id.clone());
        Self { id: candidate.id, device, speed, prompt, decode, note }
    }
}

/// Three significant digits: more would claim a precision that a prediction does not have.
fn speed(tokens_per_second: f64) -> String {
    match tokens_per_second {
        fast if fast >= 99.95 => format!("{fast:.0}"),
        medium if medium >= 9.995 => format!("{medium:.1}"),
        slow if slow >= 0.01 => format!("{slow:.2}"),
        tiny => format!("{tiny:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::speed;

    #[test]
    fn speeds_have_three_significant_digits() {
        let cases = [(1234.5, "1234"), (312.4, "312"), (99.96, "100"), (31.24, "31.2"), (9.999, "10.0"), (3.0, "3.00")];
        for (value, text) in cases {
            assert_eq!(speed(value), text);
        }
        assert_eq!(speed(0.00012), "1.2e-4");
    }
}
