//! Writing Lark, in which llguidance takes grammars.

use std::{fmt::Write, ops::RangeInclusive};

use super::gbnf::{Item, Rules, Symbol};

/// Most rules within each other: llguidance reads them by recursion.
const DEEPEST: usize = 4000;

/// A grammar in Lark.
pub(super) struct Lark {
    pub(super) text: String,
    /// Most rules within each other.
    pub(super) depth: usize,
}

impl Lark {
    /// `rules` in Lark, or `None` where llguidance would not mean the same by them, or not follow.
    ///
    /// Lark has two kinds of rules. Terminals are regular expressions, which are followed exactly. The others are made of
    /// terminals, and there the longest terminal wins that fits: a text that could be read otherwise may be refused. So what
    /// is regular becomes one terminal. What uses itself cannot; there the border between a terminal and what follows it must be
    /// plain, as it is in JSON, for which `plain_borders` vouches.
    pub(super) fn new(rules: &Rules, plain_borders: bool) -> Option<Self> {
        let irregular = rules.irregular();
        let depth = rules.depth();
        if rules.names_tokens() || (irregular[rules.root()] && !plain_borders) || depth > DEEPEST {
            return None;
        }
        let mut writer = Writer { irregular, rules: String::new(), terminals: String::new(), n_joined: 0 };
        for rule in 0..rules.len() {
            writer.rule(rule, rules.alternatives(rule));
        }
        let start = writer.name(rules.root());
        let Writer { rules, terminals, .. } = writer;
        // `no_forcing`: any spelling of a text in tokens is allowed, and not only the one that the tokenizer would choose.
        Some(Self { text: format!("%llguidance {{\"no_forcing\": true}}\nstart: {start}\n{rules}{terminals}"), depth })
    }
}

struct Writer {
    /// The rules that cannot be terminals.
    irregular: Vec<bool>,
    rules: String,
    terminals: String,
    /// Terminals that are no rules of the grammar.
    n_joined: usize,
}

impl Writer {
    /// Lark tells terminals from rules by their case.
    fn name(&self, rule: usize) -> String {
        format!("{}{rule}", if self.irregular[rule] { 'r' } else { 'R' })
    }

    fn rule(&mut self, rule: usize, alternatives: &[Vec<Item>]) {
        let name = self.name(rule);
        let irregular = self.irregular[rule];
        let bodies = alternatives.iter().map(|items| if irregular { self.parts(items) } else { self.terminal(items) });
        let line = format!("{name}: {}\n", bodies.collect::<Vec<_>>().join(" | "));
        if irregular { self.rules += &line } else { self.terminals += &line }
    }

    /// A sequence in which rules stand: what is between them becomes one terminal each.
    fn parts(&mut self, items: &[Item]) -> String {
        let is_rule = |item: &Item| matches!(item.symbol, Symbol::Rule(rule) if self.irregular[rule]);
        let runs: Vec<(bool, &[Item])> =
            items.chunk_by(|a, b| !is_rule(a) && !is_rule(b)).map(|run| (is_rule(&run[0]), run)).collect();
        let mut parts = Vec::with_capacity(runs.len());
        for (is_rule, run) in runs {
            if is_rule {
                parts.push(self.terminal(run));
            } else {
                self.n_joined += 1;
                let body = self.terminal(run);
                let _ = writeln!(self.terminals, "J{}: {body}", self.n_joined);
                parts.push(format!("J{}", self.n_joined));
            }
        }
        if parts.is_empty() { "\"\"".to_owned() } else { parts.join(" ") }
    }

    fn terminal(&self, items: &[Item]) -> String {
        if items.is_empty() {
            return "\"\"".to_owned();
        }
        let parts = items.iter().map(|item| {
            let symbol = match &item.symbol {
                Symbol::Rule(rule) => self.name(*rule),
                Symbol::Literal(text) => literal(text),
                Symbol::Class { ranges, negated } => class(ranges, *negated),
                // `Lark::new` takes no grammar with any.
                Symbol::Token => NOTHING.to_owned(),
            };
            match (item.least, item.most) {
                (1, Some(1)) => symbol,
                (0, None) => symbol + "*",
                (least, None) => format!("{symbol}{{{least},}}"),
                (least, Some(most)) => format!("{symbol}{{{least},{most}}}"),
            }
        });
        parts.collect::<Vec<_>>().join(" ")
    }
}

/// A text, as a regular expression: what is no character fits nothing.
fn literal(text: &[u32]) -> String {
    if text.is_empty() {
        return "\"\"".to_owned();
    }
    match text.iter().map(|&code| char::from_u32(code)).collect::<Option<String>>() {
        Some(text) => format!("/{}/", text.chars().map(|c| format!("\\x{{{:X}}}", u32::from(c))).collect::<String>()),
        None => NOTHING.to_owned(),
    }
}

/// What nothing fits.
const NOTHING: &str = "/[^\\x{0}-\\x{10FFFF}]/";

fn class(ranges: &[RangeInclusive<u32>], negated: bool) -> String {
    /// Halves of characters in UTF-16, which are none.
    const SURROGATES: RangeInclusive<u32> = 0xD800..=0xDFFF;
    let mut text = String::new();
    for range in ranges {
        for (least, most) in [(0, SURROGATES.start() - 1), (SURROGATES.end() + 1, u32::from(char::MAX))] {
            let (first, last) = (least.max(*range.start()), most.min(*range.end()));
            if first <= last {
                let _ = write!(text, "\\x{{{first:X}}}-\\x{{{last:X}}}");
            }
        }
    }
    match (text.is_empty(), negated) {
        (true, true) => "/[\\x{0}-\\x{10FFFF}]/".to_owned(),
        (true, false) => NOTHING.to_owned(),
        (false, true) => format!("/[^{text}]/"),
        (false, false) => format!("/[{text}]/"),
    }
}
