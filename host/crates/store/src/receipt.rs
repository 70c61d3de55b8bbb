//! A producer's mark: its last number, a fingerprint of what it sent, and the receipt that it was
//! given, so that the same number gets the same answer again, after a restart too, and is refused
//! for other records. The value of a key of `Table::Producer`:
//!
//! ```text
//! version u8 = 2 │ number │ sent: count, crc u32
//!                │ appended: count, (shard, first, arrival)* │ created: count, id*
//! ```
//! Integers without a size are LEB128; `first` and `arrival` are differences, zigzag, to the entry before (of the
//! same shard for `first`), so that a record of a batch takes three bytes.

use std::collections::HashMap;

use bytes::Bytes;
use crc32fast::Hasher;
use shardmill_core::{ShardId, StreamId, UnixMillis};

use crate::tx::{Append, Appended, ProducerMark, Receipt, Route};
use crate::wire::{Malformed, Reader, put_signed, put_varint};
use crate::{Key, Table};

const VERSION: u8 = 2;

/// A fingerprint of the appends that a producer sent. Where the store put the records is no part
/// of it: a repeated request has the same one after a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// How many records there are.
    count: u64,
    /// CRC-32 of the streams, routes, counts, indexes and blobs.
    crc: u32,
}

impl Sent {
    /// Of these appends.
    pub(crate) fn of(appends: &[Append]) -> Self {
        let mut count = 0;
        let mut hasher = Hasher::new();
        for append in appends {
            let records = append.records.count() as u64;
            count += records;
            let (route, shard) = match append.route {
                Route::HashKey => (0, 0),
                Route::Shard(shard) => (1, shard.0),
            };
            hasher.update(&append.stream.0.to_le_bytes());
            hasher.update(&[route]);
            hasher.update(&shard.to_le_bytes());
            hasher.update(&records.to_le_bytes());
            hasher.update(append.records.index());
            hasher.update(append.records.blob());
        }
        let crc = hasher.finalize();
        Self { count, crc }
    }
}

/// What is kept of a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Its last number.
    pub(crate) number: u64,
    /// What it sent with it.
    pub(crate) sent: Sent,
    /// What it was answered.
    pub(crate) receipt: Receipt,
}

/// Where a producer's mark is kept.
pub(crate) fn key(mark: &ProducerMark) -> Key {
    Key::new(Table::Producer, &mark.scope).part(mark.id.as_bytes())
}

/// The mark's value.
pub(crate) fn encode(number: u64, sent: Sent, receipt: &Receipt) -> Bytes {
    let mut out = Vec::with_capacity(24 + 4 * receipt.appended.len());
    out.push(VERSION);
    put_varint(&mut out, number);
    put_varint(&mut out, sent.count);
    out.extend_from_slice(&sent.crc.to_le_bytes());
    put_varint(&mut out, receipt.appended.len() as u64);
    let mut last: HashMap<ShardId, u64> = HashMap::new();
    let mut arrival = 0u64;
    for at in &receipt.appended {
        put_varint(&mut out, u64::from(at.shard.0));
        let before = last.insert(at.shard, at.first).unwrap_or(0);
        put_signed(&mut out, at.first.wrapping_sub(before) as i64);
        put_signed(&mut out, at.arrival.0.wrapping_sub(arrival) as i64);
        arrival = at.arrival.0;
    }
    put_varint(&mut out, receipt.created.len() as u64);
    for id in &receipt.created {
        put_varint(&mut out, id.0);
    }
    out.into()
}

/// The mark, its receipt being of the transaction with this `revision`.
///
/// # Errors
/// `Malformed`.
pub(crate) fn decode(value: &[u8], revision: u64) -> Result<Mark, Malformed> {
    let mut reader = Reader(value);
    if reader.u8()? != VERSION {
        return Err(Malformed("unknown version of a producer's mark"));
    }
    let number = reader.varint()?;
    let sent = Sent {
        count: reader.varint()?,
        crc: reader.u32()?,
    };
    let count = reader.count(3)?;
    let mut appended = Vec::with_capacity(count);
    let mut last: HashMap<ShardId, u64> = HashMap::new();
    let mut arrival = 0u64;
    for _ in 0..count {
        let shard = ShardId(reader.varint_u32()?);
        let before = last.get(&shard).copied().unwrap_or(0);
        let first = before.wrapping_add(reader.signed()? as u64);
        last.insert(shard, first);
        arrival = arrival.wrapping_add(reader.signed()? as u64);
        appended.push(Appended {
            shard,
            first,
            arrival: UnixMillis(arrival),
        });
    }
    let count = reader.count(1)?;
    let created = (0..count)
        .map(|_| reader.varint().map(StreamId))
        .collect::<Result<_, _>>()?;
    reader.finish()?;
    let receipt = Receipt {
        revision,
        appended,
        created,
        repeated: true,
    };
    Ok(Mark {
        number,
        sent,
        receipt,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_comes_back_as_repeated() {
        let at = |shard, first, arrival| Appended {
            shard: ShardId(shard),
            first,
            arrival: UnixMillis(arrival),
        };
        let receipt = Receipt {
            revision: 9,
            appended: vec![
                at(0, 7, 1_700_000_000_000),
                at(3, 1, 5),
                at(0, 8, u64::MAX),
                at(0, 2, 0),
            ],
            created: vec![StreamId(4), StreamId(u64::MAX)],
            repeated: false,
        };
        let sent = Sent {
            count: 300,
            crc: 0xdead_beef,
        };
        let value = encode(77, sent, &receipt);
        let want = Mark {
            number: 77,
            sent,
            receipt: Receipt {
                repeated: true,
                ..receipt
            },
        };
        assert_eq!(decode(&value, 9), Ok(want));
        for cut in 0..value.len() {
            assert!(decode(&value[..cut], 9).is_err());
        }
    }
}
