//! What a journal frame holds: the transactions of one commit group, as one.
//!
//! ```text
//! meta_len u32 │ meta │ bodies: for each block its index and its blob, then each large value
//! ```
//! `docs/format.md` draws the rest. Merging a group keeps each transaction whole, since a frame is
//! found whole or not at all, and gives one block per shard and group. Decoding checks everything
//! but the bodies, which have checksums of their own, and never panics.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use crc32fast::Hasher;
use shardmill_core::block::INDEX_ENTRY_BYTES;
use shardmill_core::{ShardId, ShardKey, StreamId, UnixMillis};

use crate::Key;
use crate::catalog::{Change, End};
use crate::resolved::{NewBlock, Resolved, StreamSet, Sums};
use crate::tx::{Trim, Value};
use crate::wire::{Malformed, Reader, put_bytes, put_varint};

const VERSION: u8 = 1;

/// Parts of a block that are smaller than this on average are copied together: one write of a
/// few KiB costs less than many slices, and so does one block in memory.
const SMALL_PART_BYTES: usize = 16 << 10;

/// What a frame says, without the bodies. Offsets count from the beginning of the payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// How many transactions it holds.
    pub(crate) transactions: u64,
    /// Revision of the last one.
    pub(crate) revision: u64,
    /// Streams, in order.
    pub(crate) streams: Vec<StreamSet>,
    /// One block per shard, in order of shards.
    pub(crate) blocks: Vec<BlockEntry>,
    /// Values, in order of keys, each key once.
    pub(crate) puts: Vec<Put>,
    /// New beginnings of shards.
    pub(crate) trims: Vec<Trim>,
}

/// A block in a frame: its index at `at`, its blob behind that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockEntry {
    pub(crate) shard: ShardKey,
    pub(crate) first: u64,
    pub(crate) arrival: UnixMillis,
    pub(crate) at: u32,
    pub(crate) index_len: u32,
    pub(crate) blob_len: u32,
    /// CRC-32 of index and blob.
    pub(crate) crc: u32,
}

impl BlockEntry {
    /// How many records there are.
    pub(crate) fn count(&self) -> u32 {
        self.index_len / INDEX_ENTRY_BYTES as u32
    }

    /// Position after the last record.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.count())
    }
}

/// A value that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    pub(crate) key: Key,
    pub(crate) revision: u64,
    pub(crate) value: PutValue,
}

/// Where a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PutValue {
    /// Nowhere any more.
    Deleted,
    /// Here.
    Inline(Bytes),
    /// Among the frame's bodies.
    Blob { at: u32, len: u32, crc: u32 },
}

impl Contents {
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

    /// Reads a payload.
    ///
    /// # Errors
    /// `Malformed`: it is not one of this version.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut whole = Reader(payload);
        let meta_len = whole.u32()? as usize;
        let mut meta = Reader(whole.take(meta_len)?);
        let mut bodies = Bodies {
            next: 4 + meta_len as u64,
            end: payload.len() as u64,
        };
        if meta.u8()? != VERSION {
            return Err(Malformed("unknown version of a frame's contents"));
        }
        let transactions = meta.varint()?;
        let revision = meta.varint()?;
        let streams = many(&mut meta, 2, read_stream)?;
        let blocks = many(&mut meta, 10, |meta| read_block(meta, &mut bodies))?;
        let puts = many(&mut meta, 3, |meta| read_put(meta, revision, &mut bodies))?;
        let trims = many(&mut meta, 3, |meta| {
            Ok(Trim {
                shard: read_shard(meta)?,
                before: meta.varint()?,
            })
        })?;
        meta.finish()?;
        if bodies.next != bodies.end {
            return Err(Malformed("bodies of another length"));
        }
        Ok(Self {
            transactions,
            revision,
            streams,
            blocks,
            puts,
            trims,
        })
    }
}

/// The transactions of one commit group, being gathered.
#[derive(Debug, Default)]
pub(crate) struct Group {
    transactions: u64,
    revision: u64,
    streams: Vec<StreamSet>,
    blocks: BTreeMap<ShardKey, Vec<NewBlock>>,
    puts: BTreeMap<Key, (u64, Value)>,
    trims: BTreeMap<ShardKey, u64>,
}

