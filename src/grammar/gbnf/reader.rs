//! The syntax of GBNF.

use std::{collections::HashMap, iter::Peekable, ops::RangeInclusive, str::CharIndices};

use super::{
    GrammarDefect, Placed,
    rules::{Item, Rule, Rules, Symbol},
};

/// llama.cpp's limit for `{m,n}`.
const MOST_REPETITIONS: u32 = 2000;
/// Parentheses within each other; llama.cpp's parser is recursive.
const DEEPEST: u32 = 100;

pub(super) struct Reader<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
    rules: Vec<Rule>,
    names: HashMap<&'a str, usize>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, rest: text.char_indices().peekable(), rules: Vec::new(), names: HashMap::new() }
    }

    pub(super) fn read(mut self) -> Placed<Rules> {
        self.skip_space(true);
        while self.rest.peek().is_some() {
            let (place, name) = self.name("the name of a rule")?;
            let rule = self.rule(name, place);
            // To llama.cpp the last definition of a rule is the one that counts.
            self.rules[rule].defined = true;
            self.rules[rule].alternatives.clear();
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
        let root = *self.names.get("root").ok_or((self.text.len(), GrammarDefect::NoRoot))?;
        Ok(Rules { rules: self.rules, root })
    }

    fn rule(&mut self, name: &'a str, place: usize) -> usize {
        if let Some(&index) = self.names.get(name) {
            return index;
        }
        self.rules.push(Rule { name: name.to_owned(), place, ..Rule::default() });
        self.names.insert(name, self.rules.len() - 1);
        self.rules.len() - 1
    }

    /// A part of `rule` that is a rule of its own.
    fn group(&mut self, rule: usize, place: usize, alternatives: Vec<Vec<Item>>) -> usize {
        let name = self.rules[rule].name.clone();
        self.rules.push(Rule { name, place, defined: true, alternatives });
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
        while let Some(&(place, c)) = self.rest.peek() {
            match c {
                '"' => {
                    self.rest.next();
                    let mut text = Vec::new();
                    while !self.take('"') {
                        text.push(self.character("`\"`")?);
                    }
                    items.push(Item::once(Symbol::Literal(text)));
                }
                '[' => {
                    self.rest.next();
                    items.push(Item::once(self.class()?));
                }
                '<' | '!' => {
                    self.take('!');
                    self.expect('<', "`<`")?;
                    while !self.take('>') {
                        self.rest.next().ok_or((self.text.len(), GrammarDefect::End("`>`")))?;
                    }
                    items.push(Item::once(Symbol::Token));
                }
                '.' => {
                    self.rest.next();
                    items.push(Item::once(Symbol::Class { ranges: Vec::new(), negated: true }));
                }
                '(' => {
                    if depth == DEEPEST {
                        return Err((place, GrammarDefect::Depth));
                    }
                    self.rest.next();
                    self.skip_space(true);
                    let group = self.group(rule, place, Vec::new());
                    self.alternatives(group, depth + 1)?;
                    self.expect(')', "`)`")?;
                    items.push(Item::once(Symbol::Rule(group)));
                }
                '*' | '+' | '?' | '{' => {
                    let (least, most) = self.repetition()?;
                    let expected = "something to repeat";
                    let last = items.pop().ok_or((place, GrammarDefect::Unexpected { found: c, expected }))?;
                    let symbol = match last {
                        last if last.is_once() => last.symbol,
                        repeated => Symbol::Rule(self.group(rule, place, vec![vec![repeated]])),
                    };
                    // Never there is as good as empty.
                    items.push(match most {
                        Some(0) => Item::once(Symbol::Literal(Vec::new())),
                        _ => Item { symbol, least, most },
                    });
                }
                _ if is_word(c) => {
                    let (place, name) = self.name("a name")?;
                    items.push(Item::once(Symbol::Rule(self.rule(name, place))));
                }
                _ => break,
            }
            self.skip_space(depth > 0);
        }
        Ok(items)
    }

    /// The characters of a set, behind its bracket.
    fn class(&mut self) -> Placed<Symbol> {
        let negated = self.take('^');
        let mut ranges: Vec<RangeInclusive<u32>> = Vec::new();
        while !self.take(']') {
            let first = self.character("`]`")?;
            // A dash at the end is one.
            let mut behind = self.rest.clone();
            let is_range = behind.next().is_some_and(|(_, c)| c == '-') && behind.next().is_some_and(|(_, c)| c != ']');
            let last = if is_range && self.take('-') { self.character("`]`")? } else { first };
            ranges.push(first..=last);
        }
        // To llama.cpp a set without characters is nothing, and not what nothing fits.
        Ok(if ranges.is_empty() { Symbol::Literal(Vec::new()) } else { Symbol::Class { ranges, negated } })
    }

    /// How often something may come, at least and at most.
    fn repetition(&mut self) -> Placed<(u32, Option<u32>)> {
        let Some((place, sign)) = self.rest.next() else { return Ok((1, Some(1))) };
        match sign {
            '*' => return Ok((0, None)),
            '+' => return Ok((1, None)),
            '?' => return Ok((0, Some(1))),
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
        Ok((least, most))
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

    /// The code point of a character of a literal or of a set, which `end` closes.
    fn character(&mut self, end: &'static str) -> Placed<u32> {
        let missing = (self.text.len(), GrammarDefect::End(end));
        let (_, c) = self.rest.next().ok_or_else(|| missing.clone())?;
        if c != '\\' {
            return Ok(u32::from(c));
        }
        let (place, escape) = self.rest.next().ok_or_else(|| missing.clone())?;
        let digits = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            't' => return Ok(u32::from('\t')),
            'r' => return Ok(u32::from('\r')),
            'n' => return Ok(u32::from('\n')),
            '\\' | '"' | '[' | ']' | '-' => return Ok(u32::from(escape)),
            found => return Err((place, GrammarDefect::Unexpected { found, expected: "an escape" })),
        };
        let mut code = 0;
        for _ in 0..digits {
            let (place, found) = self.rest.next().ok_or_else(|| missing.clone())?;
            let unexpected = (place, GrammarDefect::Unexpected { found, expected: "a hexadecimal digit" });
            code = code << 4 | found.to_digit(16).ok_or(unexpected)?;
        }
        Ok(code)
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
