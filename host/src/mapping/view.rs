//! Mappings for people: what one does now, and how far its shards are.

use std::time::Duration;

use serde::Serialize;
use shardmill_core::mapping::{Circuit, Cursor, Lane};
use shardmill_core::{ShardId, ShardKey, UnixMillis};
use shardmill_store::{ReadLimit, Seek};

use super::metrics::MetricsSnapshot;
use super::resource::{Inner, Mapping, MappingError, Mappings, cursor_prefix, shard_of};
use crate::delivery::Figures;

/// What a mapping does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum MappingState {
    /// It was made and does not run yet.
    Creating,
    /// It was enabled and does not run yet.
    Enabling,
    /// It was changed; what was begun under the old settings finishes.
    Updating,
    /// It goes when its running batches have ended.
    Deleting,
    /// It runs.
    Enabled,
    /// It was told to stop and finishes its batches.
    Disabling,
    /// It stands still: no batch is running.
    Disabled,
    /// A shard is paused.
    Paused,
}

/// A mapping for people.
#[derive(Clone, Debug, Serialize)]
pub struct MappingView {
    /// What is stored.
    #[serde(flatten)]
    pub mapping: Mapping,
    /// What it does now.
    pub state: MappingState,
    /// `No records processed`, `OK`, or `PROBLEM: …`.
    pub last_processing_result: String,
    /// Counted since the host started.
    #[serde(flatten)]
    pub metrics: MetricsSnapshot,
    /// What became of its deliveries.
    #[serde(flatten)]
    pub delivery: Figures,
    /// The circuit breaker.
    pub circuit: Circuit,
    /// Keys that are parked.
    pub parked_keys: usize,
    /// Records of parked keys.
    pub parked_records: u64,
    /// Bytes of those.
    pub parked_bytes: u64,
    /// Its shards.
    pub shards: Vec<ShardView>,
}

/// Progress in a shard, for people.
#[derive(Clone, Debug, Serialize)]
pub struct ShardView {
    /// The shard.
    pub shard: String,
    /// Position before which everything is done.
    pub low: u64,
    /// Records that are not done.
    pub records_behind: u64,
    /// Age of the oldest record that is not done, in ms; 0 when there is none.
    pub iterator_age_ms: u64,
    /// Failed attempts of the part that is next, if one waits.
    pub attempts: u32,
    /// When that part is tried again.
    pub not_before: Option<UnixMillis>,
    /// Why the shard stands still, if it does.
    pub paused: Option<String>,
    /// Its lanes; one unless the mapping has a parallelization factor.
    pub lanes: Vec<LaneView>,
}

/// Progress of a lane, for people.
#[derive(Clone, Debug, Serialize)]
pub struct LaneView {
    /// Position before which everything of the lane is done.
    pub low: u64,
    /// Parts that wait for another attempt.
    pub waiting: usize,
    /// Failed attempts of the first of them.
    pub attempts: u32,
}

impl Mappings {
    /// A mapping with its progress.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub async fn view(&self, mapping: Mapping) -> Result<MappingView, MappingError> {
        let inner = &self.inner;
        let mut shards = Vec::new();
        for (key, stored) in inner
            .store
            .scan(&cursor_prefix(&mapping), None, usize::MAX)?
        {
            let (Some(shard), Ok(cursor)) = (
                shard_of(&key),
                serde_json::from_slice::<Cursor>(&stored.value),
            ) else {
                continue;
            };
            shards.push(inner.shard_view(&mapping, shard, &cursor).await?);
        }
        let state = match inner.applied(&mapping.id) {
            _ if mapping.deleting => MappingState::Deleting,
            Some(applied) if applied == mapping => match mapping.enabled {
                true if shards.iter().any(|s| s.paused.is_some()) => MappingState::Paused,
                true => MappingState::Enabled,
                false => MappingState::Disabled,
            },
            applied => state_between(applied.as_ref(), &mapping),
        };
        let parked = inner.parked_of(&mapping)?.list();
        let metrics = inner.metrics_of(&mapping.id);
        Ok(MappingView {
            state,
            last_processing_result: metrics.last_result(),
            metrics: metrics.snapshot(),
            delivery: inner.delivery.figures(&mapping.id),
            circuit: metrics.breaker().circuit(),
            parked_keys: parked.len(),
            parked_records: parked.iter().map(|key| key.records).sum(),
            parked_bytes: parked.iter().map(|key| key.bytes).sum(),
            shards,
            mapping,
        })
    }
}

impl Inner {
    async fn shard_view(
        &self,
        mapping: &Mapping,
        shard: ShardId,
        cursor: &Cursor,
    ) -> Result<ShardView, MappingError> {
        let key = ShardKey {
            stream: mapping.stream_id,
            shard,
        };
        let low = cursor.low().record;
        // A shard that expired has nothing left to be behind.
        let end = self.store.seek(key, Seek::Latest).await.unwrap_or(low);
        let limit = ReadLimit {
            records: 1,
            bytes: 1,
        };
        let oldest = if low < end {
            self.store.read(key, low, limit).await?
        } else {
            Vec::new()
        };
        let age = oldest
            .first()
            .map_or(Duration::ZERO, |b| self.clock.now().since(b.arrival()));
        let part = cursor
            .lanes
            .iter()
            .filter_map(|lane| lane.parts.first())
            .min_by_key(|p| p.span.from);
        Ok(ShardView {
            shard: shard.to_string(),
            low,
            records_behind: end.saturating_sub(low),
            iterator_age_ms: age.as_millis() as u64,
            attempts: part.map_or(0, |p| p.attempts),
            not_before: part.map(|p| p.not_before),
            paused: cursor.paused.clone().map(|p| p.reason),
            lanes: cursor.lanes.iter().map(LaneView::of).collect(),
        })
    }
}

impl LaneView {
    fn of(lane: &Lane) -> Self {
        Self {
            low: lane.low().record,
            waiting: lane.parts.len(),
            attempts: lane.parts.first().map_or(0, |part| part.attempts),
        }
    }
}

/// The state of a mapping whose last change has not taken effect. What it was before: `old`.
fn state_between(old: Option<&Mapping>, new: &Mapping) -> MappingState {
    match old {
        None => MappingState::Creating,
        Some(old) => match (old.enabled, new.enabled) {
            (true, false) => MappingState::Disabling,
            (false, true) => MappingState::Enabling,
            _ => MappingState::Updating,
        },
    }
}