impl Group {
    /// Adds the next transaction.
    pub(crate) fn add(&mut self, resolved: Resolved) {
        self.transactions += 1;
        self.revision = resolved.revision;
        for set in resolved.streams {
            self.forget_shards(&set);
            self.streams.push(set);
        }
        for block in resolved.blocks {
            self.blocks.entry(block.shard).or_default().push(block);
        }
        for (key, value) in resolved.puts {
            self.puts.insert(key, (resolved.revision, value));
        }
        for trim in resolved.trims {
            self.trims.insert(trim.shard, trim.before);
        }
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.transactions == 0
    }

    /// The value that this group writes to a key.
    pub(crate) fn get(&self, key: &Key) -> Option<&(u64, Value)> {
        self.puts.get(key)
    }

    /// The keys that this group writes from `start` on, in order.
    pub(crate) fn keys_from(&self, start: &Key) -> impl Iterator<Item = (&Key, &Value)> {
        self.puts
            .range(start..)
            .map(|(key, (_, value))| (key, value))
    }

    /// A stream's changes come first in a frame: what earlier transactions of the group did in a
    /// shard that ends here must not come after them.
    fn forget_shards(&mut self, set: &StreamSet) {
        let gone = |shard: &ShardKey| match set {
            StreamSet::Remove(id) => shard.stream == *id,
            StreamSet::Put(stream) => {
                shard.stream == stream.id && stream.shard(shard.shard).is_none()
            }
        };
        self.blocks.retain(|shard, _| !gone(shard));
        self.trims.retain(|shard, _| !gone(shard));
    }

    /// The frame.
    pub(crate) fn encode(self) -> Encoded {
        let mut meta = Vec::with_capacity(256 + 32 * self.blocks.len());
        let mut contents = Contents {
            transactions: self.transactions,
            revision: self.revision,
            ..Contents::default()
        };
        let mut bodies = Vec::with_capacity(1 + 2 * self.blocks.len());
        let mut blocks = Vec::with_capacity(self.blocks.len());
        meta.push(VERSION);
        put_varint(&mut meta, self.transactions);
        put_varint(&mut meta, self.revision);
        put_varint(&mut meta, self.streams.len() as u64);
        for set in &self.streams {
            put_stream(&mut meta, set);
        }
        put_varint(&mut meta, self.blocks.len() as u64);
        for (shard, parts) in self.blocks {
            let parts = gather(parts);
            let entry = put_block(&mut meta, shard, &parts, &mut bodies);
            contents.blocks.push(entry);
            blocks.extend(parts);
        }
        put_varint(&mut meta, self.puts.len() as u64);
        for (key, (revision, value)) in self.puts {
            let put = put_value(&mut meta, key, self.revision - revision, value, &mut bodies);
            contents.puts.push(Put { revision, ..put });
        }
        put_varint(&mut meta, self.trims.len() as u64);
        for (shard, before) in self.trims {
            put_shard(&mut meta, shard);
            put_varint(&mut meta, before);
            contents.trims.push(Trim { shard, before });
        }
        contents.streams = self.streams;
        let mut head = Vec::with_capacity(4 + meta.len());
        head.extend_from_slice(&(meta.len() as u32).to_le_bytes());
        head.extend_from_slice(&meta);
        contents.place_bodies(head.len() as u32);
        Encoded {
            contents: Arc::new(contents),
            head,
            bodies,
            blocks,
        }
    }
}

/// A frame to be written.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// What it says.
    pub(crate) contents: Arc<Contents>,
    /// The beginning of the payload.
    pub(crate) head: Vec<u8>,
    /// The rest of the payload, with checksums.
    pub(crate) bodies: Vec<(Bytes, u32)>,
    /// Its records, as readers get them: the same bytes.
    pub(crate) blocks: Vec<NewBlock>,
}

