//! The embedded engine: a journal of our own with redb as its tables.
//!
//! ```text
//! commit ─▶ queue ─▶ writer: decide, one frame per group ─▶ syncer: sync, show, acknowledge
//!                                                               │ layer
//!                                             tables' thread: one table transaction per layer
//! ```
//! The writer prepares group N + 1 while group N syncs. What readers see is the layers above the
//! tables; a table transaction never delays an acknowledgement.

mod cache;
mod queue;
mod read;
mod scan_back;
mod shared;
mod sums;
mod syncer;
mod tabler;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use shardmill_core::sandbox::BoxFuture;
use shardmill_core::{Block, Scope, ShardKey, Stream, StreamId, StreamName, TenantId};
use tokio::sync::{oneshot, watch};

use crate::frame::Contents;
use crate::io::Io;
use crate::journal::{self, FolderLock, Journal, JournalOptions, Prepare};
use crate::layer::{Layer, Written};
use crate::route::Prepared;
use crate::tables::{Tables, TablesError};
use crate::tx::{CommitError, Receipt, Tx};
use crate::visible::Visible;
use crate::wire::Malformed;
use crate::{
    Clock, Extent, Key, MAX_TX_BYTES, ReadError, ReadLimit, Seek, Stats, Store, Versioned,
};
use queue::{Queue, Request};
use shared::{Shared, State};

/// How the store is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size of a journal segment, bytes; see [`JournalOptions::segment_bytes`].
    pub segment_bytes: u32,
    /// Segments that are prepared before they are needed.
    pub reserve_segments: usize,
    /// Free bytes below which growth is refused.
    pub low_water_bytes: u64,
    /// Memory for the tables' pages, bytes, at most.
    pub table_cache_bytes: usize,
    /// Memory for the newest blocks, bytes, at most.
    pub tail_cache_bytes: usize,
    /// Frames after which the tables are made durable, bytes.
    pub table_sync_bytes: u64,
    /// The time after which the tables are made durable when something has changed.
    pub table_sync_interval: Duration,
    /// Memory of a layer after which it is written to the tables, bytes.
    pub layer_bytes: usize,
    /// Transactions that wait or are under way, bytes; callers wait beyond it.
    pub queue_bytes: u32,
    /// A commit group, bytes, about.
    pub group_bytes: u64,
    /// Who prepares segments.
    pub prepare: Prepare,
    /// The identity of the store, if this call makes it; 0: a random one.
    pub new_store_id: u64,
}

impl Default for Options {
    fn default() -> Self {
        let journal = JournalOptions::default();
        Self {
            segment_bytes: journal.segment_bytes,
            reserve_segments: journal.reserve_segments,
            low_water_bytes: journal.low_water_bytes,
            table_cache_bytes: 64 << 20,
            tail_cache_bytes: 64 << 20,
            table_sync_bytes: 64 << 20,
            table_sync_interval: Duration::from_secs(5),
            layer_bytes: 4 << 20,
            queue_bytes: 64 << 20,
            group_bytes: 8 << 20,
            prepare: journal.prepare,
            new_store_id: 0,
        }
    }
}

impl Options {
    fn journal(&self) -> JournalOptions {
        JournalOptions {
            segment_bytes: self.segment_bytes,
            reserve_segments: self.reserve_segments,
            low_water_bytes: self.low_water_bytes,
            new_store_id: match self.new_store_id {
                0 => random_id(),
                id => id,
            },
            prepare: self.prepare,
        }
    }

    fn max_tx_bytes(&self) -> u64 {
        let frame = self.journal().max_payload_bytes(0) as u64;
        MAX_TX_BYTES.min(frame)
    }
}

/// A number that is hardly ever chosen twice.
fn random_id() -> u64 {
    let random = std::collections::hash_map::RandomState::new();
    random.build_hasher().finish().max(1)
}

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] journal::OpenError),
    /// The tables.
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// A thread was refused.
    #[error("start a thread: {0}")]
    Thread(std::io::Error),
}

/// A store in a data folder, for one process.
pub struct Embedded {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    threads: Mutex<Option<Threads>>,
    max_tx_bytes: u64,
}

struct Threads {
    writer: JoinHandle<journal::Writer>,
    syncer: JoinHandle<journal::Syncer>,
    tabler: JoinHandle<()>,
}

