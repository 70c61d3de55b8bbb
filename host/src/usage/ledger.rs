//! The sums, in memory and in the store.
//!
//! Nobody else writes the table, so what a row will be is known before it is written: it is written
//! as a whole, never as a difference. A write whose end is not known (the store says so, or its
//! future was dropped) is repeated with the same sum and what came since, which counts nothing twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shardmill_core::sandbox::{Owner, Report};
use shardmill_core::{Batch, Outcome, Scope};
use shardmill_store::{CommitError, Key, ReadError, Store, Table, Tx, Urgency, Value};

use super::held;
use super::sketches::Sketches;
use crate::clock::Clock;
use crate::functions::to_json;

const DAY_MS: u64 = Duration::from_secs(24 * 3600).as_millis() as u64;

/// How many days before today are kept.
pub const KEPT_DAYS: u64 = 35;

/// Rows that are shown at a time: about 20 MB of JSON.
pub const MAX_ROWS: usize = 100_000;

/// Rows of one transaction, and of one reading.
const ROWS_AT_ONCE: usize = 1_000;

/// What is told of a damaged row, bytes.
const DAMAGED_BYTES_TOLD: usize = 200;

/// What attempts have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Fuel, units.
    pub fuel: u64,
    /// Attempts that ran, and those that were cancelled.
    pub invocations: u64,
    /// Attempts among them whose caller went away before they ended, as when a host stops. What
    /// they used is not known, and their records are not counted.
    pub cancelled: u64,
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
            ..Self::default()
        }
    }

    const CANCELLED: Self = Self {
        fuel: 0,
        invocations: 1,
        cancelled: 1,
        errors: 0,
        records: 0,
        duration_us: 0,
        throttles: 0,
    };

    /// Adds another row.
    pub fn add(&mut self, other: &Self) {
        let Self {
            fuel,
            invocations,
            cancelled,
            errors,
            records,
            duration_us,
            throttles,
        } = self;
        for (sum, more) in [
            (fuel, other.fuel),
            (invocations, other.invocations),
            (cancelled, other.cancelled),
            (errors, other.errors),
            (records, other.records),
            (duration_us, other.duration_us),
            (throttles, other.throttles),
        ] {
            *sum = sum.saturating_add(more);
        }
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

/// Why the sums are not shown.
#[derive(Debug, thiserror::Error)]
pub enum SinceError {
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is too much for an answer.
    #[error("the ledger has more than {MAX_ROWS} rows of these days: ask for fewer days")]
    TooMany,
}

/// What functions have used.
pub struct Ledger {
    store: Arc<dyn Store>,
    clock: Clock,
    sums: Mutex<Sums>,
    /// Held while rows are on their way to the store, and while they are read: who reads finds
    /// each either in memory or in the store.
    writing: tokio::sync::Mutex<()>,
    keys: Sketches,
}

/// Scope and day.
type Place = (Scope, u64);

/// Day, function and mapping.
type Id = (u64, Arc<Owner>, Option<Arc<str>>);

#[derive(Default)]
struct Sums {
    rows: HashMap<Id, Unwritten>,
    /// The day whose beginning has removed old ones.
    pruned: Option<u64>,
}

/// What the store may not hold yet.
#[derive(Default)]
struct Unwritten {
    /// What came since its last write began.
    fresh: Row,
    /// The whole row, as a write that has begun leaves it; stays until one is known to have ended.
    written: Option<Row>,
}

impl Ledger {
    /// Over this store.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self {
            store,
            clock,
            sums: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            keys: Sketches::default(),
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
        self.add(owner, mapping, &Row::of(records, report));
    }

    /// Notes an attempt whose caller went away.
    pub(super) fn note_cancelled(&self, owner: &Arc<Owner>, mapping: Option<&Arc<str>>) {
        self.add(owner, mapping, &Row::CANCELLED);
    }

    fn add(&self, owner: &Arc<Owner>, mapping: Option<&Arc<str>>, row: &Row) {
        let id = (self.today(), Arc::clone(owner), mapping.cloned());
        let mut sums = held(&self.sums);
        sums.rows.entry(id).or_default().fresh.add(row);
    }

    /// Notes which keys an attempt in record mode burnt its fuel for.
    pub(super) fn note_keys(&self, owner: &Arc<Owner>, batch: &Batch, report: &Report) {
        self.keys.note(owner, batch, report);
    }

    /// The keys of a function that burnt the most since the host started, the highest first: fuel,
    /// and how much of it may be others'.
    pub fn keys(&self, owner: &Owner, count: usize) -> Vec<(String, u64, u64)> {
        self.keys.top(owner, count)
    }

    /// What was used since `days` before today, of one scope or of all, with what is not written
    /// yet; by day, scope, function and mapping. A damaged row is left out, with a line in the log.
    ///
    /// # Errors
    /// The store cannot be read, or there are more than [`MAX_ROWS`].
    pub async fn since(&self, scope: Option<&Scope>, days: u64) -> Result<Vec<Entry>, SinceError> {
        let from = self.today().saturating_sub(days);
        let _still = self.writing.lock().await;
        let wanted = scope.cloned();
        let stored = move |store: &dyn Store| stored(store, wanted.as_ref(), from);
        let mut entries: HashMap<Key, Entry> = self.read(stored).await??;
        for ((day, owner, mapping), unwritten) in &held(&self.sums).rows {
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
            if let Some(written) = unwritten.written {
                entry.row = written;
            }
            entry.row.add(&unwritten.fresh);
        }
        if entries.len() > MAX_ROWS {
            return Err(SinceError::TooMany);
        }
        let mut entries: Vec<Entry> = entries.into_values().collect();
        let place = |e: &Entry| {
            (
                e.day,
                e.scope.clone(),
                e.function.clone(),
                e.mapping.clone(),
            )
        };
        entries.sort_by_cached_key(place);
        Ok(entries)
    }

    /// Writes what came since the last time, and removes days that are too old.
    ///
    /// # Errors
    /// The store's; nothing is forgotten, nor when the future is dropped.
    pub async fn flush(&self) -> Result<(), FlushError> {
        let ids: Vec<Id> = held(&self.sums).rows.keys().cloned().collect();
        for part in ids.chunks(ROWS_AT_ONCE) {
            let _alone = self.writing.lock().await;
            let writes = self.begin(part)?;
            self.commit(writes).await?;
            self.end(part);
        }
        self.prune().await
    }

    /// Takes up the whole rows that are to be written.
    fn begin(&self, ids: &[Id]) -> Result<Vec<(Key, Value)>, FlushError> {
        let mut writes = Vec::with_capacity(ids.len());
        for id in ids {
            let key = key(id.0, &id.1, id.2.as_deref());
            let Some(begun) = held(&self.sums).rows.get(id).map(|row| row.written) else {
                continue;
            };
            let mut sum = match begun {
                Some(row) => row,
                None => self.stored_row(&key)?,
            };
            if let Some(unwritten) = held(&self.sums).rows.get_mut(id) {
                sum.add(&std::mem::take(&mut unwritten.fresh));
                unwritten.written = Some(sum);
            }
            writes.push((key, Value::Inline(to_json(&sum))));
        }
        Ok(writes)
    }

    /// What is stored of a row. A damaged one begins anew, with a line in the log that tells what
    /// it was: that a table for showing goes on matters more than the rest of a day.
    fn stored_row(&self, key: &Key) -> Result<Row, ReadError> {
        let damaged = |what: &str| {
            tracing::error!(
                ?key,
                what,
                "a row of the fuel ledger is damaged: it begins anew"
            );
            Row::default()
        };
        match self.store.get(key) {
            Ok(None) => Ok(Row::default()),
            Ok(Some(stored)) => Ok(serde_json::from_slice(&stored.value)
                .unwrap_or_else(|_| damaged(&told(&stored.value)))),
            Err(ReadError::Damaged(why)) => Ok(damaged(&why)),
            Err(error) => Err(error),
        }
    }

    /// Forgets what is now in the store.
    fn end(&self, ids: &[Id]) {
        let mut sums = held(&self.sums);
        for id in ids {
            if let Some(unwritten) = sums.rows.get_mut(id) {
                unwritten.written = None;
                if unwritten.fresh == Row::default() {
                    sums.rows.remove(id);
                }
            }
        }
    }

    async fn prune(&self) -> Result<(), FlushError> {
        let today = self.today();
        if held(&self.sums).pruned == Some(today) {
            return Ok(());
        }
        let oldest = today.saturating_sub(KEPT_DAYS);
        let mut after = None;
        loop {
            let from = after.take();
            let (keys, last) = self
                .read(move |store| too_old(store, from, oldest))
                .await??;
            if !keys.is_empty() {
                let writes = keys.into_iter().map(|key| (key, Value::Delete));
                self.commit(writes.collect()).await?;
            }
            if last.is_none() {
                break;
            }
            after = last;
        }
        held(&self.sums).pruned = Some(today);
        Ok(())
    }

    /// Reads much where that holds up nobody.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> T + Send + 'static,
    ) -> Result<T, ReadError> {
        let store = Arc::clone(&self.store);
        let read = tokio::task::spawn_blocking(move || read(store.as_ref())).await;
        read.map_err(|error| ReadError::Io(error.to_string()))
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

/// The rows of a scope, or of all of them, from a day on.
fn stored(
    store: &dyn Store,
    scope: Option<&Scope>,
    from: u64,
) -> Result<HashMap<Key, Entry>, SinceError> {
    let mut entries = HashMap::new();
    match scope {
        Some(scope) => stored_of(store, scope, from, &mut entries)?,
        None => {
            let mut after = None;
            while let Some((key, place)) = next(store, after.as_ref())? {
                after = Some(match place {
                    None => key,
                    Some((scope, _)) => {
                        stored_of(store, &scope, from, &mut entries)?;
                        end_of(&scope)
                    }
                });
            }
        }
    }
    Ok(entries)
}

fn stored_of(
    store: &dyn Store,
    scope: &Scope,
    from: u64,
    entries: &mut HashMap<Key, Entry>,
) -> Result<(), SinceError> {
    let prefix = Key::new(Table::Usage, scope);
    let mut after = prefix.clone().number(from);
    loop {
        let page = store.scan(&prefix, Some(&after), ROWS_AT_ONCE)?;
        let is_last = page.len() < ROWS_AT_ONCE;
        for (key, stored) in page {
            after = key.clone();
            match entry(&key, &stored.value) {
                Some(entry) => drop(entries.insert(key, entry)),
                None => {
                    let value = told(&stored.value);
                    tracing::error!(?key, value, "a row of the fuel ledger is damaged: left out");
                }
            }
        }
        if entries.len() > MAX_ROWS {
            return Err(SinceError::TooMany);
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Rows of days before `oldest`, behind `after`, as many as one transaction deletes, and where to
/// go on; `None` at the end. Values of days that are kept are not read, but for one of each scope.
fn too_old(
    store: &dyn Store,
    mut after: Option<Key>,
    oldest: u64,
) -> Result<(Vec<Key>, Option<Key>), ReadError> {
    let mut old = Vec::new();
    while let Some((key, place)) = next(store, after.as_ref())? {
        match place {
            Some((scope, day)) if day >= oldest => after = Some(end_of(&scope)),
            Some((scope, day)) => {
                let day = Key::new(Table::Usage, &scope).number(day);
                let found = store.scan(&day, after.as_ref(), ROWS_AT_ONCE - old.len())?;
                old.extend(found.into_iter().map(|(key, _)| key));
                after = old.last().cloned();
            }
            None => {
                after = Some(key.clone());
                old.push(key);
            }
        }
        if old.len() >= ROWS_AT_ONCE {
            return Ok((old, after));
        }
    }
    Ok((old, None))
}

/// The first key behind `after`, with its scope and day if it is one of this table's.
fn next(store: &dyn Store, after: Option<&Key>) -> Result<Option<(Key, Option<Place>)>, ReadError> {
    let mut found = store.scan(&Key::table_prefix(Table::Usage), after, 1)?;
    Ok(found.pop().map(|(key, _)| {
        let place = key.split().and_then(|(scope, parts)| {
            let day = (*parts.first()?).try_into().ok()?;
            Some((scope, u64::from_be_bytes(day)))
        });
        (key, place)
    }))
}

/// Behind all rows of a scope.
fn end_of(scope: &Scope) -> Key {
    Key::new(Table::Usage, scope).number(u64::MAX)
}

fn key(day: u64, owner: &Owner, mapping: Option<&str>) -> Key {
    Key::new(Table::Usage, &owner.scope)
        .number(day)
        .part(&*owner.function)
        .part(mapping.unwrap_or_default())
}

/// `None`: damaged.
fn entry(key: &Key, value: &[u8]) -> Option<Entry> {
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
}

/// A damaged value for the log.
fn told(value: &[u8]) -> String {
    let beginning = &value[..value.len().min(DAMAGED_BYTES_TOLD)];
    String::from_utf8_lossy(beginning).into_owned()
}

#[cfg(test)]
pub(super) mod tests;
