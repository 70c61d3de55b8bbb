//! Parked partition keys: a record whose attempts ended and the later ones of its key, in order, in
//! a side log of the mapping, while other keys go on. By key and not by shard, so that the
//! children of a split shard know it.
//!
//! ```text
//! ParkedKey  mapping id, partition key            → JSON: since when, why, how much
//! Parked     mapping id, partition key, run u64   → records, in the stored form of a batch
//! ```
//!
//! A key comes to be with a record whose attempts ended. Whoever adds later ones needs it as it
//! was when they were sorted, and expects its revision: a key that was let go on or deleted
//! meanwhile conflicts, and they are sorted again. Pollers and the releaser share the lock of
//! the keys from deciding to committing; a person who changes keys holds it alone.

mod drop;
mod held;
mod parking;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use shardmill_core::mapping::Policy;
use shardmill_core::{Scope, UnixMillis};
use shardmill_store::{Expect, Key, ReadError, Table, Tx, Value};
use tokio::sync::{Notify, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(super) use self::drop::{InTheWay, Places};
use self::held::Held;
pub(super) use self::parking::Parking;
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
    /// Whether the next batch comes from before a suspect.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub doubted: bool,
}

/// The parked keys of one mapping, as they are stored.
pub(super) struct ParkedKeys {
    scope: Scope,
    mapping: String,
    held: Mutex<Held>,
    lock: RwLock<()>,
    released: Notify,
}

/// A key whose turn it is to be delivered.
pub(super) struct Turn {
    pub(super) key: ParkedKey,
    /// When.
    pub(super) at: UnixMillis,
    /// See [`ParkedKeys::drops`].
    pub(super) drops: u64,
}

/// How much is parked.
pub(super) struct ParkedSums {
    pub(super) keys: usize,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl ParkedKeys {
    /// What is stored for a mapping.
    pub(super) fn open(inner: &Inner, mapping: &Mapping) -> Result<Self, ReadError> {
        let keys = Self {
            scope: mapping.scope.clone(),
            mapping: mapping.id.clone(),
            held: Mutex::default(),
            lock: RwLock::new(()),
            released: Notify::new(),
        };
        keys.read(inner, &mut keys.held())?;
        Ok(keys)
    }

    /// Puts what is stored into `held`.
    fn read(&self, inner: &Inner, held: &mut Held) -> Result<(), ReadError> {
        for (_, stored) in inner.store.scan(&self.prefix(), None, usize::MAX)? {
            if let Some(parked) = parse(&stored.value) {
                let name = parked.key.clone();
                held.put(&name, Some((parked, stored.revision)));
            }
        }
        Ok(())
    }

    /// Reads a key again that a transaction met otherwise than it was thought to be.
    pub(super) fn refresh(&self, inner: &Inner, key: &Key) -> Result<(), ReadError> {
        let Some(name) = self.name_of(key) else {
            return Ok(());
        };
        // Under the lock, so that nothing that is noted meanwhile is overwritten.
        let mut held = self.held();
        let stored = inner.store.get(key)?;
        let parked = stored.and_then(|stored| Some((parse(&stored.value)?, stored.revision)));
        held.put(&name, parked);
        Ok(())
    }

    /// For whoever commits to keys as a matter of course, from looking at them to noting what
    /// became of it.
    pub(super) async fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.lock.read().await
    }

