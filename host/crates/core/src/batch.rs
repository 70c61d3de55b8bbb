//! A batch: the records of one invocation, cut from blocks, and their packed form.
//!
//! The packed form is "packed batch v1" of `docs/abi.md`; it is written straight into the
//! guest's memory by copying blobs and rebasing index entries.

use std::ops::Range;

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use crate::abi::{self, HEADER_BYTES, INDEX_ENTRY_BYTES};
use crate::block::{BadBlock, Block, Inside, Placement, RecordRef};
use crate::mapping::Position;
use crate::shard::ShardId;
use crate::time::UnixMillis;

/// Neighbouring records of one block: `from..to`, indices in the block.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The block.
    pub block: Block,
    /// The first record.
    pub from: u32,
    /// After the last record; above `from`.
    pub to: u32,
}

/// The records of one invocation, in order. Cheap to clone and to cut.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    runs: Vec<Run>,
}

/// A slice, and where its first record lies in the block's blob: a lane's batch has many small
/// slices of each block, and none of them may cost a walk from the block's beginning.
#[derive(Clone, Debug)]
struct Run {
    slice: Slice,
    start: usize,
}

impl Run {
    fn of(slice: Slice) -> Self {
        let start = slice.block.bytes_of(0, slice.from);
        Self { slice, start }
    }

    fn len(&self) -> usize {
        (self.slice.to - self.slice.from) as usize
    }

    fn blob_bytes(&self) -> usize {
        self.slice.block.bytes_of(self.slice.from, self.slice.to)
    }

    fn blob(&self) -> &[u8] {
        let Slice { block, from, to } = &self.slice;
        block.blob_at(self.start, *from, *to)
    }

    fn iter(&self) -> impl Iterator<Item = RecordRef<'_>> {
        let Slice { block, from, to } = &self.slice;
        block.iter_at(self.start, *from, *to)
    }
}

/// What the header of a packed batch says beside its records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchContext {
    /// The stream's name; empty when the function is invoked by hand.
    pub stream: String,
    /// The shard, as in `shardId-000000000000`.
    pub shard: String,
    /// The request id.
    pub request_id: String,
    /// The function's name.
    pub function: String,
    /// The function's version.
    pub version: String,
    /// The account, 12 digits.
    pub tenant: String,
    /// State of the tumbling window; empty without one.
    pub window_state: String,
    /// The tumbling window, start and exclusive end; zeros without one.
    pub window: (UnixMillis, UnixMillis),
    /// When the invocation is cut off, on the guest's clock.
    pub deadline: UnixMillis,
    /// 1 on the first attempt.
    pub attempt: u32,
    /// Bit 0: final invocation of the window; bit 1: window ended early.
    pub flags: u32,
}

impl Batch {
    /// A batch of these slices. Empty slices are left out.
    pub fn new(slices: impl IntoIterator<Item = Slice>) -> Self {
        let slices = slices.into_iter().filter(|s| s.from < s.to);
        Self {
            runs: slices.map(Run::of).collect(),
        }
    }

    /// Adds a slice behind the others; one that goes on where the last one ends is joined to it.
    pub fn push(&mut self, slice: Slice) {
        if slice.from >= slice.to {
            return;
        }
        let run = match self.runs.last_mut() {
            Some(last) if last.slice.block.is_same(&slice.block) => {
                let Slice { block, from, to } = &last.slice;
                if *to == slice.from {
                    last.slice.to = slice.to;
                    return;
                }
                match slice.from.checked_sub(*from) {
                    Some(_) => Run {
                        start: last.start + block.bytes_of(*from, slice.from),
                        slice,
                    },
                    None => Run::of(slice),
                }
            }
            _ => Run::of(slice),
        };
        self.runs.push(run);
    }

    /// Adds record `index` of `block` behind the others.
    pub fn push_record(&mut self, block: &Block, index: u32) {
        match self.runs.last_mut() {
            Some(last) if last.slice.to == index && last.slice.block.is_same(block) => {
                last.slice.to += 1;
            }
            _ => self.push(Slice {
                block: block.clone(),
                from: index,
                to: index + 1,
            }),
        }
    }

    /// Adds all of `other`'s records behind these. Costs a step per run of neighbours.
    pub fn append(&mut self, other: &Self) {
        for run in &other.runs {
            match self.runs.last_mut().map(|last| &mut last.slice) {
                Some(last) if last.to == run.slice.from && last.block.is_same(&run.slice.block) => {
                    last.to = run.slice.to;
                }
                _ => self.runs.push(run.clone()),
            }
        }
    }

