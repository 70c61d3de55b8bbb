//! Ends deletions, drops records, messages and failures that are past their retention, and
//! forgets closed shards that have expired.
//!
//! None of it is needed for correct answers: reads decide by time whether a stream, a shard or a
//! record is still there. The janitor frees the space.
//!
//! An expired shard is forgotten when its records are dropped, its parents are forgotten, and
//! every mapping of the stream is past it: what a mapping did not get to in time it still has to
//! report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shardmill_core::{ShardId, ShardKey, Stream, StreamId};
use shardmill_store::{CommitError, ReadError, Seek, Store, StreamChange, Trim, Tx, Urgency};

use crate::api::kinesis::gone_from;
use crate::mapping::{FailuresError, MappingError};
use crate::queues::QueueError;
use crate::services::Services;

/// Time between two rounds.
const ROUND: Duration = Duration::from_secs(5);

/// Why a part of a round was cut short; the next round tries again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("read a mapping's progress: {0}")]
    Mapping(#[from] MappingError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Failures(#[from] FailuresError),
}

/// Works in rounds, for ever. Stop it by dropping; cancel-safe between and within rounds.
pub async fn run(host: Arc<Services>) {
    loop {
        tokio::time::sleep(ROUND).await;
        round(&host).await;
    }
}

/// Tidies everything up. What cannot be tidied is reported, and no matter to the rest.
async fn round(host: &Services) {
    report("deleted streams", remove_deleted(host).await);
    for stream in host.store.streams(None) {
        let name = stream.name.as_str();
        report(name, trim(host, &stream).await);
        report(name, forget_shards(host, stream.id).await);
    }
    let measured = host.tenancy.measure(host.store.as_ref()).await;
    report("what tenants have stored", measured);
    if let Some(workloads) = &host.workloads {
        let delivery = workloads.mappings.delivery();
        report("queues", delivery.queues().tidy().await);
        report("deliveries", delivery.tidy());
        report("failures", workloads.failures.sweep().await);
        workloads.mappings.sweep_dry_runs();
    }
}

fn report<T>(what: &str, result: Result<T, impl Into<Error>>) {
    if let Err(error) = result {
        let error = error.into();
        tracing::warn!(%error, what, "cannot tidy up; trying again in {ROUND:?}");
    }
}

/// Removes streams whose deletion is over.
async fn remove_deleted(host: &Services) -> Result<(), Error> {
    // With the lock, so that no stream is changed or made under the same name meanwhile.
    let _control = host.control.lock().await;
    let (now, takes) = (host.clock.now(), host.settings.stream_creation_time);
    let gone: Vec<_> = host.store.streams(None).into_iter().collect();
    let over = |s: &&Arc<Stream>| gone_from(s, takes).is_some_and(|at| at <= now);
    let gone: Vec<_> = gone.iter().filter(over).map(|stream| stream.id).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let tx = Tx {
        streams: gone.iter().copied().map(StreamChange::Remove).collect(),
        urgency: Urgency::Housekeeping,
        ..Tx::default()
    };
    host.store.commit(tx).await?;
    for id in gone {
        host.routes.forget(id);
    }
    Ok(())
}

/// Drops a stream's records that are too old.
async fn trim(host: &Services, stream: &Stream) -> Result<(), Error> {
    let horizon = host.clock.now().minus(stream.retention());
    let mut trims = Vec::new();
    for shard in &stream.shards {
        let shard = ShardKey {
            stream: stream.id,
            shard: shard.id,
        };
        match first_to_keep(host.store.as_ref(), shard, Seek::AtTime(horizon)).await {
            Ok(Some(before)) => trims.push(Trim { shard, before }),
            // Removed meanwhile.
            Ok(None) | Err(ReadError::NoSuchShard(_)) => {}
            // No matter to its neighbours.
            Err(error) => report(&shard.to_string(), Err::<(), _>(error)),
        }
    }
    if trims.is_empty() {
        return Ok(());
    }
    let tx = Tx {
        trims,
        urgency: Urgency::Housekeeping,
        ..Tx::default()
    };
    match host.store.commit(tx).await {
        Ok(_) | Err(CommitError::NoSuchStream(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes the shards out of a stream that nobody needs any more.
async fn forget_shards(host: &Services, id: StreamId) -> Result<(), Error> {
    let Some(stream) = host.store.stream_by_id(id) else {
        return Ok(());
    };
    let now = host.clock.now();
    let expired = |shard: &&shardmill_core::Shard| stream.is_expired(shard, now);
    if stream.deleted.is_some() || !stream.shards.iter().any(|shard| expired(&shard)) {
        return Ok(());
    }
    let unread = unread(host, &stream).await?;
    let mut gone = BTreeSet::new();
    // Parents come before their children.
    for shard in stream.shards.iter().filter(expired) {
        let stays = |parent: &ShardId| stream.shard(*parent).is_some() && !gone.contains(parent);
        if unread.contains(&shard.id) || shard.parents.iter().any(stays) {
            continue;
        }
        let key = ShardKey {
            stream: id,
            shard: shard.id,
        };
        let oldest = host.store.seek(key, Seek::TrimHorizon).await?;
        if oldest == host.store.seek(key, Seek::Latest).await? {
            gone.insert(shard.id);
        }
    }
    if gone.is_empty() {
        return Ok(());
    }
    let mut changed = Stream::clone(&stream);
    changed.shards.retain(|shard| !gone.contains(&shard.id));
    let tx = Tx {
        streams: vec![StreamChange::Update(Box::new(changed))],
        urgency: Urgency::Housekeeping,
        ..Tx::default()
    };
    match host.store.commit(tx).await {
        // Whoever changed it meanwhile was not waiting for this; the next round will do.
        Ok(_) | Err(CommitError::NoSuchStream(_) | CommitError::StreamChanged(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The shards of a stream that some mapping has not read to their end.
async fn unread(host: &Services, stream: &Stream) -> Result<BTreeSet<ShardId>, Error> {
    let mut unread = BTreeSet::new();
    let Some(workloads) = &host.workloads else {
        return Ok(unread);
    };
    for mapping in workloads.mappings.list(&stream.scope)? {
        if mapping.stream_id != stream.id {
            continue;
        }
        let view = workloads.mappings.view(mapping).await?;
        let behind: BTreeMap<_, _> = view
            .shards
            .iter()
            .map(|shard| (shard.shard.as_str(), shard.records_behind))
            .collect();
        let ids = stream.shards.iter().map(|shard| shard.id);
        // A shard without progress was not begun.
        unread.extend(ids.filter(|id| behind.get(id.to_string().as_str()) != Some(&0)));
    }
    Ok(unread)
}

/// The position to trim a shard before, if there is anything to trim.
async fn first_to_keep(
    store: &dyn Store,
    shard: ShardKey,
    horizon: Seek,
) -> Result<Option<u64>, ReadError> {
    let oldest = store.seek(shard, Seek::TrimHorizon).await?;
    let keep = store.seek(shard, horizon).await?;
    Ok((keep > oldest).then_some(keep))
}

#[cfg(test)]
mod tests;
