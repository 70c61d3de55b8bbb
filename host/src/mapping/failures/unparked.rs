//! Entries of parked records that were dropped: nobody delivers the records any more, so the
//! entries can be redriven.

use shardmill_core::mapping::Span;
use shardmill_store::{CommitError, Expect, Tx, Urgency, Value};

use super::entry::entry_key;
use super::{FailureEntry, FailureFilter, Failures, FailuresError};
use crate::functions::to_json;
use crate::mapping::parked::Places;
use crate::mapping::resource::Mapping;

/// Entries that are changed by one transaction.
const CHUNK: usize = 100;

/// Conflicts after which entries stay as they are: who deletes them is at it.
const TRIES: u32 = 3;

impl Failures {
    /// Marks the entries of a mapping's parked records that they are parked no more. Gives how
    /// many there are.
    pub(in crate::mapping) async fn unpark(
        &self,
        mapping: &Mapping,
        dropped: &Places,
    ) -> Result<usize, FailuresError> {
        let filter = FailureFilter {
            mapping: Some(mapping.id.clone()),
            ..FailureFilter::default()
        };
        let mut entries = self.all(&mapping.scope, &filter)?;
        entries.retain(|entry| entry.parked && holds(entry, dropped));
        for chunk in entries.chunks(CHUNK) {
            self.mark_unparked(mapping, chunk).await?;
        }
        Ok(entries.len())
    }

    async fn mark_unparked(
        &self,
        mapping: &Mapping,
        entries: &[FailureEntry],
    ) -> Result<(), FailuresError> {
        let scope = &mapping.scope;
        let mut tries = 0;
        loop {
            let mut tx = Tx {
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            for entry in entries {
                let (mut entry, revision) = match self.find(scope, &entry.id) {
                    Err(FailuresError::NotFound(_)) => continue,
                    found => found?,
                };
                entry.parked = false;
                let key = entry_key(scope, &entry.id);
                tx.expect
                    .push(Expect::Revision(key.clone(), Some(revision)));
                tx.writes.push((key, Value::Inline(to_json(&entry))));
            }
            match self.inner.store.commit(tx).await {
                Err(CommitError::Conflict(_)) if tries < TRIES => tries += 1,
                committed => return Ok(committed.map(|_| ())?),
            }
        }
    }
}

/// Whether one of these records is an entry's.
fn holds(entry: &FailureEntry, places: &Places) -> bool {
    let Some(Span { from, to }) = entry.span else {
        return false;
    };
    // An aggregate that the span ends in is in it.
    let end = to.record + u64::from(to.sub > 0);
    let mut shards = places.iter();
    let own = shards.find(|(shard, _)| shard.to_string() == entry.shard);
    own.is_some_and(|(_, places)| {
        places
            .range(from.record..end.max(from.record))
            .next()
            .is_some()
    })
}
