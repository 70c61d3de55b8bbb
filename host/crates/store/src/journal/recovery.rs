//! What a start finds.

use std::sync::Arc;

use bytes::Bytes;
use shardmill_core::ShardKey;

use super::{Journal, JournalOptions, OpenError, Place, Position, Syncer, Writer};
use crate::io::{Io, Lock};

/// The data folder, for one process. Taken before any file in it is opened, the tables' included.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "held for its drop")] Box<dyn Lock>);

impl FolderLock {
    /// Takes the folder.
    ///
    /// # Errors
    /// `InUse` when another process (or another journal of this one) has it, or `Io`.
    pub fn take(io: &dyn Io) -> Result<Self, OpenError> {
        let _ = io;
        unimplemented!("follows")
    }
}

/// A frame behind the tables' durable position. It is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredFrame {
    /// Its number (see [`Writer::next_number`]).
    pub number: u64,
    /// Where its payload lies now.
    pub place: Place,
    /// Where it ends: the tables' durable position once they hold it.
    pub end: Position,
    /// The shards that it touches.
    pub shards: Vec<ShardKey>,
    /// Its payload.
    pub payload: Bytes,
}

pub(super) fn open<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    io: Arc<dyn Io>,
    lock: FolderLock,
    options: JournalOptions,
    from: Position,
    each: impl FnMut(RecoveredFrame) -> Result<(), E>,
) -> Result<(Journal, Writer, Syncer), OpenError> {
    let _ = (io, lock, options, from, each);
    unimplemented!("follows")
}
