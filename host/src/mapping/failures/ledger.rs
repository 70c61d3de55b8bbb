//! How much each tenant keeps in the failure store, and how much it may: running totals in
//! memory, counted from the table at start, so that a question costs a look at a map.
//!
//! An entry counts from the moment it is made; whether its transaction was committed is looked
//! up later, by `sweep`, which also removes what is too old. Entries of a tenant in several
//! regions count together.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use shardmill_core::mapping::Position;
use shardmill_core::{Scope, ShardId, TenantId, UnixMillis};
use shardmill_store::{CommitError, Key, ReadError, Store, Table, Tx, Urgency, Value};

use super::FailuresError;
use super::entry::{LastId, entry_key, first_id_of, id_of, inputs_key, new_id, payload_key};

/// How long a commit may be under way before the store is asked what became of it.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// Entries that are read, or removed, at a time.
const PAGE: usize = 200;

/// Pages that one sweep removes of a scope: the rest waits for the next one.
const PAGES_PER_SWEEP: usize = 50;

/// What a tenant may keep in the failure store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureBounds {
    /// Age at which an entry is removed, redriven or not. Default: 30 days; 1 … 365 days.
    pub age: Duration,
    /// Entries with their records and inputs, bytes. Default: 1 GiB; 1 MiB … 1 TiB.
    pub bytes: u64,
}

impl Default for FailureBounds {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(30 * 86_400),
            bytes: 1 << 30,
        }
    }
}

/// What may still be kept of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// All: more than half is free.
    Whole,
    /// The records that are given up, and no more of the batch that they were attempted in.
    Records,
    /// No records.
    None,
}

/// The whole batch of an attempt that an entry keeps.
#[derive(Clone, Debug)]
pub(super) struct KeptBatch {
    pub(super) id: String,
    /// Position of its first record.
    pub(super) from: Position,
    /// Position after its last record.
    pub(super) to: Position,
}

/// The totals of all tenants.
#[derive(Default)]
pub(in crate::mapping) struct Ledger(Mutex<Totals>);

#[derive(Default)]
struct Totals {
    bounds: FailureBounds,
    last_id: LastId,
    used: HashMap<TenantId, u64>,
    scopes: BTreeSet<Scope>,
    /// Entries whose transaction may not be committed yet, the oldest first.
    unsettled: VecDeque<(UnixMillis, Scope, String, u64)>,
    /// The last batch that was kept, by mapping and shard.
    batches: HashMap<(String, ShardId), KeptBatch>,
}

/// As much of an entry as counts here.
#[derive(Deserialize)]
struct Counted {
    #[serde(default)]
    bytes: u64,
    created: UnixMillis,
}

