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
//! Time is linear in the payload for each alternative.

use std::collections::BTreeMap;

use super::bits::Bits;
use super::program::{Program, Step};
use super::scan::{Scalar, Scanner, Syntax};

/// A value, as far as rules look at it.
#[derive(Debug)]
pub(super) enum Tree<'a> {
    Scalar(Scalar<'a>),
    Array(Vec<Item<'a>>),
    Object(Members<'a>),
}

/// An element of an array.
#[derive(Debug)]
pub(super) struct Item<'a> {
    tree: Tree<'a>,
    /// Fields that match anywhere in it: most elements are dismissed without a second look.
    matching: Bits,
}

/// What leads to rules in an object.
#[derive(Debug)]
pub(super) struct Members<'a> {
    /// Values with the nodes they stand at, the more specific nodes first.
    ways: Vec<(usize, Tree<'a>)>,
    /// Fields that more than one of the ways leads to.
    twofold: Bits,
}

/// Where a text is not JSON, and why.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotJson {
    pub(super) at: usize,
    pub(super) reason: &'static str,
}

impl<'a> Tree<'a> {
    /// Reads a whole payload.
    ///
    /// # Errors
    /// It is not JSON, or nested too deeply.
    pub(super) fn read(program: &Program, payload: &'a str) -> Result<Self, NotJson> {
        let mut scanner = Scanner::new(payload);
        let read = value(program, 0, &mut scanner);
        read.and_then(|tree| scanner.end().map(|()| tree))
            .map_err(|Syntax(reason)| NotJson {
                at: scanner.at(),
                reason,
            })
    }

    /// Fields that match anywhere in here.
    pub(super) fn matching(&self, program: &Program, at: usize) -> Bits {
        if let Self::Array(items) = self {
            return items
                .iter()
                .fold(Bits::default(), |all, item| all | item.matching);
        }
        let mut found = Bits::default();
        self.each(program, at, &mut |field, value| {
            if program.fields[field].holds(value) {
                found.insert(field);
            }
        });
        found
    }

    /// Fields that are in here, whatever their values.
    pub(super) fn present(&self, program: &Program, at: usize) -> Bits {
        let mut found = Bits::default();
        self.each(program, at, &mut |field, _| {
            found.insert(field);
        });
        found
    }

    /// Every single value with each of the fields it belongs to.
    fn each(&self, program: &Program, at: usize, tell: &mut impl FnMut(usize, &Scalar<'a>)) {
        self.visit(at, &mut |at, tree| {
            if let Self::Scalar(value) = tree {
                for &field in &program.nodes[at].fields {
                    tell(field, value);
                }
            }
        });
    }

    /// Every value with the node it stands at, the outer ones first.
    pub(super) fn visit<'t>(&'t self, at: usize, tell: &mut impl FnMut(usize, &'t Self)) {
        tell(at, self);
        match self {
            Self::Scalar(_) => {}
            Self::Array(items) => items.iter().for_each(|item| item.tree.visit(at, tell)),
            Self::Object(members) => {
                for (node, member) in &members.ways {
                    member.visit(*node, tell);
                }
            }
        }
    }

    /// Whether all of `wanted`, fields at or below node `at`, match together.
    pub(super) fn holds(&self, program: &Program, at: usize, wanted: Bits) -> bool {
        if wanted.is_empty() {
            return true;
        }
        match self {
            Self::Scalar(_) => self.matching(program, at).covers(wanted),
            Self::Array(items) => {
                let singles = items.iter().filter(|i| matches!(i.tree, Self::Scalar(_)));
                let single = singles.fold(Bits::default(), |all, item| all | item.matching);
                let rest = wanted - single;
                let holds = |item: &Item<'_>| {
                    item.matching.covers(rest) && item.tree.holds(program, at, rest)
                };
                rest.is_empty() || items.iter().any(holds)
            }
            Self::Object(members) => {
                let mut left = wanted;
                for (node, member) in &members.ways {
                    let mut part = left & program.nodes[*node].below;
                    let twofold = part & members.twofold;
                    if !twofold.is_empty() {
                        part = (part - twofold) | (twofold & member.matching(program, *node));
                    }
                    if !member.holds(program, *node, part) {
                        return false;
                    }
                    left = left - part;
                }
                left.is_empty()
            }
        }
    }
}

fn value<'a>(program: &Program, at: usize, scanner: &mut Scanner<'a>) -> Result<Tree<'a>, Syntax> {
    match scanner.peek() {
        b'{' => object(program, at, scanner).map(Tree::Object),
        b'[' => {
            let mut items = Vec::new();
            let mut more = scanner.enter(b']')?;
            while more {
                let tree = value(program, at, scanner)?;
                let matching = tree.matching(program, at);
                items.push(Item { tree, matching });
                more = scanner.more(b']')?;
            }
            Ok(Tree::Array(items))
        }
        _ => scanner.scalar().map(Tree::Scalar),
    }
}

fn object<'a>(
    program: &Program,
    at: usize,
    scanner: &mut Scanner<'a>,
) -> Result<Members<'a>, Syntax> {
    let node = &program.nodes[at];
    let mut by_key = BTreeMap::new();
    let mut more = scanner.enter(b'}')?;
    while more {
        let key = scanner.key()?.decode();
        let to = match node.step(key.as_bytes()) {
            Step::Nowhere => None,
            Step::Child(number) => Some(node.children[number].node),
            Step::Dotted => program.walk(at, &key),
        };
        match to {
            Some(to) => {
                let member = value(program, to, scanner)?;
                by_key.insert(key, (to, member));
            }
            None => scanner.skip()?,
        }
        more = scanner.more(b'}')?;
    }
    let mut ways: Vec<_> = by_key.into_values().collect();
    ways.sort_by_key(|(node, _)| program.nodes[*node].below.len());
    let (mut once, mut twofold) = (Bits::default(), Bits::default());
    for (node, _) in &ways {
        let below = program.nodes[*node].below;
        twofold |= once & below;
        once |= below;
    }
    Ok(Members { ways, twofold })
}
