//! A store that holds tenants to their quota of stored bytes, whoever puts: clients, handlers that
//! emit, redrives.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use shardmill_core::sandbox::BoxFuture;
use shardmill_core::{Block, Scope, ShardKey, Stream, StreamId, StreamName, TenantId};
use shardmill_store::{
    CommitError, Extent, Key, ReadError, ReadLimit, Receipt, Seek, Stats, Store, Tx, Versioned,
};
use tokio::sync::watch;

use super::{Meter, Tenancy};

/// A store, and who may put how much into it.
pub struct MeteredStore {
    store: Arc<dyn Store>,
    tenancy: Arc<Tenancy>,
}

impl MeteredStore {
    /// Holds what is put into `store` against the quotas of `tenancy`.
    pub fn new(store: Arc<dyn Store>, tenancy: Arc<Tenancy>) -> Self {
        Self { store, tenancy }
    }

    /// Takes room for the records of a transaction: all of it or none.
    fn reserve(&self, tx: &Tx) -> Result<Vec<Reserved>, CommitError> {
        let mut wanted: BTreeMap<TenantId, (Arc<Meter>, u64)> = BTreeMap::new();
        for append in &tx.appends {
            let stream = self.store.stream_by_id(append.stream);
            let Some(tenant) = stream.and_then(|s| self.tenancy.tenant(s.scope.tenant)) else {
                continue;
            };
            if tenant.quotas.stored_bytes.is_some() {
                let meter = Arc::clone(&tenant.meter);
                let (_, bytes) = wanted.entry(tenant.account).or_insert((meter, 0));
                *bytes += append.records.blob().len() as u64;
            }
        }
        let mut taken = Vec::with_capacity(wanted.len());
        for (tenant, (meter, bytes)) in wanted {
            let refused = |(stored, allowed)| CommitError::Quota {
                tenant,
                bytes,
                stored,
                allowed,
            };
            meter.reserve(bytes).map_err(refused)?;
            taken.push(Reserved {
                meter,
                bytes,
                kept: false,
            });
        }
        Ok(taken)
    }
}

/// Room that was taken; given back when it is dropped, unless it was used.
struct Reserved {
    meter: Arc<Meter>,
    bytes: u64,
    kept: bool,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.meter.settle(self.bytes, self.kept);
    }
}

impl Store for MeteredStore {
    fn commit(&self, tx: Tx) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        if tx.appends.is_empty() || !self.tenancy.bounds_bytes() {
            return self.store.commit(tx);
        }
        let mut reserved = match self.reserve(&tx) {
            Ok(reserved) => reserved,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let commit = self.store.commit(tx);
        if reserved.is_empty() {
            return commit;
        }
        // Whoever stops waiting does not take the transaction back: counted as stored until the
        // next count.
        for part in &mut reserved {
            part.kept = true;
        }
        Box::pin(async move {
            let done = commit.await;
            let stored = match &done {
                Ok(receipt) => !receipt.repeated,
                Err(error) => matches!(error, CommitError::Unknown(_)),
            };
            for part in &mut reserved {
                part.kept = stored;
            }
            done
        })
    }

    fn has_room(&self, tenant: TenantId, bytes: u64) -> bool {
        let tenant = self.tenancy.tenant(tenant);
        tenant.is_none_or(|tenant| tenant.meter.has_room(bytes))
    }

    fn read(
        &self,
        shard: ShardKey,
        from: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Block>, ReadError>> {
        self.store.read(shard, from, limit)
    }

    fn seek(&self, shard: ShardKey, to: Seek) -> BoxFuture<'_, Result<u64, ReadError>> {
        self.store.seek(shard, to)
    }

    fn extent(
        &self,
        shard: ShardKey,
        from: u64,
        to: u64,
    ) -> BoxFuture<'_, Result<Extent, ReadError>> {
        self.store.extent(shard, from, to)
    }

    fn subscribe(&self, shard: ShardKey) -> Result<watch::Receiver<u64>, ReadError> {
        self.store.subscribe(shard)
    }

    fn get(&self, key: &Key) -> Result<Option<Versioned>, ReadError> {
        self.store.get(key)
    }

    fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, ReadError> {
        self.store.scan(prefix, after, limit)
    }

    fn scan_back(
        &self,
        prefix: &Key,
        before: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, ReadError> {
        self.store.scan_back(prefix, before, limit)
    }

    fn blob(&self, key: &Key) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        self.store.blob(key)
    }

    fn counters(&self, scope: &Scope, function: &str) -> Result<Vec<(String, i64)>, ReadError> {
        self.store.counters(scope, function)
    }

    fn stream(&self, scope: &Scope, name: &StreamName) -> Option<Arc<Stream>> {
        self.store.stream(scope, name)
    }

    fn stream_by_id(&self, id: StreamId) -> Option<Arc<Stream>> {
        self.store.stream_by_id(id)
    }

    fn streams(&self, scope: Option<&Scope>) -> Vec<Arc<Stream>> {
        self.store.streams(scope)
    }

    fn watch_streams(&self) -> watch::Receiver<u64> {
        self.store.watch_streams()
    }

    fn stats(&self) -> Stats {
        self.store.stats()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.store.close()
    }
}
