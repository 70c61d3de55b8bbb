//! The bytes of segment headers, frame headers and the end mark; drawn in `docs/format.md`.
//!
//! Numbers are little-endian. Every checksum but a payload's begins with the store id, so that no
//! payload can hold bytes that pass for a frame, and frames of another journal do not count.

use crc32fast::Hasher;
use shardmill_core::{ShardId, ShardKey, StreamId};

use super::Position;

/// The format that is written; older ones are read.
pub(super) const VERSION: u32 = 1;

/// Where a segment's first frame begins. Its header has a page of its own, which is never written
/// again after the segment got its name.
pub(super) const FIRST_FRAME: u32 = 4096;

/// Bytes of a segment header that mean something; zeros follow.
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;

/// Bytes of a frame header before the list of shards.
pub(super) const FRAME_HEADER_BYTES: usize = 56;

/// Bytes per shard in a frame header.
pub(super) const SHARD_BYTES: usize = 12;

/// Frames begin at multiples of this.
pub(super) const ALIGN: usize = 8;

/// Bytes of the end mark.
pub(super) const END_MARK_BYTES: usize = 40;

/// A frame header's first bytes.
pub(super) const FRAME_MAGIC: [u8; 4] = *b"SMf1";

const SEGMENT_MAGIC: [u8; 8] = *b"SHRDMILL";
const END_MAGIC: [u8; 8] = *b"SHRDEND.";

/// Flag: `previous_end` means something.
const FIRST_OF_SEGMENT: u16 = 1;

/// Bytes of payload that a frame may have.
pub(super) fn max_payload_bytes(segment_bytes: u32, shard_count: usize) -> usize {
    let headers = FIRST_FRAME as usize + FRAME_HEADER_BYTES + shard_count * SHARD_BYTES;
    (segment_bytes as usize).saturating_sub(headers) / ALIGN * ALIGN
}

/// Bytes that a frame takes.
pub(super) fn frame_bytes(shard_count: usize, payload_len: usize) -> usize {
    (FRAME_HEADER_BYTES + shard_count * SHARD_BYTES + payload_len).next_multiple_of(ALIGN)
}

/// The checksum of everything but payloads begins with this.
pub(super) fn seed(store_id: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.update(&store_id.to_le_bytes());
    hasher
}

pub(super) fn checksum(seed: &Hasher, bytes: &[u8]) -> u32 {
    let mut hasher = seed.clone();
    hasher.update(bytes);
    hasher.finalize()
}

/// How a segment joins the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joins {
    /// Prepared in advance: follows the segment before it, at the place that its own first frame
    /// names.
    Reserve,
    /// Written by a start: takes the place of everything behind a position.
    Start {
        /// The position.
        follows: Position,
        /// Frames before this offset were durable before the segment got its name.
        durable_to: u32,
    },
}

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) store_id: u64,
    pub(super) number: u64,
    pub(super) joins: Joins,
}

/// Why bytes are not a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    Damaged,
    Version(u32),
}

