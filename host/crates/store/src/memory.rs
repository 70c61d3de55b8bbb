//! The store in memory: the same decisions as the embedded engine, acknowledged at once, gone
//! with the process. For tests, and as the ceiling that benchmarks compare with.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use shardmill_core::sandbox::BoxFuture;
use shardmill_core::{Block, Scope, ShardKey, Stream, StreamId, StreamName, TenantId};
use tokio::sync::watch;

use crate::catalog::Catalog;
use crate::counters;
use crate::decide::{Decision, Values, decide};
use crate::extent::portion;
use crate::resolved::Resolved;
use crate::route::Prepared;
use crate::select::Cut;
use crate::tx::{CommitError, Receipt, Tx, Urgency, Value};
use crate::visible::Visible;
use crate::{
    Clock, Extent, Key, MAX_TX_BYTES, ReadError, ReadLimit, Seek, Stats, Store, Versioned,
};

/// A store in memory.
pub struct Memory {
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    visible: Visible,
    values: BTreeMap<Key, Stored>,
    blocks: HashMap<ShardKey, VecDeque<Block>>,
    stats: Stats,
    disk: Option<Disk>,
}

struct Stored {
    value: Value,
    revision: u64,
}

/// What a disk that is nearly full looks like.
#[derive(Clone, Copy)]
struct Disk {
    free_bytes: u64,
    low_water_bytes: u64,
}

