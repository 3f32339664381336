//! The lexemes of JSON in the rules of a schema: braces, brackets and commas, keys with their colons, texts, numbers, words, blanks.
//!
//! Where a schema uses itself, no regular expression stands for the whole, and of several terminals llguidance follows the
//! longest: `{` alone never ends as long as another terminal might go on with `"name"`. So every terminal must end where all
//! others do that begin like it. These lexemes do. Blanks that the rules have twice in a row are two lexemes, since
//! elsewhere they have them once.

use super::gbnf::{Item, Rules, Symbol};

/// The characters that are lexemes by themselves.
const MARKS: &str = "{}[],:";
const BLANKS: &str = " \t\n\r";

/// What a part of a rule stands for, outside of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nothing,
    /// Blanks.
    Blank,
    /// A number, a text, a key or a word, or a part of one.
    Scalar,
    /// A mark, or several lexemes.
    Several,
}

impl Kind {
    /// What two parts are that stand beside each other, or for each other.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, kind) | (kind, Self::Nothing) => kind,
            (one, other) if one == other => one,
            _ => Self::Several,
        }
    }
}

/// A piece of a rule that is made of lexemes.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// A rule that is made of lexemes itself.
    Rule(&'a Item),
    /// One lexeme.
    Lexeme(Vec<Item>),
}

/// Where the lexemes in the rules of a schema begin and end.
#[derive(Debug)]
pub(super) struct Lexemes {
    kinds: Vec<Kind>,
    /// Of each rule, whether it is used outside of lexemes.
    outside: Vec<bool>,
}

impl Lexemes {
    /// Looks for the lexemes. `None` if a rule would have to be cut in the middle: one that is used within a lexeme and outside
    /// of any, or a literal of several that is repeated. No schema has such.
    pub(super) fn new(rules: &Rules) -> Option<Self> {
        let outside = vec![false; rules.len()];
        // What is not in order uses itself, and so holds several lexemes.
        let mut lexemes = Self { kinds: vec![Kind::Several; rules.len()], outside };
        for rule in rules.in_order() {
            let kinds = rules.alternatives(rule).iter().map(|items| lexemes.kind_of_all(items));
            lexemes.kinds[rule] = kinds.fold(Kind::Nothing, Kind::and);
        }
        lexemes.walk(rules).then_some(lexemes)
    }

    /// Whether a rule is made of lexemes, and is not one or a part of one.
    pub(super) fn make(&self, rule: usize) -> bool {
        self.kinds[rule] == Kind::Several && self.outside[rule]
    }

    /// The pieces of a sequence in a rule that is [made of lexemes](Self::make).
    pub(super) fn pieces<'a>(&self, items: &'a [Item]) -> Vec<Piece<'a>> {
        if is_text(items) {
            return vec![Piece::Lexeme(items.to_vec())];
        }
        let mut pieces = Vec::new();
        let mut last = Kind::Nothing;
        for item in items {
            let kind = self.kind(item);
            match (kind, &item.symbol) {
                (Kind::Nothing, _) => continue,
                (Kind::Several, Symbol::Literal(text)) => pieces.extend(
                    lexemes_of(text)
                        .map(|lexeme| Piece::Lexeme(vec![Item { symbol: Symbol::Literal(lexeme.to_vec()), ..*item }])),
                ),
                (Kind::Several, _) => pieces.push(Piece::Rule(item)),
                (Kind::Blank | Kind::Scalar, _) => match pieces.last_mut() {
                    Some(Piece::Lexeme(number)) if (last, kind) == (Kind::Scalar, Kind::Scalar) => {
                        number.push(item.clone());
                    }
                    _ => pieces.push(Piece::Lexeme(vec![item.clone()])),
                },
            }
            last = kind;
        }
        pieces
    }

    /// Marks the rules that are used outside of lexemes. Whether all of them can be cut.
    fn walk(&mut self, rules: &Rules) -> bool {
        let mut within = vec![false; rules.len()];
        let mut waiting = vec![(rules.root(), self.kinds[rules.root()] != Kind::Several)];
        while let Some((rule, in_lexeme)) = waiting.pop() {
            let seen = if in_lexeme { &mut within } else { &mut self.outside };
            if std::mem::replace(&mut seen[rule], true) {
                continue;
            }
            for items in rules.alternatives(rule) {
                for item in items {
                    let in_lexeme = in_lexeme || is_text(items) || self.kind(item) != Kind::Several;
                    match &item.symbol {
                        Symbol::Rule(used) => waiting.push((*used, in_lexeme)),
                        // It can be cut if it is there once.
                        Symbol::Literal(text) if !in_lexeme && !item.is_once() && lexemes_of(text).count() > 1 => {
                            return false;
                        }
                        Symbol::Literal(_) | Symbol::Class { .. } | Symbol::Token => {}
                    }
                }
            }
        }
        !(0..rules.len()).any(|rule| within[rule] && self.make(rule))
    }

    fn kind_of_all(&self, items: &[Item]) -> Kind {
        match is_text(items) {
            true => Kind::Scalar,
            false => items.iter().map(|item| self.kind(item)).fold(Kind::Nothing, Kind::and),
        }
    }

    fn kind(&self, item: &Item) -> Kind {
        match &item.symbol {
            Symbol::Rule(rule) => self.kinds[*rule],
            Symbol::Literal(text) => {
                let kind = |lexeme: &[u32]| match lexeme.first() {
                    Some(&code) if is_one_of(BLANKS, code) => Kind::Blank,
                    Some(&code) if is_one_of(MARKS, code) => Kind::Several,
                    _ => Kind::Scalar,
                };
                lexemes_of(text).map(kind).fold(Kind::Nothing, Kind::and)
            }
            Symbol::Class { ranges, negated: false }
                if ranges.iter().cloned().flatten().all(|code| is_one_of(BLANKS, code)) =>
            {
                Kind::Blank
            }
            Symbol::Class { .. } | Symbol::Token => Kind::Scalar,
        }
    }
}