    /// Each record, and a batch of it alone, in order. Costs a step per record.
    pub fn singles(&self) -> impl Iterator<Item = (RecordRef<'_>, Self)> {
        self.runs.iter().flat_map(|run| {
            let block = &run.slice.block;
            let mut start = run.start;
            run.iter().zip(run.slice.from..).map(move |(record, from)| {
                let to = from + 1;
                let slice = Slice {
                    block: block.clone(),
                    from,
                    to,
                };
                let alone = Run { slice, start };
                start += block.bytes_of(from, to);
                (record, Self { runs: vec![alone] })
            })
        })
    }

    /// The runs of neighbours that it consists of.
    pub fn slices(&self) -> impl Iterator<Item = &Slice> {
        self.runs.iter().map(|run| &run.slice)
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.runs.iter().map(Run::len).sum()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The records, in order.
    pub fn iter(&self) -> impl Iterator<Item = RecordRef<'_>> {
        self.runs.iter().flat_map(Run::iter)
    }

    /// The record at `index`.
    pub fn get(&self, index: usize) -> Option<RecordRef<'_>> {
        let mut left = index;
        for run in &self.runs {
            if left < run.len() {
                return run.iter().nth(left);
            }
            left -= run.len();
        }
        None
    }

    /// The records `range`, as a batch of their own.
    pub fn cut(&self, range: Range<usize>) -> Self {
        let mut skip = range.start;
        let mut take = range.len();
        let mut runs = Vec::new();
        for run in &self.runs {
            let dropped = skip.min(run.len());
            skip -= dropped;
            let kept = take.min(run.len() - dropped);
            take -= kept;
            if kept > 0 {
                let block = &run.slice.block;
                let from = run.slice.from + dropped as u32;
                runs.push(Run {
                    start: run.start + block.bytes_of(run.slice.from, from),
                    slice: Slice {
                        block: block.clone(),
                        from,
                        to: from + kept as u32,
                    },
                });
            }
        }
        Self { runs }
    }

    /// Where the first record begins.
    pub fn first_position(&self) -> Option<Position> {
        let first = self.slices().next();
        first.map(|s| s.block.position(s.from))
    }

    /// What is behind the last record: the position at which the next one begins.
    pub fn end_position(&self) -> Option<Position> {
        let last = self.runs.last().map(|run| &run.slice);
        last.map(|s| s.block.position(s.to))
    }

    /// Length of the packed form in bytes.
    pub fn packed_len(&self, context: &BatchContext) -> usize {
        let blob: usize = self.runs.iter().map(Run::blob_bytes).sum();
        index_offset(context) + self.len() * INDEX_ENTRY_BYTES + blob
    }

    /// Writes the packed form into `out`, whose length is `packed_len`.
    pub fn write_packed(&self, context: &BatchContext, out: &mut [u8]) {
        let total = out.len();
        let index_off = index_offset(context);
        let count = self.len();
        let blob_off = index_off + count * INDEX_ENTRY_BYTES;
        abi::write_header(
            context,
            &abi::Layout {
                kind: abi::KIND_RECORDS,
                total,
                count,
                index_off,
                blob_off,
            },
            &mut out[..index_off],
        );
        let (index, blob) = out[index_off..].split_at_mut(count * INDEX_ENTRY_BYTES);
        let mut entries = index.chunks_exact_mut(INDEX_ENTRY_BYTES);
        let mut at = 0;
        for run in &self.runs {
            let (slice, bytes) = (&run.slice, run.blob());
            blob[at..at + bytes.len()].copy_from_slice(bytes);
            for ((entry, index), out) in slice
                .block
                .entries(slice.from, slice.to)
                .zip(slice.from..)
                .zip(&mut entries)
            {
                let position = slice.block.position(index);
                let key_off = blob_off + at;
                let hash_off = key_off + entry.key_len;
                abi::write_entry(
                    &abi::Entry {
                        key: (key_off as u32, entry.key_len as u32),
                        data: ((hash_off + entry.hash_len()) as u32, entry.data_len as u32),
                        sequence_number: slice.block.sequence_number(position.record),
                        arrival: slice.block.arrival(),
                        sub_sequence: position.sub,
                        explicit_hash_off: if entry.explicit { hash_off as u32 } else { 0 },
                    },
                    out,
                );
                at += entry.record_len();
            }
        }
    }
}

/// Bytes before a slice's index and blob in the stored form.
const STORED_SLICE_BYTES: usize = 36;

