//! Answers for the payloads that a single pass cannot answer for: reads what rules look at into a
//! tree, and asks whether it holds an alternative.
//!
//! - Of a key that an object has twice, the last value counts.
//! - Values that stand in an array themselves match apart from each other. All that is deeper in
//!   one element belongs together, and counts only together: the engine's array consistency.
//! - Where an object says one path in two ways (`{"a.b": 1, "a": {"b": 2}}`), a field takes the
//!   first way in which it matches, the more specific key first. The engine would try every way;
//!   that differs only if one of the ways leads through an array.
//!
//! Rules look at a value once, when it is read. What an alternative then takes is one visit of
//! the elements in which all that it needs matches somewhere; it is counted, as is each value
//! that is kept.

use std::collections::BTreeMap;

use super::bits::Bits;
use super::budget::{Budget, Spent};
use super::program::{Program, Step};
use super::scan::{Scalar, Scanner, Syntax};

/// Steps for a value that is kept: they bound a tree to a quarter of a million values.
const VALUE_STEPS: u64 = 16;

/// A value, as far as rules look at it.
#[derive(Debug)]
pub(super) enum Tree<'a> {
    Scalar(Scalar<'a>),
    Array(Array<'a>),
    Object(Members<'a>),
}

/// A value that rules have looked at.
#[derive(Debug)]
pub(super) struct Judged<'a> {
    tree: Tree<'a>,
    /// Fields that match anywhere in it.
    matching: Bits,
}

/// An array.
#[derive(Debug, Default)]
pub(super) struct Array<'a> {
    pub(super) items: Vec<Judged<'a>>,
    /// Fields that its single values match, those within objects and arrays left out.
    singles: Bits,
}

/// What leads to rules in an object.
#[derive(Debug)]
pub(super) struct Members<'a> {
    /// Values with the nodes they stand at, the more specific nodes first.
    ways: Vec<(usize, Judged<'a>)>,
    /// Fields that more than one of the ways leads to.
    twofold: Bits,
}

/// Why there is no tree.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoTree {
    /// The text is not JSON.
    NotJson {
        /// Where.
        at: usize,
        /// Why.
        reason: &'static str,
    },
    /// The record has used its steps.
    TooCostly,
}

impl<'a> Judged<'a> {
    /// Of a record that has no payload.
    pub(super) fn nothing() -> Self {
        Self {
            tree: Tree::Array(Array::default()),
            matching: Bits::default(),
        }
    }

    /// Reads a whole payload.
    ///
    /// # Errors
    /// It is not JSON, or nested too deeply, or takes too many steps.
    pub(super) fn read(
        program: &Program,
        payload: &'a str,
        budget: &mut Budget,
    ) -> Result<Self, NoTree> {
        let mut reader = Reader {
            program,
            scanner: Scanner::new(payload),
            budget,
        };
        let read = reader.value(0);
        let read = read.and_then(|tree| Ok(reader.scanner.end().map(|()| tree)?));
        read.map_err(|stop| match stop {
            Stop::Syntax(Syntax(reason)) => NoTree::NotJson {
                at: reader.scanner.at(),
                reason,
            },
            Stop::Spent => NoTree::TooCostly,
        })
    }

    /// Fields that match anywhere in here.
    pub(super) fn matching(&self) -> Bits {
        self.matching
    }

    /// Fields that are in here, whatever their values.
    pub(super) fn present(&self, program: &Program, at: usize) -> Bits {
        let mut found = Bits::default();
        self.visit(at, &mut |at, tree| {
            if let Tree::Scalar(_) = tree {
                found |= program.nodes[at].fields.iter().copied().collect();
            }
        });
        found
    }

