//! Regular expressions to GBNF.

use regex_syntax::{
    ast::{self, Ast, ClassPerlKind, Visitor},
    hir::{Class, Hir, HirKind, Look, Repetition},
};

use super::{
    gbnf,
    notation::{Rules, any_of, class, literal},
};

/// Most repetitions of `{m,n}`. A longer text than a model is made to write is no loss; a shorter one would be wrong.
pub(super) const MOST: u32 = 1000;

/// Why a regular expression could not be made a grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegexError {
    /// It is no regular expression.
    #[error("line {line}, column {column} of the regular expression: {message}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The character in the line, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// It has an anchor or a word boundary in the middle.
    #[error("anchors and word boundaries have no place within the regular expression of a grammar")]
    Look,
    /// It asks for more repetitions than a grammar may have.
    #[error("{0} repetitions are more than the 1000 that a grammar may ask for")]
    Repetitions(u32),
    /// It has a set without characters, or only with such as a JSON string cannot have.
    #[error("the regular expression has a set that no character is in")]
    Nothing,
    /// It repeats without end what may be empty.
    #[error("the regular expression cannot be a grammar: {0}")]
    Grammar(#[source] gbnf::GrammarError),
}

/// The grammar of the texts that `pattern` matches as a whole.
pub(super) fn grammar_of(pattern: &str) -> Result<String, RegexError> {
    let mut rules = Rules::default();
    let root = rules.reserve("root");
    let body = Writer { rules: &mut rules, json: false }.whole(&parse(pattern)?)?;
    rules.define(&root, body);
    let text = rules.into_gbnf();
    gbnf::parse(&text).map_err(RegexError::Grammar)?;
    Ok(text)
}

/// What may stand between the quotes of a JSON string in which `pattern` matches somewhere.
pub(super) fn in_json_string(pattern: &str, any: &str, rules: &mut Rules) -> Result<String, RegexError> {
    let hir = parse(pattern)?;
    let mut writer = Writer { rules, json: true };
    let branches = match hir.kind() {
        HirKind::Alternation(branches) => branches.clone(),
        _ => vec![hir],
    };
    let mut alternatives = Vec::new();
    for branch in &branches {
        let (starts, ends) = anchors(branch);
        let body = writer.whole(branch)?;
        let around = |anchored: bool| if anchored { String::new() } else { format!("{any}*") };
        alternatives.push(format!("{} {body} {}", around(starts), around(ends)).trim().to_owned());
    }
    Ok(any_of(alternatives))
}

/// Parses a pattern in which `\d`, `\w` and `\s` are ASCII, as they are in JSON schemas.
fn parse(pattern: &str) -> Result<Hir, RegexError> {
    let syntax = |span: &ast::Span, message: String| RegexError::Syntax {
        line: span.start.line,
        column: span.start.column,
        message,
    };
    let parsed =
        ast::parse::Parser::new().parse(pattern).map_err(|error| syntax(error.span(), error.kind().to_string()))?;
    let mut classes = PerlClasses(Vec::new());
    let Ok(()) = ast::visit(&parsed, &mut classes);
    let mut ascii = pattern.to_owned();
    for (start, end, replacement) in classes.0.into_iter().rev() {
        ascii.replace_range(start..end, replacement);
    }
    regex_syntax::parse(&ascii).map_err(|error| match error {
        regex_syntax::Error::Parse(error) => syntax(error.span(), error.kind().to_string()),
        regex_syntax::Error::Translate(error) => syntax(error.span(), error.kind().to_string()),
        _ => RegexError::Syntax { line: 1, column: 1, message: error.to_string() },
    })
}