impl Embedded {
    /// Opens the store in `io`, or makes it. Arrival times come from `clock`. Costs as much as
    /// was written after the tables were last made durable.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(io: Arc<dyn Io>, options: Options, clock: Clock) -> Result<Arc<Self>, OpenError> {
        let lock = FolderLock::take(&*io)?;
        let (tables, loaded) = Tables::open(&*io, options.table_cache_bytes)?;
        let mut visible = Visible::new(loaded.catalog);
        let mut layer = Layer::default();
        let (journal, writer, syncer) = Journal::open(
            Arc::clone(&io),
            lock,
            options.journal(),
            loaded.position,
            |frame| {
                let contents = Contents::decode(&frame.payload)?;
                let gone = visible.apply(&contents.change());
                let group = Written {
                    contents: &contents,
                    place: frame.place,
                    end: frame.end,
                };
                layer.add(&group, visible.catalog(), &gone);
                Ok::<(), Malformed>(())
            },
        )?;
        tables.check_belongs(&*io, loaded.store_id, &journal)?;
        let head = visible.catalog().clone();
        let state = State::new(visible, layer, loaded.position, options.tail_cache_bytes);
        let shared = Arc::new(Shared::new(journal, tables, state, options));
        let queue = Arc::new(Queue::new(options.queue_bytes));
        let (to_syncer, groups) = std::sync::mpsc::sync_channel(0);
        let writing = writer::Writing::new(
            Arc::clone(&shared),
            Arc::clone(&queue),
            head,
            clock,
            to_syncer,
        );
        let watched = || Watched(Arc::clone(&shared), Arc::clone(&queue));
        let threads = Threads {
            writer: watched().spawn("store-writer", move |_| writing.run(writer))?,
            syncer: watched().spawn("store-syncer", move |shared| {
                syncer::run(shared, syncer, groups)
            })?,
            tabler: watched().spawn("store-tables", tabler::run)?,
        };
        Ok(Arc::new(Self {
            shared,
            queue,
            threads: Mutex::new(Some(threads)),
            max_tx_bytes: options.max_tx_bytes(),
        }))
    }

    /// Cuts the journal at the first damaged byte behind the tables' position, so that the store
    /// opens again. What follows the damage is lost, and reported.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn repair(io: Arc<dyn Io>, options: Options) -> Result<journal::RepairReport, OpenError> {
        let lock = FolderLock::take(&*io)?;
        let (_, loaded) = Tables::open(&*io, options.table_cache_bytes)?;
        Ok(journal::repair(
            &io,
            &lock,
            options.journal(),
            loaded.position,
        )?)
    }

    /// Says why, once the store has failed for good: every later commit is `Unknown`, and only
    /// another start of the process helps.
    pub fn failure(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.shared.failure()
    }

    fn submit(&self, tx: Tx) -> Result<Prepared, CommitError> {
        let prepared = Prepared::new(tx, |id| self.shared.stream_by_id(id))?;
        if prepared.bytes > self.max_tx_bytes {
            return Err(CommitError::TooLarge {
                size: prepared.bytes,
                allowed: self.max_tx_bytes,
            });
        }
        Ok(prepared)
    }

    async fn commit_queued(&self, prepared: Prepared) -> Result<Receipt, CommitError> {
        let gone = || CommitError::Unknown("not done: the store is closed".into());
        let room = self.queue.room(prepared.bytes).await.ok_or_else(gone)?;
        let (reply, outcome) = oneshot::channel();
        let request = Request {
            prepared,
            reply,
            room,
        };
        if !self.queue.push(request) {
            return Err(gone());
        }
        outcome
            .await
            .unwrap_or_else(|_| Err(CommitError::Unknown("the store ended".into())))
    }

    fn take_threads(&self) -> Option<Threads> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.take()
    }
}

/// Ends the threads: everything accepted is written. The tables are made durable, and the next
/// start is quick, only if `orderly`.
fn finish(shared: &Shared, queue: &Queue, threads: Threads, orderly: bool) {
    queue.close();
    let writer = threads.writer.join();
    let syncer = threads.syncer.join();
    shared.stop_tabler(orderly);
    let tabler = threads.tabler.join();
    if let (true, Ok(writer), Ok(syncer), Ok(())) = (orderly, writer, syncer, tabler)
        && let Err(error) = syncer.close(writer)
    {
        tracing::warn!("close the journal: {error}");
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(threads) = self.take_threads() {
            finish(&self.shared, &self.queue, threads, false);
        }
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").finish_non_exhaustive()
    }
}

