//! Reads a shard for a poller: blocks in order, aggregates taken apart where the mapping asks for
//! it, and the records of a part once more.

use std::sync::Arc;

use shardmill_core::aggregate::take_apart;
use shardmill_core::mapping::{Part, Position, Sorted, Span, lane_of};
use shardmill_core::{Batch, Block, RecordRef, ShardKey, Slice};
use shardmill_store::{ReadError, ReadLimit, Seek, Store};

/// Bytes that one read of the store brings at the most, so that a large batch comes in steps.
const READ_BYTES: usize = 4 << 20;

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
        Ok(blocks.iter().flat_map(apart).collect())
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
        sort: &mut impl FnMut(&RecordRef<'_>) -> Sorted,
    ) -> Result<PartRead, ReadError> {
        let Span { from, to } = part.span;
        let mut read = PartRead::default();
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
                    let slice = Slice {
                        block: block.clone(),
                        from: index,
                        to: index + 1,
                    };
                    match sort(&record) {
                        Sorted::Deliver => read.batch.push(slice),
                        Sorted::Park => read.parked.push(slice),
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

/// A block with its aggregates taken apart.
fn apart(block: &Block) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut plain_from = 0;
    for (index, record) in (0..).zip(block.iter()) {
        if let Some(inner) = take_apart(&record) {
            if plain_from < index {
                blocks.push(block.cut(plain_from, index));
            }
            blocks.push(inner);
            plain_from = index + 1;
        }
    }
    if plain_from == 0 {
        return vec![block.clone()];
    }
    if plain_from < block.count() {
        blocks.push(block.cut(plain_from, block.count()));
    }
    blocks
}