    /// Every value with the node it stands at, the outer ones first.
    pub(super) fn visit<'t>(&'t self, at: usize, tell: &mut impl FnMut(usize, &'t Tree<'a>)) {
        tell(at, &self.tree);
        match &self.tree {
            Tree::Scalar(_) => {}
            Tree::Array(array) => array.items.iter().for_each(|item| item.visit(at, tell)),
            Tree::Object(members) => {
                for (node, member) in &members.ways {
                    member.visit(*node, tell);
                }
            }
        }
    }

    /// Whether all of `wanted`, fields at or below the value's node, match together.
    ///
    /// # Errors
    /// The record has used its steps.
    pub(super) fn holds(
        &self,
        program: &Program,
        wanted: Bits,
        budget: &mut Budget,
    ) -> Result<bool, Spent> {
        if wanted.is_empty() {
            return Ok(true);
        }
        budget.spend(1)?;
        if !self.matching.covers(wanted) {
            return Ok(false);
        }
        match &self.tree {
            Tree::Scalar(_) => Ok(true),
            Tree::Array(array) => {
                let rest = wanted - array.singles;
                if rest.is_empty() {
                    return Ok(true);
                }
                for item in &array.items {
                    if item.holds(program, rest, budget)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Tree::Object(members) => {
                let mut left = wanted;
                for (node, member) in &members.ways {
                    let mut part = left & program.nodes[*node].below;
                    let twofold = part & members.twofold;
                    part = (part - twofold) | (twofold & member.matching);
                    if !member.holds(program, part, budget)? {
                        return Ok(false);
                    }
                    left = left - part;
                }
                Ok(left.is_empty())
            }
        }
    }
}

/// Reads a payload and lets rules look at it.
struct Reader<'p, 'a> {
    program: &'p Program,
    scanner: Scanner<'a>,
    budget: &'p mut Budget,
}

enum Stop {
    Syntax(Syntax),
    Spent,
}

impl From<Syntax> for Stop {
    fn from(syntax: Syntax) -> Self {
        Self::Syntax(syntax)
    }
}

impl From<Spent> for Stop {
    fn from(_: Spent) -> Self {
        Self::Spent
    }
}

impl<'a> Reader<'_, 'a> {
    fn value(&mut self, at: usize) -> Result<Judged<'a>, Stop> {
        self.budget.spend(VALUE_STEPS)?;
        match self.scanner.peek() {
            b'{' => self.object(at),
            b'[' => self.array(at),
            _ => self.scalar(at),
        }
    }

    fn scalar(&mut self, at: usize) -> Result<Judged<'a>, Stop> {
        let value = self.scanner.scalar()?;
        let mut matching = Bits::default();
        for &field in &self.program.nodes[at].fields {
            let rules = &self.program.fields[field];
            self.budget
                .spend(rules.weight().steps(value.text_bytes()))?;
            if rules.holds(&value) {
                matching.insert(field);
            }
        }
        let tree = Tree::Scalar(value);
        Ok(Judged { tree, matching })
    }

    fn array(&mut self, at: usize) -> Result<Judged<'a>, Stop> {
        let mut array = Array::default();
        let mut matching = Bits::default();
        let mut more = self.scanner.enter(b']')?;
        while more {
            let item = self.value(at)?;
            matching |= item.matching;
            if let Tree::Scalar(_) = item.tree {
                array.singles |= item.matching;
            }
            array.items.push(item);
            more = self.scanner.more(b']')?;
        }
        let tree = Tree::Array(array);
        Ok(Judged { tree, matching })
    }

    fn object(&mut self, at: usize) -> Result<Judged<'a>, Stop> {
        let program = self.program;
        let node = &program.nodes[at];
        let mut by_key = BTreeMap::new();
        let mut more = self.scanner.enter(b'}')?;
        while more {
            let key = self.scanner.key()?.decode();
            let to = match node.step(key.as_bytes()) {
                Step::Nowhere => None,
                Step::Child(number) => Some(node.children[number].node),
                Step::Dotted => program.walk(at, &key),
            };
            match to {
                Some(to) => {
                    let member = self.value(to)?;
                    by_key.insert(key, (to, member));
                }
                None => self.scanner.skip()?,
            }
            more = self.scanner.more(b'}')?;
        }
        let mut ways: Vec<_> = by_key.into_values().collect();
        ways.sort_by_key(|(node, _)| program.nodes[*node].below.len());
        let (mut once, mut twofold) = (Bits::default(), Bits::default());
        let mut matching = Bits::default();
        for (node, member) in &ways {
            let below = program.nodes[*node].below;
            twofold |= once & below;
            once |= below;
            matching |= member.matching;
        }
        let tree = Tree::Object(Members { ways, twofold });
        Ok(Judged { tree, matching })
    }
}
