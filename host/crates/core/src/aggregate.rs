//! Aggregates of the Kinesis Producer Library (KPL): records that travel inside one record.
//!
//! ```text
//! F3 89 9A C2 | message | MD5 of the message (16 B)
//!
//! message   1 partition_key_table      string, repeated; may hold keys that no record has
//!           2 explicit_hash_key_table  string, repeated: decimal
//!           3 records                  repeated, each a message:
//!               1 partition_key_index      integer, required
//!               2 explicit_hash_key_index  integer
//!               3 data                     bytes, required
//!               4 tags                     repeated; left out, as the client library does
//! ```
//!
//! What is no sound aggregate stays the record that it is, unchanged: a wrong digest, a message
//! that does not parse, an index outside its table, a key or hash key that no put would accept,
//! more than [`MAX_TAKEN_APART_BYTES`]. So does an aggregate with no record in it, since taken
//! apart it would be gone without a trace. One level is taken apart: an aggregate inside an
//! aggregate is an inner record's data. No inner record is dropped for its hash key, whatever
//! shard that belongs to.
//!
//! Rules: "KPL Aggregated Record Format" of the library; Lambda developer guide, "Process Amazon
//! Kinesis Data Streams records with Lambda" (enhanced fan-out). Whether aggregates are taken
//! apart at all is not decided here.

mod aggregator;
mod wire;

pub use aggregator::{Aggregate, Aggregator, NotAdded, OUTER_PARTITION_KEY};

use md5::{Digest, Md5};

use crate::block::{Block, Inside, Parts, RecordRef, Records};
use crate::hash_key::HashKey;
use crate::limits::{MAX_PARTITION_KEY_CHARS, MAX_TAKEN_APART_BYTES};
use wire::{Fields, Malformed};

/// What an aggregate's data begins with.
const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];

/// Size of the digest behind the message, bytes.
const DIGEST_BYTES: usize = 16;

/// Bytes of memory that an entry of a table takes beside its text.
const TABLE_ENTRY_BYTES: usize = size_of::<&[u8]>();

/// Fields of the message.
const PARTITION_KEY_TABLE: u32 = 1;
const EXPLICIT_HASH_KEY_TABLE: u32 = 2;
const RECORDS: u32 = 3;

/// Fields of a record in it.
const PARTITION_KEY_INDEX: u32 = 1;
const EXPLICIT_HASH_KEY_INDEX: u32 = 2;
const DATA: u32 = 3;

/// The records inside `record`, at least one, or `None` when it is no sound aggregate and is to
/// be handed on as it is. A record that does not begin like one costs a comparison of four bytes.
///
/// Inner records have the position, sequence number, arrival, shard and hops of `record`,
/// sub-sequence numbers from 0, and keys, explicit hash keys and data of their own.
pub fn take_apart(record: &RecordRef<'_>) -> Option<Block> {
    if record.is_inner() {
        return None;
    }
    let message = message_of(record.parts.data)?;
    let records = read(message, record.parts.hops).ok()?;
    let of = u32::try_from(records.count()).ok().filter(|of| *of > 0)?;
    let (index, blob) = records.into_parts();
    let inside = Inside { from: 0, of };
    Block::inside_aggregate(record.placement(), inside, index.into(), blob.into()).ok()
}

/// The message between the magic and its digest, if they fit.
fn message_of(data: &[u8]) -> Option<&[u8]> {
    let sealed = data.strip_prefix(&MAGIC)?;
    let (message, digest) = sealed.split_last_chunk::<DIGEST_BYTES>()?;
    (<[u8; DIGEST_BYTES]>::from(Md5::digest(message)) == *digest).then_some(message)
}

/// The records of a message. Tables may stand behind the records that point into them.
fn read(message: &[u8], hops: u8) -> Result<Records, Malformed> {
    let tables = Tables::read(message)?;
    let mut records = Records::default();
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next()? {
        if number != RECORDS {
            continue;
        }
        let inner = Inner::read(value.bytes()?)?;
        let explicit = match inner.hash_index {
            Some(index) => Some(tables.hash_key(index)?),
            None => None,
        };
        records.push_parts(Parts {
            key: tables.key(inner.key_index)?,
            explicit,
            hops,
            data: inner.data,
        });
        if records.packed_bytes() > MAX_TAKEN_APART_BYTES {
            return Err(Malformed);
        }
    }
    Ok(records)
}

/// The two tables. An entry is checked when a record points at it.
#[derive(Default)]
struct Tables<'a> {
    keys: Vec<&'a [u8]>,
    hash_keys: Vec<&'a [u8]>,
}

impl<'a> Tables<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut tables = Self::default();
        let mut fields = Fields::of(message);
        let mut room = MAX_TAKEN_APART_BYTES / TABLE_ENTRY_BYTES;
        while let Some((number, value)) = fields.next()? {
            let table = match number {
                PARTITION_KEY_TABLE => &mut tables.keys,
                EXPLICIT_HASH_KEY_TABLE => &mut tables.hash_keys,
                _ => continue,
            };
            room = room.checked_sub(1).ok_or(Malformed)?;
            table.push(value.bytes()?);
        }
        Ok(tables)
    }

    fn key(&self, index: u64) -> Result<&'a str, Malformed> {
        let text = std::str::from_utf8(entry(&self.keys, index)?).map_err(|_| Malformed)?;
        if text.is_empty() || text.chars().count() > MAX_PARTITION_KEY_CHARS {
            return Err(Malformed);
        }
        Ok(text)
    }

    fn hash_key(&self, index: u64) -> Result<HashKey, Malformed> {
        let digits = entry(&self.hash_keys, index)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(Malformed);
        }
        let text = std::str::from_utf8(digits).map_err(|_| Malformed)?;
        text.parse().map(HashKey).map_err(|_| Malformed)
    }
}

fn entry<'a>(table: &[&'a [u8]], index: u64) -> Result<&'a [u8], Malformed> {
    let index = usize::try_from(index).map_err(|_| Malformed)?;
    table.get(index).copied().ok_or(Malformed)
}

/// A record of the message.
struct Inner<'a> {
    key_index: u64,
    hash_index: Option<u64>,
    data: &'a [u8],
}

impl<'a> Inner<'a> {
    /// Of a field that stands twice the last one counts, as the format has it.
    fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let (mut key_index, mut hash_index, mut data) = (None, None, None);
        let mut fields = Fields::of(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                PARTITION_KEY_INDEX => key_index = Some(value.integer()?),
                EXPLICIT_HASH_KEY_INDEX => hash_index = Some(value.integer()?),
                DATA => data = Some(value.bytes()?),
                _ => {}
            }
        }
        Ok(Self {
            key_index: key_index.ok_or(Malformed)?,
            hash_index,
            data: data.ok_or(Malformed)?,
        })
    }
}

#[cfg(test)]
mod tests;
