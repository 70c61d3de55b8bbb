//! Durable shards, tables and transactions.
//!
//! [`Store`] is the seam; [`Memory`] keeps everything in memory (tests, and the ceiling that
//! benchmarks compare with), [`Embedded`] is a journal with redb as its tables.
#![warn(missing_docs)]

#[doc(hidden)]
pub mod fuzzing;
pub mod io;
pub mod journal;

mod catalog;
mod counters;
mod decide;
mod embedded;
mod extent;
mod frame;
mod key;
mod layer;
mod memory;
mod pass_on;
mod receipt;
mod resolved;
mod route;
mod select;
mod tables;
mod tx;
mod visible;
mod wire;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod test_support;

pub use decide::EPOCH;
pub use embedded::{Embedded, OpenError, Options};
pub use extent::Extent;
pub use key::{Key, Table};
pub use memory::Memory;
pub use tables::TablesError;
pub use tx::*;

// For what `pass_on` writes elsewhere.
#[doc(hidden)]
pub use bytes::Bytes;
#[doc(hidden)]
pub use shardmill_core as core;
#[doc(hidden)]
pub use shardmill_core::sandbox::BoxFuture;
#[doc(hidden)]
pub use tokio::sync::watch;

use std::sync::Arc;

use shardmill_core::{Block, Scope, ShardKey, Stream, StreamId, StreamName, TenantId, UnixMillis};

/// Tells the time that arriving records get. The host hands in its own, which tests can pause.
pub type Clock = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// The largest transaction, bytes: a frame has to fit into a journal segment of 64 MiB.
pub const MAX_TX_BYTES: u64 = 48 << 20;

/// Where shards, tables and transactions live.
///
/// Every condition of a transaction is decided by one writer in journal order, against all
/// earlier transactions, whether they are synced yet or not. What readers see is durable.
pub trait Store: Send + Sync {
    /// Commits a transaction: whole or not at all; durable and visible on `Ok`.
    ///
    /// Dropping the future does not take the transaction back.
    ///
    /// # Errors
    /// See [`CommitError`]; after `Unknown` the transaction may or may not be found after a restart.
    fn commit(&self, tx: Tx) -> BoxFuture<'_, Result<Receipt, CommitError>>;

    /// Reads neighbouring blocks of a shard in order, beginning with the one that holds position
    /// `from`, or else the next one behind it. At least one block if there is any, then no more
    /// than the limit. The first block may begin before `from`; nothing trimmed is returned
    /// except as the head of a block that is still partly alive.
    ///
    /// # Errors
    /// `NoSuchShard`, or a block that is damaged on disk.
    fn read(
        &self,
        shard: ShardKey,
        from: u64,
        limit: ReadLimit,
    ) -> BoxFuture<'_, Result<Vec<Block>, ReadError>>;

    /// The position that a place in a shard stands for. `AtTime` later than every record gives
    /// the end.
    ///
    /// # Errors
    /// `NoSuchShard`.
    fn seek(&self, shard: ShardKey, to: Seek) -> BoxFuture<'_, Result<u64, ReadError>>;

    /// How much lies in a shard at positions `from..to`, without reading any payload. What is
    /// trimmed and what is behind the end does not count, so `1..u64::MAX` is the whole shard.
    ///
    /// Asked again and again with positions that move on, it looks at what moved only.
    ///
    /// # Errors
    /// `NoSuchShard`, or an index entry that is damaged on disk.
    fn extent(
        &self,
        shard: ShardKey,
        from: u64,
        to: u64,
    ) -> BoxFuture<'_, Result<Extent, ReadError>>;

    /// Wakes when records are appended to the shard: the value is the position after the last
    /// durable record.
    ///
    /// # Errors
    /// `NoSuchShard`.
    fn subscribe(&self, shard: ShardKey) -> Result<watch::Receiver<u64>, ReadError>;

    /// The value of a key. Cheap enough for an invoker's thread.
    ///
    /// # Errors
    /// A damaged value.
    fn get(&self, key: &Key) -> Result<Option<Versioned>, ReadError>;

    /// Keys that begin with `prefix`, in order, from the first one above `after`, at most `limit`.
    ///
    /// # Errors
    /// A damaged value.
    fn scan(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, ReadError>;

    /// Keys that begin with `prefix`, the last one first, from the first one below `before`, at
    /// most `limit`.
    ///
    /// # Errors
    /// A damaged value.
    fn scan_back(
        &self,
        prefix: &Key,
        before: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Versioned)>, ReadError>;

    /// The blob of a key that was written with [`Value::Blob`]; `None` if there is none.
    ///
    /// # Errors
    /// A damaged blob.
    fn blob(&self, key: &Key) -> BoxFuture<'_, Result<Option<Bytes>, ReadError>>;

    /// The counters of a function, by name.
    ///
    /// # Errors
    /// A damaged value.
    fn counters(&self, scope: &Scope, function: &str) -> Result<Vec<(String, i64)>, ReadError>;

    /// The stream with this name. `None` if there is none; one that is being deleted is found.
    fn stream(&self, scope: &Scope, name: &StreamName) -> Option<Arc<Stream>>;

    /// The stream with this id.
    fn stream_by_id(&self, id: StreamId) -> Option<Arc<Stream>>;

    /// The streams of a scope by name; of every scope without one.
    fn streams(&self, scope: Option<&Scope>) -> Vec<Arc<Stream>>;

    /// Changes whenever a stream is made, changed or deleted; the value counts the changes.
    fn watch_streams(&self) -> watch::Receiver<u64>;

    /// Whether so many more bytes of records find room under the tenant's quota. A store that knows
    /// no quotas has room.
    fn has_room(&self, tenant: TenantId, bytes: u64) -> bool;

    /// Figures for metrics and people.
    fn stats(&self) -> Stats;

    /// Finishes what was accepted and makes the tables durable, so that the next start is quick.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Bounds of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// Records, counted from `from`.
    pub records: usize,
    /// Bytes of blobs.
    pub bytes: usize,
}

/// A place in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// The oldest record that is not trimmed, or the end.
    TrimHorizon,
    /// After the newest record.
    Latest,
    /// The first record that arrived at this instant or later.
    AtTime(UnixMillis),
}

/// A value with the revision of the transaction that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value; empty for a blob (see [`Store::blob`]).
    pub value: Bytes,
    /// Grows with every transaction; never 0.
    pub revision: u64,
}

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The stream or shard does not exist (any more).
    #[error("{0} does not exist")]
    NoSuchShard(ShardKey),
    /// Bytes on disk are damaged; the rest of the store is served.
    #[error("damaged data: {0}")]
    Damaged(String),
    /// The disk failed.
    #[error("read failed: {0}")]
    Io(String),
}

/// Figures of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Groups that were synced.
    pub groups: u64,
    /// Transactions that were committed.
    pub transactions: u64,
    /// Records that were appended.
    pub records: u64,
    /// Transactions that were refused because a condition did not hold.
    pub conflicts: u64,
    /// Bytes of frames written.
    pub frame_bytes: u64,
    /// Bytes of all files.
    pub disk_bytes: u64,
    /// Whether record appends are refused for want of disk space.
    pub full: bool,
}