    /// For whoever has to be the only one: no transaction to a key is under way.
    pub(super) async fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.lock.write().await
    }

    /// The keys of now, for sorting records.
    pub(super) fn names(&self) -> Arc<HashSet<String>> {
        Arc::clone(self.held().names())
    }

    /// All of them.
    pub(super) fn list(&self) -> Vec<ParkedKey> {
        self.held().keys().cloned().collect()
    }

    /// How much they are.
    pub(super) fn sums(&self) -> ParkedSums {
        let held = self.held();
        let (records, bytes) = held.sums();
        ParkedSums {
            keys: held.names().len(),
            records,
            bytes,
        }
    }

    /// Whether the bounds leave room; otherwise a text that says which does not.
    pub(super) fn room_for(&self, parking: &Parking, policy: &Policy) -> Result<(), String> {
        if parking.is_empty() {
            return Ok(());
        }
        let held = self.held();
        let names = held.names();
        let new = parking.keys.keys().filter(|key| !names.contains(*key));
        let keys = names.len() + new.count();
        let bytes = held.sums().1 + parking.bytes();
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

    /// Adds records to a transaction. Gives what to hand to [`ParkedKeys::committed`]; `None`,
    /// with nothing added, when a key is gone that they were to be put behind.
    pub(super) fn add_to(
        &self,
        tx: &mut Tx,
        parking: &Parking,
        now: UnixMillis,
    ) -> Option<Vec<ParkedKey>> {
        let held = self.held();
        let mut runs = parking.keys.iter();
        if runs.any(|(name, run)| run.reason.is_none() && held.get(name).is_none()) {
            return None;
        }
        let mut changed = Vec::new();
        for (name, run) in &parking.keys {
            let before = held.get(name);
            let key = self.key(name);
            tx.expect.push(Expect::Revision(
                key.clone(),
                before.map(|(_, revision)| revision),
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
        Some(changed)
    }

    /// Takes over what a transaction has written.
    pub(super) fn committed(&self, inner: &Inner, changed: Vec<ParkedKey>, revision: u64) {
        for parked in changed {
            let name = parked.key.clone();
            self.settled(inner, &name, Some(parked), revision);
        }
    }

    /// Takes over a key that a transaction has written or deleted.
    pub(super) fn settled(
        &self,
        inner: &Inner,
        name: &str,
        parked: Option<ParkedKey>,
        revision: u64,
    ) {
        let unsure = self.held().note(name, parked, revision);
        if let Some(parked) = unsure
            && let Err(error) = self.refresh(inner, &self.key(name))
        {
            // Taken for parked: whoever adds to a key that is gone conflicts, and asks again.
            tracing::warn!(%error, name, "a parked key cannot be read");
            self.held().put(name, Some((parked, revision)));
        }
    }

    /// The key that is delivered next: of those that are let go on, the one whose turn is first.
    pub(super) fn next_release(&self) -> Option<Turn> {
        let held = self.held();
        let (at, key) = held.first_turn()?;
        Some(Turn {
            key: key.clone(),
            at,
            drops: held.drops,
        })
    }

    /// Whether a key is being let go on.
    pub(super) fn has_releases(&self) -> bool {
        self.held().first_turn().is_some()
    }

    /// Puts the turn of a key off, as long as the process lives.
    pub(super) fn put_off(&self, name: &str, until: UnixMillis) {
        self.held().put_off(name, until);
    }

    /// Tells the releaser that keys were let go on.
    pub(super) fn tell_releaser(&self) {
        self.released.notify_one();
    }

    /// Waits until keys were let go on. Cancel-safe.
    pub(super) async fn released(&self) {
        self.released.notified().await;
    }

    /// How often a person has dropped records: what was read of a side log before does not
    /// count any more.
    pub(super) fn drops(&self) -> u64 {
        self.held().drops
    }

    /// A key and its revision.
    pub(super) fn get(&self, name: &str) -> Option<(ParkedKey, u64)> {
        let held = self.held();
        let (parked, revision) = held.get(name)?;
        Some((parked.clone(), revision))
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

    /// Everything that is stored of it, to be deleted.
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

    /// The partition key of a key of the store that is one of these.
    fn name_of(&self, key: &Key) -> Option<String> {
        let (_, parts) = key.split().filter(|_| self.owns(key))?;
        String::from_utf8(parts.last()?.to_vec()).ok()
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

fn parse(bytes: &[u8]) -> Option<ParkedKey> {
    serde_json::from_slice(bytes)
        .inspect_err(|error| tracing::error!(%error, "a parked key is damaged and left out"))
        .ok()
}
