//! Writing GBNF.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt::Write,
};

/// Rules as they are collected: each has a name of its own. A schema may have thousands of them.
#[derive(Debug, Default)]
pub(super) struct Rules {
    bodies: Vec<(String, String)>,
    /// Where each name's rule is.
    places: HashMap<String, usize>,
    /// How many names were made of a stem, so that the next one is found at once.
    of_stem: HashMap<String, u32>,
    /// The rules that were added, by stem and body.
    added: HashMap<(String, String), String>,
}

impl Rules {
    /// A name like `wanted` that no rule has yet.
    pub(super) fn reserve(&mut self, wanted: &str) -> String {
        self.reserve_stem(stem(wanted))
    }

    fn reserve_stem(&mut self, stem: String) -> String {
        let count = self.of_stem.entry(stem.clone()).or_default();
        loop {
            *count += 1;
            let name = if *count == 1 { stem.clone() } else { format!("{stem}-{count}") };
            // `a` made it its second name, or it is what somebody calls `a-2`.
            if let Entry::Vacant(vacant) = self.places.entry(name.clone()) {
                vacant.insert(self.bodies.len());
                self.bodies.push((name.clone(), String::new()));
                return name;
            }
        }
    }

    /// Gives a reserved rule its body.
    pub(super) fn define(&mut self, name: &str, body: String) {
        if let Some((_, empty)) = self.places.get(name).and_then(|&place| self.bodies.get_mut(place)) {
            *empty = body;
        }
    }

    /// Adds a rule, or finds one with the same body that was asked for by the same name.
    pub(super) fn add(&mut self, wanted: &str, body: String) -> String {
        let key = (stem(wanted), body);
        if let Some(name) = self.added.get(&key) {
            return name.clone();
        }
        let name = self.reserve_stem(key.0.clone());
        self.define(&name, key.1.clone());
        self.added.insert(key, name.clone());
        name
    }

    pub(super) fn len(&self) -> usize {
        self.bodies.len()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Forgets all rules but the first `count`, which must not refer to the others.
    pub(super) fn truncate(&mut self, count: usize) {
        for (name, _) in self.bodies.drain(count..) {
            self.places.remove(&name);
        }
        let places = &self.places;
        self.added.retain(|_, name| places.contains_key(name));
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

/// What of `wanted` can be a name.
fn stem(wanted: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    // A name that is all dashes would do for GBNF, but not for readers.
    let stem: String = wanted.trim_matches(|c: char| !c.is_ascii_alphanumeric()).chars().map(fits).collect();
    if stem.is_empty() { "rule".to_owned() } else { stem }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_name_of_its_own_and_equal_ones_share_it() {
        let mut rules = Rules::default();
        assert_eq!(rules.add("a-2", "x".to_owned()), "a-2");
        assert_eq!(rules.add("a", "x".to_owned()), "a");
        assert_eq!(rules.add("a", "y".to_owned()), "a-3");
        assert_eq!(rules.add("a", "x".to_owned()), "a");
        assert_eq!(rules.add("~a/", "x".to_owned()), "a");
        assert_eq!(rules.reserve("a"), "a-4");
        assert_eq!(rules.reserve("--"), "rule");
        rules.define("a-4", "z".to_owned());
        assert!(rules.into_gbnf().contains("a-4 ::= z\n"));
    }
}
