//! Reading blocks, times and blobs. Blocks near the head come from memory; the others are found
//! through the index and read from the journal. A segment may be released while it is read: then
//! whatever was in it is dead, and the index is asked again.

use std::sync::Arc;

use bytes::Bytes;
use shardmill_core::block::Placement;
use shardmill_core::{Block, ShardKey, UnixMillis};

use super::shared::Shared;
use crate::catalog::Tail;
use crate::journal::JournalReadError;
use crate::layer::{BlockRef, Layer, StoredValue};
use crate::select::Cut;
use crate::tables::Snapshot;
use crate::{Key, ReadError, ReadLimit, Seek};

/// What is known about a place without looking at the disk.
#[derive(Debug)]
pub(super) enum Sought {
    /// It is here.
    Found(u64),
    /// The index has to be searched.
    ByTime(UnixMillis),
}

/// How often a read begins again because what it found was released.
const ATTEMPTS: usize = 8;

impl Shared {
    /// The blocks of a read, if they are all in memory.
    pub(super) fn read_cached(
        &self,
        shard: ShardKey,
        from: u64,
        limit: ReadLimit,
    ) -> Result<Option<Vec<Block>>, ReadError> {
        let state = self.state();
        let tail = state.visible.tail(shard)?;
        let from = from.max(tail.floor);
        if from >= tail.next {
            return Ok(Some(Vec::new()));
        }
        Ok(state.cache.read(shard, from, limit))
    }

    /// The blocks of a read from the journal. Waits for the disk.
    pub(super) fn read_cold(
        &self,
        shard: ShardKey,
        from: u64,
        limit: ReadLimit,
    ) -> Result<Vec<Block>, ReadError> {
        let mut failure = ReadError::Io(format!("{shard}: segments were released meanwhile"));
        for _ in 0..ATTEMPTS {
            let (tail, created_seconds) = self.shard(shard)?;
            let from = from.max(tail.floor);
            if from >= tail.next {
                return Ok(Vec::new());
            }
            let refs = self.block_refs(shard, from, tail.next, limit)?;
            let mut blocks = Vec::with_capacity(refs.len());
            for found in refs {
                match self.read_block(shard, created_seconds, &found) {
                    Ok(Some(block)) => blocks.push(block),
                    Ok(None) => break,
                    Err(error) => {
                        failure = error;
                        break;
                    }
                }
            }
            if !blocks.is_empty() {
                return Ok(blocks);
            }
            // The first block cannot be had: was it trimmed meanwhile?
            if self.shard(shard)?.0.floor <= from && !matches!(failure, ReadError::Io(_)) {
                return Err(failure);
            }
        }
        Err(failure)
    }

    fn shard(&self, shard: ShardKey) -> Result<(Tail, u64), ReadError> {
        let state = self.state();
        let tail = state.visible.tail(shard)?;
        let stream = state.visible.catalog().stream(shard.stream);
        let found = stream.and_then(|stream| stream.shard(shard.shard));
        let found = found.ok_or(ReadError::NoSuchShard(shard))?;
        Ok((tail, found.created_seconds))
    }

    /// The block, or `None` when its segment was released.
    fn read_block(
        &self,
        shard: ShardKey,
        created_seconds: u64,
        found: &BlockRef,
    ) -> Result<Option<Block>, ReadError> {
        let Some(body) = self.read_place(found.place, found.crc)? else {
            return Ok(None);
        };
        let placement = Placement {
            shard: shard.shard,
            created_seconds,
            first: found.first,
            arrival: found.arrival,
        };
        let index_len = (found.index_len as usize).min(body.len());
        Block::new(placement, body.slice(..index_len), body.slice(index_len..))
            .map(Some)
            .map_err(|e| ReadError::Damaged(format!("{shard} position {}: {e}", found.first)))
    }

