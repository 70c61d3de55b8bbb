//! What a transaction turned out to be once every choice was made: positions, revisions and sums
//! are absolute, so that whoever applies it decides nothing.

use std::sync::Arc;

use bytes::Bytes;
use shardmill_core::block::{BadBlock, INDEX_ENTRY_BYTES, Placement};
use shardmill_core::{Block, ShardKey, Stream, StreamId, UnixMillis};

use crate::Key;
use crate::catalog::{Change, End};
use crate::tx::{Trim, Value};

/// A decided transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The revision of everything in `puts`, and of the transaction.
    pub(crate) revision: u64,
    /// Streams that were made, changed or removed. Applied first.
    pub(crate) streams: Vec<StreamSet>,
    /// Records with their places, in the order of their positions in each shard.
    pub(crate) blocks: Vec<NewBlock>,
    /// Values, in order: a later one of a key wins. Counters' sums and producers' marks too.
    pub(crate) puts: Vec<(Key, Value)>,
    /// New beginnings of shards, not behind their ends.
    pub(crate) trims: Vec<Trim>,
    /// Beginnings of counters' keys under which there are new names, and how many names there are.
    pub(crate) counter_names: Vec<(Key, usize)>,
}

impl Resolved {
    /// What it means for the catalog.
    pub(crate) fn change(&self) -> Change<'_> {
        let ends = self.blocks.iter().map(|block| End {
            shard: block.shard,
            next: block.end(),
            arrival: block.arrival,
        });
        Change {
            revision: self.revision,
            streams: &self.streams,
            ends: ends.collect(),
            trims: &self.trims,
        }
    }
}

/// A stream as it is from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamSet {
    /// It is this.
    Put(Arc<Stream>),
    /// It is no more, and neither are its records.
    Remove(StreamId),
}

/// Records that got their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewBlock {
    /// The shard.
    pub(crate) shard: ShardKey,
    /// When the shard was created, seconds since the epoch.
    pub(crate) created_seconds: u64,
    /// Position of the first record.
    pub(crate) first: u64,
    /// When the records arrived.
    pub(crate) arrival: UnixMillis,
    /// The packed index.
    pub(crate) index: Bytes,
    /// The packed keys and data.
    pub(crate) blob: Bytes,
    /// CRC-32 of both.
    pub(crate) sums: Sums,
}

/// CRC-32 of the two parts of packed records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Of the index.
    pub(crate) index: u32,
    /// Of the keys and data.
    pub(crate) blob: u32,
}

impl Sums {
    /// Of these parts.
    pub(crate) fn of(index: &[u8], blob: &[u8]) -> Self {
        Self {
            index: crc32fast::hash(index),
            blob: crc32fast::hash(blob),
        }
    }
}

impl NewBlock {
    /// How many records there are.
    pub(crate) fn count(&self) -> u64 {
        (self.index.len() / INDEX_ENTRY_BYTES) as u64
    }

    /// Position after the last record.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.count()
    }

    /// The block that readers get; shares the bytes.
    pub(crate) fn to_block(&self) -> Result<Block, BadBlock> {
        let placement = Placement {
            shard: self.shard.shard,
            created_seconds: self.created_seconds,
            first: self.first,
            arrival: self.arrival,
        };
        Block::new(placement, self.index.clone(), self.blob.clone())
    }
}
