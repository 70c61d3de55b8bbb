//! Streams with what Kinesis does not tell: how many records each shard holds.

use serde::Serialize;
use shardmill_core::stream::{StreamMode, StreamStatus};
use shardmill_core::{Shard, ShardKey, Stream, UnixMillis};
use shardmill_store::Seek;

use super::error::Error;
use super::request::Call;
use super::{Answer, ok};
use crate::api::kinesis::gone_from;

#[derive(Serialize)]
struct StreamView {
    name: String,
    arn: String,
    status: StreamStatus,
    mode: StreamMode,
    created: UnixMillis,
    retention_hours: u32,
    open_shards: usize,
    /// Records that are kept.
    records: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    shards: Option<Vec<ShardView>>,
}

#[derive(Serialize)]
struct ShardView {
    shard: String,
    state: &'static str,
    /// Records that are kept.
    records: u64,
    /// The shards that it came from.
    parents: Vec<String>,
    starting_hash_key: String,
    ending_hash_key: String,
}

/// All streams, without their shards.
pub(super) async fn list(call: &Call<'_>) -> Result<Answer, Error> {
    let mut streams = Vec::new();
    let all = call.host.store.streams(Some(&call.scope));
    for stream in all.iter().filter(|stream| is_there(call, stream)) {
        streams.push(StreamView {
            shards: None,
            ..view(call, stream).await?
        });
    }
    ok(&serde_json::json!({ "streams": streams }))
}

/// One stream with its shards.
pub(super) async fn get(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let parsed = name
        .parse()
        .map_err(|e: shardmill_core::stream::BadStreamName| Error::bad_request(e))?;
    let stream = call.host.store.stream(&call.scope, &parsed);
    let stream = stream.filter(|stream| is_there(call, stream));
    let missing = || Error::not_found(format!("stream {name:?} does not exist"));
    let stream = stream.ok_or_else(missing)?;
    ok(&view(call, &stream).await?)
}

/// Whether it is more than what the janitor has not cleared away yet.
fn is_there(call: &Call<'_>, stream: &Stream) -> bool {
    let takes = call.host.settings.stream_creation_time;
    gone_from(stream, takes).is_none_or(|at| at > call.host.clock.now())
}

async fn view(call: &Call<'_>, stream: &Stream) -> Result<StreamView, Error> {
    let mut shards = Vec::new();
    for shard in &stream.shards {
        let records = records(
            call,
            ShardKey {
                stream: stream.id,
                shard: shard.id,
            },
        )
        .await?;
        shards.push(shard_view(shard, records));
    }
    Ok(StreamView {
        name: stream.name.to_string(),
        arn: stream.arn(),
        status: stream.status(call.host.clock.now()),
        mode: stream.mode,
        created: stream.created,
        retention_hours: stream.retention_hours,
        open_shards: stream.open_shards().count(),
        records: shards.iter().map(|s| s.records).sum(),
        shards: Some(shards),
    })
}

async fn records(call: &Call<'_>, shard: ShardKey) -> Result<u64, Error> {
    let store = &call.host.store;
    let oldest = store.seek(shard, Seek::TrimHorizon).await?;
    let end = store.seek(shard, Seek::Latest).await?;
    Ok(end.saturating_sub(oldest))
}

fn shard_view(shard: &Shard, records: u64) -> ShardView {
    ShardView {
        shard: shard.id.to_string(),
        state: if shard.is_open() { "open" } else { "closed" },
        records,
        parents: shard.parents.iter().map(ToString::to_string).collect(),
        starting_hash_key: shard.range.start.to_string(),
        ending_hash_key: shard.range.end.to_string(),
    }
}
