//! Ends deletions and drops records that are past their stream's retention.
//!
//! Neither is needed for correct answers: reads decide by time whether a stream or a record is
//! still there. The janitor frees the space.

use std::sync::Arc;
use std::time::Duration;

use shardmill_core::{ShardKey, Stream};
use shardmill_store::{CommitError, ReadError, Seek, Store, StreamChange, Trim, Tx, Urgency};

use crate::api::kinesis::gone_from;
use crate::services::Services;

/// Time between two rounds.
const ROUND: Duration = Duration::from_secs(5);

/// Why a round was cut short; the next one tries again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Works in rounds, for ever. Stop it by dropping; cancel-safe between and within rounds.
pub async fn run(host: Arc<Services>) {
    loop {
        tokio::time::sleep(ROUND).await;
        if let Err(error) = round(&host).await {
            tracing::warn!(%error, "cannot tidy up; trying again in {ROUND:?}");
        }
    }
}

async fn round(host: &Services) -> Result<(), Error> {
    remove_deleted(host).await?;
    for stream in host.store.streams(None) {
        trim(host, &stream).await?;
    }
    Ok(())
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
            Err(error) => return Err(error.into()),
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
