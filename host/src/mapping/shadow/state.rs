//! Keyed state for a shadow: what the mapping's own version read is given as that found it. The rest
//! is read from the store as it is now, which by then holds the batch's own writes and perhaps later
//! ones: a value that is older than the batch's commit is what it was, any other is doubtful.
//!
//! A value that is not there is taken for one that was not there, unless this very batch deleted it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use shardmill_core::effects::Effects;
use shardmill_core::sandbox::StateView;

use crate::mapping::failures::{Found, Seen};

type ValueKey = (String, String);

pub(super) struct AsItWas<S> {
    /// As the mapping's own version found it, and then what was read beside: an attempt sees one
    /// state throughout.
    values: Mutex<BTreeMap<ValueKey, Found>>,
    /// Deleted by the batch itself.
    deleted: BTreeSet<ValueKey>,
    /// Revision of the batch's commit.
    revision: u64,
    stored: S,
    is_doubtful: AtomicBool,
}

impl<S: StateView> AsItWas<S> {
    pub(super) fn new(seen: Seen, committed: &Effects, revision: u64, stored: S) -> Self {
        let deletes = committed.state.iter().filter(|(_, w)| w.value.is_none());
        let deleted = deletes.map(|(_, w)| (w.key.to_string(), w.name.to_string()));
        Self {
            values: Mutex::new(seen.values),
            deleted: deleted.collect(),
            revision,
            stored,
            is_doubtful: AtomicBool::new(false),
        }
    }

    /// Whether something was read that may not be what it was.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_doubtful.load(Relaxed)
    }
}

impl<S: StateView> StateView for AsItWas<S> {
    fn get(&self, partition_key: &str, name: &str) -> Result<Found, String> {
        let key = (partition_key.to_owned(), name.to_owned());
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = values.get(&key) {
            return Ok(found.clone());
        }
        let found = self.stored.get(partition_key, name)?;
        let is_sure = match &found {
            Some((_, revision)) => *revision < self.revision,
            None => !self.deleted.contains(&key),
        };
        if !is_sure {
            self.is_doubtful.store(true, Relaxed);
        }
        values.insert(key, found.clone());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shardmill_core::effects::StateWrite;

    use super::*;

    struct Stored(Found);

    impl StateView for Stored {
        fn get(&self, _: &str, _: &str) -> Result<Found, String> {
            Ok(self.0.clone())
        }
    }

    #[test]
    fn only_what_may_have_changed_since_is_doubtful() {
        let value =
            |text: &'static str, revision| Some((Bytes::from_static(text.as_bytes()), revision));
        for (name, stored, read, want, doubtful) in [
            (
                "read by the batch",
                value("now", 9),
                "seen",
                value("then", 3),
                false,
            ),
            (
                "older than the commit",
                value("now", 6),
                "other",
                value("now", 6),
                false,
            ),
            (
                "written by the commit",
                value("now", 7),
                "other",
                value("now", 7),
                true,
            ),
            (
                "written later",
                value("now", 8),
                "other",
                value("now", 8),
                true,
            ),
            ("never there", None, "other", None, false),
            ("deleted by the batch", None, "gone", None, true),
        ] {
            let mut seen = Seen::default();
            seen.values
                .insert(("k".into(), "seen".into()), value("then", 3));
            let mut committed = Effects::default();
            let delete = StateWrite {
                key: "k".into(),
                name: "gone".into(),
                value: None,
            };
            committed.state.push((None, delete));
            let state = AsItWas::new(seen, &committed, 7, Stored(stored));
            assert_eq!(state.get("k", read), Ok(want), "{name}");
            assert_eq!(state.is_doubtful(), doubtful, "{name}");
        }
    }
}
