//! The sums, in memory and in the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shardmill_core::sandbox::{Owner, Report};
use shardmill_core::{Batch, Outcome, Scope, UnixMillis};
use shardmill_store::{CommitError, Key, ReadError, Store, Table, Tx, Urgency, Value};

use super::keys::Keys;
use crate::clock::Clock;

const DAY_MS: u64 = Duration::from_secs(24 * 3600).as_millis() as u64;

/// How many days are kept.
const KEPT_DAYS: u64 = 35;

/// Functions whose partition keys are estimated at a time; who was not run for the longest goes.
const FUNCTIONS_WITH_KEYS: usize = 1_000;

/// Rows of one transaction.
const ROWS_OF_A_WRITE: usize = 1_000;

/// What attempts have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Fuel, units.
    pub fuel: u64,
    /// Attempts that ran.
    pub invocations: u64,
    /// Attempts among them that failed.
    pub errors: u64,
    /// Records that they were given.
    pub records: u64,
    /// Their running and sleeping, microseconds.
    pub duration_us: u64,
    /// Attempts that the host or a quota did not let run.
    pub throttles: u64,
}

impl Row {
    fn of(records: usize, report: &Report) -> Self {
        if matches!(report.outcome, Outcome::Throttled { .. }) {
            return Self {
                throttles: 1,
                ..Self::default()
            };
        }
        Self {
            fuel: report.usage.fuel,
            invocations: 1,
            errors: u64::from(matches!(report.outcome, Outcome::Failed(_))),
            records: records as u64,
            duration_us: u64::try_from(report.usage.duration.as_micros()).unwrap_or(u64::MAX),
            throttles: 0,
        }
    }

    /// Adds another row.
    pub fn add(&mut self, other: &Self) {
        self.fuel = self.fuel.saturating_add(other.fuel);
        self.invocations += other.invocations;
        self.errors += other.errors;
        self.records = self.records.saturating_add(other.records);
        self.duration_us = self.duration_us.saturating_add(other.duration_us);
        self.throttles += other.throttles;
    }
}

/// A row with what it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Account and region.
    pub scope: Scope,
    /// Days since 1970, UTC.
    pub day: u64,
    /// The function.
    pub function: String,
    /// The mapping; empty: attempts that no mapping asked for.
    pub mapping: String,
    /// What was used.
    pub row: Row,
}

/// Why the sums are not written.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What functions have used.
pub struct Ledger {
    store: Arc<dyn Store>,
    clock: Clock,
    sums: Mutex<Sums>,
    keys: Mutex<HashMap<Arc<Owner>, (UnixMillis, Keys)>>,
}

/// What is not written yet: only what came since the last write.
#[derive(Default)]
struct Sums {
    rows: HashMap<(u64, Arc<Owner>, Option<Arc<str>>), Row>,
    /// The day whose beginning has removed old ones.
    pruned: u64,
}

