//! How many bytes lie before positions that were asked for, so that asking again looks only at
//! what was appended or passed since. In memory: a start sums up once.
//!
//! Of each shard a few marks are kept, each the beginning of a block with the bytes before it,
//! counted from wherever the first question began: only differences mean anything. Laws: sums of
//! two marks differ by the blocks between them, whatever was trimmed before both; a mark below
//! the shard's beginning is forgotten, since the blocks behind it are no longer known.

use std::collections::{BTreeMap, HashMap};

use shardmill_core::{ShardKey, UnixMillis};

use super::shared::{Shared, State};
use crate::catalog::Tail;
use crate::extent::portion;
use crate::layer::BlockRef;
use crate::{Extent, ReadError};

/// Marks that a shard keeps: two per mapping that reads it, and some that are moving.
const MARKS: usize = 16;

/// How often a sum begins again because blocks were trimmed, or went to the tables, under it.
const ATTEMPTS: usize = 8;

/// What was summed up, by shard.
#[derive(Debug, Default)]
pub(super) struct Sums {
    shards: HashMap<ShardKey, BTreeMap<u64, Mark>>,
    uses: u64,
}

/// The beginning of a block, or the end of the shard.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Bytes before it, from where the shard was first asked about.
    before: i64,
    /// The block; `None` at the end of the shard as it was then.
    block: Option<Weight>,
    used: u64,
}

/// What counts of a block.
#[derive(Clone, Copy, Debug)]
struct Weight {
    end: u64,
    bytes: u64,
    arrival: UnixMillis,
}

/// A position in what was summed up.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Bytes before the position.
    before: i64,
    /// When the record at the position arrived.
    arrival: Option<UnixMillis>,
}

impl Sums {
    /// Forgets a shard.
    pub(super) fn forget(&mut self, shard: ShardKey) {
        self.shards.remove(&shard);
    }

    /// The place of a position, if the block that holds it is marked; of one where a block ends
    /// only if it need not be known which record stands there.
    fn place(&mut self, shard: ShardKey, at: u64, needs_record: bool) -> Option<Place> {
        self.uses += 1;
        let marks = self.shards.get_mut(&shard)?;
        let (first, mark) = marks.range_mut(..=at).next_back()?;
        let place = match mark.block {
            Some(block) if at < block.end => Place {
                before: mark.before + portion(block.bytes, (*first, block.end), at) as i64,
                arrival: Some(block.arrival),
            },
            _ if needs_record => return None,
            Some(block) if at == block.end => Place {
                before: mark.before + block.bytes as i64,
                arrival: None,
            },
            None if *first == at => Place {
                before: mark.before,
                arrival: None,
            },
            _ => return None,
        };
        mark.used = self.uses;
        Some(place)
    }

    /// Where to sum on from, for a position that is not marked: the nearest mark before it, or
    /// the position itself and the mark behind it that tells what its sum is.
    fn start(&mut self, shard: ShardKey, floor: u64, at: u64) -> Start {
        let marks = self.shards.entry(shard).or_default();
        *marks = marks.split_off(&floor);
        if let Some((first, mark)) = marks.range(..=at).next_back() {
            return Start::From(*first, mark.before);
        }
        match marks.first_key_value() {
            Some((first, mark)) => Start::UpTo(*first, mark.before),
            None => Start::From(at, 0),
        }
    }

    fn note(&mut self, shard: ShardKey, first: u64, before: i64, block: Option<Weight>) {
        self.uses += 1;
        let used = self.uses;
        let marks = self.shards.entry(shard).or_default();
        marks.insert(
            first,
            Mark {
                before,
                block,
                used,
            },
        );
        while marks.len() > MARKS {
            let oldest = marks.iter().min_by_key(|(_, mark)| mark.used);
            let Some(first) = oldest.map(|(first, _)| *first) else {
                break;
            };
            marks.remove(&first);
        }
    }
}

/// Where a sum begins.
enum Start {
    /// At this mark, with this sum.
    From(u64, i64),
    /// At the position, up to this mark with this sum.
    UpTo(u64, i64),
}

/// An extent whose bytes are not known yet.
struct Bounds {
    from: u64,
    to: u64,
}

impl Bounds {
    fn of(tail: Tail, from: u64, to: u64) -> Option<Self> {
        let (from, to) = (from.max(tail.floor), to.min(tail.next));
        (from < to).then_some(Self { from, to })
    }

    fn known(&self, state: &mut State, shard: ShardKey) -> Option<Extent> {
        let from = state.sums.place(shard, self.from, true)?;
        let to = state.sums.place(shard, self.to, false)?;
        Some(Extent {
            records: self.to - self.from,
            bytes: u64::try_from(to.before - from.before).unwrap_or(0),
            oldest: from.arrival,
        })
    }
}

