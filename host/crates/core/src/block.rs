//! Records in packed form: what a producer hands to the store, what the store keeps, and what a
//! batch is copied from.
//!
//! ```text
//! index   8 B per record: data_len u32, key_len u16, flags u16   (little-endian)
//!         flags: bit 0 explicit hash key; bits 8 … 12 hops (0: put by a producer)
//! blob    per record: partition key, explicit hash key (16 B, if flag 0 is set), data
//! ```
//!
//! A block's records are neighbours in one shard: record `i` has position `first + i`, and all
//! arrived at the same millisecond. `docs/format.md` says how blocks lie in a journal frame.
//!
//! The other kind of block, which only [`crate::aggregate`] and what a batch has stored make,
//! holds inner records of one aggregate: they share its position and its sequence number, and
//! record `i` has sub-sequence number `from + i`.

use bytes::Bytes;

use crate::hash_key::HashKey;
use crate::mapping::Position;
use crate::sequence::{Fields, SequenceNumber};
use crate::shard::ShardId;
use crate::time::UnixMillis;

/// Size of an index entry in bytes.
pub const INDEX_ENTRY_BYTES: usize = 8;

/// Flag of an entry: an explicit hash key stands between the key and the data.
const HAS_EXPLICIT_HASH: u16 = 1;

/// Bits 8 … 12 of the flags: how many handlers have emitted the record on its way.
const HOPS_SHIFT: u32 = 8;

/// Emissions after which a record may not be emitted again: it runs in a circle.
pub const MAX_HOPS: u8 = 16;

/// Size of an explicit hash key in bytes.
const HASH_BYTES: usize = 16;

/// Records in packed form that have no place in a shard yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    index: Vec<u8>,
    blob: Vec<u8>,
}

impl Records {
    /// No records, with room for `count` of them with `blob_bytes` of keys and data.
    pub fn with_capacity(count: usize, blob_bytes: usize) -> Self {
        Self {
            index: Vec::with_capacity(count * INDEX_ENTRY_BYTES),
            blob: Vec::with_capacity(blob_bytes),
        }
    }

    /// Adds a record. The key has at most 65,535 bytes and the data fewer than 2^32: both are
    /// limits that the API has checked long before.
    pub fn push(&mut self, key: &str, explicit: Option<HashKey>, data: &[u8]) {
        self.push_with(key, explicit, data.len(), |out| out.copy_from_slice(data));
    }

    /// Adds a record that a handler emitted, after `hops` emissions, at most [`MAX_HOPS`].
    pub fn push_emitted(&mut self, key: &str, hops: u8, data: &[u8]) {
        self.push_parts(Parts {
            key,
            explicit: None,
            hops,
            data,
        });
    }

    /// Adds a record as it was taken from other records: its explicit hash key and its hops, at
    /// most [`MAX_HOPS`], stay.
    pub fn push_parts(&mut self, parts: Parts<'_>) {
        self.push(parts.key, parts.explicit, parts.data);
        let at = self.index.len() - 2;
        let mut flags = u16::from(parts.hops.min(MAX_HOPS)) << HOPS_SHIFT;
        if parts.explicit.is_some() {
            flags |= HAS_EXPLICIT_HASH;
        }
        self.index[at..].copy_from_slice(&flags.to_le_bytes());
    }

    /// Adds a record of `data_len` bytes that `fill` writes in place (a decoder, say).
    pub fn push_with(
        &mut self,
        key: &str,
        explicit: Option<HashKey>,
        data_len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let key_len = u16::try_from(key.len()).expect("a partition key of at most 65,535 bytes");
        let len = u32::try_from(data_len).expect("record data below 4 GiB");
        let flags = if explicit.is_some() {
            HAS_EXPLICIT_HASH
        } else {
            0
        };
        self.index.extend_from_slice(&len.to_le_bytes());
        self.index.extend_from_slice(&key_len.to_le_bytes());
        self.index.extend_from_slice(&flags.to_le_bytes());
        self.blob.extend_from_slice(key.as_bytes());
        if let Some(hash) = explicit {
            self.blob.extend_from_slice(&hash.0.to_le_bytes());
        }
        let at = self.blob.len();
        self.blob.resize(at + data_len, 0);
        fill(&mut self.blob[at..]);
    }

