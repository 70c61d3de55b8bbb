//! Keys and values of the tables, byte for byte as `docs/format.md` draws them. Every value ends
//! with the CRC-32 of its key and itself: a value that was changed, or came from another place,
//! is noticed.

use bytes::Bytes;
use crc32fast::Hasher;
use shardmill_core::{ShardId, ShardKey, Stream, StreamId, UnixMillis};

use crate::ReadError;
use crate::catalog::Tail;
use crate::frame::stream_json;
use crate::journal::{Place, Position};
use crate::layer::{BlockRef, Stored, StoredValue};
use crate::wire::{Malformed, Reader};

/// Version of the tables.
pub(super) const VERSION: u32 = 1;

/// What a start needs to know first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) version: u32,
    /// The journal that the tables belong to; 0 before the first group.
    pub(super) store_id: u64,
    /// Everything before this is in the tables.
    pub(super) position: Position,
    pub(super) revision: u64,
    pub(super) next_stream: u64,
}

impl Default for Saved {
    fn default() -> Self {
        Self {
            version: VERSION,
            store_id: 0,
            position: Position::START,
            revision: 0,
            next_stream: 1,
        }
    }
}

/// A key of `SHARDS`, and the beginning of the keys of a shard's blocks.
pub(super) fn shard_key(shard: ShardKey) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&shard.stream.0.to_be_bytes());
    key[8..].copy_from_slice(&shard.shard.0.to_be_bytes());
    key
}

/// A key of `BLOCKS`.
pub(super) fn block_key(shard: ShardKey, first: u64) -> [u8; 20] {
    let mut key = [0; 20];
    key[..12].copy_from_slice(&shard_key(shard));
    key[12..].copy_from_slice(&first.to_be_bytes());
    key
}

pub(super) fn seal_block(key: &[u8], block: &BlockRef) -> Vec<u8> {
    let mut out = Vec::with_capacity(36);
    put_place(&mut out, block.place);
    out.extend_from_slice(&block.index_len.to_le_bytes());
    out.extend_from_slice(&block.arrival.0.to_le_bytes());
    out.extend_from_slice(&block.crc.to_le_bytes());
    seal(key, out)
}

pub(super) fn open_block(key: &[u8], value: &[u8]) -> Result<BlockRef, ReadError> {
    open(key, value, |reader| {
        let mut key = Reader(key);
        key.take(12)?;
        Ok(BlockRef {
            first: u64::from_be_bytes(key.array()?),
            place: read_place(reader)?,
            index_len: reader.u32()?,
            arrival: UnixMillis(reader.u64()?),
            crc: reader.u32()?,
        })
    })
}

const INLINE: u8 = 1;
const BLOB: u8 = 2;

pub(super) fn seal_value(key: &[u8], stored: &Stored) -> Vec<u8> {
    let inline_len = match &stored.value {
        StoredValue::Inline(bytes) => bytes.len(),
        StoredValue::Blob(..) => 20,
    };
    let mut out = Vec::with_capacity(8 + 1 + inline_len + 4);
    out.extend_from_slice(&stored.revision.to_le_bytes());
    match &stored.value {
        StoredValue::Inline(bytes) => {
            out.push(INLINE);
            out.extend_from_slice(bytes);
        }
        StoredValue::Blob(place, crc) => {
            out.push(BLOB);
            put_place(&mut out, *place);
            out.extend_from_slice(&crc.to_le_bytes());
        }
    }
    seal(key, out)
}

pub(super) fn open_value(key: &[u8], value: &[u8]) -> Result<Stored, ReadError> {
    open(key, value, |reader| {
        let revision = reader.u64()?;
        let value = match reader.u8()? {
            INLINE => StoredValue::Inline(Bytes::copy_from_slice(reader.take(reader.0.len())?)),
            BLOB => StoredValue::Blob(read_place(reader)?, reader.u32()?),
            _ => return Err(Malformed("unknown kind of value")),
        };
        Ok(Stored { revision, value })
    })
}

pub(super) fn seal_stream(key: &[u8], stream: &Stream) -> Vec<u8> {
    seal(key, stream_json(stream))
}

pub(super) fn open_stream(key: &[u8], value: &[u8]) -> Result<Stream, ReadError> {
    open(key, value, |reader| {
        let json = reader.take(reader.0.len())?;
        serde_json::from_slice(json).map_err(|_| Malformed("a stream that is not one"))
    })
}