impl Shared {
    /// The extent, if nothing has to be looked up for it.
    pub(super) fn extent_known(
        &self,
        shard: ShardKey,
        from: u64,
        to: u64,
    ) -> Result<Option<Extent>, ReadError> {
        let mut state = self.state();
        let tail = state.visible.tail(shard)?;
        Ok(match Bounds::of(tail, from, to) {
            None => Some(Extent::default()),
            Some(bounds) => bounds.known(&mut state, shard),
        })
    }

    /// The extent from the index. Waits for the disk.
    pub(super) fn extent_cold(
        &self,
        shard: ShardKey,
        from: u64,
        to: u64,
    ) -> Result<Extent, ReadError> {
        for _ in 0..ATTEMPTS {
            let tail = self.state().visible.tail(shard)?;
            let Some(bounds) = Bounds::of(tail, from, to) else {
                return Ok(Extent::default());
            };
            self.sum_up(shard, &tail, bounds.from, true)?;
            self.sum_up(shard, &tail, bounds.to, false)?;
            let known = bounds.known(&mut self.state(), shard);
            if let Some(extent) = known {
                return Ok(extent);
            }
        }
        Err(ReadError::Io(format!(
            "{shard}: its index changed again and again while it was summed up"
        )))
    }

    /// Marks the block that holds a position, if the index can be followed to it.
    fn sum_up(
        &self,
        shard: ShardKey,
        tail: &Tail,
        at: u64,
        needs_record: bool,
    ) -> Result<(), ReadError> {
        let start = {
            let mut state = self.state();
            if state.sums.place(shard, at, needs_record).is_some() {
                return Ok(());
            }
            state.sums.start(shard, tail.floor, at)
        };
        match start {
            Start::From(first, before) => {
                let summed = self.walk(shard, first, at, tail.next)?;
                if summed.first.is_none() {
                    return Ok(());
                }
                let mut state = self.state();
                // Summed from the middle of a block, where nothing was known before: its
                // beginning is as good a place to count from.
                let first = summed.holder.map_or(summed.next, |holder| holder.first);
                let before = before + summed.bytes as i64;
                state
                    .sums
                    .note(shard, first, before, summed.holder.map(weight));
            }
            Start::UpTo(mark, sum) => {
                let summed = self.walk(shard, at, mark, tail.next)?;
                let Some(first) = summed.first.filter(|_| summed.next == mark) else {
                    return Ok(());
                };
                let before = sum - summed.bytes as i64;
                let mut state = self.state();
                state
                    .sums
                    .note(shard, first.first, before, Some(weight(first)));
            }
        }
        Ok(())
    }

    /// Sums the blocks from the one that holds `from` up to, and without, the one that holds `to`.
    fn walk(&self, shard: ShardKey, from: u64, to: u64, end: u64) -> Result<Walk, ReadError> {
        let mut walk = Walk {
            next: from,
            to,
            end,
            bytes: 0,
            first: None,
            holder: None,
        };
        let (snapshot, frozen) = self.below_active()?;
        snapshot.blocks_from(shard, from, |found| walk.push(found))?;
        if let Some(frozen) = frozen {
            walk.push_layer(shard, &frozen);
        }
        walk.push_layer(shard, &self.state().active);
        Ok(walk)
    }
}

/// Neighbouring blocks, summed up.
struct Walk {
    /// Where the next block has to begin, or what the first one has to hold.
    next: u64,
    to: u64,
    end: u64,
    bytes: u64,
    first: Option<BlockRef>,
    /// The block that holds `to`, once it is found.
    holder: Option<BlockRef>,
}

impl Walk {
    fn push_layer(&mut self, shard: ShardKey, layer: &crate::layer::Layer) {
        for found in layer.blocks_from(shard, self.next) {
            if !self.push(*found) {
                break;
            }
        }
    }

    /// Adds a block and gives whether more is wanted. A gap ends it: what lies there is on its
    /// way from one source to the next, or was trimmed.
    fn push(&mut self, found: BlockRef) -> bool {
        if self.holder.is_some() || self.next >= self.end {
            return false;
        }
        if found.end() <= self.next {
            return true;
        }
        if found.first > self.next {
            return false;
        }
        self.first.get_or_insert(found);
        if found.end() > self.to {
            self.holder = Some(found);
            return false;
        }
        self.bytes += found.blob_bytes() as u64;
        self.next = found.end();
        true
    }
}

fn weight(block: BlockRef) -> Weight {
    Weight {
        end: block.end(),
        bytes: block.blob_bytes() as u64,
        arrival: block.arrival,
    }
}
