//! Commit groups that are synced but not in the tables yet, merged: what readers look at before
//! the tables, and what the next table transaction writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use shardmill_core::block::INDEX_ENTRY_BYTES;
use shardmill_core::{ShardKey, Stream, StreamId, UnixMillis};

use crate::Key;
use crate::catalog::{Catalog, Tail};
use crate::frame::{Contents, PutValue};
use crate::journal::{Place, Position};
use crate::resolved::StreamSet;

/// Where a block lies in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockRef {
    /// Position of the first record.
    pub(crate) first: u64,
    /// Its index, and behind that its blob.
    pub(crate) place: Place,
    /// Bytes of the index.
    pub(crate) index_len: u32,
    /// When its records arrived.
    pub(crate) arrival: UnixMillis,
    /// CRC-32 of index and blob.
    pub(crate) crc: u32,
}

impl BlockRef {
    /// Position after the last record.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.index_len) / INDEX_ENTRY_BYTES as u64
    }

    /// Bytes of keys and data.
    pub(crate) fn blob_bytes(&self) -> usize {
        self.place.len.saturating_sub(self.index_len) as usize
    }
}

/// A value as the tables have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The revision of the transaction that wrote it.
    pub(crate) revision: u64,
    /// The value.
    pub(crate) value: StoredValue,
}

/// Where a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoredValue {
    /// Here.
    Inline(Bytes),
    /// In the journal, with this CRC-32.
    Blob(Place, u32),
}

/// Groups, merged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layer {
    /// Values by key; `None`: deleted.
    pub(crate) keys: BTreeMap<Key, Option<Stored>>,
    /// Blocks by shard and first position.
    pub(crate) blocks: BTreeMap<ShardKey, BTreeMap<u64, BlockRef>>,
    /// Streams; `None`: removed.
    pub(crate) streams: BTreeMap<StreamId, Option<Arc<Stream>>>,
    /// The ends of shards; `None`: the shard is gone.
    pub(crate) tails: BTreeMap<ShardKey, Option<Tail>>,
    /// By segment: bytes that are referred to now and were not before.
    pub(crate) live: BTreeMap<u64, i64>,
    /// Where the last group's frame ends.
    pub(crate) position: Position,
    /// Revision of the last transaction.
    pub(crate) revision: u64,
    /// The id that the next new stream gets.
    pub(crate) next_stream: u64,
    /// Bytes of the groups' frames.
    pub(crate) frame_bytes: u64,
    /// About how many bytes of memory this takes.
    pub(crate) memory_bytes: usize,
}

/// Memory that an entry takes beside its bytes, about.
const ENTRY_BYTES: usize = 160;

/// A group as it lies in the journal.
pub(crate) struct Written<'a> {
    /// What its frame says.
    pub(crate) contents: &'a Contents,
    /// Where the frame's payload is.
    pub(crate) place: Place,
    /// Where the frame ends.
    pub(crate) end: Position,
}

