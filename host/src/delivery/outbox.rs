//! The outbox: deliveries that have not been made, written by the transaction that gives their
//! records up, gone with the transaction that ends them. How much a tenant may keep there is
//! decided before the transaction is.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shardmill_core::{Scope, TenantId, UnixMillis};
use shardmill_store::{Key, ReadError, Store, Table, Value};

use super::Destination;
use super::schedule::Waiting;

/// Largest payload that the outbox copies, bytes. Behind a larger one stands the failure store's:
/// both copies and the effects have to fit into one transaction of 48 MiB.
pub(super) const MAX_COPIED_BYTES: usize = 8 << 20;

/// A delivery as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its stable id: the failure entry's.
    pub id: String,
    /// Account and region.
    pub scope: Scope,
    /// When the records were given up.
    pub created: UnixMillis,
    /// The mapping's name.
    pub mapping: String,
    /// The mapping's UUID.
    pub mapping_id: String,
    /// Where it goes: what the mapping said when the records were given up.
    pub destination: Destination,
    /// The stream.
    pub stream: String,
    /// The shard.
    pub shard: String,
    /// How many records it reports.
    pub records: u64,
    /// Bytes of the outbox's own copy of them; 0: there is none.
    pub payload_bytes: u64,
    /// What is sent.
    pub document: Box<RawValue>,
    /// When a person last began it anew; its age counts from then.
    pub tried_since: Option<UnixMillis>,
    /// Why it is not tried any more.
    pub undeliverable: Option<Undeliverable>,
}

/// The end of a delivery that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undeliverable {
    /// When it was given up.
    pub at: UnixMillis,
    /// What the last attempt met.
    pub why: String,
}

impl Entry {
    /// Its place in the schedule.
    pub(super) fn waiting(&self) -> Waiting {
        Waiting {
            lane: (self.scope.clone(), self.destination.to_string()),
            id: self.id.clone(),
            created: self.tried_since.unwrap_or(self.created),
            mapping_id: self.mapping_id.clone(),
            records: self.records,
        }
    }
}

/// Where an entry is stored.
pub(super) fn entry_key(scope: &Scope, id: &str) -> Key {
    Key::new(Table::Outbox, scope).part(id)
}

/// Where its records are stored.
pub(super) fn payload_key(scope: &Scope, id: &str) -> Key {
    Key::new(Table::OutboxPayload, scope).part(id)
}

/// What makes an entry: its own write, and that of its records.
pub(super) fn write(entry: &Entry, json: Bytes, payload: Option<Bytes>) -> Vec<(Key, Value)> {
    let Entry { scope, id, .. } = entry;
    let mut writes = vec![(entry_key(scope, id), Value::Inline(json))];
    writes.extend(payload.map(|payload| (payload_key(scope, id), Value::Blob(payload))));
    writes
}

/// What ends an entry.
pub(super) fn delete(entry: &Entry) -> Vec<(Key, Value)> {
    let Entry { scope, id, .. } = entry;
    let mut writes = vec![(entry_key(scope, id), Value::Delete)];
    if entry.payload_bytes > 0 {
        writes.push((payload_key(scope, id), Value::Delete));
    }
    writes
}

/// An entry, if it is there.
pub(super) fn find(store: &dyn Store, scope: &Scope, id: &str) -> Result<Option<Entry>, ReadError> {
    Ok(find_sized(store, scope, id)?.map(|(entry, _)| entry))
}

/// An entry with its bytes, if it is there.
pub(super) fn find_sized(
    store: &dyn Store,
    scope: &Scope,
    id: &str,
) -> Result<Option<(Entry, u64)>, ReadError> {
    let Some(found) = store.get(&entry_key(scope, id))? else {
        return Ok(None);
    };
    let entry = parse(&found.value)?;
    let bytes = found.value.len() as u64 + entry.payload_bytes;
    Ok(Some((entry, bytes)))
}