impl Memory {
    /// An empty store that takes arrival times from `clock`.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            state: Mutex::new(State {
                visible: Visible::new(Catalog::default()),
                values: BTreeMap::new(),
                blocks: HashMap::new(),
                stats: Stats::default(),
                disk: None,
            }),
        }
    }

    /// Behaves as if the disk had `free_bytes` left of the `low_water_bytes` that appends need;
    /// `None` behaves as if there were room again.
    pub fn pretend_disk(&self, disk: Option<(u64, u64)>) {
        self.state().disk = disk.map(|(free_bytes, low_water_bytes)| Disk {
            free_bytes,
            low_water_bytes,
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit_now(&self, tx: Tx) -> Result<Receipt, CommitError> {
        let prepared = Prepared::new(tx, |id| self.stream_by_id(id))?;
        if prepared.bytes > MAX_TX_BYTES {
            return Err(CommitError::TooLarge {
                size: prepared.bytes,
                allowed: MAX_TX_BYTES,
            });
        }
        let mut state = self.state();
        if let (Some(disk), Urgency::Growth) = (state.disk, prepared.tx.urgency)
            && disk.free_bytes < disk.low_water_bytes
        {
            return Err(CommitError::Full {
                free_bytes: disk.free_bytes,
                low_water_bytes: disk.low_water_bytes,
            });
        }
        let now = (self.clock)();
        let decision = decide(
            prepared,
            now,
            state.visible.catalog(),
            &StoredValues(&state.values),
        );
        match decision {
            Ok(Decision::Do(resolved, receipt)) => {
                state.apply(&resolved)?;
                Ok(receipt)
            }
            Ok(Decision::Repeated(receipt)) => Ok(receipt),
            Err(error) => {
                state.stats.conflicts += 1;
                Err(error)
            }
        }
    }

    fn read_now(
        &self,
        shard: ShardKey,
        from: u64,
        limit: ReadLimit,
    ) -> Result<Vec<Block>, ReadError> {
        let state = self.state();
        let tail = state.visible.tail(shard)?;
        let from = from.max(tail.floor);
        let mut cut = Cut::new(from, limit);
        let blocks = state.blocks.get(&shard);
        Ok(blocks
            .into_iter()
            .flat_map(|blocks| {
                let start = blocks.partition_point(|block| block.end() <= from);
                blocks.range(start..)
            })
            .take_while(|block| cut.takes(block.first(), block.end(), block.blob_bytes()))
            .cloned()
            .collect())
    }

    fn extent_now(&self, shard: ShardKey, from: u64, to: u64) -> Result<Extent, ReadError> {
        let state = self.state();
        let tail = state.visible.tail(shard)?;
        let (from, to) = (from.max(tail.floor), to.min(tail.next));
        let mut extent = Extent::default();
        let Some(blocks) = state.blocks.get(&shard).filter(|_| from < to) else {
            return Ok(extent);
        };
        extent.records = to - from;
        let start = blocks.partition_point(|block| block.end() <= from);
        for block in blocks.range(start..).take_while(|b| b.first() < to) {
            extent.oldest.get_or_insert(block.arrival());
            let bytes = block.blob_bytes() as u64;
            let before = |at| portion(bytes, (block.first(), block.end()), at);
            extent.bytes += before(to) - before(from);
        }
        Ok(extent)
    }

    fn seek_now(&self, shard: ShardKey, to: Seek) -> Result<u64, ReadError> {
        let state = self.state();
        let tail = state.visible.tail(shard)?;
        Ok(match to {
            Seek::TrimHorizon => tail.floor,
            Seek::Latest => tail.next,
            Seek::AtTime(instant) => {
                let blocks = state.blocks.get(&shard);
                let found = blocks.and_then(|blocks| {
                    let at = blocks.partition_point(|block| block.arrival() < instant);
                    blocks.get(at)
                });
                found.map_or(tail.next, |block| block.first().max(tail.floor))
            }
        })
    }
}

impl State {
    fn apply(&mut self, resolved: &Resolved) -> Result<(), CommitError> {
        for new in &resolved.blocks {
            let block = new
                .to_block()
                .map_err(|e| CommitError::Unknown(format!("not done: {e}")))?;
            self.stats.records += new.count();
            self.blocks.entry(new.shard).or_default().push_back(block);
        }
        for (key, value) in &resolved.puts {
            if *value == Value::Delete {
                self.values.remove(key);
            } else {
                let stored = Stored {
                    value: value.clone(),
                    revision: resolved.revision,
                };
                self.values.insert(key.clone(), stored);
            }
        }
        self.visible.apply(&resolved.change());
        for trim in &resolved.trims {
            if let Some(blocks) = self.blocks.get_mut(&trim.shard) {
                let dead = blocks.partition_point(|block| block.end() <= trim.before);
                blocks.drain(..dead);
            }
        }
        if !resolved.streams.is_empty() {
            let catalog = self.visible.catalog();
            self.blocks
                .retain(|shard, _| catalog.tail(*shard).is_some());
        }
        self.stats.transactions += 1;
        self.stats.groups += 1;
        Ok(())
    }
}

struct StoredValues<'a>(&'a BTreeMap<Key, Stored>);

impl StoredValues<'_> {
    fn below<'b>(
        &'b self,
        prefix: &'b Key,
        after: Option<&Key>,
    ) -> impl Iterator<Item = (&'b Key, &'b Stored)> {
        let start = after.map_or(prefix, |after| after.max(prefix)).clone();
        self.0
            .range(start..)
            .take_while(|(key, _)| key.as_bytes().starts_with(prefix.as_bytes()))
    }
}

impl Stored {
    fn versioned(&self) -> Versioned {
        let value = match &self.value {
            Value::Inline(bytes) => bytes.clone(),
            Value::Blob(_) | Value::Delete => Bytes::new(),
        };
        Versioned {
            value,
            revision: self.revision,
        }
    }
}

impl Values for StoredValues<'_> {
    fn get(&self, key: &Key) -> Result<Option<Versioned>, ReadError> {
        Ok(self.0.get(key).map(Stored::versioned))
    }

    fn count(&self, prefix: &Key) -> Result<usize, ReadError> {
        Ok(self.below(prefix, None).count())
    }
}

