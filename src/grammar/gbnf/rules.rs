//! What a grammar says, and whether anything fits it.

use std::ops::RangeInclusive;

use super::{GrammarDefect, Placed};

/// The rules of a grammar, of which each has a number.
#[derive(Debug)]
pub(in crate::grammar) struct Rules {
    pub(super) rules: Vec<Rule>,
    pub(super) root: usize,
}

/// A rule, or a group in parentheses, which is a rule without a name.
#[derive(Debug, Default)]
pub(super) struct Rule {
    pub(super) name: String,
    /// Where it is first used or defined.
    pub(super) place: usize,
    pub(super) defined: bool,
    pub(super) alternatives: Vec<Vec<Item>>,
}

/// A part of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::grammar) struct Item {
    pub(in crate::grammar) symbol: Symbol,
    /// How often it stands there at least.
    pub(in crate::grammar) least: u32,
    /// And at most; `None` for as often as one likes.
    pub(in crate::grammar) most: Option<u32>,
}

/// What a part of a rule stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::grammar) enum Symbol {
    /// This rule.
    Rule(usize),
    /// This text.
    Literal(Vec<u32>),
    /// One character of these ranges of code points, or one that is not of them.
    Class { ranges: Vec<RangeInclusive<u32>>, negated: bool },
    /// A token of the vocabulary, by its number or its text.
    Token,
}

impl Item {
    /// What stands there once.
    pub(in crate::grammar) fn once(symbol: Symbol) -> Self {
        Self { symbol, least: 1, most: Some(1) }
    }

    /// Whether it stands there once.
    pub(in crate::grammar) fn is_once(&self) -> bool {
        self.least == 1 && self.most == Some(1)
    }

    /// Whether it may be missing.
    fn is_optional(&self) -> bool {
        self.least == 0 || matches!(&self.symbol, Symbol::Literal(text) if text.is_empty())
    }

    /// The rule that stands here, if one does.
    fn rule(&self) -> Option<usize> {
        match self.symbol {
            Symbol::Rule(rule) => Some(rule),
            Symbol::Literal(_) | Symbol::Class { .. } | Symbol::Token => None,
        }
    }
}

impl Rule {
    /// The rules that stand in it.
    fn uses(&self) -> impl Iterator<Item = usize> {
        self.alternatives.iter().flatten().filter_map(Item::rule)
    }
}

impl Rules {
    /// How many there are.
    pub(in crate::grammar) fn len(&self) -> usize {
        self.rules.len()
    }

    /// The one that a text begins with.
    pub(in crate::grammar) fn root(&self) -> usize {
        self.root
    }

    /// What a rule may be written as.
    pub(in crate::grammar) fn alternatives(&self, rule: usize) -> &[Vec<Item>] {
        &self.rules[rule].alternatives
    }

    /// Whether tokens of a vocabulary stand in them, and not characters alone.
    pub(in crate::grammar) fn names_tokens(&self) -> bool {
        self.rules.iter().flat_map(|rule| rule.alternatives.iter().flatten()).any(|item| item.symbol == Symbol::Token)
    }

    /// Most rules that lead from one to the next, at most.
    pub(in crate::grammar) fn depth(&self) -> usize {
        let mut depth = vec![0_usize; self.rules.len()];
        let in_order = self.in_order();
        for &rule in &in_order {
            let deepest = self.rules[rule].uses().map(|used| depth[used]).max().unwrap_or(0);
            depth[rule] = deepest + 1;
        }
        // A way through rules that use each other comes by each of them once.
        self.rules.len() - in_order.len() + depth.into_iter().max().unwrap_or(0)
    }

    /// The rules that regular expressions can stand for, each behind all that it uses: not those that use themselves, or use
    /// such rules.
    pub(in crate::grammar) fn in_order(&self) -> Vec<usize> {
        in_order(&self.uses())
    }

