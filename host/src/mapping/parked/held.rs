//! The parked keys of a mapping in memory: by name, with their sums, and those that are let go
//! on in the order of their turns.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use shardmill_core::UnixMillis;

use super::ParkedKey;

/// The keys as they were last seen.
#[derive(Default)]
pub(super) struct Held {
    keys: BTreeMap<String, Kept>,
    /// Their names: copied when they change while somebody sorts by them.
    names: Arc<HashSet<String>>,
    records: u64,
    bytes: u64,
    /// Keys that are let go on, by when their turn is.
    turns: BTreeSet<(UnixMillis, String)>,
    /// Revision of the last transaction that removed a key.
    removed: u64,
    /// Grows when a person drops records.
    pub(super) drops: u64,
}

struct Kept {
    parked: ParkedKey,
    revision: u64,
    /// Not to be delivered before, for reasons that are not stored.
    put_off: UnixMillis,
}

impl Kept {
    fn turn(&self) -> Option<UnixMillis> {
        let release = &self.parked.release;
        release
            .releasing
            .then(|| release.not_before.max(self.put_off))
    }
}

impl Held {
    pub(super) fn names(&self) -> &Arc<HashSet<String>> {
        &self.names
    }

    pub(super) fn get(&self, name: &str) -> Option<(&ParkedKey, u64)> {
        self.keys
            .get(name)
            .map(|kept| (&kept.parked, kept.revision))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ParkedKey> {
        self.keys.values().map(|kept| &kept.parked)
    }

    /// Records and bytes of all keys.
    pub(super) fn sums(&self) -> (u64, u64) {
        (self.records, self.bytes)
    }

    /// The key that is let go on whose turn is first, and when that is.
    pub(super) fn first_turn(&self) -> Option<(UnixMillis, &ParkedKey)> {
        let (at, name) = self.turns.first()?;
        Some((*at, &self.keys.get(name)?.parked))
    }

    /// Notes what a transaction wrote. Gives it back when a later one may have removed the key:
    /// then the store has to be asked.
    #[must_use]
    pub(super) fn note(
        &mut self,
        name: &str,
        parked: Option<ParkedKey>,
        revision: u64,
    ) -> Option<ParkedKey> {
        match self.keys.get(name) {
            // Somebody was faster to tell of something later.
            Some(kept) if kept.revision > revision => return None,
            None if parked.is_some() && revision < self.removed => return parked,
            _ => {}
        }
        if parked.is_none() {
            self.removed = self.removed.max(revision);
        }
        self.put(name, parked.map(|parked| (parked, revision)));
        None
    }

    /// Takes a key as it is stored.
    pub(super) fn put(&mut self, name: &str, stored: Option<(ParkedKey, u64)>) {
        let before = self.keys.remove(name);
        if let Some(before) = &before {
            self.records -= before.parked.records;
            self.bytes -= before.parked.bytes;
            if let Some(turn) = before.turn() {
                self.turns.remove(&(turn, name.to_owned()));
            }
        }
        let Some((parked, revision)) = stored else {
            if before.is_some() {
                Arc::make_mut(&mut self.names).remove(name);
            }
            return;
        };
        if before.is_none() {
            Arc::make_mut(&mut self.names).insert(name.to_owned());
        }
        self.keep(
            name,
            Kept {
                parked,
                revision,
                put_off: before.map_or(UnixMillis(0), |before| before.put_off),
            },
        );
    }

    /// Puts the turn of a key off.
    pub(super) fn put_off(&mut self, name: &str, until: UnixMillis) {
        let Some(mut kept) = self.keys.remove(name) else {
            return;
        };
        if let Some(turn) = kept.turn() {
            self.turns.remove(&(turn, name.to_owned()));
        }
        self.records -= kept.parked.records;
        self.bytes -= kept.parked.bytes;
        kept.put_off = until;
        self.keep(name, kept);
    }

    fn keep(&mut self, name: &str, kept: Kept) {
        self.records += kept.parked.records;
        self.bytes += kept.parked.bytes;
        if let Some(turn) = kept.turn() {
            self.turns.insert((turn, name.to_owned()));
        }
        self.keys.insert(name.to_owned(), kept);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Release;
    use super::*;

    fn key(name: &str, records: u64, not_before: Option<u64>) -> ParkedKey {
        ParkedKey {
            key: name.into(),
            since: UnixMillis(1),
            reason: "trap".into(),
            records,
            bytes: records * 10,
            first_run: 0,
            next_run: 1,
            release: Release {
                releasing: not_before.is_some(),
                not_before: UnixMillis(not_before.unwrap_or(0)),
                ..Release::default()
            },
        }
    }

    fn turn(held: &Held) -> Option<(u64, &str)> {
        held.first_turn()
            .map(|(at, parked)| (at.0, parked.key.as_str()))
    }

    #[test]
    fn sums_and_turns_follow_every_change() {
        let mut held = Held::default();
        assert!(held.note("a", Some(key("a", 3, Some(0))), 1).is_none());
        assert!(held.note("b", Some(key("b", 2, Some(5))), 2).is_none());
        assert!(held.note("c", Some(key("c", 1, None)), 3).is_none());
        assert_eq!(
            (held.sums(), held.names().len(), turn(&held)),
            ((6, 60), 3, Some((0, "a")))
        );
        held.put_off("a", UnixMillis(9));
        assert_eq!((held.sums(), turn(&held)), ((6, 60), Some((5, "b"))));
        assert!(held.note("a", Some(key("a", 4, Some(0))), 4).is_none());
        assert_eq!(turn(&held), Some((5, "b")), "what was put off stays so");
        assert!(held.note("b", None, 5).is_none());
        assert_eq!(
            (held.sums(), held.names().len(), turn(&held)),
            ((5, 50), 2, Some((9, "a")))
        );
    }

    #[test]
    fn what_is_told_late_does_not_undo_what_came_later() {
        let mut held = Held::default();
        assert!(held.note("a", Some(key("a", 3, None)), 7).is_none());
        assert!(held.note("a", Some(key("a", 2, None)), 6).is_none());
        assert_eq!(
            held.get("a").map(|(parked, at)| (parked.records, at)),
            Some((3, 7))
        );
        assert!(held.note("a", None, 9).is_none());
        let late = held.note("a", Some(key("a", 4, None)), 8);
        assert!(late.is_some(), "it may be what was removed");
        assert!(held.note("a", Some(key("a", 1, None)), 10).is_none());
    }

    #[test]
    fn names_that_somebody_sorts_by_do_not_change_under_them() {
        let mut held = Held::default();
        held.put("a", Some((key("a", 1, None), 1)));
        let names = Arc::clone(held.names());
        held.put("a", None);
        assert!(names.contains("a") && held.names().is_empty());
    }
}