impl SegmentHeader {
    pub(super) fn to_bytes(self) -> [u8; SEGMENT_HEADER_BYTES] {
        let (kind, follows, durable_to) = match self.joins {
            Joins::Reserve => (1u32, Position::START, 0),
            Joins::Start {
                follows,
                durable_to,
            } => (2, follows, durable_to),
        };
        let mut out = [0; SEGMENT_HEADER_BYTES];
        let mut put = Put(&mut out, 0);
        put.bytes(&SEGMENT_MAGIC);
        put.bytes(&VERSION.to_le_bytes());
        put.bytes(&[0; 4]);
        put.bytes(&self.store_id.to_le_bytes());
        put.bytes(&self.number.to_le_bytes());
        put.bytes(&kind.to_le_bytes());
        put.bytes(&durable_to.to_le_bytes());
        put.bytes(&follows.segment.to_le_bytes());
        put.bytes(&follows.offset.to_le_bytes());
        let crc = checksum(&seed(self.store_id), &out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn from_bytes(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, BadHeader> {
        let mut get = Get(bytes);
        if get.array::<8>() != SEGMENT_MAGIC {
            return Err(BadHeader::Damaged);
        }
        let version = get.u32();
        let crc = get.u32();
        let store_id = get.u64();
        let mut summed = *bytes;
        summed[12..16].fill(0);
        if checksum(&seed(store_id), &summed) != crc {
            return Err(BadHeader::Damaged);
        }
        if version > VERSION {
            return Err(BadHeader::Version(version));
        }
        let number = get.u64();
        let kind = get.u32();
        let durable_to = get.u32();
        let follows = get.position();
        let joins = match kind {
            1 => Joins::Reserve,
            2 => Joins::Start {
                follows,
                durable_to,
            },
            _ => return Err(BadHeader::Damaged),
        };
        Ok(Self {
            store_id,
            number,
            joins,
        })
    }
}

/// A frame's header without its list of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Where the frame begins.
    pub(super) at: Position,
    pub(super) number: u64,
    pub(super) payload_len: u32,
    pub(super) payload_crc: u32,
    pub(super) shard_count: u16,
    /// What was known to be durable when the frame was written.
    pub(super) durable: Position,
    /// Where the segment before this one ended; in the first frame of a reserve segment.
    pub(super) previous_end: Option<u32>,
}

impl FrameHeader {
    /// Bytes of the header with its shards.
    pub(super) fn header_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + usize::from(self.shard_count) * SHARD_BYTES
    }

    /// Where the payload begins in the segment's file.
    pub(super) fn payload_offset(&self) -> u32 {
        self.at.offset + self.header_bytes() as u32
    }

    /// Where the frame ends.
    pub(super) fn end(&self) -> Position {
        let bytes = frame_bytes(usize::from(self.shard_count), self.payload_len as usize);
        Position {
            segment: self.at.segment,
            offset: self.at.offset + bytes as u32,
        }
    }

    /// Appends the header to `out`.
    pub(super) fn write(&self, seed: &Hasher, shards: &[ShardKey], out: &mut Vec<u8>) {
        debug_assert_eq!(shards.len(), usize::from(self.shard_count));
        let start = out.len();
        out.extend_from_slice(&FRAME_MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.at.segment.to_le_bytes());
        out.extend_from_slice(&self.at.offset.to_le_bytes());
        out.extend_from_slice(&self.payload_len.to_le_bytes());
        out.extend_from_slice(&self.payload_crc.to_le_bytes());
        out.extend_from_slice(&self.shard_count.to_le_bytes());
        let flags = self.previous_end.map_or(0, |_| FIRST_OF_SEGMENT);
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.durable.segment.to_le_bytes());
        out.extend_from_slice(&self.durable.offset.to_le_bytes());
        out.extend_from_slice(&self.previous_end.unwrap_or(0).to_le_bytes());
        for shard in shards {
            out.extend_from_slice(&shard.stream.0.to_le_bytes());
            out.extend_from_slice(&shard.shard.0.to_le_bytes());
        }
        let crc = checksum(seed, &out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the part of a header that has a fixed size; its checksum is not looked at yet.
    pub(super) fn peek(bytes: &[u8; FRAME_HEADER_BYTES]) -> Option<Self> {
        let mut get = Get(bytes);
        if get.array::<4>() != FRAME_MAGIC {
            return None;
        }
        get.u32();
        let at = get.position();
        let payload_len = get.u32();
        let payload_crc = get.u32();
        let shard_count = get.u16();
        let flags = get.u16();
        let number = get.u64();
        let durable = get.position();
        let previous_end = get.u32();
        Some(Self {
            at,
            number,
            payload_len,
            payload_crc,
            shard_count,
            durable,
            previous_end: (flags & FIRST_OF_SEGMENT != 0).then_some(previous_end),
        })
    }

    /// Whether a whole header (with its shards) has the checksum that it names.
    pub(super) fn is_intact(seed: &Hasher, bytes: &[u8]) -> bool {
        bytes.len() > 8 && checksum(seed, &bytes[8..]).to_le_bytes() == bytes[4..8]
    }
}

/// The shards in a whole header.
pub(super) fn shards(header: &[u8]) -> Vec<ShardKey> {
    let list = header.get(FRAME_HEADER_BYTES..).unwrap_or_default();
    let shard = |bytes: &[u8]| {
        let mut get = Get(bytes);
        ShardKey {
            stream: StreamId(get.u64()),
            shard: ShardId(get.u32()),
        }
    };
    list.chunks_exact(SHARD_BYTES).map(shard).collect()
}

/// The end mark of an orderly close.
pub(super) fn end_mark(store_id: u64, end: Position) -> [u8; END_MARK_BYTES] {
    let mut out = [0; END_MARK_BYTES];
    let mut put = Put(&mut out, 0);
    put.bytes(&END_MAGIC);
    put.bytes(&VERSION.to_le_bytes());
    put.bytes(&[0; 4]);
    put.bytes(&store_id.to_le_bytes());
    put.bytes(&end.segment.to_le_bytes());
    put.bytes(&end.offset.to_le_bytes());
    let crc = checksum(&seed(store_id), &out);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The position in an end mark of this journal.
pub(super) fn read_end_mark(store_id: u64, bytes: &[u8; END_MARK_BYTES]) -> Option<Position> {
    let mut get = Get(&bytes[24..]);
    let end = get.position();
    (end_mark(store_id, end) == *bytes).then_some(end)
}

struct Put<'a>(&'a mut [u8], usize);

impl Put<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0[self.1..self.1 + bytes.len()].copy_from_slice(bytes);
        self.1 += bytes.len();
    }
}