/// Where `\d` and its like stand, in order, and what is written for them.
struct PerlClasses(Vec<(usize, usize, &'static str)>);

impl PerlClasses {
    fn note(&mut self, class: &ast::ClassPerl) {
        let replacement = match (&class.kind, class.negated) {
            (ClassPerlKind::Digit, false) => "[0-9]",
            (ClassPerlKind::Digit, true) => "[^0-9]",
            (ClassPerlKind::Word, false) => "[0-9A-Za-z_]",
            (ClassPerlKind::Word, true) => "[^0-9A-Za-z_]",
            (ClassPerlKind::Space, false) => r"[ \t\n\r\f\v]",
            (ClassPerlKind::Space, true) => r"[^ \t\n\r\f\v]",
        };
        self.0.push((class.span.start.offset, class.span.end.offset, replacement));
    }
}

impl Visitor for &mut PerlClasses {
    type Output = ();
    type Err = std::convert::Infallible;

    fn finish(self) -> Result<(), Self::Err> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Self::Err> {
        if let Ast::ClassPerl(class) = ast {
            self.note(class);
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ast::ClassSetItem) -> Result<(), Self::Err> {
        if let ast::ClassSetItem::Perl(class) = item {
            self.note(class);
        }
        Ok(())
    }
}

/// Whether a pattern begins at the start of the text, and ends at its end.
fn anchors(hir: &Hir) -> (bool, bool) {
    let is = |hir: Option<&Hir>, look: Look| hir.is_some_and(|hir| *hir.kind() == HirKind::Look(look));
    match hir.kind() {
        HirKind::Concat(parts) => (is(parts.first(), Look::Start), is(parts.last(), Look::End)),
        HirKind::Look(_) => (is(Some(hir), Look::Start), is(Some(hir), Look::End)),
        _ => (false, false),
    }
}

struct Writer<'a> {
    rules: &'a mut Rules,
    /// Whether characters are written as they stand in a JSON string.
    json: bool,
}

impl Writer<'_> {
    /// A pattern without the anchors at its ends.
    fn whole(&mut self, hir: &Hir) -> Result<String, RegexError> {
        match hir.kind() {
            HirKind::Alternation(branches) => {
                Ok(any_of(branches.iter().map(|branch| self.whole(branch)).collect::<Result<_, _>>()?))
            }
            HirKind::Concat(parts) => {
                let (starts, ends) = anchors(hir);
                let inner = &parts[usize::from(starts)..parts.len() - usize::from(ends)];
                self.write(&Hir::concat(inner.to_vec()))
            }
            HirKind::Look(Look::Start | Look::End) => Ok("\"\"".to_owned()),
            HirKind::Capture(capture) => self.whole(&capture.sub),
            _ => self.write(hir),
        }
    }

    fn write(&mut self, hir: &Hir) -> Result<String, RegexError> {
        Ok(match hir.kind() {
            HirKind::Empty => "\"\"".to_owned(),
            HirKind::Literal(bytes) => {
                let text = String::from_utf8_lossy(&bytes.0);
                match self.json {
                    true => literal(&escaped(&text)),
                    false => literal(&text),
                }
            }
            HirKind::Class(class) => self.class(class)?,
            HirKind::Look(_) => return Err(RegexError::Look),
            HirKind::Repetition(repetition) => self.repetition(repetition)?,
            HirKind::Capture(capture) => self.write(&capture.sub)?,
            HirKind::Concat(parts) => {
                let parts = parts.iter().map(|part| self.write(part)).collect::<Result<Vec<_>, _>>()?;
                format!("({})", parts.join(" "))
            }
            HirKind::Alternation(branches) => {
                any_of(branches.iter().map(|branch| self.write(branch)).collect::<Result<_, _>>()?)
            }
        })
    }

    fn repetition(&mut self, repetition: &Repetition) -> Result<String, RegexError> {
        if repetition.min > MOST {
            return Err(RegexError::Repetitions(repetition.min));
        }
        let body = self.write(&repetition.sub)?;
        // As a rule of its own it counts once towards llama.cpp's limit, whatever is within.
        let name = self.rules.add("repeated", body);
        Ok(match (repetition.min, repetition.max) {
            (0, None) => format!("{name}*"),
            (1, None) => format!("{name}+"),
            (0, Some(1)) => format!("{name}?"),
            (min, None) => format!("{name}{{{min},}}"),
            (min, Some(max)) => format!("{name}{{{min},{}}}", max.min(MOST.max(min))),
        })
    }

    fn class(&self, of: &Class) -> Result<String, RegexError> {
        let ranges: Vec<(char, char)> = match of {
            Class::Unicode(class) => class.iter().map(|range| (range.start(), range.end())).collect(),
            Class::Bytes(class) => class.iter().map(|range| (range.start().into(), range.end().into())).collect(),
        };
        let written = if self.json { in_json(&ranges) } else { (!ranges.is_empty()).then(|| class(&ranges)) };
        written.ok_or(RegexError::Nothing)
    }
}

/// A text as it stands between the quotes of a JSON string.
fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// A set of characters as they stand in a JSON string: quotes, backslashes and control characters are escaped.
fn in_json(ranges: &[(char, char)]) -> Option<String> {
    const ESCAPED: [(char, &str); 7] = [
        ('"', "\\\""),
        ('\\', "\\\\"),
        ('\n', "\\n"),
        ('\r', "\\r"),
        ('\t', "\\t"),
        ('\u{8}', "\\b"),
        ('\u{c}', "\\f"),
    ];
    /// What stands for itself.
    const PLAIN: [(char, char); 4] = [(' ', '!'), ('#', '['), (']', '\u{d7ff}'), ('\u{e000}', char::MAX)];
    let mut plain = Vec::new();
    for &(first, last) in ranges {
        let common = PLAIN.iter().map(|&(from, to)| (first.max(from), last.min(to)));
        plain.extend(common.filter(|(from, to)| from <= to));
    }
    let mut alternatives: Vec<String> = if plain.is_empty() { Vec::new() } else { vec![class(&plain)] };
    for (c, escape) in ESCAPED {
        if ranges.iter().any(|&(first, last)| (first..=last).contains(&c)) {
            alternatives.push(literal(escape));
        }
    }
    (!alternatives.is_empty()).then(|| any_of(alternatives))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_defect_has_its_place() {
        let Err(RegexError::Syntax { line, column, .. }) = grammar_of("ab(c") else { panic!("accepted") };
        assert_eq!((line, column), (1, 3));
    }

    #[test]
    fn what_a_grammar_cannot_keep_is_refused() {
        assert_eq!(grammar_of(r"a\bc"), Err(RegexError::Look));
        assert_eq!(grammar_of("a^b"), Err(RegexError::Look));
        assert_eq!(grammar_of("a{5000}"), Err(RegexError::Repetitions(5000)));
        assert!(matches!(grammar_of("(a?b?)*"), Err(RegexError::Grammar(_))));
        assert_eq!(grammar_of(r"[a&&b]"), Err(RegexError::Nothing));
    }

    #[test]
    fn digits_are_ascii() {
        assert!(grammar_of(r"\d[\d_]").unwrap().starts_with("root ::= ([0-9] [0-9"));
    }
}
