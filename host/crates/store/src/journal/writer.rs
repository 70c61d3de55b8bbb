//! Puts frames into the page cache, in order.

use shardmill_core::ShardKey;

use super::{AppendError, Place, Position};

/// One transaction to append.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The shards that it touches, for the report if it is ever lost; at most 65,535.
    pub shards: &'a [ShardKey],
    /// Its payload, gathered: pieces are written one behind the other, without a copy.
    pub payload: &'a [Piece<'a>],
}

/// A part of a payload.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Their CRC-32 (`crc32fast::hash`), if the producer's thread has computed it.
    pub crc: Option<u32>,
}

/// Frames that were appended together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Where each frame's payload lies, in order.
    pub places: Vec<Place>,
    /// Number of the first frame; the others follow it.
    pub first_number: u64,
    /// Where the group ends: it is durable when [`super::Syncer::sync`] has returned this
    /// position or a later one.
    pub end: Position,
}

/// The one that appends.
#[derive(Debug)]
pub struct Writer {}

impl Writer {
    /// Appends frames behind all earlier ones: one write (more when the group crosses into
    /// another segment or has more than a thousand pieces), no sync. Waits for the disk only when
    /// no prepared segment is left.
    ///
    /// # Errors
    /// See [`AppendError`]: all frames or none.
    pub fn append(&mut self, frames: &[Frame<'_>]) -> Result<Group, AppendError> {
        let _ = frames;
        unimplemented!("follows")
    }

    /// The number that the next frame gets. Numbers begin with 1 and have no gaps; those of a
    /// group that was refused are given again.
    pub fn next_number(&self) -> u64 {
        unimplemented!("follows")
    }

    /// Where the next frame follows.
    pub fn end(&self) -> Position {
        unimplemented!("follows")
    }
}