impl Store for Memory {
    fn commit(&self, tx: Tx) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        let outcome = self.commit_now(tx);
        Box::pin(std::future::ready(outcome))
    }

    fn read(
        &self,
        shard: ShardKey,
        from: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Block>, ReadError>> {
        let blocks = self.read_now(shard, from, limit);
        Box::pin(std::future::ready(blocks))
    }

    fn seek(&self, shard: ShardKey, to: Seek) -> BoxFuture<'_, Result<u64, ReadError>> {
        let position = self.seek_now(shard, to);
        Box::pin(std::future::ready(position))
    }

    fn extent(
        &self,
        shard: ShardKey,
        from: u64,
        to: u64,
    ) -> BoxFuture<'_, Result<Extent, ReadError>> {
        let extent = self.extent_now(shard, from, to);
        Box::pin(std::future::ready(extent))
    }

    fn subscribe(&self, shard: ShardKey) -> Result<watch::Receiver<u64>, ReadError> {
        self.state().visible.subscribe(shard)
    }

    fn get(&self, key: &Key) -> Result<Option<Versioned>, ReadError> {
        StoredValues(&self.state().values).get(key)
    }

    fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, ReadError> {
        let state = self.state();
        Ok(StoredValues(&state.values)
            .below(prefix, after)
            .filter(|(key, _)| after.is_none_or(|after| *key > after))
            .take(limit)
            .map(|(key, stored)| (key.clone(), stored.versioned()))
            .collect())
    }

    fn scan_back(
        &self,
        prefix: &Key,
        before: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, ReadError> {
        let end = before.map_or_else(|| prefix.end(), |before| prefix.end().min(before.clone()));
        if end <= *prefix {
            return Ok(Vec::new());
        }
        let state = self.state();
        let below = state.values.range(prefix.clone()..end).rev();
        Ok(below
            .take(limit)
            .map(|(key, stored)| (key.clone(), stored.versioned()))
            .collect())
    }

    fn has_room(&self, _: TenantId, _: u64) -> bool {
        true
    }

    fn blob(&self, key: &Key) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        let blob = match self.state().values.get(key).map(|stored| &stored.value) {
            Some(Value::Blob(bytes)) => Some(bytes.clone()),
            _ => None,
        };
        Box::pin(std::future::ready(Ok(blob)))
    }

    fn counters(&self, scope: &Scope, function: &str) -> Result<Vec<(String, i64)>, ReadError> {
        let state = self.state();
        let prefix = counters::prefix(scope, function);
        counters::named(
            StoredValues(&state.values)
                .below(&prefix, None)
                .map(|(key, stored)| (key.clone(), stored.versioned())),
        )
    }

    fn stream(&self, scope: &Scope, name: &StreamName) -> Option<Arc<Stream>> {
        let state = self.state();
        let catalog = state.visible.catalog();
        catalog
            .named(scope, name)
            .and_then(|id| catalog.stream(id).cloned())
    }

    fn stream_by_id(&self, id: StreamId) -> Option<Arc<Stream>> {
        self.state().visible.catalog().stream(id).cloned()
    }

    fn streams(&self, scope: Option<&Scope>) -> Vec<Arc<Stream>> {
        self.state().visible.catalog().streams(scope)
    }

    fn watch_streams(&self) -> watch::Receiver<u64> {
        self.state().visible.watch_streams()
    }

    fn stats(&self) -> Stats {
        let state = self.state();
        Stats {
            full: state.disk.is_some_and(|d| d.free_bytes < d.low_water_bytes),
            ..state.stats.clone()
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Engine, check};

    struct InMemory(std::sync::Mutex<Option<Arc<Memory>>>);

    impl InMemory {
        fn new() -> Self {
            Self(std::sync::Mutex::new(None))
        }
    }

    impl Engine for InMemory {
        fn open(&self, clock: Clock) -> Arc<dyn Store> {
            let store = Arc::new(Memory::new(clock));
            *self.0.lock().expect("a lock") = Some(Arc::clone(&store));
            store
        }

        fn reopen(&self, store: Arc<dyn Store>, _: Clock) -> BoxFuture<'_, Arc<dyn Store>> {
            Box::pin(std::future::ready(store))
        }

        fn fill_disk(&self, full: bool) {
            let store = self.0.lock().expect("a lock");
            let disk = full.then_some((10, 100));
            store.as_ref().expect("a store").pretend_disk(disk);
        }
    }

    check!(InMemory::new());
}
