//! What a handler did through the host: kept by the sandbox while it runs, committed with the
//! batch's progress, forgotten when the attempt fails.

use bytes::Bytes;

/// The record that was current when an effect was made: its index in the batch. `None`: there
/// was no current record yet.
pub type Tag = Option<u32>;

/// A revision of a stored value; `None` where there was no value.
pub type Revision = Option<u64>;

/// All effects of one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Additions to counters. At most one per tag and name.
    pub counters: Vec<(Tag, CounterAdd)>,
    /// Writes of keyed state, in order. A later write of a key and name wins.
    pub state: Vec<(Tag, StateWrite)>,
    /// Emitted records, in order.
    pub emits: Vec<(Tag, Emit)>,
    /// Every value of keyed state that the attempt read, with the revision it found: what the
    /// commit checks. A value that was only written needs no check: the last write wins.
    pub reads: Vec<StateRead>,
}

/// Adds to a counter of the function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterAdd {
    /// The counter, 1 … 128 bytes.
    pub name: Box<str>,
    /// What to add; wraps at the ends of `i64`.
    pub amount: i64,
}

/// Sets or deletes a value of keyed state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWrite {
    /// The partition key that owns the value.
    pub key: Box<str>,
    /// The value's name, 1 … 256 bytes.
    pub name: Box<str>,
    /// The value; `None` deletes.
    pub value: Option<Bytes>,
}

/// A value of keyed state that an attempt depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateRead {
    /// The partition key that owns the value.
    pub key: Box<str>,
    /// The value's name.
    pub name: Box<str>,
    /// Its revision when it was read.
    pub revision: Revision,
    /// The first record of the batch that depends on it.
    pub first_record: u32,
}

/// Puts a record into a stream of the same tenant and region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emit {
    /// The stream's name.
    pub stream: Box<str>,
    /// The partition key.
    pub key: Box<str>,
    /// The data.
    pub data: Bytes,
}

impl Effects {
    /// Whether nothing was done and nothing read.
    pub fn is_empty(&self) -> bool {
        self.counters.is_empty()
            && self.state.is_empty()
            && self.emits.is_empty()
            && self.reads.is_empty()
    }

    /// Whether an effect was made before there was a current record.
    pub fn has_untagged(&self) -> bool {
        self.counters.iter().any(|(tag, _)| tag.is_none())
            || self.state.iter().any(|(tag, _)| tag.is_none())
            || self.emits.iter().any(|(tag, _)| tag.is_none())
    }

    /// Whether the handler went back: something that belongs to a record below `end` was written
    /// or emitted behind a write of state that does not, so it may stand on what is dropped.
    pub fn goes_back(&self, end: u32) -> bool {
        let kept = |tag: &Tag| tag.is_some_and(|record| record < end);
        let dropped = |tag: &Tag| !kept(tag);
        let state = || self.state.iter().map(|(tag, _)| dropped(tag));
        let emits = self.emits.iter().map(|(tag, _)| dropped(tag));
        state().any(|dropped| dropped) && !(state().is_sorted() && emits.is_sorted())
    }

    /// Keeps only what belongs to the records below `end`. What belongs to no record goes: it
    /// would be kept again with each further attempt.
    #[must_use]
    pub fn below(mut self, end: u32) -> Self {
        let keep = |tag: &Tag| tag.is_some_and(|record| record < end);
        self.counters.retain(|(tag, _)| keep(tag));
        self.state.retain(|(tag, _)| keep(tag));
        self.emits.retain(|(tag, _)| keep(tag));
        self.reads.retain(|read| read.first_record < end);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_behind_a_write_that_is_dropped_go_back() {
        let write = |tag| {
            let (key, name) = ("k".into(), "n".into());
            let value = None;
            (Some(tag), StateWrite { key, name, value })
        };
        let emit = |tag| {
            let (stream, key) = ("s".into(), "k".into());
            let data = Bytes::new();
            (Some(tag), Emit { stream, key, data })
        };
        for (state, emits, end, goes_back) in [
            (vec![0, 1, 2], vec![], 2, false),
            (vec![2, 0], vec![], 2, true),
            (vec![2, 0], vec![], 3, false),
            (vec![2, 0], vec![], 0, false),
            (vec![2], vec![2, 0], 2, true),
            (vec![], vec![2, 0], 2, false),
        ] {
            let effects = Effects {
                state: state.iter().copied().map(write).collect(),
                emits: emits.iter().copied().map(emit).collect(),
                ..Effects::default()
            };
            assert_eq!(
                effects.goes_back(end),
                goes_back,
                "{state:?} {emits:?} {end}"
            );
        }
    }

    #[test]
    fn a_prefix_keeps_exactly_the_effects_tagged_below_its_end() {
        let add = |tag, name: &str| {
            (
                tag,
                CounterAdd {
                    name: name.into(),
                    amount: 1,
                },
            )
        };
        let effects = Effects {
            counters: vec![
                add(None, "all"),
                add(Some(0), "a"),
                add(Some(2), "b"),
                add(Some(3), "c"),
            ],
            ..Effects::default()
        };
        assert!(effects.has_untagged());
        let names: Vec<_> = effects
            .below(3)
            .counters
            .into_iter()
            .map(|(_, c)| c.name)
            .collect();
        assert_eq!(names, ["a".into(), "b".into()] as [Box<str>; 2]);
    }
}
