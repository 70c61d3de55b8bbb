//! A store in memory that fails as it is told, and counts what is read.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use shardmill_core::sandbox::BoxFuture;
use shardmill_core::{Block, Scope, ShardKey, Stream, StreamId, StreamName, UnixMillis};
use shardmill_store::{
    CommitError, Extent, Key, Memory, ReadError, ReadLimit, Receipt, Seek, Stats, Store, Tx,
    Versioned,
};
use tokio::sync::{Notify, watch};

/// What becomes of commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Its end is not known; it was done, or it was not.
    Unknown {
        done: bool,
    },
    /// It takes until it is let go on; it is done at once, or then.
    Held {
        done: bool,
    },
}

pub(super) struct Faulty {
    memory: Memory,
    pub(super) fault: Mutex<Fault>,
    pub(super) go_on: Notify,
    /// Values that were read by scans, and the most of one.
    pub(super) values: AtomicUsize,
    pub(super) page: AtomicUsize,
    /// A scan tells the first when it has read, and waits for the second.
    pub(super) held_scan: Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
}

impl Faulty {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: Memory::new(Arc::new(|| UnixMillis(0))),
            fault: Mutex::new(Fault::None),
            go_on: Notify::new(),
            values: AtomicUsize::new(0),
            page: AtomicUsize::new(0),
            held_scan: Mutex::default(),
        })
    }
}

impl Store for Faulty {
    fn commit(&self, tx: Tx) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        let fault = *self.fault.lock().unwrap();
        Box::pin(async move {
            match fault {
                Fault::None => self.memory.commit(tx).await,
                Fault::Unknown { done } => {
                    if done {
                        self.memory.commit(tx).await?;
                    }
                    Err(CommitError::Unknown("on purpose".into()))
                }
                Fault::Held { done: true } => {
                    let receipt = self.memory.commit(tx).await;
                    self.go_on.notified().await;
                    receipt
                }
                Fault::Held { done: false } => {
                    self.go_on.notified().await;
                    self.memory.commit(tx).await
                }
            }
        })
    }

    fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, ReadError> {
        let found = self.memory.scan(prefix, after, limit)?;
        self.values.fetch_add(found.len(), Relaxed);
        self.page.fetch_max(found.len(), Relaxed);
        if let Some((read, go_on)) = self.held_scan.lock().unwrap().take() {
            read.send(()).unwrap();
            go_on.recv().unwrap();
        }
        Ok(found)
    }

    fn has_room(&self, tenant: shardmill_core::TenantId, bytes: u64) -> bool {
        self.memory.has_room(tenant, bytes)
    }

    fn read(
        &self,
        shard: ShardKey,
        from: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Block>, ReadError>> {
        self.memory.read(shard, from, limit)
    }

    fn seek(&self, shard: ShardKey, to: Seek) -> BoxFuture<'_, Result<u64, ReadError>> {
        self.memory.seek(shard, to)
    }

    fn extent(
        &self,
        shard: ShardKey,
        from: u64,
        to: u64,
    ) -> BoxFuture<'_, Result<Extent, ReadError>> {
        self.memory.extent(shard, from, to)
    }

    fn subscribe(&self, shard: ShardKey) -> Result<watch::Receiver<u64>, ReadError> {
        self.memory.subscribe(shard)
    }

    fn get(&self, key: &Key) -> Result<Option<Versioned>, ReadError> {
        self.memory.get(key)
    }

    fn scan_back(
        &self,
        prefix: &Key,
        before: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, ReadError> {
        self.memory.scan_back(prefix, before, limit)
    }

    fn blob(&self, key: &Key) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        self.memory.blob(key)
    }

    fn counters(&self, scope: &Scope, function: &str) -> Result<Vec<(String, i64)>, ReadError> {
        self.memory.counters(scope, function)
    }

    fn stream(&self, scope: &Scope, name: &StreamName) -> Option<Arc<Stream>> {
        self.memory.stream(scope, name)
    }

    fn stream_by_id(&self, id: StreamId) -> Option<Arc<Stream>> {
        self.memory.stream_by_id(id)
    }

    fn streams(&self, scope: Option<&Scope>) -> Vec<Arc<Stream>> {
        self.memory.streams(scope)
    }

    fn watch_streams(&self) -> watch::Receiver<u64> {
        self.memory.watch_streams()
    }

    fn stats(&self) -> Stats {
        self.memory.stats()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.memory.close()
    }
}