    /// Adds all of `other`'s records behind these.
    pub fn append(&mut self, other: &Self) {
        self.index.extend_from_slice(&other.index);
        self.blob.extend_from_slice(&other.blob);
    }

    /// How many records there are.
    pub fn count(&self) -> usize {
        self.index.len() / INDEX_ENTRY_BYTES
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The packed index.
    pub fn index(&self) -> &[u8] {
        &self.index
    }

    /// The packed keys and data.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// Bytes that these records take in packed form.
    pub fn packed_bytes(&self) -> usize {
        self.index.len() + self.blob.len()
    }

    /// The two parts, to be kept without a copy.
    pub fn into_parts(self) -> (Vec<u8>, Vec<u8>) {
        (self.index, self.blob)
    }

    /// The records' keys, explicit hash keys and data, in order.
    pub fn iter(&self) -> impl Iterator<Item = Parts<'_>> {
        parts(&self.index, &self.blob)
    }
}

/// One record's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The partition key.
    pub key: &'a str,
    /// The explicit hash key, if the producer gave one.
    pub explicit: Option<HashKey>,
    /// How many handlers have emitted the record on its way; 0 when a producer put it.
    pub hops: u8,
    /// The data.
    pub data: &'a [u8],
}

impl Parts<'_> {
    /// Where the record belongs in the hash space.
    pub fn hash_key(&self) -> HashKey {
        self.explicit
            .unwrap_or_else(|| HashKey::of_partition_key(self.key))
    }
}

/// A run of neighbouring records of one shard, as the store hands them out, or of inner records
/// of one aggregate. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    shard: ShardId,
    created_seconds: u64,
    first: u64,
    arrival: UnixMillis,
    inside: Option<Inside>,
    index: Bytes,
    blob: Bytes,
}

/// Why bytes are not a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a block whose index and blob do not fit each other")]
pub struct BadBlock;

/// Where a block stands: everything about its records but their contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The shard.
    pub shard: ShardId,
    /// The shard's creation time, seconds since the epoch.
    pub created_seconds: u64,
    /// Position of the first record, at least 1.
    pub first: u64,
    /// When the records arrived.
    pub arrival: UnixMillis,
}

/// Which inner records of an aggregate a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Sub-sequence number of the block's first record.
    pub from: u32,
    /// How many inner records the whole aggregate has.
    pub of: u32,
}

impl Inside {
    /// Where inner record `sub` of the aggregate at `record` begins. Behind the last one the
    /// next record begins, so that every place in a shard has one name.
    fn position(self, record: u64, sub: u32) -> Position {
        if sub < self.of {
            Position { record, sub }
        } else {
            Position::of(record + 1)
        }
    }
}

impl Block {
    /// A block of neighbouring records from its packed parts.
    ///
    /// # Errors
    /// `BadBlock` when the index does not describe exactly this blob, or a key is not UTF-8:
    /// afterwards no reader has to check again.
    pub fn new(placement: Placement, index: Bytes, blob: Bytes) -> Result<Self, BadBlock> {
        Self::checked(placement, None, index, blob)
    }

    /// A block of inner records of the aggregate at `placement.first`.
    ///
    /// # Errors
    /// As `new`, and when the aggregate has fewer inner records than the block reaches to.
    pub fn inside_aggregate(
        placement: Placement,
        inside: Inside,
        index: Bytes,
        blob: Bytes,
    ) -> Result<Self, BadBlock> {
        let block = Self::checked(placement, Some(inside), index, blob)?;
        match inside.from.checked_add(block.count()) {
            Some(end) if end <= inside.of => Ok(block),
            _ => Err(BadBlock),
        }
    }

