//! One pass over a payload's bytes that notes which fields match, without a tree and without
//! allocating (a string with escapes that a rule looks at is copied).
//!
//! The pass always goes to the payload's end. It could not stop at a match: what follows may not
//! be JSON, and then the record does not match; or it may be the same key again, and then the last
//! one counts.
//!
//! Three things are beyond a single pass, and end it or leave its answer open, so that `tree.rs`
//! answers: a key that leads to rules and comes twice in an object; such a key with dots, which
//! may say again what another key says; and arrays whose elements each match some of the fields
//! below the array, where only one element may count. For the last one, the pass keeps two sets:
//! fields that certainly match together, and fields that match at all. The first proves a match,
//! the second its absence. Only a record between the two is read again.

use super::bits::Bits;
use super::budget::{Budget, Spent};
use super::program::{Program, Step};
use super::scan::{Scanner, Syntax};

/// What a pass found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hits {
    /// Fields that match, all of them in the same elements of arrays.
    pub(super) together: Bits,
    /// Fields that match somewhere.
    pub(super) somewhere: Bits,
    /// Fields that are there.
    pub(super) present: Bits,
}

/// Why a pass ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The payload is not JSON.
    NotJson,
    /// The payload has to be read into a tree.
    NeedsTree,
    /// The record has used its steps.
    TooCostly,
}

impl From<Syntax> for Stop {
    fn from(_: Syntax) -> Self {
        Self::NotJson
    }
}

impl From<Spent> for Stop {
    fn from(_: Spent) -> Self {
        Self::TooCostly
    }
}

/// Steps for an element of an array whose fields are held together.
const ELEMENT_STEPS: u64 = 4;

/// Reads a payload and adds the fields that match.
///
/// # Errors
/// The pass ended early; what it added says nothing.
pub(super) fn read(
    program: &Program,
    payload: &str,
    hits: &mut Hits,
    budget: &mut Budget,
) -> Result<(), Stop> {
    let mut pass = Pass {
        program,
        budget,
        scanner: Scanner::new(payload),
    };
    pass.value(0, hits)?;
    pass.scanner.end()?;
    Ok(())
}

struct Pass<'p, 'a> {
    program: &'p Program,
    budget: &'p mut Budget,
    scanner: Scanner<'a>,
}

impl Pass<'_, '_> {
    /// A value at a node.
    fn value(&mut self, at: usize, hits: &mut Hits) -> Result<(), Stop> {
        let node = &self.program.nodes[at];
        match self.scanner.peek() {
            b'{' if !node.children.is_empty() => self.object(at, hits),
            b'[' => self.array(at, hits),
            b'{' => Ok(self.scanner.skip()?),
            _ if node.fields.is_empty() => Ok(self.scanner.skip()?),
            _ => self.scalar(at, hits),
        }
    }

    fn object(&mut self, at: usize, hits: &mut Hits) -> Result<(), Stop> {
        let node = &self.program.nodes[at];
        let mut seen = Bits::default();
        let mut more = self.scanner.enter(b'}')?;
        while more {
            let key = self.scanner.key()?;
            let step = match key.plain() {
                Some(key) => node.step(key),
                None => node.step(key.decode().as_bytes()),
            };
            match step {
                Step::Nowhere => self.scanner.skip()?,
                Step::Child(number) if !seen.insert(number) => {
                    self.value(node.children[number].node, hits)?;
                }
                Step::Child(_) | Step::Dotted => return Err(Stop::NeedsTree),
            }
            more = self.scanner.more(b'}')?;
        }
        Ok(())
    }

    fn array(&mut self, at: usize, hits: &mut Hits) -> Result<(), Stop> {
        // With a single place for fields there is nothing to be held together.
        let shared = self.program.nodes[at].places > 1;
        let mut best = Bits::default();
        let mut more = self.scanner.enter(b']')?;
        while more {
            if shared && matches!(self.scanner.peek(), b'{' | b'[') {
                self.budget.spend(ELEMENT_STEPS)?;
                let mut element = Hits::default();
                self.value(at, &mut element)?;
                hits.somewhere |= element.somewhere;
                hits.present |= element.present;
                if element.together.len() > best.len() {
                    best = element.together;
                }
            } else {
                self.value(at, hits)?;
            }
            more = self.scanner.more(b']')?;
        }
        hits.together |= best;
        Ok(())
    }

    fn scalar(&mut self, at: usize, hits: &mut Hits) -> Result<(), Stop> {
        let value = self.scanner.scalar()?;
        for &field in &self.program.nodes[at].fields {
            hits.present.insert(field);
            let rules = &self.program.fields[field];
            self.budget
                .spend(rules.weight().steps(value.text_bytes()))?;
            if rules.holds(&value) {
                hits.together.insert(field);
                hits.somewhere.insert(field);
            }
        }
        Ok(())
    }
}