impl Ledger {
    /// Sets the bounds and counts what is stored.
    pub(super) fn open(&self, store: &dyn Store, bounds: FailureBounds) -> Result<(), ReadError> {
        let mut totals = self.totals();
        totals.bounds = bounds;
        totals.used.clear();
        let all = Key::table_prefix(Table::Failure);
        let mut after = None;
        loop {
            let page = store.scan(&all, after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            for (key, stored) in &page {
                let Some((scope, _)) = key.split() else {
                    continue;
                };
                let counted = serde_json::from_slice::<Counted>(&stored.value);
                *totals.used.entry(scope.tenant).or_default() += counted.map_or(0, |c| c.bytes);
                totals.scopes.insert(scope);
            }
        }
    }

    /// Bytes that a tenant keeps, and bytes that it may.
    pub(super) fn used(&self, scope: &Scope) -> (u64, u64) {
        let totals = self.totals();
        let used = totals.used.get(&scope.tenant).copied().unwrap_or(0);
        (used, totals.bounds.bytes)
    }

    /// What may be kept of an entry of `bytes` bytes.
    pub(super) fn room(&self, scope: &Scope, bytes: u64) -> Room {
        let (used, allowed) = self.used(scope);
        match used.saturating_add(bytes) {
            sum if sum > allowed => Room::None,
            sum if sum > allowed / 2 => Room::Records,
            _ => Room::Whole,
        }
    }

    /// An id for an entry that is made at `now`: it sorts behind those that were made before.
    pub(super) fn new_id(&self, now: UnixMillis) -> String {
        new_id(&mut self.totals().last_id, now)
    }

    /// Counts an entry that is about to be committed.
    pub(super) fn take(&self, scope: &Scope, id: &str, bytes: u64, now: UnixMillis) {
        let mut totals = self.totals();
        *totals.used.entry(scope.tenant).or_default() += bytes;
        totals.scopes.insert(scope.clone());
        totals
            .unsettled
            .push_back((now, scope.clone(), id.to_owned(), bytes));
    }

    /// Takes back what was counted for an entry that was removed.
    pub(super) fn remove(&self, scope: &Scope, id: &str, bytes: u64) {
        self.totals().unsettled.retain(|(.., made, _)| made != id);
        self.forget(scope, bytes);
    }

    fn forget(&self, scope: &Scope, bytes: u64) {
        if let Some(used) = self.totals().used.get_mut(&scope.tenant) {
            *used = used.saturating_sub(bytes);
        }
    }

    /// The entry whose batch ends at `to` and holds position `from`, if the last one of this
    /// mapping and shard does.
    pub(super) fn batch_with(
        &self,
        mapping: &str,
        shard: ShardId,
        (from, to): (Position, Position),
    ) -> Option<String> {
        let totals = self.totals();
        let kept = totals.batches.get(&(mapping.to_owned(), shard))?;
        (kept.from <= from && kept.to == to).then(|| kept.id.clone())
    }

    /// Remembers that an entry keeps its whole batch.
    pub(super) fn keeps(&self, mapping: &str, shard: ShardId, batch: KeptBatch) {
        /// Mappings and shards that are remembered; more only means that batches are kept twice.
        const MOST: usize = 10_000;
        let mut totals = self.totals();
        if totals.batches.len() >= MOST {
            totals.batches.clear();
        }
        totals.batches.insert((mapping.to_owned(), shard), batch);
    }

    /// Removes what is too old and settles what was counted. Returns how many entries went.
    pub(super) async fn sweep(
        &self,
        store: &dyn Store,
        now: UnixMillis,
    ) -> Result<usize, FailuresError> {
        self.settle(store, now)?;
        let (age, scopes) = {
            let totals = self.totals();
            (totals.bounds.age, totals.scopes.clone())
        };
        let mut removed = 0;
        for scope in &scopes {
            removed += self.expire(store, scope, now.minus(age)).await?;
        }
        if removed > 0 {
            tracing::info!(removed, "failures older than {age:?} are removed");
        }
        Ok(removed)
    }

    async fn expire(
        &self,
        store: &dyn Store,
        scope: &Scope,
        oldest: UnixMillis,
    ) -> Result<usize, FailuresError> {
        let prefix = Key::new(Table::Failure, scope);
        // One entry tells whether there is anything to do: ids are in the order of time.
        let first_kept = entry_key(scope, &first_id_of(oldest));
        let mut removed = 0;
        for _ in 0..PAGES_PER_SWEEP {
            let first = store.scan(&prefix, None, 1)?;
            if first.first().is_none_or(|(key, _)| *key >= first_kept) {
                break;
            }
            let page = store.scan(&prefix, None, PAGE)?;
            let mut tx = Tx {
                urgency: Urgency::Housekeeping,
                ..Tx::default()
            };
            let (mut bytes, mut entries) = (0, 0);
            for (key, stored) in page.into_iter().take_while(|(key, _)| *key < first_kept) {
                let Some(id) = id_of(&key) else { continue };
                let counted = serde_json::from_slice::<Counted>(&stored.value).ok();
                if counted.as_ref().is_some_and(|c| c.created >= oldest) {
                    continue;
                }
                bytes += counted.map_or(0, |c| c.bytes);
                entries += 1;
                for key in [entry_key, payload_key, inputs_key] {
                    tx.writes.push((key(scope, &id), Value::Delete));
                }
            }
            if entries == 0 {
                break;
            }
            match store.commit(tx).await {
                Ok(_) => self.forget(scope, bytes),
                Err(CommitError::Conflict(_)) => break,
                Err(error) => return Err(error.into()),
            }
            removed += entries;
        }
        Ok(removed)
    }

    /// What was counted and never committed is taken back.
    fn settle(&self, store: &dyn Store, now: UnixMillis) -> Result<(), ReadError> {
        loop {
            let due = {
                let mut totals = self.totals();
                let due = totals
                    .unsettled
                    .front()
                    .is_some_and(|(made, ..)| now.since(*made) >= SETTLED_AFTER);
                due.then(|| totals.unsettled.pop_front()).flatten()
            };
            let Some((_, scope, id, bytes)) = due else {
                return Ok(());
            };
            if store.get(&entry_key(&scope, &id))?.is_none() {
                self.forget(&scope, bytes);
            }
        }
    }

    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
