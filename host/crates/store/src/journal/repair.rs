//! Gives up what follows a damaged place, when a person asks for it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use shardmill_core::ShardKey;

use super::layout::{self, FrameHeader};
use super::recovery::check;
use super::restart::restart;
use super::scan::Found;
use super::segment::path;
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
/// See [`OpenError`]. `Corrupt` only when the tables are empty but the journal is not, or no
/// segment behind their position has an intact header: then nothing would be left.
pub fn repair(
    io: &Arc<dyn Io>,
    _lock: &FolderLock,
    options: JournalOptions,
    from: Position,
) -> Result<RepairReport, OpenError> {
    check(&options)?;
    let found = Found::load(Arc::clone(io), from)?;
    let walk = found.walk(from);
    let Some(damage) = walk.damage else {
        return Ok(RepairReport::default());
    };
    let foreign = found.store_id.is_none() && !found.segments.is_empty();
    if foreign || walk.end == Position::START {
        return Err(OpenError::Corrupt(damage));
    }
    let mut report = lost(&found, walk.end);
    report.kept_frames = walk.frames.len() as u64;
    report.damage = Some(damage);
    let restarted = restart(&found, &walk.frames, walk.end.segment, options, from)?;
    for number in restarted.dead {
        let path = path(number);
        let removed = io.remove(&path);
        removed.map_err(super::scan::failed("remove", &**io, &path))?;
    }
    Ok(report)
}

/// What can be told of the frames behind a position.
fn lost(found: &Found, end: Position) -> RepairReport {
    let mut report = RepairReport::default();
    let mut shards = BTreeSet::new();
    let _ = found.search(end, &mut |header| {
        if let Ok(header) = header {
            report.lost_frames += 1;
            report.lost_bytes += u64::from(header.payload_len);
            shards.extend(shards_of(found, &header));
        }
        ControlFlow::Continue(())
    });
    report.lost_shards = shards.into_iter().collect();
    report
}

fn shards_of(found: &Found, header: &FrameHeader) -> Vec<ShardKey> {
    let mut bytes = vec![0; header.header_bytes()];
    let Some(segment) = found.segments.get(&header.at.segment) else {
        return Vec::new();
    };
    let read = segment
        .segment
        .file
        .read_at(u64::from(header.at.offset), &mut bytes);
    read.map_or_else(|_| Vec::new(), |()| layout::shards(&bytes))
}
