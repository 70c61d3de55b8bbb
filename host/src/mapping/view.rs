//! Mappings for people: what one does now, and how far its shards are.

use std::time::Duration;

use serde::Serialize;
use shardmill_core::mapping::{Circuit, Cursor, FirstOf, Lane};
use shardmill_core::{ShardId, ShardKey, Stream, UnixMillis};
use shardmill_store::{Extent, ReadError, Seek};

use super::metrics::{LastError, MappingMetrics, MetricsSnapshot};
use super::resource::{Inner, Mapping, MappingError, Mappings, cursor_prefix, shard_of};
use super::rollouts::{RollBackView, TrialView};
use super::shadow::ShadowFigures;
use crate::delivery::Figures;
use crate::functions::label;

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
    /// Records that were read and wait for their first invocation.
    pub waiting_records: u64,
    /// The circuit breaker.
    pub circuit: Circuit,
    /// What it went back from, if it did.
    pub roll_back: Option<RollBackView>,
    /// Versions on trial.
    pub trials: Vec<TrialView>,
    /// What runs beside, if anything does.
    pub shadow: Option<ShadowFigures>,
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
    /// Records from the oldest that is not done to the shard's end. With several lanes some of
    /// them may be done.
    pub records_behind: u64,
    /// Their bytes, keys and data.
    pub bytes_behind: u64,
    /// Age of the oldest record that is not done, in ms; 0 when there is none. Told whatever the
    /// mapping does: it may be paused, throttled, or filter everything out.
    pub iterator_age_ms: u64,
    /// How long that record still lives, in ms: until retention or the mapping's age limit ends
    /// it, whichever is first.
    pub expires_in_ms: Option<u64>,
    /// What the shard does.
    pub state: ShardState,
    /// Failed attempts of the part that is next, if one waits.
    pub attempts: u32,
    /// When that part is tried again.
    pub not_before: Option<UnixMillis>,
    /// What went wrong last since the host started, even if all is well by now.
    pub last_error: Option<LastError>,
    /// Counted since the host started.
    #[serde(flatten)]
    pub metrics: MetricsSnapshot,
    /// Records that were read and wait for their first invocation.
    pub waiting_records: u64,
    /// Why the shard stands still, if it does.
    pub paused: Option<String>,
    /// The versions that ran last, oldest first.
    pub versions: Vec<VersionView>,
    /// Its lanes; one unless the mapping has a parallelization factor.
    pub lanes: Vec<LaneView>,
}

/// Where a version began in a shard, for people.
#[derive(Clone, Debug, Serialize)]
pub struct VersionView {
    /// The version's number, or `$LATEST`.
    pub version: String,
    /// The first record of its first batch.
    pub first_sequence_number: String,
    /// When that began.
    pub at: UnixMillis,
}

/// What a shard does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardState {
    /// Nothing: everything is done.
    Idle,
    /// It gets on.
    Running,
    /// A batch that failed waits for its next attempt, or is at it.
    Retrying,
    /// It stands still until somebody resumes it.
    Paused,
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
        let metrics = inner.metrics_of(&mapping.id);
        let stream = inner.store.stream_by_id(mapping.stream_id);
        let place = Place {
            mapping: &mapping,
            stream: stream.as_deref(),
            metrics: &metrics,
        };
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
            shards.push(inner.shard_view(&place, shard, &cursor).await?);
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
        let parked = inner.parked_of(&mapping)?.sums();
        let figures = metrics.snapshot();
        let route = inner.functions.route(&mapping.scope, &mapping.named());
        let tried = mapping.policy.demand().is_some();
        let (roll_back, trials) = match route.ok().filter(|_| tried) {
            None => (None, Vec::new()),
            Some(route) => {
                let rollout = inner.rollout_of(&mapping)?;
                (rollout.roll_back(&route.stamp), rollout.trials())
            }
        };
        Ok(MappingView {
            state,
            roll_back,
            trials,
            shadow: inner.shadow_figures(&mapping),
            last_processing_result: metrics.last_result(),
            metrics: figures,
            waiting_records: figures.waiting(),
            delivery: inner.delivery.figures(&mapping.id),
            circuit: metrics.circuit(),
            parked_keys: parked.keys,
            parked_records: parked.records,
            parked_bytes: parked.bytes,
            shards,
            mapping,
        })
    }
}

/// What the shards of a mapping share.
struct Place<'a> {
    mapping: &'a Mapping,
    stream: Option<&'a Stream>,
    metrics: &'a MappingMetrics,
}

impl Place<'_> {
    /// How long a record still lives that has this age.
    fn expires_in(&self, age: Duration) -> Option<u64> {
        let retention = self.stream.map(Stream::retention);
        let limits = [retention, self.mapping.policy.maximum_record_age];
        let limit = limits.into_iter().flatten().min()?;
        Some(limit.saturating_sub(age).as_millis() as u64)
    }
}

impl Inner {
    async fn shard_view(
        &self,
        place: &Place<'_>,
        shard: ShardId,
        cursor: &Cursor,
    ) -> Result<ShardView, MappingError> {
        let key = ShardKey {
            stream: place.mapping.stream_id,
            shard,
        };
        let low = cursor.low().record;
        let extent = match self.store.extent(key, low, u64::MAX).await {
            Ok(extent) => extent,
            // A shard that expired has nothing left to be behind.
            Err(ReadError::NoSuchShard(_)) => Extent::default(),
            Err(error) => return Err(error.into()),
        };
        // What was trimmed and is not reported yet is not done either.
        let end = self.store.seek(key, Seek::Latest).await.unwrap_or(low);
        let behind = end.saturating_sub(low);
        let age = extent.oldest.map(|oldest| self.clock.now().since(oldest));
        let part = cursor
            .lanes
            .iter()
            .filter_map(|lane| lane.parts.first())
            .min_by_key(|p| p.span.from);
        let counts = place.metrics.shard(shard);
        let stands_still = cursor.paused.as_ref().map(|paused| paused.reason.clone());
        let stands_still = stands_still.or_else(|| self.death(place.mapping, shard));
        let metrics = counts.snapshot();
        Ok(ShardView {
            shard: shard.to_string(),
            low,
            records_behind: behind,
            bytes_behind: extent.bytes,
            iterator_age_ms: age.map_or(0, |age| age.as_millis() as u64),
            expires_in_ms: age.and_then(|age| place.expires_in(age)),
            state: match part {
                _ if stands_still.is_some() => ShardState::Paused,
                Some(part) if part.attempts > 0 => ShardState::Retrying,
                None if behind == 0 => ShardState::Idle,
                _ => ShardState::Running,
            },
            attempts: part.map_or(0, |p| p.attempts),
            not_before: part.map(|p| p.not_before).filter(|at| at.0 > 0),
            last_error: counts.last_error(),
            waiting_records: metrics.waiting(),
            metrics,
            paused: stands_still,
            versions: cursor.versions.iter().map(VersionView::of).collect(),
            lanes: cursor.lanes.iter().map(LaneView::of).collect(),
        })
    }
}

impl VersionView {
    fn of(first: &FirstOf) -> Self {
        Self {
            version: label(first.version),
            first_sequence_number: first.sequence_number.clone(),
            at: first.at,
        }
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
