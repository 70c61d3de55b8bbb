//! What a transaction holds, what comes back, and why one is refused.

use bytes::Bytes;
use shardmill_core::{
    Records, Scope, ShardId, ShardKey, Stream, StreamId, StreamName, TenantId, UnixMillis,
};

use crate::Key;

/// Everything that is committed together.
#[derive(Clone, Debug, Default)]
pub struct Tx {
    /// The lease under which this is written; constant in the embedded engine.
    pub epoch: u64,
    /// What must hold, decided in journal order. All or nothing.
    pub expect: Vec<Expect>,
    /// Records to append.
    pub appends: Vec<Append>,
    /// Values to write.
    pub writes: Vec<(Key, Value)>,
    /// Additions to counters.
    pub counters: Vec<CounterAdd>,
    /// Streams to make, change or delete.
    pub streams: Vec<StreamChange>,
    /// Records that are no longer needed.
    pub trims: Vec<Trim>,
    /// Whether the reserve may be used when the disk is nearly full.
    pub urgency: Urgency,
    /// The producer's number, when it asked for exactly once. A transaction with a number that
    /// was seen is not done again: its first receipt is returned, if the appends are the same.
    pub producer: Option<ProducerMark>,
}

/// Who may use the last of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Urgency {
    /// Records and other growth: refused as `Full` below the low-water mark.
    #[default]
    Growth,
    /// Progress, trimming, deletion and failures: may use the reserve.
    Housekeeping,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key's value has this revision; `None`: there is no value.
    Revision(Key, Option<u64>),
    /// The key has a value.
    Present(Key),
    /// The stream exists and is not being deleted.
    StreamExists(StreamId),
}

/// Records for a stream.
#[derive(Clone, Debug)]
pub struct Append {
    /// The stream.
    pub stream: StreamId,
    /// Where in it.
    pub route: Route,
    /// The records, in order.
    pub records: Records,
}

/// Where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// All to this shard, which must be open when the transaction is written.
    Shard(ShardId),
    /// Each to the shard that is open for its hash key when the transaction is written.
    HashKey,
}

/// A value to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A small value that lives in the tables.
    Inline(Bytes),
    /// A large one that stays in the journal; tables hold a reference. Outlives every stream.
    Blob(Bytes),
    /// Deletes the key.
    Delete,
}

/// Adds to a counter. Commutes, so it needs no condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterAdd {
    /// Account and region.
    pub scope: Scope,
    /// The function that owns the counter.
    pub function: Box<str>,
    /// The counter's name. Names beyond `limits::MAX_COUNTER_NAMES` of a function are added to
    /// `limits::COUNTER_OVERFLOW_NAME` instead.
    pub name: Box<str>,
    /// What to add; wraps.
    pub amount: i64,
}

/// A change to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamChange {
    /// Makes it. `id` is chosen by the store (see [`Receipt::created`]); fails as
    /// `StreamExists` when the name is taken in its scope.
    Create(Box<Stream>),
    /// Replaces its settings and shards; fails as `NoSuchStream` when it is gone, and as
    /// `StreamChanged` when its revision is not this one's: read it again and decide again.
    /// What this closes and makes is moved to later seconds where a shard would close before its
    /// newest record arrived (see `core::reshard::close_after_newest`).
    Update(Box<Stream>),
    /// Removes it with all its records. No error when it is gone.
    Remove(StreamId),
}

/// Drops a shard's records below a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// The shard.
    pub shard: ShardKey,
    /// The first position to keep.
    pub before: u64,
}

/// A producer and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerMark {
    /// Account and region.
    pub scope: Scope,
    /// The producer's id, 1 … 128 bytes.
    pub id: Box<str>,
    /// Its number for this transaction; grows.
    pub number: u64,
}

/// What a commit did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// The revision of everything that it wrote.
    pub revision: u64,
    /// One entry per [`Append`] with [`Route::Shard`], in order; for [`Route::HashKey`] one entry
    /// per record.
    pub appended: Vec<Appended>,
    /// Ids of the streams that were made, in order.
    pub created: Vec<StreamId>,
    /// Whether this is the receipt of an earlier transaction with the same producer number.
    pub repeated: bool,
}

/// Where records were put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The shard.
    pub shard: ShardId,
    /// Position of the first record.
    pub first: u64,
    /// When they arrived.
    pub arrival: UnixMillis,
}

/// Why a transaction was not done. Nothing of it is visible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A condition on this key did not hold. Read again and decide again.
    #[error("a value was changed meanwhile")]
    Conflict(Key),
    /// Another owner holds the lease.
    #[error("another owner holds the lease")]
    Fenced,
    /// The disk is below its low-water mark.
    #[error(
        "disk nearly full: {free_bytes} bytes free, appends need {low_water_bytes}: free space, or trim streams"
    )]
    Full {
        /// Bytes that are free.
        free_bytes: u64,
        /// Bytes below which appends are refused.
        low_water_bytes: u64,
    },
    /// The tenant's quota of stored bytes has no room for the records.
    #[error(
        "tenant {tenant} stores {stored} of {allowed} bytes, and {bytes} more do not fit: wait for \
         records to expire, shorten a stream's retention, or have the quota raised"
    )]
    Quota {
        /// The tenant.
        tenant: TenantId,
        /// Bytes of the records.
        bytes: u64,
        /// Bytes that it stores.
        stored: u64,
        /// Bytes that it may store.
        allowed: u64,
    },
    /// The stream does not exist, or is being deleted.
    #[error("stream {} does not exist", .0.0)]
    NoSuchStream(StreamId),
    /// The stream was changed since it was read: read it again and decide again.
    #[error("stream {} was changed meanwhile", .0.0)]
    StreamChanged(StreamId),
    /// The name is taken.
    #[error("stream {0} exists")]
    StreamExists(StreamName),
    /// The shard was closed meanwhile: route the records again.
    #[error("{0} is closed")]
    ShardClosed(ShardKey),
    /// The producer's number is below its last one, whose answer is no longer kept.
    #[error("producer {id:?} sent number {number} after number {last}")]
    ProducerBehind {
        /// The producer.
        id: Box<str>,
        /// Its number now.
        number: u64,
        /// Its last number.
        last: u64,
    },
    /// The producer's last number was used for other records: those of this transaction are not
    /// stored.
    #[error("producer {id:?} has used number {number} for other records: count on")]
    ProducerReused {
        /// The producer.
        id: Box<str>,
        /// Its number.
        number: u64,
    },
    /// Larger than a segment takes.
    #[error("transaction of {size} bytes, {allowed} allowed")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        allowed: u64,
    },
    /// The engine failed: whether the transaction is durable is not known.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}
