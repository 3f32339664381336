//! Reading GBNF: its syntax as llama.cpp has it, and whether anything fits it.

use std::{collections::HashMap, iter::Peekable, str::CharIndices};

/// llama.cpp's limit for `{m,n}`.
const MOST_REPETITIONS: u32 = 2000;
/// Parentheses within each other; llama.cpp's parser is recursive.
const DEEPEST: u32 = 100;

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

/// Whether `text` is a grammar that some finite text fits.
pub(super) fn check(text: &str) -> Result<(), GrammarError> {
    let mut reader = Reader { text, rest: text.char_indices().peekable(), rules: Vec::new(), names: HashMap::new() };
    reader.read().and_then(|()| reader.check_rules()).map_err(|(offset, defect)| {
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let (line, column) = (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
        GrammarError { line, column, defect }
    })
}

type Placed<T> = Result<T, (usize, GrammarDefect)>;

/// A rule, or a group in parentheses, which is a rule without a name.
#[derive(Debug, Default)]
struct Rule {
    name: String,
    /// Where it is first used or defined.
    place: usize,
    defined: bool,
    alternatives: Vec<Vec<Item>>,
}

/// A part of a rule.
#[derive(Debug, Clone, Copy)]
struct Item {
    /// The rule that stands here; `None` for characters and tokens.
    rule: Option<usize>,
    /// Whether it may be missing.
    optional: bool,
    /// Whether it may come again and again.
    endless: bool,
}

struct Reader<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
    rules: Vec<Rule>,
    names: HashMap<&'a str, usize>,
}

impl<'a> Reader<'a> {
    fn read(&mut self) -> Placed<()> {
        self.skip_space(true);
        while self.rest.peek().is_some() {
            let (place, name) = self.name("the name of a rule")?;
            let rule = self.rule(name, place);
            self.rules[rule].defined = true;
            self.skip_space(false);
            for sign in [':', ':', '='] {
                self.expect(sign, "`::=`")?;
            }
            self.skip_space(true);
            self.alternatives(rule, 0)?;
            match self.rest.peek() {
                None | Some((_, '\n' | '\r')) => self.skip_space(true),
                Some(&(place, found)) => {
                    return Err((place, GrammarDefect::Unexpected { found, expected: "the end of the rule" }));
                }
            }
        }
        Ok(())
    }

    fn check_rules(&self) -> Placed<()> {
        if let Some(rule) = self.rules.iter().find(|rule| !rule.defined) {
            return Err((rule.place, GrammarDefect::Undefined(rule.name.clone())));
        }
        let root = *self.names.get("root").ok_or((self.text.len(), GrammarDefect::NoRoot))?;
        let finite = self.fixpoint(|item, finite| item.optional || item.rule.is_none_or(|rule| finite[rule]));
        let mut reachable = vec![root];
        let mut seen = vec![false; self.rules.len()];
        seen[root] = true;
        while let Some(index) = reachable.pop() {
            let rule = &self.rules[index];
            if !finite[index] {
                return Err((rule.place, GrammarDefect::Endless(rule.name.clone())));
            }
            for used in rule.alternatives.iter().flatten().filter_map(|item| item.rule) {
                if !std::mem::replace(&mut seen[used], true) {
                    reachable.push(used);
                }
            }
        }
        let empty = self.fixpoint(|item, empty| item.optional || item.rule.is_some_and(|rule| empty[rule]));
        self.check_beginnings(&empty)
    }

    /// For which rules one of the alternatives has `holds` for all items, given for which rules that is so.
    fn fixpoint(&self, holds: impl Fn(&Item, &[bool]) -> bool) -> Vec<bool> {
        let mut users = vec![Vec::new(); self.rules.len()];
        for (index, rule) in self.rules.iter().enumerate() {
            for used in rule.alternatives.iter().flatten().filter_map(|item| item.rule) {
                users[used].push(index);
            }
        }
        let mut known = vec![false; self.rules.len()];
        let mut waiting: Vec<usize> = (0..self.rules.len()).collect();
        while let Some(index) = waiting.pop() {
            let rule = &self.rules[index];
            if !known[index] && rule.alternatives.iter().any(|items| items.iter().all(|item| holds(item, &known))) {
                known[index] = true;
                // What is known of this rule may decide those that use it.
                waiting.extend(&users[index]);
            }
        }
        known
    }