impl Encoded {
    /// Length of the payload in bytes.
    pub(crate) fn len(&self) -> usize {
        let bodies = self.bodies.iter().map(|(bytes, _)| bytes.len());
        self.head.len() + bodies.sum::<usize>()
    }
}

impl Contents {
    /// Gives every body its place behind the head, in order.
    fn place_bodies(&mut self, head_len: u32) {
        let mut next = head_len;
        for block in &mut self.blocks {
            block.at = next;
            next += block.index_len + block.blob_len;
        }
        for put in &mut self.puts {
            if let PutValue::Blob { at, len, .. } = &mut put.value {
                *at = next;
                next += *len;
            }
        }
    }
}

/// One block, or the parts as they are when they are large.
fn gather(parts: Vec<NewBlock>) -> Vec<NewBlock> {
    let index_len: usize = parts.iter().map(|part| part.index.len()).sum();
    let blob_len: usize = parts.iter().map(|part| part.blob.len()).sum();
    if parts.len() < 2 || (index_len + blob_len) / parts.len() >= SMALL_PART_BYTES {
        return parts;
    }
    let mut index = Vec::with_capacity(index_len);
    let mut blob = Vec::with_capacity(blob_len);
    for part in &parts {
        index.extend_from_slice(&part.index);
        blob.extend_from_slice(&part.blob);
    }
    let sums = Sums::of(&index, &blob);
    let whole = parts.into_iter().next().map(|first| NewBlock {
        index: index.into(),
        blob: blob.into(),
        sums,
        ..first
    });
    whole.into_iter().collect()
}

fn put_block(
    meta: &mut Vec<u8>,
    shard: ShardKey,
    parts: &[NewBlock],
    bodies: &mut Vec<(Bytes, u32)>,
) -> BlockEntry {
    let mut crc = Hasher::new();
    let mut push = |bytes: &Bytes, sum: u32| {
        crc.combine(&Hasher::new_with_initial_len(sum, bytes.len() as u64));
        bodies.push((bytes.clone(), sum));
        bytes.len() as u32
    };
    let index_len = parts.iter().map(|p| push(&p.index, p.sums.index)).sum();
    let blob_len = parts.iter().map(|p| push(&p.blob, p.sums.blob)).sum();
    let (first, arrival) = parts
        .first()
        .map_or((1, UnixMillis(0)), |part| (part.first, part.arrival));
    let entry = BlockEntry {
        shard,
        first,
        arrival,
        at: 0,
        index_len,
        blob_len,
        crc: crc.finalize(),
    };
    put_shard(meta, shard);
    put_varint(meta, first);
    put_varint(meta, arrival.0);
    put_varint(meta, u64::from(entry.count()));
    put_varint(meta, u64::from(blob_len));
    meta.extend_from_slice(&entry.crc.to_le_bytes());
    entry
}

fn put_value(
    meta: &mut Vec<u8>,
    key: Key,
    age: u64,
    value: Value,
    bodies: &mut Vec<(Bytes, u32)>,
) -> Put {
    put_bytes(meta, key.as_bytes());
    put_varint(meta, age);
    let value = match value {
        Value::Delete => {
            meta.push(0);
            PutValue::Deleted
        }
        Value::Inline(bytes) => {
            meta.push(1);
            put_bytes(meta, &bytes);
            PutValue::Inline(bytes)
        }
        Value::Blob(bytes) => {
            let (len, crc) = (bytes.len() as u32, crc32fast::hash(&bytes));
            meta.push(2);
            put_varint(meta, u64::from(len));
            meta.extend_from_slice(&crc.to_le_bytes());
            bodies.push((bytes, crc));
            PutValue::Blob { at: 0, len, crc }
        }
    };
    Put {
        key,
        revision: 0,
        value,
    }
}

fn put_stream(meta: &mut Vec<u8>, set: &StreamSet) {
    match set {
        StreamSet::Put(stream) => {
            meta.push(0);
            put_bytes(meta, &stream_json(stream));
        }
        StreamSet::Remove(id) => {
            meta.push(1);
            put_varint(meta, id.0);
        }
    }
}

