//! Parked records that a person drops: those that nobody reads again are left in the failure
//! store, each in one entry that can be redriven.
//!
//! Only the records whose attempts ended have an entry; later ones of their keys are in the side
//! log alone. They get entries before they are dropped, marked as parked as the others are, and
//! the transaction that drops the records takes the marks away: a crash before it changes
//! nothing, and whoever drops them again finds the entries.

use std::collections::BTreeMap;

use shardmill_core::mapping::{Reason, Span};
use shardmill_core::{Batch, RecordRef, ShardId};
use shardmill_store::{CommitError, Expect, ReadError, Table, Tx, Urgency, Value};

use super::entry::{entry_key, parse, payload_key};
use super::{FailureEntry, FailureFilter, Failures, FailuresError, Room};
use crate::functions::to_json;
use crate::mapping::parked::{InTheWay, ParkedKeys, Places};
use crate::mapping::resource::Mapping;

/// Entries that are looked at without a break.
const PAGE: usize = 200;

/// Bytes of entries that one transaction marks, about.
const MARKED_BYTES: usize = 8 << 20;

/// Bytes of records that one entry is made of: its JSON event is below Lambda's 6 MB.
const ENTRY_BYTES: u64 = 1 << 20;

/// Conflicts after which nothing is changed: who deletes or redrives the entries is at it.
const TRIES: u32 = 3;

impl Failures {
    /// Sees to it that each record that is lost when it is dropped is in an entry: makes those
    /// that are missing. Gives the ids of the entries, which hold these records and no others.
    pub(in crate::mapping) async fn keep_lost(
        &self,
        mapping: &Mapping,
        side_log: (&ParkedKeys, &InTheWay),
        mut lost: Places,
    ) -> Result<Vec<String>, FailuresError> {
        let mut ids = self.entries_of(mapping, &mut lost).await?;
        if !lost.is_empty() {
            self.make_entries(mapping, side_log, &lost, &mut ids)
                .await?;
        }
        Ok(ids)
    }