    fn checked(
        placement: Placement,
        inside: Option<Inside>,
        index: Bytes,
        blob: Bytes,
    ) -> Result<Self, BadBlock> {
        let Placement {
            shard,
            created_seconds,
            first,
            arrival,
        } = placement;
        if !index.len().is_multiple_of(INDEX_ENTRY_BYTES) {
            return Err(BadBlock);
        }
        let mut at = 0usize;
        for entry in index.chunks_exact(INDEX_ENTRY_BYTES) {
            let entry = Entry::read(entry);
            let key = blob.get(at..at + entry.key_len).ok_or(BadBlock)?;
            std::str::from_utf8(key).map_err(|_| BadBlock)?;
            at = at.checked_add(entry.record_len()).ok_or(BadBlock)?;
        }
        if at != blob.len() {
            return Err(BadBlock);
        }
        Ok(Self {
            shard,
            created_seconds,
            first,
            arrival,
            inside,
            index,
            blob,
        })
    }

    /// The shard that the records belong to.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Position of the first record.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The first position of which no record is in this block any more: after the last record,
    /// or after the aggregate that the records are in.
    pub fn end(&self) -> u64 {
        match self.inside {
            None => self.first + u64::from(self.count()),
            Some(_) => self.first + 1,
        }
    }

    /// Where record `index` begins, and at `count` what is behind the last one.
    pub fn position(&self, index: u32) -> Position {
        match self.inside {
            None => Position::of(self.first + u64::from(index)),
            Some(inside) => inside.position(self.first, inside.from + index),
        }
    }

    /// The index of the first record that begins at `at` or later; `count` when none does.
    pub fn index_at(&self, at: Position) -> u32 {
        let before = match self.inside {
            _ if at.record < self.first => 0,
            Some(inside) if at.record == self.first => {
                u64::from(at.sub.saturating_sub(inside.from))
            }
            Some(_) => u64::MAX,
            None => at.record - self.first,
        };
        before.min(u64::from(self.count())) as u32
    }

    /// Which inner records of an aggregate these are, if they are.
    pub fn inside(&self) -> Option<Inside> {
        self.inside
    }

    /// When the records arrived.
    pub fn arrival(&self) -> UnixMillis {
        self.arrival
    }

