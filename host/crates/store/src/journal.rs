//! The journal: one log of frames for all shards, in segments of one size.
//!
//! A frame is one transaction; what is in it is the caller's business. The journal owns the order
//! of frames, their checksums, when they are durable, what is left of them after a crash, and
//! the disk space they take. `docs/format.md` draws every byte; the rules for what a crash may
//! leave are at the top of `recovery.rs`.
//!
//! [`Journal::open`] gives three handles, for up to three threads: the [`Writer`] puts frames into
//! the page cache, the [`Syncer`] makes them durable, so that group N + 1 can be written while
//! group N syncs, and the [`Journal`], cheap to clone, reads frames and frees segments.
//!
//! ```text
//! writer.append(frames) ──▶ Group { places, end }     not durable, not to be shown to anyone
//! syncer.sync()         ──▶ durable position ≥ end    acknowledge the group
//! ```

mod error;
pub(crate) mod fuzzing;
mod layout;
mod place;
mod pool;
mod reader;
mod recovery;
mod repair;
mod restart;
mod scan;
mod segment;
mod syncer;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::io::Io;

pub use error::{AppendError, Corruption, JournalReadError, OpenError, SyncError};
pub use place::{Place, Position};
pub use pool::{SegmentInfo, Space};
pub use recovery::{FolderLock, RecoveredFrame};
pub use repair::{RepairReport, repair};
pub use syncer::Syncer;
pub use writer::{Frame, Group, Piece, Writer};

/// How a journal is kept.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// Size of a new segment in bytes, 64 KiB … 1 GiB, a multiple of 4 KiB. Older segments may
    /// have another size.
    pub segment_bytes: u32,
    /// Segments that are prepared before they are needed, 1 … 8.
    pub reserve_segments: usize,
    /// Free bytes below which [`Space::is_low`]: records are refused, so that what is left can
    /// take progress, trims and the tables.
    pub low_water_bytes: u64,
    /// A random number: the identity of the journal, if this call makes it.
    pub new_store_id: u64,
    /// Who prepares segments.
    pub prepare: Prepare,
}

/// Who prepares segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepare {
    /// A thread, so that the writer need not wait.
    Thread,
    /// The writer, when it needs one: the same calls always do the same I/O.
    Writer,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            reserve_segments: 2,
            low_water_bytes: 128 << 20,
            new_store_id: 0,
            prepare: Prepare::Thread,
        }
    }
}

impl JournalOptions {
    /// Bytes of payload that a frame of so many shards may have.
    pub fn max_payload_bytes(&self, shard_count: usize) -> usize {
        layout::max_payload_bytes(self.segment_bytes, shard_count)
    }
}

/// Reads frames and frees segments. Cheap to clone. The folder stays locked until the last of the
/// three handles is dropped.
#[derive(Clone, Debug)]
pub struct Journal(Arc<segment::Shared>);

impl Journal {
    /// Opens the journal in the folder `journal/`, or makes it, after a crash of any kind.
    ///
    /// `from` is the durable position of the tables: frames before it are not looked at. Those
    /// behind it are made durable once more (the page cache is no proof that they are), and only
    /// then handed to `each`, in order; they may be shown to everyone. After an orderly
    /// [`Writer::close`] at the tables' position nothing is read but segment headers.
    ///
    /// # Errors
    /// See [`OpenError`]. After any error but `Rejected` the tables have seen nothing.
    pub fn open<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        io: Arc<dyn Io>,
        lock: FolderLock,
        options: JournalOptions,
        from: Position,
        each: impl FnMut(RecoveredFrame) -> Result<(), E>,
    ) -> Result<(Self, Writer, Syncer), OpenError> {
        recovery::open(io, lock, options, from, each)
    }

    /// Reads a place: a payload or part of one (see [`Place::part`]). The bytes must have this
    /// CRC-32 (`crc32fast::hash`).
    ///
    /// # Errors
    /// See [`JournalReadError`].
    pub fn read(&self, place: Place, crc: u32) -> Result<Bytes, JournalReadError> {
        reader::read(&self.0, place, crc)
    }

    /// Everything before this is durable.
    pub fn durable(&self) -> Position {
        self.0.durable()
    }

    /// The journal's identity: chosen when it was made.
    pub fn store_id(&self) -> u64 {
        self.0.store_id
    }

    /// Segments that hold or held frames, oldest first. Those of an earlier life that nothing
    /// refers to are listed too, and wait for [`Journal::release`].
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.0.segments()
    }

    /// Gives a segment's space back: nothing in the durable tables, and no frame behind
    /// `tables`, their durable position, refers to it. Reads that are under way are not
    /// disturbed. Gives `false`, and keeps the segment, when it is not older than `tables`.
    ///
    /// # Errors
    /// The disk's; the segment may come back at the next start.
    pub fn release(&self, segment: u64, tables: Position) -> io::Result<bool> {
        self.0.release(segment, tables)
    }

    /// How much space is left. Costs one system call.
    ///
    /// # Errors
    /// The disk's.
    pub fn space(&self) -> io::Result<Space> {
        self.0.space()
    }

    /// Bytes of all segments, those in reserve included.
    pub fn disk_bytes(&self) -> u64 {
        self.0.disk_bytes()
    }
}