/// A thread of the store: if it panics, nobody waits for it for ever.
struct Watched(Arc<Shared>, Arc<Queue>);

impl Watched {
    fn spawn<T: Send + 'static>(
        self,
        name: &'static str,
        run: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, OpenError> {
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || run(&self.0))
            .map_err(OpenError::Thread)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("a thread of the store panicked");
            self.1.abandon();
        }
    }
}

impl Store for Embedded {
    fn commit(&self, tx: Tx) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        Box::pin(async move {
            let prepared = self.submit(tx)?;
            self.commit_queued(prepared).await
        })
    }

    fn read(
        &self,
        shard: ShardKey,
        from: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Block>, ReadError>> {
        match self.shared.read_cached(shard, from, limit) {
            Err(error) => Box::pin(std::future::ready(Err(error))),
            Ok(Some(blocks)) => Box::pin(std::future::ready(Ok(blocks))),
            Ok(None) => self.blocking(move |shared| shared.read_cold(shard, from, limit)),
        }
    }

    fn seek(&self, shard: ShardKey, to: Seek) -> BoxFuture<'_, Result<u64, ReadError>> {
        match self.shared.seek_fast(shard, to) {
            Err(error) => Box::pin(std::future::ready(Err(error))),
            Ok(read::Sought::Found(position)) => Box::pin(std::future::ready(Ok(position))),
            Ok(read::Sought::ByTime(instant)) => {
                self.blocking(move |shared| shared.seek_time(shard, instant))
            }
        }
    }

    fn extent(
        &self,
        shard: ShardKey,
        from: u64,
        to: u64,
    ) -> BoxFuture<'_, Result<Extent, ReadError>> {
        match self.shared.extent_known(shard, from, to) {
            Err(error) => Box::pin(std::future::ready(Err(error))),
            Ok(Some(extent)) => Box::pin(std::future::ready(Ok(extent))),
            Ok(None) => self.blocking(move |shared| shared.extent_cold(shard, from, to)),
        }
    }

    fn subscribe(&self, shard: ShardKey) -> Result<watch::Receiver<u64>, ReadError> {
        self.shared.subscribe(shard)
    }

    fn get(&self, key: &Key) -> Result<Option<Versioned>, ReadError> {
        self.shared.get(key)
    }

    fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, ReadError> {
        self.shared.scan(prefix, after, limit)
    }

    fn scan_back(
        &self,
        prefix: &Key,
        before: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, ReadError> {
        self.shared.scan_back(prefix, before, limit)
    }

    fn has_room(&self, _: TenantId, _: u64) -> bool {
        true
    }

    fn blob(&self, key: &Key) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>> {
        let key = key.clone();
        self.blocking(move |shared| shared.blob(&key))
    }

    fn counters(&self, scope: &Scope, function: &str) -> Result<Vec<(String, i64)>, ReadError> {
        let prefix = crate::counters::prefix(scope, function);
        crate::counters::named(self.shared.scan(&prefix, None, usize::MAX)?)
    }

    fn stream(&self, scope: &Scope, name: &StreamName) -> Option<Arc<Stream>> {
        self.shared.stream(scope, name)
    }

    fn stream_by_id(&self, id: StreamId) -> Option<Arc<Stream>> {
        self.shared.stream_by_id(id)
    }

    fn streams(&self, scope: Option<&Scope>) -> Vec<Arc<Stream>> {
        self.shared.streams(scope)
    }

    fn watch_streams(&self) -> watch::Receiver<u64> {
        self.shared.watch_streams()
    }

    fn stats(&self) -> Stats {
        self.shared.stats()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some(threads) = self.take_threads() else {
                return;
            };
            let (shared, queue) = (Arc::clone(&self.shared), Arc::clone(&self.queue));
            let closing = move || finish(&shared, &queue, threads, true);
            if let Err(error) = tokio::task::spawn_blocking(closing).await {
                tracing::error!("close the store: {error}");
            }
        })
    }
}

impl Embedded {
    /// Runs what may wait for the disk where that holds nobody up.
    fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Shared) -> Result<T, ReadError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, ReadError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            tokio::task::spawn_blocking(move || run(&shared))
                .await
                .unwrap_or_else(|error| Err(ReadError::Io(error.to_string())))
        })
    }
}