    /// The rules that a text may come by, with the one that it begins with as the first.
    pub(in crate::grammar) fn reachable(&self) -> Vec<usize> {
        let mut seen = vec![false; self.rules.len()];
        seen[self.root] = true;
        let mut reachable = vec![self.root];
        let mut next = 0;
        while let Some(&index) = reachable.get(next) {
            next += 1;
            reachable.extend(self.rules[index].uses().filter(|&used| !std::mem::replace(&mut seen[used], true)));
        }
        reachable
    }

    /// Whether every rule that is used is defined, and some finite text fits it without beginning with itself.
    pub(super) fn check(&self) -> Placed<()> {
        if let Some(rule) = self.rules.iter().find(|rule| !rule.defined) {
            return Err((rule.place, GrammarDefect::Undefined(rule.name.clone())));
        }
        let finite = self.fixpoint(|item, finite| item.is_optional() || item.rule().is_none_or(|rule| finite[rule]));
        if let Some(index) = self.reachable().into_iter().find(|&index| !finite[index]) {
            let rule = &self.rules[index];
            return Err((rule.place, GrammarDefect::Endless(rule.name.clone())));
        }
        let empty = self.fixpoint(|item, empty| item.is_optional() || item.rule().is_some_and(|rule| empty[rule]));
        self.check_beginnings(&empty)
    }

    /// For which rules one of the alternatives has `holds` for all items, given for which rules that is so.
    fn fixpoint(&self, holds: impl Fn(&Item, &[bool]) -> bool) -> Vec<bool> {
        let mut users = vec![Vec::new(); self.rules.len()];
        for (index, rule) in self.rules.iter().enumerate() {
            for used in rule.uses() {
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

    /// The rules that stand in each.
    fn uses(&self) -> Vec<Vec<usize>> {
        self.rules.iter().map(|rule| rule.uses().collect()).collect()
    }

    /// No rule may come back to itself before a character was written.
    fn check_beginnings(&self, empty: &[bool]) -> Placed<()> {
        let begins_with: Vec<Vec<usize>> = (self.rules.iter().enumerate())
            .map(|(index, rule)| {
                let mut first = Vec::new();
                for items in &rule.alternatives {
                    for item in items {
                        first.extend(item.rule());
                        let may_be_empty = item.rule().is_some_and(|rule| empty[rule]);
                        // Empty again and again: as if the rule began with itself.
                        first.extend((item.most.is_none() && may_be_empty).then_some(index));
                        if !item.is_optional() && !may_be_empty {
                            break;
                        }
                    }
                }
                first
            })
            .collect();
        let mut left = vec![true; self.rules.len()];
        in_order(&begins_with).into_iter().for_each(|rule| left[rule] = false);
        let Some(mut index) = left.iter().position(|&left| left) else { return Ok(()) };
        // After as many steps as there are rules, the circle is reached.
        for _ in &self.rules {
            index = begins_with[index].iter().copied().find(|&first| left[first]).unwrap_or(index);
        }
        let rule = &self.rules[index];
        Err((rule.place, GrammarDefect::LeftRecursion(rule.name.clone())))
    }
}

/// The points of a graph that lead into no circle, each behind all that it leads to.
fn in_order(leads_to: &[Vec<usize>]) -> Vec<usize> {
    let mut ways: Vec<usize> = leads_to.iter().map(Vec::len).collect();
    let mut reached_from = vec![Vec::new(); leads_to.len()];
    for (index, to) in leads_to.iter().enumerate() {
        to.iter().for_each(|&to| reached_from[to].push(index));
    }
    let mut order: Vec<usize> = (0..leads_to.len()).filter(|&index| ways[index] == 0).collect();
    let mut next = 0;
    while let Some(&index) = order.get(next) {
        next += 1;
        for &from in &reached_from[index] {
            ways[from] -= 1;
            if ways[from] == 0 {
                order.push(from);
            }
        }
    }
    order
}