    /// No rule may come back to itself before a character was written.
    fn check_beginnings(&self, empty: &[bool]) -> Placed<()> {
        let begins_with: Vec<Vec<usize>> = (self.rules.iter().enumerate())
            .map(|(index, rule)| {
                let mut first = Vec::new();
                for items in &rule.alternatives {
                    for item in items {
                        first.extend(item.rule);
                        let may_be_empty = item.rule.is_some_and(|rule| empty[rule]);
                        // Empty again and again: as if the rule began with itself.
                        first.extend((item.endless && may_be_empty).then_some(index));
                        if !item.optional && !may_be_empty {
                            break;
                        }
                    }
                }
                first
            })
            .collect();
        // Rules that begin with none that is left can be taken away, until a circle remains.
        let mut left: Vec<bool> = vec![true; self.rules.len()];
        let mut beginnings: Vec<usize> = begins_with.iter().map(Vec::len).collect();
        let mut begun_by = vec![Vec::new(); self.rules.len()];
        for (index, first) in begins_with.iter().enumerate() {
            first.iter().for_each(|&first| begun_by[first].push(index));
        }
        let mut free: Vec<usize> = (0..left.len()).filter(|&index| beginnings[index] == 0).collect();
        while let Some(index) = free.pop() {
            left[index] = false;
            for &rule in &begun_by[index] {
                beginnings[rule] -= 1;
                if beginnings[rule] == 0 {
                    free.push(rule);
                }
            }
        }
        let Some(mut index) = left.iter().position(|&left| left) else { return Ok(()) };
        // What is left are circles, and rules that lead into one: after as many steps as there are rules, it is reached.
        for _ in &self.rules {
            index = begins_with[index].iter().copied().find(|&first| left[first]).unwrap_or(index);
        }
        let rule = &self.rules[index];
        Err((rule.place, GrammarDefect::LeftRecursion(rule.name.clone())))
    }

    fn rule(&mut self, name: &'a str, place: usize) -> usize {
        if let Some(&index) = self.names.get(name) {
            return index;
        }
        self.rules.push(Rule { name: name.to_owned(), place, ..Rule::default() });
        self.names.insert(name, self.rules.len() - 1);
        self.rules.len() - 1
    }

    fn alternatives(&mut self, rule: usize, depth: u32) -> Placed<()> {
        loop {
            let items = self.sequence(rule, depth)?;
            self.rules[rule].alternatives.push(items);
            match self.rest.peek() {
                Some((_, '|')) => {
                    self.rest.next();
                    self.skip_space(true);
                }
                _ => return Ok(()),
            }
        }
    }

    fn sequence(&mut self, rule: usize, depth: u32) -> Placed<Vec<Item>> {
        let mut items: Vec<Item> = Vec::new();
        let plain = |rule| Item { rule, optional: false, endless: false };
        while let Some(&(place, c)) = self.rest.peek() {
            match c {
                '"' => {
                    self.rest.next();
                    let start = items.len();
                    while !self.take('"') {
                        self.character("`\"`")?;
                        items.truncate(start);
                        items.push(plain(None));
                    }
                    // Nothing between the quotes is a part that may be missing.
                    if items.len() == start {
                        items.push(Item { optional: true, ..plain(None) });
                    }
                }
                '[' => {
                    self.rest.next();
                    self.take('^');
                    let mut some = false;
                    while !self.take(']') {
                        self.character("`]`")?;
                        some = true;
                    }
                    // To llama.cpp a set without characters is nothing, and not what nothing fits.
                    items.push(Item { optional: !some, ..plain(None) });
                }
                '<' | '!' => {
                    self.take('!');
                    self.expect('<', "`<`")?;
                    while !self.take('>') {
                        self.rest.next().ok_or((self.text.len(), GrammarDefect::End("`>`")))?;
                    }
                    items.push(plain(None));
                }
                '.' => {
                    self.rest.next();
                    items.push(plain(None));
                }
                '(' => {
                    if depth == DEEPEST {
                        return Err((place, GrammarDefect::Depth));
                    }
                    self.rest.next();
                    self.skip_space(true);
                    let name = self.rules[rule].name.clone();
                    self.rules.push(Rule { name, place, defined: true, alternatives: Vec::new() });
                    let group = self.rules.len() - 1;
                    self.alternatives(group, depth + 1)?;
                    self.expect(')', "`)`")?;
                    items.push(plain(Some(group)));
                }
                '*' | '+' | '?' | '{' => {
                    let (optional, endless) = self.repetition()?;
                    let expected = "something to repeat";
                    let last = items.last_mut().ok_or((place, GrammarDefect::Unexpected { found: c, expected }))?;
                    last.optional |= optional;
                    last.endless |= endless;
                }
                _ if is_word(c) => {
                    let (place, name) = self.name("a name")?;
                    items.push(plain(Some(self.rule(name, place))));
                }
                _ => break,
            }
            self.skip_space(depth > 0);
        }
        Ok(items)
    }

