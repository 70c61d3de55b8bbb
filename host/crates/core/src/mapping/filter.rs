//! A mapping's filter criteria: which records it delivers. What it does not deliver is dropped
//! before batches are cut, and the checkpoint passes it.
//!
//! Filters are joined by *or*; in a filter, all fields must match; of a field's rules, one must
//! hold. `docs/filters.md` has the grammar and every choice that was made where AWS is silent.
//! Criteria are compiled once and then evaluated in one pass over the payload:
//!
//! ```text
//! text ─ json ─ pattern (leaf, rule) ─ program ─┬─ stream: one pass, no tree
//!                                               └─ tree: the few payloads that need one; explain
//! ```
//!
//! Rules: Lambda developer guide, "Control which events Lambda sends to your function" and "Use
//! event filtering with a Kinesis event source"; where they are silent, EventBridge's rule engine.

mod bits;
mod budget;
mod error;
mod escape;
mod explain;
mod glob;
mod json;
mod leaf;
mod lint;
mod net;
mod number;
mod pattern;
mod program;
mod rule;
mod rules;
mod scan;
mod stream;
mod tree;

use std::fmt;
use std::io::Write as _;
use std::sync::Arc;

pub use budget::MAX_FILTER_STEPS;
pub use error::{BadFilter, MAX_FILTERS, MAX_PATTERN_CHARS};
pub use explain::{Explanation, Mismatch};
pub use lint::Warning;

use crate::block::RecordRef;
use bits::Bits;
use budget::{Budget, Spent};
use number::Number;
use pattern::{Pattern, Root};
use program::{Metadata, Program};
use scan::Scalar;
use stream::{Hits, Stop};
use tree::{Judged, NoTree};

/// Compiled filter criteria. Cheap to clone; equal if the patterns' texts are.
#[derive(Clone, Default)]
pub struct FilterCriteria(Arc<Compiled>);

#[derive(Default)]
struct Compiled {
    texts: Box<[Box<str>]>,
    roots: Box<[Vec<Root>]>,
    reads_data: bool,
    programs: Box<[Program]>,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is delivered.
    Match,
    /// It is dropped.
    NoMatch,
    /// It is dropped, and its payload is why: a filter whose rules about metadata hold has rules
    /// about the payload, which is not JSON. Worth counting apart.
    NotJson,
    /// It is dropped: judging it takes more than [`MAX_FILTER_STEPS`], so nobody knows whether it
    /// matches. Worth a warning.
    TooCostly,
}

impl FilterCriteria {
    /// Compiles patterns; none at all match every record.
    ///
    /// # Errors
    /// The first pattern that is no filter, with the place and the reason.
    pub fn compile(patterns: &[impl AsRef<str>]) -> Result<Self, BadFilter> {
        if patterns.len() > MAX_FILTERS {
            return Err(BadFilter::TooMany {
                count: patterns.len(),
            });
        }
        let read = patterns.iter().enumerate();
        let read = read.map(|(index, text)| Pattern::read(index, text.as_ref()));
        let mut read = read.collect::<Result<Vec<_>, _>>()?;
        Ok(Self(Arc::new(Compiled {
            texts: patterns.iter().map(|text| text.as_ref().into()).collect(),
            reads_data: read.iter().any(|pattern| pattern.reads_data),
            programs: Program::compile(&read).into(),
            roots: read
                .iter_mut()
                .map(|pattern| std::mem::take(&mut pattern.roots))
                .collect(),
        })))
    }

    /// The patterns, as they were given.
    pub fn patterns(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.texts.iter().map(|text| &**text)
    }

    /// Whether there are no filters, so that every record matches.
    pub fn is_empty(&self) -> bool {
        self.0.texts.is_empty()
    }

    /// Whether any filter has rules about the payload.
    pub fn reads_data(&self) -> bool {
        self.0.reads_data
    }

    /// Whether a record is delivered. One pass over its payload at most, and no allocation but for
    /// strings with escapes that rules look at; payloads that repeat a key or spell one with dots
    /// are read into a tree.
    pub fn check(&self, record: &RecordRef<'_>) -> Verdict {
        self.check_within(record, &mut Budget::new())
    }

    /// The same, with the steps that it took: for the laws of `fuzz/laws`.
    #[doc(hidden)]
    pub fn check_counting(&self, record: &RecordRef<'_>) -> (Verdict, u64) {
        let mut budget = Budget::new();
        let verdict = self.check_within(record, &mut budget);
        (verdict, budget.spent())
    }

    fn check_within(&self, record: &RecordRef<'_>, budget: &mut Budget) -> Verdict {
        if self.is_empty() {
            return Verdict::Match;
        }
        let mut verdict = Verdict::NoMatch;
        for program in &self.0.programs {
            match program.check(record, budget) {
                end @ (Verdict::Match | Verdict::TooCostly) => return end,
                Verdict::NotJson => verdict = Verdict::NotJson,
                Verdict::NoMatch => {}
            }
        }
        verdict
    }

    /// Says of each filter what became of a record and why, for people. Slow: reads a tree, which
    /// may be too costly where [`FilterCriteria::check`] needs none.
    pub fn explain(&self, record: &RecordRef<'_>) -> Vec<Explanation> {
        let programs = self.0.programs.iter();
        let mut budget = Budget::new();
        programs
            .flat_map(|program| explain::explain(program, record, &mut budget))
            .collect()
    }

