//! Cuts a stretch of a shard into the batches that the mapping would make of it, lane by lane.

use std::sync::Arc;

use shardmill_core::event::{EMPTY_EVENT_BYTES, EventSource};
use shardmill_core::limits::MAX_EVENT_BYTES;
use shardmill_core::mapping::{
    Cursor, FilterCriteria, Intake, Lanes, Policy, Position, Ready, Sorted, Verdict, lane_of,
};
use shardmill_core::{Batch, RecordRef, ShardId, ShardKey, UnixMillis};

use super::filtered::FilterTrial;
use super::{DryRunError, Stretch, policy_of};
use crate::functions::Loaded;
use crate::mapping::resource::{Inner, Mapping};
use crate::mapping::source::Source;

/// Bytes that a packed record takes beside its key and data.
const PACKED_OVERHEAD_BYTES: usize = shardmill_core::abi::INDEX_ENTRY_BYTES;

/// The records of one shard.
pub(super) struct Cutter {
    source: Source,
    policy: Policy,
    lanes: Lanes,
    end: Position,
    /// Everything before it was looked at.
    at: Position,
    /// When it began: a batch does not go for having waited.
    now: UnixMillis,
}

impl Cutter {
    pub(super) fn new(inner: &Inner, mapping: &Mapping, stretch: &Stretch) -> Self {
        let policy = policy_of(mapping);
        let mut cursor = Cursor::starting_at(Position::of(stretch.from));
        cursor.relane(policy.parallelization_factor.max(1) as usize);
        let now = inner.clock.now();
        Self {
            source: Source {
                store: Arc::clone(&inner.store),
                shard: ShardKey {
                    stream: mapping.stream_id,
                    shard: stretch.shard,
                },
                deaggregate: policy.deaggregate,
            },
            lanes: Lanes::new(&cursor, now),
            policy,
            end: Position::of(stretch.to),
            at: Position::of(stretch.from),
            now,
        }
    }

    pub(super) fn shard(&self) -> ShardId {
        self.source.shard.shard
    }

    /// The position before which everything was looked at.
    pub(super) fn at(&self) -> u64 {
        self.at.record.min(self.end.record)
    }

    /// Whether every record was looked at and handed out.
    pub(super) fn is_at_end(&self) -> bool {
        self.lanes.has_read(self.end)
    }

    /// The next batch that is full, or the last one of a lane.
    pub(super) fn next_batch(&mut self) -> Option<Batch> {
        for lane in 0..self.lanes.count() {
            let at_end = self.lanes.next(lane) >= self.end;
            if self.lanes.ready(lane, &self.policy, at_end, self.now) == Ready::Now {
                let (_, batch) = self.lanes.take(lane);
                self.lanes.free(lane, false, self.now);
                return Some(batch);
            }
        }
        None
    }

    /// Reads once. Batches are weighed as `new` takes them, or, without it, by count alone.
    pub(super) async fn read_on(
        &mut self,
        (mapping, new): (&Mapping, Option<&Loaded>),
        criteria: &FilterCriteria,
        mut trial: Option<&mut FilterTrial>,
    ) -> Result<(), DryRunError> {
        let Some((from, room)) = self.lanes.wants(&self.policy, Some(self.end), self.end) else {
            return Ok(());
        };
        let blocks = self.source.read(from, room).await?;
        let first = match blocks.first() {
            Some(block) => block.position(0),
            None => self.source.floor().await?.max(from).min(self.end),
        };
        if blocks.is_empty() || first > from {
            // Trimmed under us: nothing was there to be tried.
            let first = if blocks.is_empty() { self.end } else { first };
            self.lanes.skip_trimmed(first.min(self.end));
        }
        let json = new.filter(|new| new.carrier().takes_json());
        let json = json.map(|_| EventSource::new(&mapping.scope, mapping.stream.as_str()));
        let budget = match (&json, new) {
            (Some(_), _) => MAX_EVENT_BYTES - EMPTY_EVENT_BYTES,
            (None, Some(new)) => new.function.settings.limits.batch_bytes,
            (None, None) => usize::MAX,
        };
        let size = |record: &RecordRef<'_>| match &json {
            Some(source) => source.record_bytes(record),
            None => record.payload_bytes() + PACKED_OVERHEAD_BYTES,
        };
        let (shard, lanes) = (self.source.shard.shard, self.lanes.count());
        let mut sort = |record: &RecordRef<'_>| {
            let verdict = match &mut trial {
                Some(trial) => trial.check((shard, lane_of(record.parts.key, lanes)), record),
                None => criteria.check(record),
            };
            match verdict {
                Verdict::Match => Sorted::Deliver,
                Verdict::NoMatch | Verdict::TooCostly => Sorted::Drop,
                Verdict::NotJson => Sorted::NotJson,
            }
        };
        let mut intake = Intake {
            policy: &self.policy,
            budget,
            size: &size,
            until: Some(self.end),
            windows_closed_to: UnixMillis(0),
            window_open_to: UnixMillis(0),
            sort: if criteria.is_empty() {
                None
            } else {
                Some(&mut sort)
            },
        };
        for block in &blocks {
            self.lanes.offer(block, from, &mut intake);
        }
        let lanes = 0..self.lanes.count();
        let next = lanes.map(|lane| self.lanes.next(lane)).min();
        self.at = next.unwrap_or(self.end).max(self.at);
        Ok(())
    }
}
