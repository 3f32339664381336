//! Reading GBNF: its syntax as llama.cpp has it, and whether anything fits it.

mod reader;
mod rules;

use reader::Reader;
pub(super) use rules::{Item, Rules, Symbol};

/// What is wrong with a grammar in GBNF, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column} of the grammar: {defect}")]
pub struct GrammarError {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// What is wrong there.
    pub defect: GrammarDefect,
}

/// What can be wrong with a grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrammarDefect {
    /// The text ends in the middle of a rule.
    #[error("the grammar ends here, where {0} is expected")]
    End(&'static str),
    /// Something else stands where this is expected.
    #[error("`{found}` where {expected} is expected")]
    Unexpected {
        /// What stands there.
        found: char,
        /// What may stand there.
        expected: &'static str,
    },
    /// A rule is used and not defined.
    #[error("there is no rule `{0}`")]
    Undefined(String),
    /// There is nothing to begin with.
    #[error("there is no rule `root`")]
    NoRoot,
    /// A rule begins with itself, or repeats what may be empty: no engine can begin with it.
    #[error("the rule `{0}` begins with itself, or repeats what may be empty")]
    LeftRecursion(String),
    /// Whatever is written, the rule asks for more.
    #[error("no finite text fits the rule `{0}`")]
    Endless(String),
    /// `{m,n}` with m above n, or beyond what the engine counts to.
    #[error("a repetition must be from m to n with m <= n <= 2000")]
    Repetition,
    /// Parentheses nested deeper than the engine follows.
    #[error("parentheses are nested more than 100 deep")]
    Depth,
}

/// The rules of a text, if some finite text fits them.
pub(super) fn parse(text: &str) -> Result<Rules, GrammarError> {
    let read = || {
        let rules = Reader::new(text).read()?;
        rules.check()?;
        Ok(rules)
    };
    read().map_err(|(offset, defect)| {
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let (line, column) = (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
        GrammarError { line, column, defect }
    })
}

/// Or a defect, with its offset in the text.
type Placed<T> = Result<T, (usize, GrammarDefect)>;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), GrammarError> {
        parse(text).map(drop)
    }

    fn defect(text: &str) -> Option<(usize, usize, GrammarDefect)> {
        check(text).err().map(|error| (error.line, error.column, error.defect))
    }

    #[test]
    fn a_grammar_with_all_there_is_is_accepted() {
        let text = "# moves\nroot ::= (move \"\\n\"){1,5} | [^a-z\\]\\x41]+ <[12]> !<think>\r\nmove ::= (\n \"a\"? |\n .) other*\nother ::= \"\\u00e9\" \"\"\n";
        assert_eq!(check(text), Ok(()));
    }

    #[test]
    fn a_defect_of_syntax_has_its_place() {
        use GrammarDefect::{End, Repetition, Unexpected};
        let unexpected = |found, expected| Unexpected { found, expected };
        assert_eq!(defect("root ::= \"a"), Some((1, 12, End("`\"`"))));
        assert_eq!(defect("root ::= \"a\"\nb := \"c\""), Some((2, 4, unexpected('=', "`::=`"))));
        assert_eq!(defect("root ::= \"ä\" & \"b\""), Some((1, 14, unexpected('&', "the end of the rule"))));
        assert_eq!(defect("root ::= * \"a\""), Some((1, 10, unexpected('*', "something to repeat"))));
        assert_eq!(defect("root ::= \"a\"{3,2}"), Some((1, 13, Repetition)));
        assert_eq!(defect("root ::= (\"a\""), Some((1, 14, End("`)`"))));
        assert_eq!(defect("root ::= [\\q]"), Some((1, 12, unexpected('q', "an escape"))));
        assert_eq!(defect(&format!("root ::= {}", "(".repeat(1000))), Some((1, 110, GrammarDefect::Depth)));
    }

    #[test]
    fn a_grammar_that_nothing_fits_is_refused() {
        use GrammarDefect::{Endless, LeftRecursion, NoRoot, Undefined};
        assert_eq!(defect("start ::= \"a\""), Some((1, 14, NoRoot)));
        assert_eq!(defect("root ::= \"a\" b"), Some((1, 14, Undefined("b".to_owned()))));
        assert_eq!(defect("root ::= \"a\" root"), Some((1, 1, Endless("root".to_owned()))));
        assert_eq!(defect("root ::= \"a\" | root \"b\""), Some((1, 1, LeftRecursion("root".to_owned()))));
        assert_eq!(
            defect("root ::= x \"b\"\nx ::= \"a\"? root | \"c\""),
            Some((1, 1, LeftRecursion("root".to_owned())))
        );
        assert_eq!(defect("root ::= (\"a\"?)*"), Some((1, 1, LeftRecursion("root".to_owned()))));
    }

    #[test]
    fn a_grammar_may_come_back_to_itself_after_a_character() {
        assert_eq!(check("root ::= \"(\" root \")\" | \"\""), Ok(()));
        assert_eq!(check("root ::= (\"a\" root)*"), Ok(()));
    }
}
