//! One record of a stream, as a view of the host's buffer.

use std::fmt;

use serde::Deserialize;

use crate::abi::{ENTRY_BYTES, slice, u32_at, u64_at};
use crate::{Error, SequenceNumber};

/// One record of a stream. It borrows from the batch and copies nothing: each method reads its
/// field when it is called.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    bytes: &'a [u8],
    entry: &'a [u8; ENTRY_BYTES],
    index: u32,
}

const OUTSIDE: &str = "the host's batch: a record points outside the buffer";

impl<'a> Record<'a> {
    pub(crate) fn new(bytes: &'a [u8], entry: &'a [u8; ENTRY_BYTES], index: u32) -> Self {
        Self {
            bytes,
            entry,
            index,
        }
    }

    /// The record's place in the batch, from 0.
    pub fn index(&self) -> usize {
        self.index as usize
    }

    /// The partition key, 1 … 256 characters. Keyed state belongs to it.
    pub fn partition_key(&self) -> &'a str {
        let key = slice(
            self.bytes,
            u32_at(self.entry, 0),
            u32_at(self.entry, 4) as usize,
        );
        str::from_utf8(key.expect(OUTSIDE)).expect("the host's batch: a key that is not UTF-8")
    }

    /// The data as it was put, at most 10 MiB.
    pub fn data(&self) -> &'a [u8] {
        slice(
            self.bytes,
            u32_at(self.entry, 8),
            u32_at(self.entry, 12) as usize,
        )
        .expect(OUTSIDE)
    }

    /// The data as text.
    ///
    /// # Errors
    /// The data is not UTF-8.
    pub fn text(&self) -> Result<&'a str, Error> {
        Ok(str::from_utf8(self.data())?)
    }

    /// The data as JSON. `T` may borrow strings from the record.
    ///
    /// # Errors
    /// The data is not JSON, or not a `T`; the message gives line and column.
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T, Error> {
        Ok(serde_json::from_slice(self.data())?)
    }

    /// Unique within the stream and increasing within the shard. Records out of one aggregate
    /// share it and differ by [`sub_sequence`](Self::sub_sequence).
    pub fn sequence_number(&self) -> SequenceNumber {
        SequenceNumber::from_limbs([
            u64_at(self.entry, 16),
            u64_at(self.entry, 24),
            u64_at(self.entry, 32),
        ])
    }

    /// Approximate arrival timestamp: milliseconds since the Unix epoch, never falling within a
    /// shard.
    pub fn arrival_ms(&self) -> u64 {
        u64_at(self.entry, 40)
    }

    /// Position inside a record that the Kinesis Producer Library aggregated, from 0; 0 for a
    /// record that came alone.
    pub fn sub_sequence(&self) -> u32 {
        u32_at(self.entry, 52)
    }

    /// The explicit hash key that was given with the put, if any.
    pub fn explicit_hash_key(&self) -> Option<u128> {
        let off = u32_at(self.entry, 56);
        (off != 0).then(|| {
            let bytes = self.bytes.get(off as usize..).and_then(<[u8]>::first_chunk);
            u128::from_le_bytes(*bytes.expect(OUTSIDE))
        })
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("index", &self.index)
            .field("partition_key", &self.partition_key())
            .field("sequence_number", &self.sequence_number())
            .field("sub_sequence", &self.sub_sequence())
            .field("data_bytes", &self.data().len())
            .finish_non_exhaustive()
    }
}
