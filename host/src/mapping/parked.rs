//! Parked partition keys: a record whose attempts ended and the later ones of its key, in order, in
//! a side log of the mapping, while other keys go on. By key and not by shard, so that the
//! children of a split shard know it.
//!
//! ```text
//! ParkedKey  mapping id, partition key            → JSON: since when, why, how much
//! Parked     mapping id, partition key, run u64   → records, in the stored form of a batch
//! ```
//!
//! Whoever adds to a key expects its revision: a key that was let go on meanwhile conflicts, and
//! its records are sorted again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shardmill_core::mapping::Policy;
use shardmill_core::{Batch, Scope, Slice, UnixMillis};
use shardmill_store::{Expect, Key, ReadError, Table, Tx, Value};

use super::resource::{Inner, Mapping};
use crate::functions::to_json;

/// A key that is parked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedKey {
    /// The partition key.
    pub key: String,
    /// Since when.
    pub since: UnixMillis,
    /// Why: how the attempts at its first record ended.
    pub reason: String,
    /// Records in the side log.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first run of the side log.
    pub first_run: u64,
    /// Behind the last run of the side log.
    pub next_run: u64,
    /// How far it is when a person lets it go on.
    #[serde(default)]
    pub release: Release,
}

/// A key that is let go on: its records are being delivered, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Release {
    /// Whether it is.
    pub releasing: bool,
    /// Failed attempts at its first record, or at the batch that begins with it.
    pub attempts: u32,
    /// Times that a handler was run on its first record.
    pub invocations: u32,
    /// Not to be tried before.
    pub not_before: UnixMillis,
    /// The request id, kept while a batch is retried unchanged.
    pub request_id: String,
    /// Records of the next batch at the most, after a split; 0: the mapping's batch size.
    pub limit: u32,
}

/// The parked keys of one mapping, as they are stored.
pub(super) struct ParkedKeys {
    scope: Scope,
    mapping: String,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    keys: BTreeMap<String, (ParkedKey, u64)>,
    names: BTreeSet<String>,
}

/// Records to be parked, by key.
#[derive(Default)]
pub(super) struct Parking {
    keys: BTreeMap<String, Run>,
}

#[derive(Default)]
struct Run {
    batch: Batch,
    bytes: u64,
    reason: Option<String>,
}

impl Parking {
    /// Adds the records of a batch. `reason`: their attempts ended, which parks their keys.
    pub(super) fn add(&mut self, batch: &Batch, reason: Option<&str>) {
        for slice in batch.slices() {
            for (index, record) in (0..).zip(slice.block.iter()) {
                if !(slice.from..slice.to).contains(&index) {
                    continue;
                }
                let run = self.keys.entry(record.parts.key.to_owned()).or_default();
                run.batch.push(Slice {
                    block: slice.block.clone(),
                    from: index,
                    to: index + 1,
                });
                run.bytes += record.payload_bytes() as u64;
                if run.reason.is_none() {
                    run.reason = reason.map(str::to_owned);
                }
            }
        }
    }