    /// Whether this is the same run of bytes, and not merely an equal one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.first == other.first
            && self.index.len() == other.index.len()
            && self.index.as_ptr() == other.index.as_ptr()
    }

    /// How many records there are.
    pub fn count(&self) -> u32 {
        (self.index.len() / INDEX_ENTRY_BYTES) as u32
    }

    /// Bytes of keys and data.
    pub fn blob_bytes(&self) -> usize {
        self.blob.len()
    }

    /// All records, in order.
    pub fn iter(&self) -> impl Iterator<Item = RecordRef<'_>> {
        self.iter_at(0, 0, self.count())
    }

    /// The records from index `from` on, at most the block's count.
    pub fn iter_from(&self, from: u32) -> impl Iterator<Item = RecordRef<'_>> {
        self.iter_at(self.bytes_of(0, from), from, self.count())
    }

    /// The records `from..to`, of which the first lies at `start` in the blob.
    pub(crate) fn iter_at(
        &self,
        start: usize,
        from: u32,
        to: u32,
    ) -> impl Iterator<Item = RecordRef<'_>> {
        parts(self.index_of(from, to), &self.blob[start..])
            .zip(from..)
            .map(|(parts, index)| {
                let (position, sub_sequence) = match self.inside {
                    None => (self.first + u64::from(index), 0),
                    Some(inside) => (self.first, inside.from + index),
                };
                RecordRef {
                    parts,
                    position,
                    sub_sequence,
                    arrival: self.arrival,
                    inside: self.inside,
                    shard: self.shard,
                    created_seconds: self.created_seconds,
                }
            })
    }

    /// Number of the record at `position`, whether it is in this block or not. Inner records
    /// have the number of their aggregate.
    pub fn sequence_number(&self, position: u64) -> SequenceNumber {
        SequenceNumber::new(Fields {
            created_seconds: self.created_seconds,
            shard_index: self.shard.0,
            counter: position,
            seconds: self.arrival.seconds(),
        })
    }

    /// The records `from..to` as a block that shares the bytes.
    #[must_use]
    pub fn cut(&self, from: u32, to: u32) -> Self {
        let (start, len) = (self.bytes_of(0, from), self.bytes_of(from, to));
        let (head, tail) = (from as usize, to as usize);
        Self {
            first: match self.inside {
                None => self.first + u64::from(from),
                Some(_) => self.first,
            },
            inside: self.inside.map(|inside| Inside {
                from: inside.from + from,
                ..inside
            }),
            index: self
                .index
                .slice(head * INDEX_ENTRY_BYTES..tail * INDEX_ENTRY_BYTES),
            blob: self.blob.slice(start..start + len),
            ..self.clone()
        }
    }

    pub(crate) fn entries(&self, from: u32, to: u32) -> impl Iterator<Item = Entry> {
        self.index[from as usize * INDEX_ENTRY_BYTES..to as usize * INDEX_ENTRY_BYTES]
            .chunks_exact(INDEX_ENTRY_BYTES)
            .map(Entry::read)
    }

    /// Where the block stands.
    pub(crate) fn placement(&self) -> Placement {
        Placement {
            shard: self.shard,
            created_seconds: self.created_seconds,
            first: self.first,
            arrival: self.arrival,
        }
    }

    /// The index bytes of records `from..to`.
    pub(crate) fn index_of(&self, from: u32, to: u32) -> &[u8] {
        &self.index[from as usize * INDEX_ENTRY_BYTES..to as usize * INDEX_ENTRY_BYTES]
    }

    /// How many bytes of the blob records `from..to` take.
    pub(crate) fn bytes_of(&self, from: u32, to: u32) -> usize {
        self.entries(from, to).map(|e| e.record_len()).sum()
    }

    /// The blob bytes of records `from..to`, of which the first lies at `start`.
    pub(crate) fn blob_at(&self, start: usize, from: u32, to: u32) -> &[u8] {
        &self.blob[start..start + self.bytes_of(from, to)]
    }
}

/// One record of a block.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// Key, explicit hash key and data.
    pub parts: Parts<'a>,
    /// Position in the shard; an inner record's is that of its aggregate.
    pub position: u64,
    /// Place inside the aggregate, from 0; 0 for a record that is in none.
    pub sub_sequence: u32,
    /// When it arrived.
    pub arrival: UnixMillis,
    inside: Option<Inside>,
    shard: ShardId,
    created_seconds: u64,
}

impl RecordRef<'_> {
    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Where the record begins.
    pub fn beginning(&self) -> Position {
        Position {
            record: self.position,
            sub: self.sub_sequence,
        }
    }

    /// Where the next record begins: the next inner one, or after the last the next position.
    pub fn behind(&self) -> Position {
        match self.inside {
            None => Position::of(self.position + 1),
            Some(inside) => inside.position(self.position, self.sub_sequence + 1),
        }
    }

    /// Whether the record came out of an aggregate.
    pub fn is_inner(&self) -> bool {
        self.inside.is_some()
    }

    /// Where the record stands, as a block of its own.
    pub(crate) fn placement(&self) -> Placement {
        Placement {
            shard: self.shard,
            created_seconds: self.created_seconds,
            first: self.position,
            arrival: self.arrival,
        }
    }

    /// The record's sequence number; inner records share that of their aggregate.
    pub fn sequence_number(&self) -> SequenceNumber {
        SequenceNumber::new(Fields {
            created_seconds: self.created_seconds,
            shard_index: self.shard.0,
            counter: self.position,
            seconds: self.arrival.seconds(),
        })
    }

    /// Bytes that count against size limits: data and key.
    pub fn payload_bytes(&self) -> usize {
        self.parts.data.len() + self.parts.key.len()
    }
}

