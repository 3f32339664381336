//! Writing GBNF.

use std::fmt::Write;

/// Rules as they are collected: each has a name of its own.
#[derive(Debug, Default)]
pub(super) struct Rules {
    bodies: Vec<(String, String)>,
}

impl Rules {
    /// A name like `wanted` that no rule has yet.
    pub(super) fn reserve(&mut self, wanted: &str) -> String {
        let fits = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        // A name that is all dashes would do for GBNF, but not for readers.
        let stem: String = wanted.trim_matches(|c: char| !c.is_ascii_alphanumeric()).chars().map(fits).collect();
        let stem = if stem.is_empty() { "rule".to_owned() } else { stem };
        let mut name = stem.clone();
        let mut number = 1;
        while self.bodies.iter().any(|(taken, _)| *taken == name) {
            number += 1;
            name = format!("{stem}-{number}");
        }
        self.bodies.push((name.clone(), String::new()));
        name
    }

    /// Gives a reserved rule its body.
    pub(super) fn define(&mut self, name: &str, body: String) {
        if let Some((_, empty)) = self.bodies.iter_mut().find(|(reserved, _)| reserved == name) {
            *empty = body;
        }
    }

    /// Adds a rule, or finds one with the same body that was asked for by the same name.
    pub(super) fn add(&mut self, wanted: &str, body: String) -> String {
        let same = |(name, other): &&(String, String)| *other == body && name.starts_with(wanted);
        if let Some((name, _)) = self.bodies.iter().find(same) {
            return name.clone();
        }
        let name = self.reserve(wanted);
        self.define(&name, body);
        name
    }

    /// The grammar that begins with `root`.
    pub(super) fn into_gbnf(self) -> String {
        let mut text = String::new();
        for (name, body) in self.bodies {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name} ::= {body}");
        }
        text
    }
}

/// A literal, quoted.
pub(super) fn literal(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted += "\\\"",
            '\\' => quoted += "\\\\",
            ' '..='~' => quoted.push(c),
            _ => quoted += &escape(c),
        }
    }
    quoted + "\""
}

/// A set of characters.
pub(super) fn class(ranges: &[(char, char)]) -> String {
    let one = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { escape(c) };
    let range = |&(first, last): &(char, char)| match first == last {
        true => one(first),
        false => format!("{}-{}", one(first), one(last)),
    };
    format!("[{}]", ranges.iter().map(range).collect::<String>())
}

fn escape(c: char) -> String {
    format!("\\U{:08X}", u32::from(c))
}

/// Any of these.
pub(super) fn any_of(mut alternatives: Vec<String>) -> String {
    alternatives.dedup();
    match alternatives.as_slice() {
        [one] => one.clone(),
        _ => format!("({})", alternatives.join(" | ")),
    }
}