/// Every entry whose key begins with `prefix`, with its bytes. A damaged one is reported and
/// left out: the others are delivered.
pub(super) fn scan(store: &dyn Store, prefix: &Key) -> Result<Vec<(Entry, u64)>, ReadError> {
    let stored = store.scan(prefix, None, usize::MAX)?;
    let entries = stored.iter().filter_map(|(_, found)| {
        let entry = read(&found.value)?;
        let bytes = found.value.len() as u64 + entry.payload_bytes;
        Some((entry, bytes))
    });
    Ok(entries.collect())
}

/// The id of whole entries: a failure's.
const ID_LEN: usize = 36;

/// The prefix of the keys whose ids begin with `start`; `None` where none can.
pub(super) fn beginning(scope: &Scope, start: &str) -> Option<Key> {
    let left = ID_LEN.checked_sub(start.len())?;
    let whole = entry_key(scope, &format!("{start:-<ID_LEN$}"));
    let bytes = whole.as_bytes();
    Some(Key::from_bytes(bytes[..bytes.len() - left].to_vec()))
}

/// The id in an entry's key.
pub(super) fn id_of(key: &Key) -> Option<String> {
    let (_, parts) = key.split()?;
    String::from_utf8(parts.last()?.to_vec()).ok()
}

/// An entry as it is stored. A damaged one is reported and left out.
pub(super) fn read(bytes: &[u8]) -> Option<Entry> {
    let report = |error: &ReadError| tracing::error!(%error, "a delivery is left out");
    parse(bytes).inspect_err(report).ok()
}

fn parse(bytes: &[u8]) -> Result<Entry, ReadError> {
    serde_json::from_slice(bytes).map_err(|e| ReadError::Damaged(format!("delivery: {e}")))
}

/// How much an account may keep in the outbox, all regions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Deliveries.
    pub entries: u64,
    /// Bytes of entries and of their records.
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            entries: 10_000,
            bytes: 256 << 20,
        }
    }
}

/// What each account keeps.
#[derive(Debug, Default)]
pub(super) struct Usage {
    sizes: HashMap<(Scope, String), u64>,
    accounts: HashMap<TenantId, (u64, u64)>,
}

impl Usage {
    /// Makes room for an entry; `false` when the account has none left.
    pub(super) fn take(&mut self, scope: &Scope, id: &str, bytes: u64, bounds: Bounds) -> bool {
        let (entries, used) = self.of(scope.tenant);
        if entries >= bounds.entries || used.saturating_add(bytes) > bounds.bytes {
            return false;
        }
        self.count(scope, id, bytes);
        true
    }

    /// Counts an entry that is there already.
    pub(super) fn count(&mut self, scope: &Scope, id: &str, bytes: u64) {
        let key = (scope.clone(), id.to_owned());
        if self.sizes.insert(key, bytes).is_none() {
            let (entries, used) = self.accounts.entry(scope.tenant).or_default();
            *entries += 1;
            *used += bytes;
        }
    }

    /// An entry is gone.
    pub(super) fn free(&mut self, scope: &Scope, id: &str) {
        let Some(bytes) = self.sizes.remove(&(scope.clone(), id.to_owned())) else {
            return;
        };
        if let Some((entries, used)) = self.accounts.get_mut(&scope.tenant) {
            *entries -= 1;
            *used -= bytes;
        }
    }

    fn of(&self, tenant: TenantId) -> (u64, u64) {
        self.accounts.get(&tenant).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_room_for_so_many_entries_and_bytes() {
        let scope = Scope::default();
        let bounds = Bounds {
            entries: 2,
            bytes: 100,
        };
        let mut usage = Usage::default();
        assert!(usage.take(&scope, "1", 60, bounds));
        assert!(!usage.take(&scope, "2", 41, bounds), "bytes");
        assert!(usage.take(&scope, "2", 40, bounds));
        assert!(!usage.take(&scope, "3", 0, bounds), "entries");
        usage.count(&scope, "1", 60);
        usage.free(&scope, "1");
        usage.free(&scope, "1");
        assert_eq!(usage.of(scope.tenant), (1, 40), "counted once, freed once");
        assert!(usage.take(&scope, "3", 60, bounds));
    }
}
