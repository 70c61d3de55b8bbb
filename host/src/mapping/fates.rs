//! What has become of single records: read from the failure store, the parked keys and the
//! cursors, in this order.

use std::collections::BTreeMap;

use serde::Serialize;
use shardmill_core::mapping::{Cursor, Position, Reason, Sorted, Span, lane_of};
use shardmill_core::{Batch, Scope, ShardId, ShardKey};
use shardmill_store::{ReadError, ReadLimit};

use super::failures::{FailureFilter, Failures, FailuresError};
use super::filters::Filters;
use super::resource::{Mapping, MappingError, Mappings, cursor_prefix, shard_of};

/// What has become of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Fate {
    /// It is still to be delivered, or to be tried again.
    Waiting,
    /// A handler was given it with success.
    Done,
    /// The filter criteria left it out.
    Filtered,
    /// It lies with its parked key.
    Parked,
    /// It was given up.
    GivenUp {
        /// Why.
        reason: Reason,
        /// How the last attempt failed; empty when no handler ran.
        cause: String,
    },
}

/// A record as the fates know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placed {
    /// Its shard.
    pub shard: ShardId,
    /// Its position there.
    pub position: u64,
    /// Its partition key.
    pub key: String,
}

/// Why the fates are not known.
#[derive(Debug, thiserror::Error)]
pub enum FatesError {
    /// The mapping.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// The failure store.
    #[error(transparent)]
    Failures(#[from] FailuresError),
    /// The store could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Given up, by shard and position.
type GivenUp = BTreeMap<(ShardId, u64), (Reason, String)>;

impl Mappings {
    /// What a mapping has made of records of its stream. An aggregate that is taken apart waits
    /// as long as one of its records does, and is given up when one of them is. A record that
    /// was filtered out and is trimmed since is taken for done.
    ///
    /// # Errors
    /// See [`FatesError`].
    pub async fn fates(
        &self,
        scope: &Scope,
        name: &str,
        failures: &Failures,
        records: &[Placed],
    ) -> Result<Vec<Fate>, FatesError> {
        let mapping = self.get(scope, name)?;
        let (given_up, expired) = given_up(&mapping, failures).await?;
        let parked = self.side_log(&mapping).await?;
        let mut cursors = BTreeMap::new();
        let stored = self
            .inner
            .store
            .scan(&cursor_prefix(&mapping), None, usize::MAX)?;
        for (key, stored) in stored {
            let cursor = serde_json::from_slice::<Cursor>(&stored.value);
            if let (Some(shard), Ok(cursor)) = (shard_of(&key), cursor) {
                cursors.insert(shard, cursor);
            }
        }
        let filters = self.inner.filters.of(&mapping);
        let filters = filters.map_err(ReadError::Damaged)?;
        let mut fates = Vec::with_capacity(records.len());
        for record in records {
            let at = (record.shard, record.position);
            let inside = |(shard, Span { from, to }): &&(String, Span)| {
                let covers = (from.record..to.record).contains(&record.position);
                covers && *shard == record.shard.to_string()
            };
            fates.push(if let Some((reason, cause)) = given_up.get(&at).cloned() {
                Fate::GivenUp { reason, cause }
            } else if expired.iter().find(inside).is_some() {
                let (reason, cause) = (Reason::Expired, String::new());
                Fate::GivenUp { reason, cause }
            } else if let Some(releasing) = parked.get(&at) {
                if *releasing {
                    Fate::Waiting
                } else {
                    Fate::Parked
                }
            } else if cursors
                .get(&record.shard)
                .is_none_or(|c| waits(&mapping, c, record))
            {
                Fate::Waiting
            } else if !filters.is_empty() && self.is_filtered(&mapping, &filters, at).await? {
                Fate::Filtered
            } else {
                Fate::Done
            });
        }
        Ok(fates)
    }

    /// The records of parked keys, and whether their key is being let go on.
    async fn side_log(
        &self,
        mapping: &Mapping,
    ) -> Result<BTreeMap<(ShardId, u64), bool>, ReadError> {
        let parked = self.inner.parked_of(mapping)?;
        let mut found = BTreeMap::new();
        for key in parked.list() {
            for run in key.first_run..key.next_run {
                let stored = self
                    .inner
                    .store
                    .blob(&parked.run_key(&key.key, run))
                    .await?;
                let batch = stored.map(Batch::from_stored).transpose();
                let damaged =
                    |_| ReadError::Damaged(format!("records of parked key {:?}", key.key));
                for record in batch.map_err(damaged)?.iter().flat_map(Batch::iter) {
                    found.insert((record.shard(), record.position), key.release.releasing);
                }
            }
        }
        Ok(found)
    }

    /// Whether the filter criteria leave a record out.
    async fn is_filtered(
        &self,
        mapping: &Mapping,
        filters: &Filters,
        (shard, position): (ShardId, u64),
    ) -> Result<bool, ReadError> {
        let stream = mapping.stream_id;
        let limit = ReadLimit {
            records: 1,
            bytes: 1,
        };
        let key = ShardKey { stream, shard };
        let blocks = self.inner.store.read(key, position, limit).await?;
        let mut records = blocks.iter().flat_map(shardmill_core::Block::iter);
        let record = records.find(|record| record.position == position);
        let left_out = |sorted| matches!(sorted, Sorted::Drop | Sorted::NotJson);
        Ok(record.is_some_and(|record| left_out(filters.sort(&record))))
    }
}

/// Whether a record is ahead of its lane, or in a part of it.
fn waits(mapping: &Mapping, cursor: &Cursor, record: &Placed) -> bool {
    let (from, to) = (
        Position::of(record.position),
        Position::of(record.position + 1),
    );
    let own = lane_of(&record.key, cursor.lanes.len());
    let mut lanes = cursor.lanes.iter().enumerate();
    lanes.any(|(lane, state)| {
        let concerned = lane == own || mapping.policy.deaggregate;
        let ahead = state.mark < to;
        let in_part = state.parts.iter().any(|part| {
            part.span.from < to && from < part.span.to && !part.without.contains(&from)
        });
        concerned && (ahead || in_part)
    })
}

/// What is in the failure store and nowhere else: by record, and as spans where the data is gone.
async fn given_up(
    mapping: &Mapping,
    failures: &Failures,
) -> Result<(GivenUp, Vec<(String, Span)>), FailuresError> {
    let filter = FailureFilter {
        mapping: Some(mapping.id.clone()),
        ..FailureFilter::default()
    };
    let (mut records, mut spans) = (GivenUp::new(), Vec::new());
    let entries = failures.all(&mapping.scope, &filter)?;
    for entry in entries.into_iter().filter(|entry| !entry.parked) {
        let batch = failures.payload(&mapping.scope, &entry.id).await?;
        let cause = entry
            .cause
            .map(|cause| cause.to_string())
            .unwrap_or_default();
        for record in batch.iter() {
            let at = (record.shard(), record.position);
            records.insert(at, (entry.reason, cause.clone()));
        }
        if let Some(span) = entry.span.filter(|_| entry.reason == Reason::Expired) {
            spans.push((entry.shard, span));
        }
    }
    Ok((records, spans))
}
