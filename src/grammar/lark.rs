//! Writing Lark, in which llguidance takes grammars.

use std::{fmt::Write, ops::RangeInclusive};

use super::{
    gbnf::{Item, Rules, Symbol},
    lexemes::{Lexemes, Piece},
};

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
    /// is regular as a whole becomes one terminal. What uses itself cannot, and is said in Lark only if it `is_json`, which can
    /// be cut into [`Lexemes`].
    pub(super) fn new(rules: &Rules, is_json: bool) -> Option<Self> {
        let depth = rules.depth();
        if rules.names_tokens() || depth > DEEPEST {
            return None;
        }
        let lexemes = match rules.in_order().contains(&rules.root()) {
            true => None,
            false if is_json => Some(Lexemes::new(rules)?),
            false => return None,
        };
        let mut writer = Writer { lexemes, rules: String::new(), terminals: String::new(), n_joined: 0 };
        for rule in rules.reachable() {
            writer.rule(rule, rules.alternatives(rule));
        }
        let start = writer.name(rules.root());
        let Writer { rules, terminals, .. } = writer;
        // `no_forcing`: any spelling of a text in tokens is allowed, and not only the one that the tokenizer would choose.
        Some(Self { text: format!("%llguidance {{\"no_forcing\": true}}\nstart: {start}\n{rules}{terminals}"), depth })
    }
}

struct Writer {
    /// Of rules that cannot be one terminal.
    lexemes: Option<Lexemes>,
    rules: String,
    terminals: String,
    /// Terminals that are no rules of the grammar.
    n_joined: usize,
}

impl Writer {
    fn is_terminal(&self, rule: usize) -> bool {
        !self.lexemes.as_ref().is_some_and(|lexemes| lexemes.make(rule))
    }

    /// Lark tells terminals from rules by their case.
    fn name(&self, rule: usize) -> String {
        format!("{}{rule}", if self.is_terminal(rule) { 'R' } else { 'r' })
    }

    fn rule(&mut self, rule: usize, alternatives: &[Vec<Item>]) {
        let name = self.name(rule);
        let is_terminal = self.is_terminal(rule);
        let bodies =
            alternatives.iter().map(|items| if is_terminal { self.terminal(items) } else { self.sequence(items) });
        let line = format!("{name}: {}\n", bodies.collect::<Vec<_>>().join(" | "));
        if is_terminal { self.terminals += &line } else { self.rules += &line }
    }

    /// Lexemes and rules, of which each lexeme becomes a terminal.
    fn sequence(&mut self, items: &[Item]) -> String {
        let pieces = self.lexemes.as_ref().map(|lexemes| lexemes.pieces(items)).unwrap_or_default();
        let parts = pieces.into_iter().map(|piece| match piece {
            Piece::Rule(item) => self.item(item),
            Piece::Lexeme(items) => {
                self.n_joined += 1;
                let body = self.terminal(&items);
                let _ = writeln!(self.terminals, "J{}: {body}", self.n_joined);
                format!("J{}", self.n_joined)
            }
        });
        some_or_nothing(parts.collect())
    }

    /// What nothing stands between becomes one literal: llguidance fails where one alternative is `"ab" "cd"` and another `"abcd"`.
    fn terminal(&self, items: &[Item]) -> String {
        let mut parts = Vec::with_capacity(items.len());
        let mut text = Vec::new();
        for item in items {
            match &item.symbol {
                Symbol::Literal(further) if item.is_once() => text.extend(further),
                _ => {
                    parts.extend((!text.is_empty()).then(|| literal(&std::mem::take(&mut text))));
                    parts.push(self.item(item));
                }
            }
        }
        parts.extend((!text.is_empty()).then(|| literal(&text)));
        some_or_nothing(parts)
    }

    fn item(&self, item: &Item) -> String {
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
    }
}

fn some_or_nothing(parts: Vec<String>) -> String {
    if parts.is_empty() { "\"\"".to_owned() } else { parts.join(" ") }
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