    /// What is probably not meant, though it is allowed: rules about fields that no record has.
    pub fn lint(&self) -> Vec<Warning> {
        let patterns = self.0.roots.iter().enumerate();
        patterns
            .flat_map(|(i, roots)| lint::lint(i, roots))
            .collect()
    }
}

impl Program {
    fn check(&self, record: &RecordRef<'_>, budget: &mut Budget) -> Verdict {
        let mut hits = Hits::default();
        self.match_metadata(record, &mut hits);
        let mut payload_counts = false;
        for alternative in &self.alternatives {
            if !alternative.reads_data {
                // Nothing but the envelope can be there for such a filter.
                if (hits.together | (self.may_lack - hits.present)).covers(alternative.fields) {
                    return Verdict::Match;
                }
            } else {
                let of_metadata = alternative.fields & self.of_metadata;
                payload_counts |= hits.together.covers(of_metadata);
            }
        }
        if !payload_counts {
            return Verdict::NoMatch;
        }
        let Ok(payload) = std::str::from_utf8(record.parts.data) else {
            return Verdict::NotJson;
        };
        self.match_payload(payload, hits, budget)
    }

    /// The verdict of the alternatives about the payload, after those about metadata.
    fn match_payload(&self, payload: &str, metadata: Hits, budget: &mut Budget) -> Verdict {
        let mut hits = metadata;
        match stream::read(self, payload, &mut hits, budget) {
            Ok(()) => {}
            Err(Stop::NotJson) => return Verdict::NotJson,
            Err(Stop::NeedsTree) => return self.match_tree(payload, metadata, budget),
            Err(Stop::TooCostly) => return Verdict::TooCostly,
        }
        let lacking = self.may_lack - hits.present;
        let of_data = || self.alternatives.iter().filter(|a| a.reads_data);
        let together = hits.together | lacking;
        if of_data().any(|alternative| together.covers(alternative.fields)) {
            return Verdict::Match;
        }
        let somewhere = hits.somewhere | lacking;
        if of_data().any(|alternative| somewhere.covers(alternative.fields)) {
            return self.match_tree(payload, metadata, budget);
        }
        Verdict::NoMatch
    }

    fn match_tree(&self, payload: &str, metadata: Hits, budget: &mut Budget) -> Verdict {
        let tree = match Judged::read(self, payload, budget) {
            Ok(tree) => tree,
            Err(NoTree::NotJson { .. }) => return Verdict::NotJson,
            Err(NoTree::TooCostly) => return Verdict::TooCostly,
        };
        let given = self.given(&tree, metadata);
        for alternative in self.alternatives.iter().filter(|a| a.reads_data) {
            match tree.holds(self, alternative.fields - given, budget) {
                Ok(true) => return Verdict::Match,
                Ok(false) => {}
                Err(Spent) => return Verdict::TooCostly,
            }
        }
        Verdict::NoMatch
    }

    /// Fields that match whatever the payload's elements say: those of the metadata, and those
    /// that may lack and do.
    fn given(&self, tree: &Judged<'_>, metadata: Hits) -> Bits {
        metadata.together | (self.may_lack - metadata.present - tree.present(self, 0))
    }

    /// Notes which rules about the record's envelope hold.
    fn match_metadata(&self, record: &RecordRef<'_>, hits: &mut Hits) {
        for &(metadata, field) in &self.metadata {
            hits.present.insert(field);
            if with_metadata(metadata, record, |value| self.fields[field].holds(value)) {
                hits.together.insert(field);
                hits.somewhere.insert(field);
            }
        }
    }
}

/// Hands out a value of a record's envelope.
fn with_metadata<T>(
    metadata: Metadata,
    record: &RecordRef<'_>,
    f: impl FnOnce(&Scalar<'_>) -> T,
) -> T {
    match metadata {
        Metadata::PartitionKey => f(&Scalar::Text(record.parts.key.into())),
        Metadata::SequenceNumber => {
            let mut digits = [0; 58];
            f(&Scalar::Text(
                record.sequence_number().write_decimal(&mut digits).into(),
            ))
        }
        Metadata::ApproximateArrivalTimestamp => {
            let (seconds, millis) = (record.arrival.0 / 1000, record.arrival.0 % 1000);
            // 2^64 ms are seconds of 17 digits.
            let mut text = [0; 24];
            let mut rest = &mut text[..];
            let _ = write!(rest, "{seconds}.{millis:03}");
            let left = rest.len();
            let used = text.len() - left;
            let text = std::str::from_utf8(&text[..used]).unwrap_or_default();
            f(&Scalar::Number(Number::read(text)))
        }
        Metadata::KinesisSchemaVersion => f(&Scalar::Text("1.0".into())),
    }
}

impl PartialEq for FilterCriteria {
    fn eq(&self, other: &Self) -> bool {
        self.0.texts == other.0.texts
    }
}

impl Eq for FilterCriteria {}

impl fmt::Debug for FilterCriteria {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FilterCriteria")
            .field(&self.0.texts)
            .finish()
    }
}

#[cfg(test)]
mod tests;