    /// Adds what comes behind.
    pub(super) fn append(&mut self, later: Self) {
        for (key, run) in later.keys {
            let mine = self.keys.entry(key).or_default();
            run.batch
                .slices()
                .for_each(|slice| mine.batch.push(slice.clone()));
            mine.bytes += run.bytes;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many records there are.
    pub(super) fn count(&self) -> usize {
        self.keys.values().map(|run| run.batch.len()).sum()
    }
}

impl ParkedKeys {
    /// What is stored for a mapping.
    pub(super) fn open(inner: &Inner, mapping: &Mapping) -> Result<Self, ReadError> {
        let keys = Self {
            scope: mapping.scope.clone(),
            mapping: mapping.id.clone(),
            held: Mutex::default(),
        };
        keys.reload(inner)?;
        Ok(keys)
    }

    /// Reads what is stored again.
    pub(super) fn reload(&self, inner: &Inner) -> Result<(), ReadError> {
        let mut held = Held::default();
        for (_, stored) in inner.store.scan(&self.prefix(), None, usize::MAX)? {
            match serde_json::from_slice::<ParkedKey>(&stored.value) {
                Ok(key) => {
                    held.names.insert(key.key.clone());
                    held.keys.insert(key.key.clone(), (key, stored.revision));
                }
                Err(error) => tracing::error!(%error, "a parked key is damaged and left out"),
            }
        }
        *self.held() = held;
        Ok(())
    }

    /// The keys, for sorting records. Held as long as the guard lives.
    pub(super) fn names(&self) -> Names<'_> {
        Names(self.held())
    }

    /// All of them.
    pub(super) fn list(&self) -> Vec<ParkedKey> {
        self.held()
            .keys
            .values()
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Whether the bounds leave room; otherwise a text that says which does not.
    pub(super) fn room_for(&self, parking: &Parking, policy: &Policy) -> Result<(), String> {
        if parking.is_empty() {
            return Ok(());
        }
        let held = self.held();
        let new = parking.keys.keys().filter(|key| !held.names.contains(*key));
        let keys = held.names.len() + new.count();
        let bytes: u64 = held.keys.values().map(|(key, _)| key.bytes).sum();
        let bytes = bytes + parking.keys.values().map(|run| run.bytes).sum::<u64>();
        if keys > policy.max_parked_keys as usize {
            let allowed = policy.max_parked_keys;
            return Err(format!(
                "{keys} parked keys, {allowed} allowed: let some go on with `shardmill mappings unpark`"
            ));
        }
        if bytes > policy.max_parked_bytes {
            let allowed = policy.max_parked_bytes;
            return Err(format!(
                "{bytes} bytes of parked records, {allowed} allowed: let some go on with `shardmill mappings unpark`"
            ));
        }
        Ok(())
    }

    /// Adds records to a transaction. Gives what to hand to [`ParkedKeys::committed`].
    pub(super) fn add_to(&self, tx: &mut Tx, parking: &Parking, now: UnixMillis) -> Vec<ParkedKey> {
        let held = self.held();
        let mut changed = Vec::new();
        for (name, run) in &parking.keys {
            let before = held.keys.get(name);
            let key = self.key(name);
            tx.expect.push(Expect::Revision(
                key.clone(),
                before.map(|(_, revision)| *revision),
            ));
            let mut parked = before.map_or_else(
                || ParkedKey {
                    key: name.clone(),
                    since: now,
                    reason: String::new(),
                    records: 0,
                    bytes: 0,
                    first_run: 0,
                    next_run: 0,
                    release: Release::default(),
                },
                |(parked, _)| parked.clone(),
            );
            if let Some(reason) = &run.reason {
                parked.reason.clone_from(reason);
            }
            let payload = Bytes::from(run.batch.to_stored());
            tx.writes
                .push((self.run_key(name, parked.next_run), Value::Blob(payload)));
            parked.next_run += 1;
            parked.records += run.batch.len() as u64;
            parked.bytes += run.bytes;
            tx.writes.push((key, Value::Inline(to_json(&parked))));
            changed.push(parked);
        }
        changed
    }

    /// Takes over what a transaction has written.
    pub(super) fn committed(&self, changed: Vec<ParkedKey>, revision: u64) {
        let mut held = self.held();
        for parked in changed {
            held.names.insert(parked.key.clone());
            held.keys.insert(parked.key.clone(), (parked, revision));
        }
    }

    /// The key that is delivered next: of those that are let go on, the one whose turn comes first.
    pub(super) fn next_release(&self) -> Option<ParkedKey> {
        let held = self.held();
        let releasing = held.keys.values().filter(|(key, _)| key.release.releasing);
        let next = releasing.min_by_key(|(key, _)| key.release.not_before);
        next.map(|(key, _)| key.clone())
    }

    /// A key and its revision.
    pub(super) fn get(&self, name: &str) -> Option<(ParkedKey, u64)> {
        self.held().keys.get(name).cloned()
    }

    /// Makes a transaction depend on a key.
    pub(super) fn expect(&self, tx: &mut Tx, name: &str, revision: u64) {
        let expect = Expect::Revision(self.key(name), Some(revision));
        tx.expect.push(expect);
    }

    /// Writes a key, or deletes it.
    pub(super) fn write(&self, tx: &mut Tx, name: &str, key: Option<&ParkedKey>) {
        let value = key.map_or(Value::Delete, |key| Value::Inline(to_json(key)));
        tx.writes.push((self.key(name), value));
    }

    /// Takes over a key that a transaction has written or deleted.
    pub(super) fn settled(&self, name: &str, key: Option<ParkedKey>, revision: u64) {
        let mut held = self.held();
        match key {
            Some(key) => {
                held.keys.insert(name.to_owned(), (key, revision));
            }
            None => {
                held.names.remove(name);
                held.keys.remove(name);
            }
        }
    }

    /// Everything that is stored of it, to be deleted with its mapping.
    pub(super) fn delete_all(&self, inner: &Inner, tx: &mut Tx) -> Result<(), ReadError> {
        let runs = Key::new(Table::Parked, &self.scope).part(&self.mapping);
        for prefix in [self.prefix(), runs] {
            let found = inner.store.scan(&prefix, None, usize::MAX)?;
            tx.writes
                .extend(found.into_iter().map(|(key, _)| (key, Value::Delete)));
        }
        Ok(())
    }

    /// Whether a key of the store is one of these.
    pub(super) fn owns(&self, key: &Key) -> bool {
        key.as_bytes().starts_with(self.prefix().as_bytes())
    }

    fn prefix(&self) -> Key {
        Key::new(Table::ParkedKey, &self.scope).part(&self.mapping)
    }

    fn key(&self, name: &str) -> Key {
        self.prefix().part(name)
    }

    pub(super) fn run_key(&self, name: &str, run: u64) -> Key {
        let prefix = Key::new(Table::Parked, &self.scope).part(&self.mapping);
        prefix.part(name).number(run)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names of parked keys.
pub(super) struct Names<'a>(MutexGuard<'a, Held>);

impl std::ops::Deref for Names<'_> {
    type Target = BTreeSet<String>;

    fn deref(&self) -> &Self::Target {
        &self.0.names
    }
}
