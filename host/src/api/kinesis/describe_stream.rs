//! DescribeStream: a stream with a page of its shards.

use shardmill_core::stream::{StreamMode, StreamStatus};
use shardmill_core::{Stream, UnixMillis};

use super::shape::{LIMIT, NAME, STREAM_ARN};
use super::{Call, Error, Input, Member, Output, Target, shards};

/// Shards of one answer, however many were asked for.
const MAX_SHARDS: usize = 100;

pub(crate) const MEMBERS: &[Member] = &[
    Member::optional("Limit", &LIMIT),
    Member::optional("ExclusiveStartShardId", &NAME),
    Member::optional("StreamName", &NAME),
    Member::optional("StreamARN", &STREAM_ARN),
];

/// Describes a stream.
///
/// # Errors
/// See the operation's reference.
pub(crate) async fn run(call: &Call<'_>, input: Input) -> Result<Output, Error> {
    let target = Target::of(call, &input)?;
    let after = input.text("ExclusiveStartShardId");
    let after = after.map(|id| shards::parse_id(id, target.name, &target.scope));
    let after = after.transpose()?;
    let stream = target.stream(call)?;
    let limit = input.count("Limit").unwrap_or(MAX_SHARDS).min(MAX_SHARDS);
    let shown = listed(&stream, call.now);
    let mut rest = shown.filter(|shard| after.is_none_or(|after| shard.id > after));
    let mut out = Output::with_capacity(512);
    out.structure(|out| {
        out.member("StreamDescription").structure(|out| {
            write_stream(out, &stream, call.now);
            out.member("Shards")
                .list(rest.by_ref().take(limit), shards::write);
            out.member("HasMoreShards").boolean(rest.next().is_some());
        });
    });
    Ok(out)
}

/// The shards that descriptions show: none while the stream is made or deleted.
pub(crate) fn listed(
    stream: &Stream,
    now: UnixMillis,
) -> impl Iterator<Item = &shardmill_core::Shard> {
    let usable = stream.is_usable(now);
    shards::unexpired(stream, now).filter(move |_| usable)
}

/// The members that every description begins with.
pub(crate) fn write_identity(out: &mut Output, stream: &Stream, now: UnixMillis) {
    out.member("StreamName").plain(&stream.name);
    out.member("StreamARN").plain(stream.arn());
    out.member("StreamStatus").plain(status(stream, now));
    out.member("StreamModeDetails").structure(|out| {
        out.member("StreamMode").plain(match stream.mode {
            StreamMode::Provisioned => "PROVISIONED",
            StreamMode::OnDemand => "ON_DEMAND",
        });
    });
    out.member("StreamCreationTimestamp")
        .timestamp(stream.created);
}

/// The members that DescribeStream and DescribeStreamSummary share.
pub(crate) fn write_stream(out: &mut Output, stream: &Stream, now: UnixMillis) {
    write_identity(out, stream, now);
    out.member("RetentionPeriodHours")
        .number(u64::from(stream.retention_hours));
    out.member("EnhancedMonitoring").list([()], |out, ()| {
        out.structure(|out| out.member("ShardLevelMetrics").list([(); 0], |_, ()| {}));
    });
    out.member("EncryptionType").plain("NONE");
}

/// AWS's word for a stream's state.
pub(crate) fn status(stream: &Stream, now: UnixMillis) -> &'static str {
    match stream.status(now) {
        StreamStatus::Creating => "CREATING",
        StreamStatus::Active => "ACTIVE",
        StreamStatus::Updating => "UPDATING",
        StreamStatus::Deleting => "DELETING",
    }
}