/// A stream as it is kept: JSON.
pub(crate) fn stream_json(stream: &shardmill_core::Stream) -> Vec<u8> {
    serde_json::to_vec(stream).expect("a stream has no keys but strings")
}

fn put_shard(meta: &mut Vec<u8>, shard: ShardKey) {
    put_varint(meta, shard.stream.0);
    put_varint(meta, u64::from(shard.shard.0));
}

/// Where the next body has to be.
struct Bodies {
    next: u64,
    end: u64,
}

impl Bodies {
    fn take(&mut self, len: u64) -> Result<u32, Malformed> {
        let at = u32::try_from(self.next).map_err(|_| Malformed("frame too large"))?;
        let next = self.next.checked_add(len).filter(|next| *next <= self.end);
        self.next = next.ok_or(Malformed("bodies too short"))?;
        Ok(at)
    }
}

fn many<T>(
    meta: &mut Reader<'_>,
    least: usize,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = meta.count(least)?;
    (0..count).map(|_| read(meta)).collect()
}

fn read_stream(meta: &mut Reader<'_>) -> Result<StreamSet, Malformed> {
    match meta.u8()? {
        0 => serde_json::from_slice(meta.bytes()?)
            .map(|stream| StreamSet::Put(Arc::new(stream)))
            .map_err(|_| Malformed("a stream that is not one")),
        1 => Ok(StreamSet::Remove(StreamId(meta.varint()?))),
        _ => Err(Malformed("unknown change of a stream")),
    }
}

fn read_shard(meta: &mut Reader<'_>) -> Result<ShardKey, Malformed> {
    Ok(ShardKey {
        stream: StreamId(meta.varint()?),
        shard: ShardId(meta.varint_u32()?),
    })
}

fn read_block(meta: &mut Reader<'_>, bodies: &mut Bodies) -> Result<BlockEntry, Malformed> {
    let shard = read_shard(meta)?;
    let first = meta.varint()?;
    let arrival = UnixMillis(meta.varint()?);
    let count = meta.varint_u32()?;
    let blob_len = meta.varint_u32()?;
    let crc = meta.u32()?;
    let index_len = count
        .checked_mul(INDEX_ENTRY_BYTES as u32)
        .filter(|_| count > 0 && first > 0 && first.checked_add(u64::from(count)).is_some())
        .ok_or(Malformed("a block of impossible size"))?;
    Ok(BlockEntry {
        shard,
        first,
        arrival,
        at: bodies.take(u64::from(index_len) + u64::from(blob_len))?,
        index_len,
        blob_len,
        crc,
    })
}