pub(super) fn seal_tail(shard: ShardKey, tail: &Tail) -> Vec<u8> {
    let mut out = Vec::with_capacity(28);
    out.extend_from_slice(&tail.floor.to_le_bytes());
    out.extend_from_slice(&tail.next.to_le_bytes());
    out.extend_from_slice(&tail.arrival.0.to_le_bytes());
    seal(&shard_key(shard), out)
}

pub(super) fn open_tail(key: &[u8], value: &[u8]) -> Result<(ShardKey, Tail), ReadError> {
    open(key, value, |reader| {
        let mut key = Reader(key);
        let shard = ShardKey {
            stream: StreamId(u64::from_be_bytes(key.array()?)),
            shard: ShardId(u32::from_be_bytes(key.array()?)),
        };
        let tail = Tail {
            floor: reader.u64()?,
            next: reader.u64()?,
            arrival: UnixMillis(reader.u64()?),
        };
        Ok((shard, tail))
    })
}

pub(super) fn seal_segment(key: &[u8], live_bytes: u64) -> Vec<u8> {
    seal(key, live_bytes.to_le_bytes().to_vec())
}

pub(super) fn open_segment(key: &[u8], value: &[u8]) -> Result<(u64, u64), ReadError> {
    open(key, value, |reader| {
        let segment = u64::from_be_bytes(Reader(key).array()?);
        Ok((segment, reader.u64()?))
    })
}

pub(super) fn seal_state(key: &[u8], saved: &Saved) -> Vec<u8> {
    let mut out = Vec::with_capacity(44);
    out.extend_from_slice(&saved.version.to_le_bytes());
    out.extend_from_slice(&saved.store_id.to_le_bytes());
    out.extend_from_slice(&saved.position.segment.to_le_bytes());
    out.extend_from_slice(&saved.position.offset.to_le_bytes());
    out.extend_from_slice(&saved.revision.to_le_bytes());
    out.extend_from_slice(&saved.next_stream.to_le_bytes());
    seal(key, out)
}

pub(super) fn open_state(key: &[u8], value: &[u8]) -> Result<Saved, ReadError> {
    open(key, value, |reader| {
        Ok(Saved {
            version: reader.u32()?,
            store_id: reader.u64()?,
            position: Position {
                segment: reader.u64()?,
                offset: reader.u32()?,
            },
            revision: reader.u64()?,
            next_stream: reader.u64()?,
        })
    })
}

fn put_place(out: &mut Vec<u8>, place: Place) {
    out.extend_from_slice(&place.segment.to_le_bytes());
    out.extend_from_slice(&place.offset.to_le_bytes());
    out.extend_from_slice(&place.len.to_le_bytes());
}

fn read_place(reader: &mut Reader<'_>) -> Result<Place, Malformed> {
    Ok(Place {
        segment: reader.u64()?,
        offset: reader.u32()?,
        len: reader.u32()?,
    })
}

fn check_sum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

fn seal(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let sum = check_sum(key, &value);
    value.extend_from_slice(&sum.to_le_bytes());
    value
}

fn open<T>(
    key: &[u8],
    sealed: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<T, ReadError> {
    let damaged = |reason| ReadError::Damaged(format!("table entry {}: {reason}", hex(key)));
    let (value, sum) = sealed
        .split_last_chunk::<4>()
        .ok_or_else(|| damaged("too short"))?;
    if check_sum(key, value) != u32::from_le_bytes(*sum) {
        return Err(damaged("checksum does not match"));
    }
    let mut reader = Reader(value);
    let read = read(&mut reader).map_err(|Malformed(reason)| damaged(reason))?;
    reader
        .finish()
        .map_err(|Malformed(reason)| damaged(reason))?;
    Ok(read)
}

/// Bytes of a key that a message shows.
const SHOWN_KEY_BYTES: usize = 32;

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for byte in bytes.iter().take(SHOWN_KEY_BYTES) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_another_place_or_with_a_changed_bit_is_refused() {
        let stored = Stored {
            revision: 7,
            value: StoredValue::Blob(
                Place {
                    segment: 3,
                    offset: 4096,
                    len: 10,
                },
                99,
            ),
        };
        let sealed = seal_value(b"key", &stored);
        assert_eq!(open_value(b"key", &sealed), Ok(stored));
        assert!(open_value(b"kez", &sealed).is_err());
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open_value(b"key", &bad).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(open_value(b"key", &sealed[..len]).is_err(), "length {len}");
        }
    }
}