impl Ledger {
    /// Over this store.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self {
            store,
            clock,
            sums: Mutex::default(),
            keys: Mutex::default(),
        }
    }

    /// Notes an attempt.
    pub(super) fn note(
        &self,
        owner: &Arc<Owner>,
        mapping: Option<&Arc<str>>,
        records: usize,
        report: &Report,
    ) {
        let id = (self.today(), Arc::clone(owner), mapping.cloned());
        held(&self.sums)
            .rows
            .entry(id)
            .or_default()
            .add(&Row::of(records, report));
    }

    /// Notes which keys an attempt in record mode burnt its fuel for.
    pub(super) fn note_keys(&self, owner: &Arc<Owner>, batch: &Batch, report: &Report) {
        if report.record_fuel.is_empty() {
            return;
        }
        let now = self.clock.now();
        let mut all = held(&self.keys);
        if all.len() >= FUNCTIONS_WITH_KEYS && !all.contains_key(owner) {
            let oldest = all.iter().min_by_key(|(_, (at, _))| *at);
            if let Some(oldest) = oldest.map(|(owner, _)| Arc::clone(owner)) {
                all.remove(&oldest);
            }
        }
        let (at, keys) = all.entry(Arc::clone(owner)).or_default();
        *at = now;
        keys.note(batch, &report.record_fuel, report.usage.fuel);
    }

    /// The keys of a function that burnt the most since the host started, the highest first: fuel,
    /// and how much of it may be others'.
    pub fn keys(&self, owner: &Owner, count: usize) -> Vec<(String, u64, u64)> {
        held(&self.keys)
            .get(owner)
            .map_or_else(Vec::new, |(_, keys)| keys.top(count))
    }

    /// What was used since `days` before today, of one scope or of all, with what is not written
    /// yet.
    ///
    /// # Errors
    /// The store cannot be read, or holds what is not a row.
    pub fn since(&self, scope: Option<&Scope>, days: u64) -> Result<Vec<Entry>, ReadError> {
        let from = self.today().saturating_sub(days);
        let prefix = scope.map_or_else(
            || Key::table_prefix(Table::Usage),
            |scope| Key::new(Table::Usage, scope),
        );
        let mut entries: HashMap<Key, Entry> = HashMap::new();
        let after = scope.map(|scope| Key::new(Table::Usage, scope).number(from));
        for (key, stored) in self.store.scan(&prefix, after.as_ref(), usize::MAX)? {
            let entry = entry(&key, &stored.value)?;
            if entry.day >= from {
                entries.insert(key, entry);
            }
        }
        for ((day, owner, mapping), row) in &held(&self.sums).rows {
            if scope.is_some_and(|scope| *scope != owner.scope) || *day < from {
                continue;
            }
            let key = key(*day, owner, mapping.as_deref());
            let entry = entries.entry(key).or_insert_with(|| Entry {
                scope: owner.scope.clone(),
                day: *day,
                function: owner.function.to_string(),
                mapping: mapping.as_deref().unwrap_or_default().to_owned(),
                row: Row::default(),
            });
            entry.row.add(row);
        }
        let mut entries: Vec<Entry> = entries.into_values().collect();
        entries.sort_by(|a, b| {
            let of = |e: &Entry| {
                (
                    e.day,
                    e.scope.clone(),
                    e.function.clone(),
                    e.mapping.clone(),
                )
            };
            of(a).cmp(&of(b))
        });
        Ok(entries)
    }

    /// Writes what came since the last time, and removes days that are too old.
    ///
    /// # Errors
    /// The store's; nothing is forgotten.
    pub async fn flush(&self) -> Result<(), FlushError> {
        let rows = std::mem::take(&mut held(&self.sums).rows);
        let mut rows: Vec<_> = rows.into_iter().collect();
        while !rows.is_empty() {
            let part = rows.split_off(rows.len().saturating_sub(ROWS_OF_A_WRITE));
            if let Err(error) = self.write(&part).await {
                let mut sums = held(&self.sums);
                for (id, row) in rows.into_iter().chain(part) {
                    sums.rows.entry(id).or_default().add(&row);
                }
                return Err(error);
            }
        }
        self.prune().await
    }

    async fn write(
        &self,
        rows: &[((u64, Arc<Owner>, Option<Arc<str>>), Row)],
    ) -> Result<(), FlushError> {
        let mut writes = Vec::with_capacity(rows.len());
        for ((day, owner, mapping), row) in rows {
            let key = key(*day, owner, mapping.as_deref());
            let mut sum = match self.store.get(&key)? {
                Some(stored) => {
                    entry(&key, &stored.value).map_or_else(|_| Row::default(), |e| e.row)
                }
                None => Row::default(),
            };
            sum.add(row);
            let json = serde_json::to_vec(&sum).unwrap_or_default();
            writes.push((key, Value::Inline(json.into())));
        }
        self.commit(writes).await
    }

    async fn prune(&self) -> Result<(), FlushError> {
        let today = self.today();
        if held(&self.sums).pruned == today {
            return Ok(());
        }
        let all = self
            .store
            .scan(&Key::table_prefix(Table::Usage), None, usize::MAX)?;
        let old = all
            .into_iter()
            .map(|(key, _)| key)
            .filter(|key| day_of(key).is_none_or(|day| day.saturating_add(KEPT_DAYS) < today));
        let writes: Vec<_> = old.map(|key| (key, Value::Delete)).collect();
        for part in writes.chunks(ROWS_OF_A_WRITE) {
            self.commit(part.to_vec()).await?;
        }
        held(&self.sums).pruned = today;
        Ok(())
    }

    async fn commit(&self, writes: Vec<(Key, Value)>) -> Result<(), FlushError> {
        let tx = Tx {
            writes,
            urgency: Urgency::Housekeeping,
            ..Tx::default()
        };
        self.store.commit(tx).await?;
        Ok(())
    }

    fn today(&self) -> u64 {
        self.clock.now().0 / DAY_MS
    }
}

fn key(day: u64, owner: &Owner, mapping: Option<&str>) -> Key {
    Key::new(Table::Usage, &owner.scope)
        .number(day)
        .part(&*owner.function)
        .part(mapping.unwrap_or_default())
}

fn day_of(key: &Key) -> Option<u64> {
    let (_, parts) = key.split()?;
    Some(u64::from_be_bytes((*parts.first()?).try_into().ok()?))
}

fn entry(key: &Key, value: &[u8]) -> Result<Entry, ReadError> {
    let parsed = || {
        let (scope, parts) = key.split()?;
        let [day, function, mapping] = parts.as_slice() else {
            return None;
        };
        Some(Entry {
            scope,
            day: u64::from_be_bytes((*day).try_into().ok()?),
            function: std::str::from_utf8(function).ok()?.to_owned(),
            mapping: std::str::from_utf8(mapping).ok()?.to_owned(),
            row: serde_json::from_slice(value).ok()?,
        })
    };
    parsed().ok_or_else(|| ReadError::Damaged("a row of the fuel ledger".into()))
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests;
