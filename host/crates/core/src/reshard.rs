//! Resharding: which shards may be split, merged or counted anew, and what becomes of them.
//!
//! Each function takes a stream as it is and gives it as it will be, its settings untouched.
//! Laws, tested on seeded runs:
//! - the open shards tile the hash space, now and at every second since the first shards were made;
//! - ids grow: a child's is above its parents', and none is used twice;
//! - a child is made in the second after its parents close, so its sequence numbers are above
//!   theirs; the two parents of a merge close in the same second;
//! - a shard that is closed stays as it is, and so does an open one that nobody asked to change.
//!
//! Rules: Kinesis Data Streams API reference, SplitShard, MergeShards and UpdateShardCount.
//! Which shards UpdateShardCount splits and merges is not documented. Observed is that it only
//! splits in two and merges two, and that uniform ranges come out. So does this: every open shard
//! is halved at the new boundaries inside it, then neighbours that no boundary parts are merged.
//! Shards that are made on the way close at once, each a second later than its parents.

use crate::hash_key::{HashKey, HashKeyRange};
use crate::limits::{COUNT_UPDATES_SPAN, MAX_COUNT_UPDATES, MAX_SHARDS_BY_COUNT};
use crate::shard::{Shard, ShardId};
use crate::stream::Stream;
use crate::time::UnixMillis;

/// Why shards stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such shard.
    #[error("{0} does not exist")]
    NoShard(ShardId),
    /// It was split or merged before.
    #[error("{0} was split or merged before")]
    Closed(ShardId),
    /// The hash key leaves no room for two shards.
    #[error(
        "a split of {shard} must be above {} and below {}",
        range.start.0.saturating_add(1),
        range.end
    )]
    HashKey {
        /// The shard to split.
        shard: ShardId,
        /// Its range.
        range: HashKeyRange,
    },
    /// The first shard's range does not end where the second one's begins.
    #[error("{0} does not end where {1} begins")]
    NotAdjacent(ShardId, ShardId),
    /// More than double.
    #[error("{target} is over double the {open} open shards")]
    OverDouble {
        /// Open shards.
        open: u32,
        /// Wanted.
        target: u32,
    },
    /// Less than half.
    #[error("{target} is below half of the {open} open shards")]
    BelowHalf {
        /// Open shards.
        open: u32,
        /// Wanted.
        target: u32,
    },
    /// More than [`MAX_SHARDS_BY_COUNT`].
    #[error("{target} shards, {MAX_SHARDS_BY_COUNT} allowed")]
    TooMany {
        /// Open shards.
        open: u32,
        /// Wanted.
        target: u32,
    },
    /// [`MAX_COUNT_UPDATES`] changes within [`COUNT_UPDATES_SPAN`].
    #[error("{MAX_COUNT_UPDATES} changes of the shard count in 24 hours: the next one at {0:?}")]
    TooOften(UnixMillis),
    /// Every id up to 2^31 − 1 was given.
    #[error("the stream has used all its shard ids: make another stream")]
    NoMoreIds,
}

/// The open shard with this id.
///
/// # Errors
/// `NoShard`, `Closed`.
pub fn open_shard(stream: &Stream, id: ShardId) -> Result<&Shard, Refusal> {
    let shard = stream.shard(id).ok_or(Refusal::NoShard(id))?;
    if shard.is_open() {
        Ok(shard)
    } else {
        Err(Refusal::Closed(id))
    }
}

/// Splits a shard in two: the upper child begins at `start`.
///
/// # Errors
/// `NoShard`, `Closed`, `NoMoreIds`; `HashKey` unless each child gets at least two hash keys.
pub fn split(
    stream: &Stream,
    id: ShardId,
    start: HashKey,
    now: UnixMillis,
) -> Result<Stream, Refusal> {
    let range = open_shard(stream, id)?.range;
    let above = range.start.0.checked_add(1).is_some_and(|n| n < start.0);
    if !above || start >= range.end {
        return Err(Refusal::HashKey { shard: id, range });
    }
    let mut plan = Plan::of(stream, now);
    plan.split(id, start)?;
    Ok(plan.stream)
}

