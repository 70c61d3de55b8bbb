//! Reads a shard for a poller: blocks in order, aggregates taken apart where the mapping asks for
//! it, and the records of a part once more.

use std::sync::Arc;

use shardmill_core::abi::INDEX_ENTRY_BYTES;
use shardmill_core::aggregate::take_apart;
use shardmill_core::mapping::{Part, Position, Sorted, Span, lane_of};
use shardmill_core::{Batch, Block, RecordRef, ShardKey};
use shardmill_store::{ReadError, ReadLimit, Seek, Store};

/// Bytes that one read of the store brings at the most, so that a large batch comes in steps.
const READ_BYTES: usize = 4 << 20;

/// Bytes of a part's records to be parked, above which the part is cut.
const MAX_PARKED_BYTES: usize = 8 << 20;

/// A shard as a source of records.
pub(super) struct Source {
    pub(super) store: Arc<dyn Store>,
    pub(super) shard: ShardKey,
    /// Whether KPL aggregates are taken apart.
    pub(super) deaggregate: bool,
}

/// The records of a part that are still there.
#[derive(Default)]
pub(super) struct PartRead {
    /// Its records.
    pub(super) batch: Batch,
    /// Records of it whose keys are parked.
    pub(super) parked: Batch,
    /// What was trimmed at its head.
    pub(super) lost: Option<Span>,
    /// Where its records are more than one batch takes now, though they were not when it was cut:
    /// the first that does not fit.
    pub(super) more: Option<Position>,
}

/// What a batch takes.
pub(super) struct Limit<'a> {
    /// Records.
    pub(super) records: usize,
    /// Bytes, counted by `size`.
    pub(super) bytes: usize,
    /// Bytes of a record.
    pub(super) size: &'a (dyn Fn(&RecordRef<'_>) -> usize + Sync),
}

impl Source {
    /// Reads blocks that hold `from` or follow it, at most `records` from there on.
    pub(super) async fn read(
        &self,
        from: Position,
        records: usize,
    ) -> Result<Vec<Block>, ReadError> {
        let limit = ReadLimit {
            records,
            bytes: READ_BYTES,
        };
        let blocks = self.store.read(self.shard, from.record, limit).await?;
        if !self.deaggregate {
            return Ok(blocks);
        }
        // An aggregate of 50 KB may hold thousands of records: as many are taken apart as are
        // wanted.
        let mut room = Room {
            from,
            records,
            bytes: READ_BYTES,
        };
        let mut taken = Vec::new();
        for block in &blocks {
            if !apart(block, &mut room, &mut taken) {
                break;
            }
        }
        Ok(taken)
    }

    /// The oldest record there is, or the end.
    pub(super) async fn floor(&self) -> Result<Position, ReadError> {
        let floor = self.store.seek(self.shard, Seek::TrimHorizon).await?;
        Ok(Position::of(floor))
    }

    /// Whether the shard takes no records any more.
    pub(super) fn is_closed(&self) -> bool {
        let stream = self.store.stream_by_id(self.shard.stream);
        let shard = stream.as_ref().and_then(|s| s.shard(self.shard.shard));
        shard.is_none_or(|s| s.closed_seconds.is_some())
    }

    /// Reads a part of lane `lane` of `lanes`.
    pub(super) async fn read_part(
        &self,
        part: &Part,
        (lane, lanes): (usize, usize),
        limit: Limit<'_>,
        sort: &mut impl FnMut(&RecordRef<'_>) -> Sorted,
    ) -> Result<PartRead, ReadError> {
        let Span { from, to } = part.span;
        let mut read = PartRead::default();
        let (mut count, mut bytes) = (0, 0);
        let (mut parked_count, mut parked_bytes) = (0, 0);
        let mut at = from;
        while at < to {
            let records = (to.record - at.record) as usize + 1;
            let blocks = self.read(at, records).await?;
            let Some(first) = blocks.first().map(|b| b.position(0)) else {
                break;
            };
            if at == from && first.record > from.record {
                let to = to.min(first);
                read.lost = Some(Span { from, to });
            }
            for block in blocks {
                for (index, record) in (0..).zip(block.iter()) {
                    let here = record.beginning();
                    let mine = (at..to).contains(&here)
                        && lane_of(record.parts.key, lanes) == lane
                        && part.without.binary_search(&here).is_err();
                    if !mine {
                        continue;
                    }
                    match sort(&record) {
                        Sorted::Deliver => {
                            let more = (limit.size)(&record);
                            if count == limit.records || (count > 0 && bytes + more > limit.bytes) {
                                read.more = Some(here);
                                return Ok(read);
                            }
                            (count, bytes) = (count + 1, bytes + more);
                            read.batch.push_record(&block, index);
                        }
                        Sorted::Park => {
                            if parked_count == limit.records || parked_bytes > MAX_PARKED_BYTES {
                                read.more = Some(here);
                                return Ok(read);
                            }
                            parked_count += 1;
                            parked_bytes += record.payload_bytes();
                            read.parked.push_record(&block, index);
                        }
                        Sorted::Drop | Sorted::NotJson => {}
                    }
                }
                at = at.max(block.position(block.count()));
            }
        }
        if at == from && read.lost.is_none() {
            // Nothing of it is left.
            read.lost = Some(part.span);
        }
        Ok(read)
    }
}

/// What a read may still bring of aggregates taken apart.
struct Room {
    /// Records before it do not count.
    from: Position,
    records: usize,
    bytes: usize,
}

/// Adds a block with its aggregates taken apart. Says whether there is room for more: the records
/// behind the aggregate that used it up are left out, too.
fn apart(block: &Block, room: &mut Room, blocks: &mut Vec<Block>) -> bool {
    let skip = block.index_at(Position::of(room.from.record));
    let mut plain_from = skip;
    for (index, record) in (skip..).zip(block.iter_from(skip)) {
        let Some(inner) = take_apart(&record) else {
            room.records = room.records.saturating_sub(1);
            continue;
        };
        if plain_from < index {
            blocks.push(block.cut(plain_from, index));
        }
        let wanted = inner.count() - inner.index_at(room.from);
        room.records = room.records.saturating_sub(wanted as usize);
        let bytes = inner.blob_bytes() + inner.count() as usize * INDEX_ENTRY_BYTES;
        room.bytes = room.bytes.saturating_sub(bytes);
        blocks.push(inner);
        plain_from = index + 1;
        if room.records == 0 || room.bytes == 0 {
            return false;
        }
    }
    if plain_from < block.count() {
        blocks.push(block.cut(plain_from, block.count()));
    }
    true
}