/// An index entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) key_len: usize,
    pub(crate) data_len: usize,
    pub(crate) explicit: bool,
    hops: u8,
}

impl Entry {
    fn read(bytes: &[u8]) -> Self {
        let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
        Self {
            data_len: u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize,
            key_len: usize::from(u16::from_le_bytes([bytes[4], bytes[5]])),
            explicit: flags & HAS_EXPLICIT_HASH != 0,
            hops: (flags >> HOPS_SHIFT) as u8 & 0x1f,
        }
    }

    pub(crate) fn hash_len(&self) -> usize {
        if self.explicit { HASH_BYTES } else { 0 }
    }

    pub(crate) fn record_len(&self) -> usize {
        self.key_len + self.hash_len() + self.data_len
    }
}

fn parts<'a>(index: &'a [u8], blob: &'a [u8]) -> impl Iterator<Item = Parts<'a>> {
    let mut rest = blob;
    index.chunks_exact(INDEX_ENTRY_BYTES).map(move |entry| {
        let entry = Entry::read(entry);
        let (record, after) = rest.split_at(entry.record_len());
        rest = after;
        let (key, record) = record.split_at(entry.key_len);
        let (hash, data) = record.split_at(entry.hash_len());
        let explicit = <[u8; HASH_BYTES]>::try_from(hash)
            .ok()
            .map(|b| HashKey(u128::from_le_bytes(b)));
        Parts {
            key: std::str::from_utf8(key).unwrap_or_default(),
            explicit,
            hops: entry.hops,
            data,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement() -> Placement {
        Placement {
            shard: ShardId(3),
            created_seconds: 1_700_000_000,
            first: 7,
            arrival: UnixMillis(1_700_000_050_123),
        }
    }

    #[test]
    fn a_block_gives_back_what_was_pushed() {
        let mut records = Records::default();
        records.push("a", None, b"first");
        records.push("ü", Some(HashKey(5)), b"");
        records.push("c", None, b"third");
        assert_eq!(records.count(), 3);
        let (index, blob) = records.into_parts();
        let block = Block::new(placement(), index.into(), blob.into()).expect("a good block");
        let seen: Vec<_> = block.iter().map(|r| (r.position, r.parts)).collect();
        assert_eq!(
            seen,
            [
                (
                    7,
                    Parts {
                        key: "a",
                        explicit: None,
                        hops: 0,
                        data: b"first"
                    }
                ),
                (
                    8,
                    Parts {
                        key: "ü",
                        explicit: Some(HashKey(5)),
                        hops: 0,
                        data: b""
                    }
                ),
                (
                    9,
                    Parts {
                        key: "c",
                        explicit: None,
                        hops: 0,
                        data: b"third"
                    }
                ),
            ]
        );
        assert_eq!(block.end(), 10);
        assert_eq!(block.bytes_of(1, 3), 2 + 16 + 1 + 5);
        let second: Vec<_> = block.iter_from(1).map(|r| r.position).collect();
        assert_eq!(second, [8, 9]);
        assert_eq!(block.iter_from(3).count(), 0);
    }

    #[test]
    fn an_index_that_does_not_fit_its_blob_is_refused() {
        let mut records = Records::default();
        records.push("key", None, b"data");
        let (index, blob) = records.into_parts();
        for (index, blob) in [
            (index.clone(), blob[1..].to_vec()),
            (index[1..].to_vec(), blob.clone()),
            (vec![0xff; 8], blob.clone()),
            (index.clone(), [blob.clone(), vec![0]].concat()),
            (index, vec![0xff; blob.len()]),
        ] {
            assert_eq!(
                Block::new(placement(), index.into(), blob.into()),
                Err(BadBlock)
            );
        }
    }
}