fn read_put(meta: &mut Reader<'_>, revision: u64, bodies: &mut Bodies) -> Result<Put, Malformed> {
    let key = Key::from_bytes(meta.bytes()?.to_vec());
    let revision = revision
        .checked_sub(meta.varint()?)
        .ok_or(Malformed("a revision below 0"))?;
    let value = match meta.u8()? {
        0 => PutValue::Deleted,
        1 => PutValue::Inline(Bytes::copy_from_slice(meta.bytes()?)),
        2 => {
            let len = meta.varint_u32()?;
            PutValue::Blob {
                at: bodies.take(u64::from(len))?,
                len,
                crc: meta.u32()?,
            }
        }
        _ => return Err(Malformed("unknown kind of value")),
    };
    Ok(Put {
        key,
        revision,
        value,
    })
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use shardmill_core::Scope;

    use super::*;
    use crate::Table;
    use crate::test_support::{records, stream_of};

    fn block(shard: u32, first: u64, records: shardmill_core::Records) -> NewBlock {
        let (index, blob) = records.into_parts();
        NewBlock {
            shard: ShardKey {
                stream: StreamId(1),
                shard: ShardId(shard),
            },
            created_seconds: 7,
            first,
            arrival: UnixMillis(1_700_000_000_000),
            sums: Sums::of(&index, &blob),
            index: index.into(),
            blob: blob.into(),
        }
    }

    fn group() -> Group {
        let key = |n: u64| Key::new(Table::State, &Scope::default()).number(n);
        let keys = |n: u64| records((0..n).map(|i| format!("key {i}")));
        let mut large = shardmill_core::Records::default();
        large.push("large", None, &[3; 40_000]);
        let inline = |text: &'static str| Value::Inline(Bytes::from_static(text.as_bytes()));
        let mut group = Group::default();
        group.add(Resolved {
            revision: 8,
            streams: vec![
                StreamSet::Put(Arc::new(stream_of("s", 2))),
                StreamSet::Remove(StreamId(9)),
            ],
            blocks: vec![block(1, 5, keys(3)), block(0, 1, large.clone())],
            puts: vec![(key(1), inline("one")), (key(2), Value::Delete)],
            ..Resolved::default()
        });
        group.add(Resolved {
            revision: 9,
            blocks: vec![block(1, 8, keys(2)), block(0, 2, large)],
            puts: vec![
                (key(1), inline("uno")),
                (key(3), Value::Blob(Bytes::from(vec![9; 1000]))),
            ],
            trims: vec![Trim {
                shard: block(1, 1, keys(1)).shard,
                before: 4,
            }],
            ..Resolved::default()
        });
        group
    }

    fn payload(encoded: &Encoded) -> Vec<u8> {
        let mut payload = encoded.head.clone();
        for (bytes, crc) in &encoded.bodies {
            assert_eq!(crc32fast::hash(bytes), *crc);
            payload.extend_from_slice(bytes);
        }
        assert_eq!(payload.len(), encoded.len());
        payload
    }

    #[test]
    fn a_group_comes_back_with_one_block_per_shard() {
        let encoded = group().encode();
        let payload = payload(&encoded);
        let contents = Contents::decode(&payload).expect("a good frame");
        assert_eq!(contents, *encoded.contents);
        let ends: Vec<_> = contents.blocks.iter().map(|b| (b.first, b.end())).collect();
        assert_eq!(ends, [(1, 3), (5, 10)]);
        for entry in &contents.blocks {
            let at = entry.at as usize;
            let body = &payload[at..at + (entry.index_len + entry.blob_len) as usize];
            assert_eq!(crc32fast::hash(body), entry.crc);
            let body = Bytes::copy_from_slice(body);
            let whole = NewBlock {
                index: body.slice(..entry.index_len as usize),
                blob: body.slice(entry.index_len as usize..),
                ..block(entry.shard.shard.0, entry.first, records([]))
            };
            let whole = whole.to_block().expect("a block");
            assert_eq!(whole.count(), entry.count());
        }
        let revisions: Vec<_> = contents.puts.iter().map(|p| p.revision).collect();
        assert_eq!(revisions, [9, 8, 9]);
        let PutValue::Blob { at, len, crc } = contents.puts[2].value else {
            panic!("not a blob");
        };
        assert_eq!(
            crc32fast::hash(&payload[at as usize..(at + len) as usize]),
            crc
        );
        assert_eq!(encoded.blocks.len(), 3, "large parts are not copied");
    }

    #[test]
    fn what_a_removed_stream_was_given_before_is_forgotten() {
        let mut group = group();
        group.add(Resolved {
            revision: 10,
            streams: vec![StreamSet::Remove(StreamId(1))],
            ..Resolved::default()
        });
        let contents = group.encode().contents;
        assert!(contents.blocks.is_empty() && contents.trims.is_empty());
    }

    #[test]
    fn bytes_that_are_no_frame_are_refused_without_a_panic() {
        let good = payload(&group().encode());
        for seed in 0..20_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut bytes = good.clone();
            match seed % 3 {
                0 => {
                    let len = rng.random_range(0..200);
                    bytes = (0..len).map(|_| rng.random()).collect();
                }
                1 => bytes.truncate(rng.random_range(0..good.len())),
                _ => {
                    for _ in 0..rng.random_range(1..4) {
                        let at = rng.random_range(0..400);
                        bytes[at] = rng.random();
                    }
                }
            }
            let decoded = Contents::decode(&bytes);
            assert!(seed % 3 == 2 || decoded.is_err(), "seed {seed}");
        }
    }
}
