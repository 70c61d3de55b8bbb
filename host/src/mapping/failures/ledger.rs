//! How much each tenant keeps in the failure store, and how much it may: running totals in
//! memory, counted from the table at start, so that a question costs a look at a map.
//!
//! An entry counts from the moment it is made; whether its transaction was committed is looked
//! up later, by `sweep`, which also removes what is too old. Entries of a tenant in several
//! regions count together.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use shardmill_core::mapping::Position;
use shardmill_core::{Scope, ShardId, TenantId, UnixMillis};
use shardmill_store::{CommitError, Expect, Key, ReadError, Store, Table, Tx, Urgency, Value};

use super::FailuresError;
use super::entry::{LastId, entry_key, first_id_of, id_of, inputs_key, new_id, payload_key};

/// How long a commit may be under way before the store is asked what became of it.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// Between two warnings of entries that are not kept.
const WARNS_EVERY: Duration = Duration::from_secs(60);

/// Where a tenant's entries have filled its bound, entries without records may take this part
/// of it on top.
const BARE_SHARE: u64 = 8;

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

/// What may still be kept of an entry, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Nothing: entries without records have filled their share, too.
    None,
    /// The entry without records.
    Entry,
    /// The records that are given up, and no more of the batch that they were attempted in.
    Records,
    /// All: more than half is free.
    Whole,
}