    fn read_place(
        &self,
        place: crate::journal::Place,
        crc: u32,
    ) -> Result<Option<Bytes>, ReadError> {
        match self.journal.read(place, crc) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(JournalReadError::Released(_)) => Ok(None),
            Err(JournalReadError::Damaged(what)) => Err(ReadError::Damaged(what.to_string())),
            Err(error @ JournalReadError::Io { .. }) => Err(ReadError::Io(error.to_string())),
        }
    }

    /// Where the blocks of a read are. At least one, unless all were trimmed meanwhile.
    fn block_refs(
        &self,
        shard: ShardKey,
        from: u64,
        end: u64,
        limit: ReadLimit,
    ) -> Result<Vec<BlockRef>, ReadError> {
        let mut run = Run {
            cut: Cut::new(from, limit),
            next: from,
            end,
            full: false,
            refs: Vec::new(),
        };
        let (snapshot, frozen) = self.below_active()?;
        let damaged = snapshot.blocks_from(shard, from, |found| run.push(found));
        if let Err(error) = damaged
            && run.refs.is_empty()
        {
            return Err(error);
        }
        if let Some(frozen) = frozen {
            run.push_layer(shard, &frozen);
        }
        if run.is_open() {
            run.push_layer(shard, &self.state().active);
        }
        Ok(run.refs)
    }

    /// The tables and the layer that is on its way into them, of the same moment.
    pub(super) fn below_active(&self) -> Result<(Snapshot, Option<Arc<Layer>>), ReadError> {
        let state = self.state();
        Ok((self.tables.snapshot()?, state.frozen.clone()))
    }

    /// Answers what needs no search.
    pub(super) fn seek_fast(&self, shard: ShardKey, to: Seek) -> Result<Sought, ReadError> {
        let tail = self.state().visible.tail(shard)?;
        Ok(match to {
            Seek::TrimHorizon => Sought::Found(tail.floor),
            Seek::Latest => Sought::Found(tail.next),
            Seek::AtTime(instant) if instant > tail.arrival || tail.floor == tail.next => {
                Sought::Found(tail.next)
            }
            Seek::AtTime(instant) => Sought::ByTime(instant),
        })
    }

    /// The first position that arrived at `instant` or later. Waits for the disk.
    ///
    /// Arrival never goes back in a shard, so that positions can be halved.
    pub(super) fn seek_time(&self, shard: ShardKey, instant: UnixMillis) -> Result<u64, ReadError> {
        let one = ReadLimit {
            records: 1,
            bytes: 0,
        };
        let tail = self.shard(shard)?.0;
        let (mut low, mut high) = (tail.floor, tail.next);
        while low < high {
            let middle = low + (high - low) / 2;
            let found = self.block_refs(shard, middle, tail.next, one)?;
            match found.first() {
                Some(found) if found.arrival < instant => low = found.end(),
                Some(found) => high = found.first.max(low),
                // Trimmed meanwhile: what is left begins behind it.
                None => low = middle + 1,
            }
        }
        Ok(low.max(self.shard(shard)?.0.floor))
    }

    /// The blob of a key. Waits for the disk.
    pub(super) fn blob(&self, key: &Key) -> Result<Option<Bytes>, ReadError> {
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.stored(key)? else {
                return Ok(None);
            };
            let StoredValue::Blob(place, crc) = stored.value else {
                return Ok(None);
            };
            if let Some(blob) = self.read_place(place, crc)? {
                return Ok(Some(blob));
            }
        }
        Err(ReadError::Io(
            "the blob was overwritten again and again".into(),
        ))
    }
}

/// Neighbouring blocks, gathered from one source after the other.
struct Run {
    cut: Cut,
    next: u64,
    end: u64,
    full: bool,
    refs: Vec<BlockRef>,
}

impl Run {
    fn is_open(&self) -> bool {
        !self.full && self.next < self.end
    }

    fn push_layer(&mut self, shard: ShardKey, layer: &Layer) {
        for found in layer.blocks_from(shard, self.next) {
            if !self.push(*found) {
                break;
            }
        }
    }

    /// Adds a block and gives whether more is wanted behind it. What was not visible when the
    /// read began waits for the next one. A gap means that what lies between is on its way from
    /// one source to the next, or was trimmed: the read ends before it.
    fn push(&mut self, found: BlockRef) -> bool {
        if found.end() <= self.next {
            return true;
        }
        let fits = found.first < self.end && found.first <= self.next;
        if !fits || !self.cut.takes(found.first, found.end(), found.blob_bytes()) {
            self.full = true;
            return false;
        }
        self.next = found.end();
        self.refs.push(found);
        true
    }
}