/// Merges two shards whose ranges touch, the lower one first.
///
/// # Errors
/// `NoShard`, `Closed`, `NotAdjacent` (also for the same two in the other order), `NoMoreIds`.
pub fn merge(
    stream: &Stream,
    parent: ShardId,
    adjacent: ShardId,
    now: UnixMillis,
) -> Result<Stream, Refusal> {
    let end = open_shard(stream, parent)?.range.end;
    let start = open_shard(stream, adjacent)?.range.start;
    if end.0.checked_add(1) != Some(start.0) {
        return Err(Refusal::NotAdjacent(parent, adjacent));
    }
    let mut plan = Plan::of(stream, now);
    plan.merge(parent, adjacent)?;
    Ok(plan.stream)
}

/// Gives the stream `target` open shards of even ranges, as UpdateShardCount does, and counts
/// that. The count it has already is no change and is not counted, whatever the ranges are.
///
/// # Errors
/// `TooMany`, `OverDouble`, `BelowHalf`, `TooOften`, `NoMoreIds`.
pub fn update_count(stream: &Stream, target: u32, now: UnixMillis) -> Result<Stream, Refusal> {
    let open = open_count(stream);
    if target == open {
        return Ok(stream.clone());
    }
    if target > MAX_SHARDS_BY_COUNT {
        return Err(Refusal::TooMany { open, target });
    }
    if target > open.saturating_mul(2) {
        return Err(Refusal::OverDouble { open, target });
    }
    if target.saturating_mul(2) < open {
        return Err(Refusal::BelowHalf { open, target });
    }
    let mut recent = stream.count_updates.clone();
    recent.retain(|at| now.since(*at) < COUNT_UPDATES_SPAN);
    if recent.len() >= MAX_COUNT_UPDATES {
        let oldest = recent[recent.len() - MAX_COUNT_UPDATES];
        return Err(Refusal::TooOften(oldest.plus(COUNT_UPDATES_SPAN)));
    }
    recent.push(now);
    let mut changed = scale(stream, target, now)?;
    changed.count_updates = recent;
    Ok(changed)
}

/// Gives the stream `target` open shards of even ranges, at least 1, whatever it has now. A
/// shard that has such a range already is kept.
///
/// # Errors
/// `NoMoreIds`.
pub fn scale(stream: &Stream, target: u32, now: UnixMillis) -> Result<Stream, Refusal> {
    let mut open: Vec<_> = stream.open_shards().map(|s| (s.range, s.id)).collect();
    open.sort_unstable_by_key(|(range, _)| range.start);
    let mut plan = Plan::of(stream, now);
    let starts: Vec<HashKey> = HashKeyRange::tiling(target).map(|r| r.start).collect();
    let mut pieces = Vec::new();
    for (range, id) in open {
        let first = starts.partition_point(|start| *start <= range.start);
        let last = starts.partition_point(|start| *start <= range.end);
        plan.cut(id, &starts[first..last], &mut pieces)?;
    }
    let mut pieces = pieces.as_slice();
    for (at, _) in starts.iter().enumerate() {
        let count = match starts.get(at + 1) {
            Some(next) => pieces.partition_point(|(start, _)| start < next),
            None => pieces.len(),
        };
        let (tile, rest) = pieces.split_at(count);
        plan.join(tile.iter().map(|(_, id)| *id).collect())?;
        pieces = rest;
    }
    Ok(plan.stream)
}

/// How many shards take records.
pub fn open_count(stream: &Stream) -> u32 {
    stream.open_shards().count() as u32
}