/// Bytes that a slice of inner records has behind those.
const STORED_INSIDE_BYTES: usize = 8;

/// Bit of the stored first position that marks a slice of inner records. Positions end below it.
const STORED_INSIDE: u64 = 1 << 63;

impl Batch {
    /// The stored form, for payloads of failure entries: per slice shard u32, shard creation
    /// u64, first position u64, arrival u64, index length u32, blob length u32, index, blob.
    /// With bit 63 of the first position set, the records are inner ones of the aggregate at
    /// that position, and before the index stand the first's sub-sequence number u32 and the
    /// aggregate's count of inner records u32.
    pub fn to_stored(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for run in &self.runs {
            let (slice, blob) = (&run.slice, run.blob());
            let index = slice.block.index_of(slice.from, slice.to);
            let placement = slice.block.placement();
            let first = slice.block.position(slice.from);
            let inside = slice.block.inside();
            let mark = if inside.is_some() { STORED_INSIDE } else { 0 };
            out.extend_from_slice(&placement.shard.0.to_le_bytes());
            out.extend_from_slice(&placement.created_seconds.to_le_bytes());
            out.extend_from_slice(&(first.record | mark).to_le_bytes());
            out.extend_from_slice(&placement.arrival.0.to_le_bytes());
            out.extend_from_slice(&(index.len() as u32).to_le_bytes());
            out.extend_from_slice(&(blob.len() as u32).to_le_bytes());
            if let Some(inside) = inside {
                out.extend_from_slice(&first.sub.to_le_bytes());
                out.extend_from_slice(&inside.of.to_le_bytes());
            }
            out.extend_from_slice(index);
            out.extend_from_slice(blob);
        }
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `BadBlock` when the bytes are not one.
    pub fn from_stored(mut bytes: Bytes) -> Result<Self, BadBlock> {
        let mut slices = Vec::new();
        while !bytes.is_empty() {
            let mut head = take_front(&mut bytes, STORED_SLICE_BYTES)?;
            let placement = Placement {
                shard: ShardId(head.get_u32_le()),
                created_seconds: head.get_u64_le(),
                first: head.get_u64_le(),
                arrival: UnixMillis(head.get_u64_le()),
            };
            let (index_len, blob_len) = (head.get_u32_le(), head.get_u32_le());
            let inside = if placement.first & STORED_INSIDE == 0 {
                None
            } else {
                let mut head = take_front(&mut bytes, STORED_INSIDE_BYTES)?;
                Some(Inside {
                    from: head.get_u32_le(),
                    of: head.get_u32_le(),
                })
            };
            let index = take_front(&mut bytes, index_len as usize)?;
            let blob = take_front(&mut bytes, blob_len as usize)?;
            let block = match inside {
                None => Block::new(placement, index, blob)?,
                Some(inside) => {
                    let first = placement.first & !STORED_INSIDE;
                    let placement = Placement { first, ..placement };
                    Block::inside_aggregate(placement, inside, index, blob)?
                }
            };
            let to = block.count();
            slices.push(Slice { block, from: 0, to });
        }
        Ok(Self::new(slices))
    }
}

/// Takes `len` bytes off the front.
fn take_front(bytes: &mut Bytes, len: usize) -> Result<Bytes, BadBlock> {
    if bytes.len() < len {
        return Err(BadBlock);
    }
    Ok(bytes.split_to(len))
}

/// The header and the strings, padded to 8 bytes.
fn index_offset(context: &BatchContext) -> usize {
    (HEADER_BYTES + abi::strings_len(context)).next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Records;
    use crate::hash_key::HashKey;

    fn block(first: u64, keys: &[&str]) -> Block {
        let mut records = Records::default();
        for (key, n) in keys.iter().zip(first..) {
            records.push(
                key,
                (n % 2 == 0).then_some(HashKey(7)),
                key.repeat(n as usize % 5).as_bytes(),
            );
        }
        let (index, blob) = records.into_parts();
        let placement = Placement {
            shard: ShardId(3),
            created_seconds: 1_700_000_000,
            first,
            arrival: UnixMillis(1_700_000_001_000 + first),
        };
        Block::new(placement, index.into(), blob.into()).expect("a block")
    }

    fn batch() -> Batch {
        let (one, two) = (block(1, &["a", "b", "c"]), block(4, &["d", "ü", "f"]));
        Batch::new([
            Slice {
                block: one,
                from: 1,
                to: 3,
            },
            Slice {
                block: two,
                from: 0,
                to: 2,
            },
        ])
    }

    #[test]
    fn cuts_of_a_batch_join_to_the_whole() {
        let whole: Vec<u64> = batch().iter().map(|r| r.position).collect();
        assert_eq!(whole, [2, 3, 4, 5]);
        for from in 0..=4 {
            for to in from..=4 {
                let cut: Vec<u64> = batch().cut(from..to).iter().map(|r| r.position).collect();
                assert_eq!(cut, whole[from..to]);
            }
        }
        assert_eq!(batch().get(2).map(|r| r.parts.key), Some("d"));
    }

    #[test]
    fn the_stored_form_gives_the_batch_back() {
        let stored = batch().to_stored();
        let back = Batch::from_stored(stored.clone().into()).expect("a stored batch");
        let all = |b: &Batch| -> Vec<_> {
            b.iter()
                .map(|r| {
                    (
                        r.position,
                        r.arrival,
                        r.sequence_number(),
                        r.parts.key.to_owned(),
                        r.parts.explicit,
                        r.parts.data.to_owned(),
                    )
                })
                .collect()
        };
        assert_eq!(all(&back), all(&batch()));
        for end in 1..stored.len() {
            // Any cut is refused or shorter; none panics.
            let _ = Batch::from_stored(stored[..end].to_vec().into());
        }
    }

    #[test]
    fn the_packed_form_points_at_every_record() {
        check_packed(&batch());
    }

    #[test]
    fn a_batch_of_any_records_is_what_they_are() {
        let blocks = [block(1, &["a", "b", "c"]), block(4, &["d", "ü", "f"])];
        for mask in 0..1u64 << 6 {
            let mut batch = Batch::default();
            for block in &blocks {
                for (index, record) in (0..).zip(block.iter()) {
                    if mask >> (record.position - 1) & 1 == 1 {
                        batch.push_record(block, index);
                    }
                }
            }
            let every = blocks.iter().flat_map(Block::iter);
            let wanted: Vec<_> = every
                .filter(|r| mask >> (r.position - 1) & 1 == 1)
                .map(|r| (r.position, r.parts))
                .collect();
            let seen: Vec<_> = batch.iter().map(|r| (r.position, r.parts)).collect();
            assert_eq!(seen, wanted, "{mask:b}");
            let nth = |n| batch.get(n).map(|r| (r.position, r.parts));
            let each: Vec<_> = (0..batch.len()).filter_map(nth).collect();
            assert_eq!(each, wanted, "{mask:b}");
            let cut = batch.cut(1..batch.len().max(1));
            let seen: Vec<_> = cut.iter().map(|r| (r.position, r.parts)).collect();
            assert_eq!(seen, wanted.get(1..).unwrap_or_default(), "{mask:b}");
            let mut joined = Batch::default();
            for (record, single) in batch.singles() {
                assert_eq!(single.get(0).map(|r| r.parts), Some(record.parts));
                joined.append(&single);
            }
            assert_eq!(joined.to_stored(), batch.to_stored(), "{mask:b}");
            check_packed(&batch);
            check_packed(&cut);
        }
    }

    /// Checks that every entry of the packed form leads to its record.
    fn check_packed(batch: &Batch) {
        let context = BatchContext {
            stream: "s".into(),
            attempt: 1,
            ..BatchContext::default()
        };
        let mut out = vec![0; batch.packed_len(&context)];
        batch.write_packed(&context, &mut out);
        let u32_at = |at: usize| {
            u32::from_le_bytes([out[at], out[at + 1], out[at + 2], out[at + 3]]) as usize
        };
        assert_eq!(
            (u32_at(0), u32_at(8), u32_at(12)),
            (abi::BATCH_MAGIC as usize, out.len(), batch.len())
        );
        for (i, record) in batch.iter().enumerate() {
            let entry = u32_at(16) + i * INDEX_ENTRY_BYTES;
            assert_eq!(entry % 8, 0);
            let key = &out[u32_at(entry)..u32_at(entry) + u32_at(entry + 4)];
            let data = &out[u32_at(entry + 8)..u32_at(entry + 8) + u32_at(entry + 12)];
            assert_eq!(
                (key, data),
                (record.parts.key.as_bytes(), record.parts.data)
            );
            assert_eq!(
                out[entry + 16..entry + 40],
                record.sequence_number().to_le_bytes()
            );
            let hash = u32_at(entry + 56);
            assert_eq!(hash != 0, record.parts.explicit.is_some());
            if hash != 0 {
                assert_eq!(out[hash..hash + 16], 7u128.to_le_bytes());
            }
        }
    }
}
