//! Gives up what follows a damaged place, when a person asks for it.

use std::sync::Arc;

use shardmill_core::ShardKey;

use super::{Corruption, FolderLock, JournalOptions, OpenError, Position};
use crate::io::Io;

/// What a repair gave up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// The damage; `None` when there was none, and nothing was changed.
    pub damage: Option<Corruption>,
    /// Frames behind the tables' position that were kept.
    pub kept_frames: u64,
    /// Frames that were given up and still could be recognised.
    pub lost_frames: u64,
    /// Bytes of their payload.
    pub lost_bytes: u64,
    /// The shards that they touched, in order.
    pub lost_shards: Vec<ShardKey>,
}

/// Cuts the journal at the first damaged byte behind `from`, the tables' durable position.
/// Afterwards [`super::Journal::open`] with the same position succeeds.
///
/// # Errors
/// See [`OpenError`]; `Corrupt` is not among them.
pub fn repair(
    io: &Arc<dyn Io>,
    lock: &FolderLock,
    options: JournalOptions,
    from: Position,
) -> Result<RepairReport, OpenError> {
    let _ = (io, lock, options, from);
    unimplemented!("follows")
}