impl Layer {
    /// Whether no group is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.frame_bytes == 0
    }

    /// Adds the next group. `catalog` already knows it; `gone` are the shards that it ended.
    pub(crate) fn add(&mut self, group: &Written<'_>, catalog: &Catalog, gone: &[ShardKey]) {
        let Written {
            contents,
            place,
            end,
        } = group;
        self.position = *end;
        self.revision = contents.revision;
        self.next_stream = catalog.next_stream();
        self.frame_bytes += u64::from(place.len).max(1);
        self.add_streams(contents, catalog, gone);
        for block in &contents.blocks {
            let len = block.index_len + block.blob_len;
            let Some(body) = place.part(block.at, len) else {
                continue;
            };
            if catalog.tail(block.shard).is_none() {
                continue;
            }
            let block_ref = BlockRef {
                first: block.first,
                place: body,
                index_len: block.index_len,
                arrival: block.arrival,
                crc: block.crc,
            };
            self.blocks
                .entry(block.shard)
                .or_default()
                .insert(block.first, block_ref);
            self.memory_bytes += ENTRY_BYTES;
            self.count(body, 1);
            self.tails.insert(block.shard, catalog.tail(block.shard));
        }
        for trim in &contents.trims {
            self.tails.insert(trim.shard, catalog.tail(trim.shard));
            self.forget_blocks(trim.shard, trim.before);
        }
        for put in &contents.puts {
            let value = match &put.value {
                PutValue::Deleted => None,
                PutValue::Inline(bytes) => Some(StoredValue::Inline(bytes.clone())),
                PutValue::Blob { at, len, crc } => place
                    .part(*at, *len)
                    .map(|place| StoredValue::Blob(place, *crc)),
            };
            self.put(put.key.clone(), put.revision, value);
        }
    }

    fn add_streams(&mut self, contents: &Contents, catalog: &Catalog, gone: &[ShardKey]) {
        for set in &contents.streams {
            let id = match set {
                StreamSet::Put(stream) => stream.id,
                StreamSet::Remove(id) => *id,
            };
            let stream = catalog.stream(id).cloned();
            for shard in stream.iter().flat_map(|stream| &stream.shards) {
                let key = ShardKey {
                    stream: id,
                    shard: shard.id,
                };
                self.tails.insert(key, catalog.tail(key));
            }
            self.streams.insert(id, stream);
            self.memory_bytes += ENTRY_BYTES;
        }
        for shard in gone {
            self.tails.insert(*shard, None);
            self.forget_blocks(*shard, u64::MAX);
        }
    }

    fn put(&mut self, key: Key, revision: u64, value: Option<StoredValue>) {
        let inline = match &value {
            Some(StoredValue::Inline(bytes)) => bytes.len(),
            Some(StoredValue::Blob(place, _)) => {
                self.count(*place, 1);
                0
            }
            None => 0,
        };
        let key_len = key.as_bytes().len();
        let stored = value.map(|value| Stored { revision, value });
        match self.keys.insert(key, stored) {
            Some(Some(old)) => match old.value {
                StoredValue::Blob(place, _) => self.count(place, -1),
                StoredValue::Inline(bytes) => {
                    self.memory_bytes = self.memory_bytes.saturating_sub(bytes.len());
                }
            },
            Some(None) => {}
            None => self.memory_bytes += ENTRY_BYTES + key_len,
        }
        self.memory_bytes += inline;
    }

    /// Drops what was added here and is dead before it was in the tables.
    fn forget_blocks(&mut self, shard: ShardKey, below: u64) {
        let Some(blocks) = self.blocks.get_mut(&shard) else {
            return;
        };
        let mut dead = Vec::new();
        while let Some(first) = blocks.first_entry() {
            if first.get().end() > below {
                break;
            }
            dead.push(first.remove().place);
        }
        if blocks.is_empty() {
            self.blocks.remove(&shard);
        }
        for place in dead {
            self.count(place, -1);
        }
    }

    fn count(&mut self, place: Place, sign: i64) {
        *self.live.entry(place.segment).or_default() += sign * i64::from(place.len);
    }

    /// The blocks of a shard that end above `from`, in order.
    pub(crate) fn blocks_from(
        &self,
        shard: ShardKey,
        from: u64,
    ) -> impl Iterator<Item = &BlockRef> {
        self.blocks.get(&shard).into_iter().flat_map(move |blocks| {
            let holder = blocks.range(..=from).next_back();
            let start = match holder {
                Some((first, block)) if block.end() > from => *first,
                _ => from,
            };
            blocks.range(start..).map(|(_, block)| block)
        })
    }

    /// The keys from `start` to before `end`, the last one first.
    pub(crate) fn keys_back<'a>(
        &'a self,
        start: &Key,
        end: &Key,
    ) -> impl Iterator<Item = (&'a Key, &'a Option<Stored>)> {
        self.keys.range::<Key, _>(start..end).rev()
    }

    /// The keys from `start` on that begin with `prefix`, in order.
    pub(crate) fn keys_from<'a>(
        &'a self,
        prefix: &'a Key,
        start: &Key,
    ) -> impl Iterator<Item = (&'a Key, &'a Option<Stored>)> {
        self.keys
            .range(start..)
            .take_while(|(key, _)| key.as_bytes().starts_with(prefix.as_bytes()))
    }
}
