//! A batch: the records of one invocation, cut from blocks, and their packed form.
//!
//! The packed form is "packed batch v1" of `docs/abi.md`; it is written straight into the
//! guest's memory by copying blobs and rebasing index entries.

use std::ops::Range;

use crate::abi::{self, HEADER_BYTES, INDEX_ENTRY_BYTES};
use crate::block::{Block, RecordRef};
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

impl Slice {
    fn len(&self) -> usize {
        (self.to - self.from) as usize
    }
}

/// The records of one invocation, in order. Cheap to clone and to cut.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    slices: Vec<Slice>,
}

/// What the header of a packed batch says beside its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
        Self {
            slices: slices.into_iter().filter(|s| s.from < s.to).collect(),
        }
    }

    /// Adds a slice behind the others.
    pub fn push(&mut self, slice: Slice) {
        if slice.from < slice.to {
            self.slices.push(slice);
        }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.slices.iter().map(Slice::len).sum()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// The records, in order.
    pub fn iter(&self) -> impl Iterator<Item = RecordRef<'_>> {
        self.slices
            .iter()
            .flat_map(|s| s.block.iter().skip(s.from as usize).take(s.len()))
    }

    /// The record at `index`.
    pub fn get(&self, index: usize) -> Option<RecordRef<'_>> {
        let mut left = index;
        for slice in &self.slices {
            if left < slice.len() {
                return slice.block.iter().nth(slice.from as usize + left);
            }
            left -= slice.len();
        }
        None
    }

    /// The records `range`, as a batch of their own.
    pub fn cut(&self, range: Range<usize>) -> Self {
        let mut skip = range.start;
        let mut take = range.len();
        let mut slices = Vec::new();
        for slice in &self.slices {
            let dropped = skip.min(slice.len());
            skip -= dropped;
            let kept = take.min(slice.len() - dropped);
            take -= kept;
            if kept > 0 {
                let from = slice.from + dropped as u32;
                slices.push(Slice {
                    block: slice.block.clone(),
                    from,
                    to: from + kept as u32,
                });
            }
        }
        Self { slices }
    }

    /// Position of the first record.
    pub fn first_position(&self) -> Option<u64> {
        self.slices
            .first()
            .map(|s| s.block.first() + u64::from(s.from))
    }

    /// Position after the last record.
    pub fn end_position(&self) -> Option<u64> {
        self.slices
            .last()
            .map(|s| s.block.first() + u64::from(s.to))
    }

    /// Length of the packed form in bytes.
    pub fn packed_len(&self, context: &BatchContext) -> usize {
        let blob: usize = self
            .slices
            .iter()
            .map(|s| s.block.blob_of(s.from, s.to).len())
            .sum();
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
        for slice in &self.slices {
            let bytes = slice.block.blob_of(slice.from, slice.to);
            blob[at..at + bytes.len()].copy_from_slice(bytes);
            let first = slice.block.first() + u64::from(slice.from);
            for ((entry, position), out) in slice
                .block
                .entries(slice.from, slice.to)
                .zip(first..)
                .zip(&mut entries)
            {
                let key_off = blob_off + at;
                let hash_off = key_off + entry.key_len;
                abi::write_entry(
                    &abi::Entry {
                        key: (key_off as u32, entry.key_len as u32),
                        data: ((hash_off + entry.hash_len()) as u32, entry.data_len as u32),
                        sequence_number: slice.block.sequence_number(position),
                        arrival: slice.block.arrival(),
                        explicit_hash_off: if entry.explicit { hash_off as u32 } else { 0 },
                    },
                    out,
                );
                at += entry.record_len();
            }
        }
    }
}

/// The header and the strings, padded to 8 bytes.
fn index_offset(context: &BatchContext) -> usize {
    (HEADER_BYTES + abi::strings_len(context)).next_multiple_of(8)
}