    /// The entries all of whose records are lost, of several with the same record the newest.
    /// Takes their records out of `lost`.
    async fn entries_of(
        &self,
        mapping: &Mapping,
        lost: &mut Places,
    ) -> Result<Vec<String>, FailuresError> {
        let filter = FailureFilter {
            mapping: Some(mapping.id.clone()),
            ..FailureFilter::default()
        };
        let mut ids = Vec::new();
        let mut before = None;
        while !lost.is_empty() {
            let page = self.list(&mapping.scope, &filter, before.as_deref(), PAGE)?;
            for entry in page.entries {
                if !may_hold(&entry, lost) {
                    continue;
                }
                // Records between those of its span may be in no entry, or in another one.
                let batch = self.payload(&mapping.scope, &entry.id).await;
                if batch.is_ok_and(|batch| take_out(&batch, lost)) {
                    ids.push(entry.id);
                }
            }
            before = page.before;
            if before.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        Ok(ids)
    }

    /// Makes entries of records in the side log, shard by shard.
    async fn make_entries(
        &self,
        mapping: &Mapping,
        (parked, found): (&ParkedKeys, &InTheWay),
        lost: &Places,
        ids: &mut Vec<String>,
    ) -> Result<(), FailuresError> {
        let most = mapping.policy.batch_size as usize;
        let mut open: BTreeMap<ShardId, (Vec<Batch>, u64)> = BTreeMap::new();
        for (key, run) in found.runs() {
            let Some(batch) = parked.read_run(&self.inner, key, run).await? else {
                continue;
            };
            for (record, single) in batch.singles() {
                let shard = record.shard();
                if !holds(lost, &record) {
                    continue;
                }
                let bytes = record.payload_bytes() as u64;
                let (singles, sum) = open.entry(shard).or_default();
                if singles.len() >= most || (*sum > 0 && *sum + bytes > ENTRY_BYTES) {
                    *sum = 0;
                    let full = std::mem::take(singles);
                    ids.push(self.make_entry(mapping, shard, full).await?);
                }
                singles.push(single);
                *sum += bytes;
            }
        }
        for (shard, (singles, _)) in open {
            ids.push(self.make_entry(mapping, shard, singles).await?);
        }
        Ok(())
    }

    /// Makes an entry of parked records.
    async fn make_entry(
        &self,
        mapping: &Mapping,
        shard: ShardId,
        mut singles: Vec<Batch>,
    ) -> Result<String, FailuresError> {
        singles.sort_by_key(Batch::first_position);
        let mut batch = Batch::default();
        for single in &singles {
            batch.append(single);
        }
        let payload = batch.to_stored();
        let (inner, scope) = (&self.inner, &mapping.scope);
        let mut entry = describe(self, mapping, shard, &batch);
        entry.bytes = payload.len() as u64;
        entry.bytes += to_json(&entry).len() as u64;
        if inner.ledger.room(scope, entry.bytes) < Room::Records {
            let (used, allowed) = inner.ledger.used(scope);
            let asked = entry.bytes;
            return Err(FailuresError::Full {
                used,
                allowed,
                asked,
            });
        }
        let tx = Tx {
            writes: vec![
                (payload_key(scope, &entry.id), Value::Blob(payload.into())),
                (entry_key(scope, &entry.id), Value::Inline(to_json(&entry))),
            ],
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        inner
            .ledger
            .take(scope, &entry.id, entry.bytes, entry.created);
        inner.store.commit(tx).await?;
        Ok(entry.id)
    }

    /// Commits a transaction that drops parked records, and in it that their entries are parked
    /// no more. Gives how many of the entries are done; there was no room for the rest.
    pub(in crate::mapping) async fn commit_unparking(
        &self,
        mapping: &Mapping,
        tx: Tx,
        ids: &[String],
    ) -> Result<usize, FailuresError> {
        let mut tries = 0;
        loop {
            let mut tx = tx.clone();
            let done = self.add_marks(mapping, &mut tx, ids)?;
            match self.inner.store.commit(tx).await {
                Err(CommitError::Conflict(key))
                    if key.table() == Some(Table::Failure) && tries < TRIES =>
                {
                    tries += 1;
                }
                committed => return Ok(committed.map(|_| done)?),
            }
        }
    }

    /// Marks entries that they are parked no more.
    pub(in crate::mapping) async fn unpark(
        &self,
        mapping: &Mapping,
        mut ids: &[String],
    ) -> Result<(), FailuresError> {
        while !ids.is_empty() {
            let tx = Tx {
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            let done = self.commit_unparking(mapping, tx, ids).await?;
            ids = &ids[done..];
        }
        Ok(())
    }

    /// Adds the marks of the first of these entries to a transaction. Gives of how many.
    fn add_marks(
        &self,
        mapping: &Mapping,
        tx: &mut Tx,
        ids: &[String],
    ) -> Result<usize, ReadError> {
        let mut bytes = 0;
        for (done, id) in ids.iter().enumerate() {
            if bytes >= MARKED_BYTES {
                return Ok(done);
            }
            let key = entry_key(&mapping.scope, id);
            let Some(stored) = self.inner.store.get(&key)? else {
                continue;
            };
            let mut entry = parse(&stored.value)?;
            entry.parked = false;
            let marked = to_json(&entry);
            bytes += marked.len();
            tx.expect
                .push(Expect::Revision(key.clone(), Some(stored.revision)));
            tx.writes.push((key, Value::Inline(marked)));
        }
        Ok(ids.len())
    }
}

/// Whether some of these records may be an entry's.
fn may_hold(entry: &FailureEntry, places: &Places) -> bool {
    let Some(Span { from, to }) = entry.span else {
        return false;
    };
    let mut shards = places.iter();
    let own = shards.find(|(shard, _)| shard.to_string() == entry.shard);
    let some = own.and_then(|(_, places)| places.range(from..to.max(from)).next());
    entry.parked && entry.imported.is_none() && some.is_some()
}

fn holds(places: &Places, record: &RecordRef<'_>) -> bool {
    let of_shard = places.get(&record.shard());
    of_shard.is_some_and(|places| places.contains(&record.beginning()))
}

/// Takes the records of a batch out of these places, if all of them are there.
fn take_out(batch: &Batch, places: &mut Places) -> bool {
    let all = |places: &Places| batch.iter().all(|record| holds(places, &record));
    if batch.is_empty() || !all(places) {
        return false;
    }
    for record in batch.iter() {
        if let Some(of_shard) = places.get_mut(&record.shard()) {
            of_shard.remove(&record.beginning());
        }
    }
    places.retain(|_, places| !places.is_empty());
    true
}

/// The entry of parked records that no handler ran on since.
fn describe(failures: &Failures, mapping: &Mapping, shard: ShardId, batch: &Batch) -> FailureEntry {
    let inner = &failures.inner;
    let now = inner.clock.now();
    // Of a function that is gone there is only the name.
    let running = inner.running(mapping).map(|running| {
        let function = &running.route.first;
        (function.version, function.digest.clone())
    });
    let (version, digest) = running.unwrap_or_default();
    let first = batch.get(0);
    let last = batch.get(batch.len().saturating_sub(1));
    let span = batch.first_position().zip(batch.end_position());
    FailureEntry {
        id: inner.ledger.new_id(now),
        scope: mapping.scope.clone(),
        created: now,
        mapping: mapping.name.clone(),
        mapping_id: mapping.id.clone(),
        function: mapping.function.clone(),
        version,
        digest,
        stream: mapping.stream.to_string(),
        shard: shard.to_string(),
        reason: Reason::RetryAttemptsExhausted,
        cause: None,
        request_id: String::new(),
        invocations: 0,
        records: batch.len() as u64,
        span: span.map(|(from, to)| Span { from, to }),
        first_sequence_number: first.map(|r| r.sequence_number()),
        last_sequence_number: last.map(|r| r.sequence_number()),
        first_arrival: first.map(|r| r.arrival),
        last_arrival: last.map(|r| r.arrival),
        replay: None,
        parked: true,
        redriven: None,
        redriven_to: None,
        bytes: 0,
        withheld: None,
        imported: None,
    }
}