/// Whether a quotation mark by itself begins this: all of it is then one text.
fn is_text(items: &[Item]) -> bool {
    items.first().is_some_and(|item| item.symbol == Symbol::Literal(vec![u32::from('"')]))
}

/// The lexemes of a literal.
fn lexemes_of(text: &[u32]) -> impl Iterator<Item = &[u32]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (lexeme, behind) = rest.split_at(length_of_lexeme(rest));
        rest = behind;
        (!lexeme.is_empty()).then_some(lexeme)
    })
}

fn length_of_lexeme(text: &[u32]) -> usize {
    let is_blank = |&&code: &&u32| is_one_of(BLANKS, code);
    match text.first() {
        Some(&code) if is_one_of(MARKS, code) => 1,
        Some(&code) if is_one_of(BLANKS, code) => text.iter().take_while(is_blank).count(),
        Some(&code) if code == u32::from('"') => {
            let mut escaped = false;
            let ends = |&code: &u32| {
                let ends = code == u32::from('"') && !escaped;
                escaped = code == u32::from('\\') && !escaped;
                ends
            };
            let Some(end) = text[1..].iter().position(ends) else { return text.len() };
            let length = end + 2;
            length + usize::from(text.get(length) == Some(&u32::from(':')))
        }
        _ => text.iter().take_while(|&&code| !is_one_of(MARKS, code) && !is_one_of(BLANKS, code)).count(),
    }
}

fn is_one_of(characters: &str, code: u32) -> bool {
    char::from_u32(code).is_some_and(|c| characters.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::gbnf;

    #[test]
    fn a_literal_is_cut_into_lexemes_of_which_a_key_has_its_colon() {
        let lexemes = |text: &str| {
            let text: Vec<u32> = text.chars().map(u32::from).collect();
            let lexemes =
                lexemes_of(&text).map(|lexeme| lexeme.iter().filter_map(|&code| char::from_u32(code)).collect());
            lexemes.collect::<Vec<String>>()
        };
        assert_eq!(lexemes(""), [""; 0]);
        assert_eq!(
            lexemes(r#"{"a":[1,"x:y"],"\"}\\":null}"#),
            ["{", r#""a":"#, "[", "1", ",", r#""x:y""#, "]", ",", r#""\"}\\":"#, "null", "}"]
        );
        assert_eq!(lexemes(" \n-1.5e3 \"open"), [" \n", "-1.5e3", " ", "\"open"]);
    }

    #[test]
    fn rules_of_a_schema_are_cut_between_lexemes() {
        let text = r#"root ::= "{" space ("\"a\":" space value)? space "}"
            space ::= (" " | "\n" [ \t]{0,20})?
            value ::= root | "-"? [1-9] | "\"" text "\"" | "[1]"
            text ::= "," | "{" "x""#;
        let rules = gbnf::parse(text).unwrap();
        let lexemes = Lexemes::new(&rules).unwrap();
        let written: Vec<Vec<usize>> = (0..rules.len())
            .filter(|&rule| lexemes.make(rule))
            .map(|rule| rules.alternatives(rule).iter().map(|items| lexemes.pieces(items).len()).collect())
            .collect();
        // Of `root`, its group, and `value`; `text` stands in a lexeme, and `space` is one.
        assert_eq!(written, [vec![5], vec![3], vec![1, 1, 1, 3]]);
    }

    #[test]
    fn what_begins_a_lexeme_in_one_rule_and_ends_it_in_another_is_refused() {
        let cut = |text: &str| Lexemes::new(&gbnf::parse(text).unwrap()).is_some();
        assert!(cut("root ::= \"[\" inner \"]\"\ninner ::= \",\" | root"));
        assert!(!cut("root ::= \"[\" inner \"]\" | \"\\\"\" inner \"\\\"\"\ninner ::= \",\" \"x\" | \"[\" root"));
        assert!(!cut("root ::= \"[\" root \"]\" | [a] (\"[1]\" \"\"){2} | \"[1]\"{2}"));
    }
}