/// What a tenant keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Entries.
    pub entries: u64,
    /// Their bytes, with records, inputs and imported modules.
    pub bytes: u64,
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
pub(in crate::mapping) struct Ledger {
    totals: Mutex<Totals>,
    /// Held while an imported module comes or goes with its entry.
    pub(super) modules: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Totals {
    bounds: FailureBounds,
    last_id: LastId,
    kept: BTreeMap<TenantId, Kept>,
    scopes: BTreeSet<Scope>,
    /// Entries whose transaction may not be committed yet, the oldest first.
    unsettled: VecDeque<(UnixMillis, Scope, String, u64)>,
    /// The last batch that was kept, by mapping and shard.
    batches: HashMap<(String, ShardId), KeptBatch>,
    /// Entries that were not kept, and are not told yet.
    dropped: u64,
    warned: Option<UnixMillis>,
}

/// What a sweep removed.
#[derive(Debug, Default)]
pub(super) struct Swept {
    pub(super) entries: usize,
    /// Scope and digest of their modules.
    pub(super) modules: BTreeSet<(Scope, String)>,
}

/// As much of an entry as counts here.
#[derive(Deserialize)]
struct Counted {
    #[serde(default)]
    bytes: u64,
    created: UnixMillis,
    #[serde(default)]
    digest: String,
}

impl Ledger {
    /// Sets the bounds and counts what is stored.
    pub(super) fn open(&self, store: &dyn Store, bounds: FailureBounds) -> Result<(), ReadError> {
        let mut totals = self.totals();
        totals.bounds = bounds;
        totals.kept.clear();
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
                totals.count(scope.tenant, counted.map_or(0, |c| c.bytes));
                totals.scopes.insert(scope);
            }
        }
    }

    /// Bytes that a tenant keeps, and bytes that it may.
    pub(super) fn used(&self, scope: &Scope) -> (u64, u64) {
        let totals = self.totals();
        let kept = totals.kept.get(&scope.tenant).copied();
        (kept.unwrap_or_default().bytes, totals.bounds.bytes)
    }

    /// What every tenant keeps, and how many bytes each may.
    pub(super) fn all(&self) -> (Vec<(TenantId, Kept)>, u64) {
        let totals = self.totals();
        let kept = totals.kept.iter().map(|(tenant, kept)| (*tenant, *kept));
        (kept.collect(), totals.bounds.bytes)
    }

    /// Notes an entry that is not kept. How many since the last time, if it is time to say so.
    pub(super) fn dropped(&self, now: UnixMillis) -> Option<u64> {
        let mut totals = self.totals();
        totals.dropped += 1;
        let recently = |at: UnixMillis| now.since(at) < WARNS_EVERY;
        if totals.warned.is_some_and(recently) {
            return None;
        }
        totals.warned = Some(now);
        Some(std::mem::take(&mut totals.dropped))
    }

    /// What may be kept of an entry of `bytes` bytes.
    pub(super) fn room(&self, scope: &Scope, bytes: u64) -> Room {
        let (used, allowed) = self.used(scope);
        match used.saturating_add(bytes) {
            _ if used >= allowed.saturating_add(allowed / BARE_SHARE) => Room::None,
            sum if sum > allowed => Room::Entry,
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
        totals.count(scope.tenant, bytes);
        totals.scopes.insert(scope.clone());
        totals
            .unsettled
            .push_back((now, scope.clone(), id.to_owned(), bytes));
    }

    /// An entry is there: nobody need look whether it was committed. Said before it is removed,
    /// so that it is not taken for one that never was.
    pub(super) fn is_there(&self, id: &str) {
        self.totals().unsettled.retain(|(.., made, _)| made != id);
    }

    /// Takes back what was counted for entries that are gone.
    pub(super) fn forget(&self, scope: &Scope, gone: Kept) {
        if let Some(kept) = self.totals().kept.get_mut(&scope.tenant) {
            kept.entries = kept.entries.saturating_sub(gone.entries);
            kept.bytes = kept.bytes.saturating_sub(gone.bytes);
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

    /// Removes what is too old and settles what was counted.
    pub(super) async fn sweep(
        &self,
        store: &dyn Store,
        now: UnixMillis,
    ) -> Result<Swept, FailuresError> {
        self.settle(store, now)?;
        let (age, scopes) = {
            let totals = self.totals();
            (totals.bounds.age, totals.scopes.clone())
        };
        let mut swept = Swept::default();
        for scope in &scopes {
            self.expire(store, scope, now.minus(age), &mut swept)
                .await?;
        }
        if swept.entries > 0 {
            tracing::info!(
                removed = swept.entries,
                "failures older than {age:?} are removed"
            );
        }
        Ok(swept)
    }

    async fn expire(
        &self,
        store: &dyn Store,
        scope: &Scope,
        oldest: UnixMillis,
        swept: &mut Swept,
    ) -> Result<(), FailuresError> {
        let prefix = Key::new(Table::Failure, scope);
        // One entry tells whether there is anything to do: ids are in the order of time.
        let first_kept = entry_key(scope, &first_id_of(oldest));
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
            let mut gone = Kept::default();
            let mut modules = Vec::new();
            for (key, stored) in page.into_iter().take_while(|(key, _)| *key < first_kept) {
                let Some(id) = id_of(&key) else { continue };
                let counted = serde_json::from_slice::<Counted>(&stored.value).ok();
                if counted.as_ref().is_some_and(|c| c.created >= oldest) {
                    continue;
                }
                gone.entries += 1;
                if let Some(counted) = counted {
                    gone.bytes += counted.bytes;
                    modules.push((scope.clone(), counted.digest));
                }
                // Somebody may be deleting it: its bytes are taken back once.
                tx.expect.push(Expect::Revision(key, Some(stored.revision)));
                for key in [entry_key, payload_key, inputs_key] {
                    tx.writes.push((key(scope, &id), Value::Delete));
                }
            }
            if gone.entries == 0 {
                break;
            }
            match store.commit(tx).await {
                Ok(_) => self.forget(scope, gone),
                Err(CommitError::Conflict(_)) => break,
                Err(error) => return Err(error.into()),
            }
            swept.entries += gone.entries as usize;
            swept.modules.extend(modules);
        }
        Ok(())
    }

    /// What was counted and never committed is taken back.
    fn settle(&self, store: &dyn Store, now: UnixMillis) -> Result<(), ReadError> {
        loop {
            let first = self.totals().unsettled.front().cloned();
            let due = first.filter(|(made, ..)| now.since(*made) >= SETTLED_AFTER);
            let Some((_, scope, id, bytes)) = due else {
                return Ok(());
            };
            let missing = store.get(&entry_key(&scope, &id))?.is_none();
            let mut totals = self.totals();
            // One that was deleted meanwhile is not here any more.
            if totals
                .unsettled
                .front()
                .is_some_and(|(.., of, _)| *of == id)
            {
                totals.unsettled.pop_front();
                drop(totals);
                if missing {
                    self.forget(&scope, Kept { entries: 1, bytes });
                }
            }
        }
    }

    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Totals {
    fn count(&mut self, tenant: TenantId, bytes: u64) {
        let kept = self.kept.entry(tenant).or_default();
        kept.entries += 1;
        kept.bytes += bytes;
    }
}

#[cfg(test)]
mod tests;