/// Takes numbers from the front; zeros where the bytes end.
struct Get<'a>(&'a [u8]);

impl Get<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.0 = rest;
                *head
            }
            None => [0; N],
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn position(&mut self) -> Position {
        Position {
            segment: self.u64(),
            offset: self.u32(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were_written_and_one_changed_bit_is_seen() {
        let joins = Joins::Start {
            follows: Position {
                segment: 3,
                offset: 8192,
            },
            durable_to: 5000,
        };
        let header = SegmentHeader {
            store_id: 7,
            number: 4,
            joins,
        };
        let bytes = header.to_bytes();
        assert_eq!(SegmentHeader::from_bytes(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::from_bytes(&bad), Err(BadHeader::Damaged));
        }

        let shards_in = [ShardKey {
            stream: StreamId(9),
            shard: ShardId(2),
        }];
        let frame = FrameHeader {
            at: Position {
                segment: 4,
                offset: 4096,
            },
            number: 77,
            payload_len: 10,
            payload_crc: 5,
            shard_count: 1,
            durable: Position::START,
            previous_end: Some(64),
        };
        let mut bytes = Vec::new();
        frame.write(&seed(7), &shards_in, &mut bytes);
        assert_eq!(bytes.len(), frame.header_bytes());
        let fixed = bytes[..FRAME_HEADER_BYTES].try_into().expect("fixed part");
        assert_eq!(FrameHeader::peek(&fixed), Some(frame));
        assert_eq!(shards(&bytes), shards_in);
        assert!(FrameHeader::is_intact(&seed(7), &bytes));
        assert!(!FrameHeader::is_intact(&seed(8), &bytes), "another store");
        for bit in 4 * 8..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!FrameHeader::is_intact(&seed(7), &bad));
        }
    }

    #[test]
    fn the_end_mark_counts_only_for_its_own_journal() {
        let end = Position {
            segment: 3,
            offset: 4104,
        };
        let mark = end_mark(7, end);
        assert_eq!(read_end_mark(7, &mark), Some(end));
        assert_eq!(read_end_mark(8, &mark), None);
        let mut bad = mark;
        bad[30] ^= 1;
        assert_eq!(read_end_mark(7, &bad), None);
    }
}