/// Moves what `new` closes and makes, compared with `old`, to later seconds, so that no shard
/// closes before its newest record arrived. All by as much, so that the laws go on to hold.
/// `newest` tells when a shard's newest record arrived.
pub fn close_after_newest(old: &Stream, new: &mut Stream, newest: impl Fn(&Shard) -> UnixMillis) {
    let was_open = |id| old.shard(id).is_some_and(Shard::is_open);
    let late = new.shards.iter().filter(|shard| was_open(shard.id));
    let late = late.filter_map(|shard| {
        let closed = shard.closed_seconds?;
        Some(newest(shard).seconds().saturating_sub(closed))
    });
    let Some(late) = late.max().filter(|late| *late > 0) else {
        return;
    };
    for shard in &mut new.shards {
        let is_new = old.shard(shard.id).is_none();
        if is_new {
            shard.created_seconds += late;
        }
        if is_new || was_open(shard.id) {
            shard.closed_seconds = shard.closed_seconds.map(|closed| closed + late);
        }
    }
}

/// A stream whose shards are being changed.
struct Plan {
    stream: Stream,
    now_seconds: u64,
}

impl Plan {
    fn of(stream: &Stream, now: UnixMillis) -> Self {
        Self {
            stream: stream.clone(),
            now_seconds: now.seconds(),
        }
    }

    /// Splits an open shard: the lower and the upper child.
    fn split(&mut self, id: ShardId, start: HashKey) -> Result<(ShardId, ShardId), Refusal> {
        let (range, closed) = self.close(id, id)?;
        let lower = HashKeyRange {
            end: HashKey(start.0 - 1),
            ..range
        };
        let upper = HashKeyRange { start, ..range };
        Ok((
            self.child(lower, vec![id], closed)?,
            self.child(upper, vec![id], closed)?,
        ))
    }

    fn merge(&mut self, parent: ShardId, adjacent: ShardId) -> Result<ShardId, Refusal> {
        let (range, closed) = self.close(parent, adjacent)?;
        self.child(range, vec![parent, adjacent], closed)
    }

    /// Splits a shard at all of these starts, the middle one first. Gives the pieces in order.
    fn cut(
        &mut self,
        id: ShardId,
        starts: &[HashKey],
        pieces: &mut Vec<(HashKey, ShardId)>,
    ) -> Result<(), Refusal> {
        let middle = starts.len() / 2;
        let Some(start) = starts.get(middle) else {
            let range = open_shard(&self.stream, id)?.range;
            pieces.push((range.start, id));
            return Ok(());
        };
        let (lower, upper) = self.split(id, *start)?;
        self.cut(lower, &starts[..middle], pieces)?;
        self.cut(upper, &starts[middle + 1..], pieces)
    }

    /// Merges neighbours, two at a time, until one is left.
    fn join(&mut self, mut tile: Vec<ShardId>) -> Result<(), Refusal> {
        while tile.len() > 1 {
            let pairs = tile.chunks(2).map(|pair| match *pair {
                [parent, adjacent] => self.merge(parent, adjacent),
                _ => Ok(pair[0]),
            });
            tile = pairs.collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    /// Closes two neighbours, or one shard that is given twice, in one second: not before now, nor
    /// before either was made. Gives their range and that second.
    fn close(&mut self, first: ShardId, last: ShardId) -> Result<(HashKeyRange, u64), Refusal> {
        let lower = open_shard(&self.stream, first)?;
        let upper = open_shard(&self.stream, last)?;
        let range = HashKeyRange {
            start: lower.range.start,
            end: upper.range.end,
        };
        let made = lower.created_seconds.max(upper.created_seconds);
        let closed = made.max(self.now_seconds);
        let shards = &mut self.stream.shards;
        for id in [first, last] {
            if let Ok(at) = shards.binary_search_by_key(&id, |shard| shard.id) {
                shards[at].closed_seconds = Some(closed);
            }
        }
        Ok((range, closed))
    }

    fn child(
        &mut self,
        range: HashKeyRange,
        parents: Vec<ShardId>,
        closed: u64,
    ) -> Result<ShardId, Refusal> {
        let last = self.stream.shards.last().map(|shard| shard.id.0);
        let id = last.map_or(0, |last| last + 1);
        if id > i32::MAX as u32 {
            return Err(Refusal::NoMoreIds);
        }
        let id = ShardId(id);
        self.stream.shards.push(Shard {
            id,
            range,
            created_seconds: closed + 1,
            parents,
            closed_seconds: None,
        });
        Ok(id)
    }
}

#[cfg(test)]
mod tests;