    /// Whether it may be nothing, and whether it has no end.
    fn repetition(&mut self) -> Placed<(bool, bool)> {
        let Some((place, sign)) = self.rest.next() else { return Ok((false, false)) };
        match sign {
            '*' => return Ok((true, true)),
            '+' => return Ok((false, true)),
            '?' => return Ok((true, false)),
            _ => self.skip_space(false),
        }
        let least = self.number()?;
        self.skip_space(false);
        let most = match self.take(',') {
            false => Some(least),
            true => {
                self.skip_space(false);
                match self.rest.peek() {
                    Some((_, '}')) => None,
                    _ => Some(self.number()?),
                }
            }
        };
        self.skip_space(false);
        self.expect('}', "`}`")?;
        if most.is_some_and(|most| most < least || most > MOST_REPETITIONS) || least > MOST_REPETITIONS {
            return Err((place, GrammarDefect::Repetition));
        }
        Ok((least == 0, most.is_none()))
    }

    fn number(&mut self) -> Placed<u32> {
        let (place, digits) = self.run("a number", |c| c.is_ascii_digit())?;
        digits.parse().map_err(|_| (place, GrammarDefect::Repetition))
    }

    fn name(&mut self, expected: &'static str) -> Placed<(usize, &'a str)> {
        self.run(expected, is_word)
    }

    fn run(&mut self, expected: &'static str, belongs: impl Fn(char) -> bool) -> Placed<(usize, &'a str)> {
        let &(start, found) = self.rest.peek().ok_or((self.text.len(), GrammarDefect::End(expected)))?;
        if !belongs(found) {
            return Err((start, GrammarDefect::Unexpected { found, expected }));
        }
        while self.rest.next_if(|&(_, c)| belongs(c)).is_some() {}
        let end = self.rest.peek().map_or(self.text.len(), |&(place, _)| place);
        Ok((start, &self.text[start..end]))
    }

    /// A character of a literal or of a set, which `end` closes.
    fn character(&mut self, end: &'static str) -> Placed<()> {
        let missing = (self.text.len(), GrammarDefect::End(end));
        let (_, c) = self.rest.next().ok_or_else(|| missing.clone())?;
        if c != '\\' {
            return Ok(());
        }
        let (place, escape) = self.rest.next().ok_or_else(|| missing.clone())?;
        let digits = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            't' | 'r' | 'n' | '\\' | '"' | '[' | ']' | '-' => 0,
            found => return Err((place, GrammarDefect::Unexpected { found, expected: "an escape" })),
        };
        for _ in 0..digits {
            let (place, found) = self.rest.next().ok_or_else(|| missing.clone())?;
            if !found.is_ascii_hexdigit() {
                return Err((place, GrammarDefect::Unexpected { found, expected: "a hexadecimal digit" }));
            }
        }
        Ok(())
    }

    fn take(&mut self, sign: char) -> bool {
        self.rest.next_if(|&(_, c)| c == sign).is_some()
    }

    fn expect(&mut self, sign: char, expected: &'static str) -> Placed<()> {
        match self.rest.next() {
            Some((_, c)) if c == sign => Ok(()),
            Some((place, found)) => Err((place, GrammarDefect::Unexpected { found, expected })),
            None => Err((self.text.len(), GrammarDefect::End(expected))),
        }
    }

    /// Skips blanks and comments, and line breaks where a rule may go on after them.
    fn skip_space(&mut self, lines: bool) {
        while let Some(&(_, c)) = self.rest.peek() {
            match c {
                ' ' | '\t' => {}
                '\n' | '\r' if lines => {}
                '#' => {
                    while self.rest.next_if(|&(_, c)| !matches!(c, '\n' | '\r')).is_some() {}
                    continue;
                }
                _ => return,
            }
            self.rest.next();
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-'
}

#[cfg(test)]
mod tests {
    use super::*;

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
