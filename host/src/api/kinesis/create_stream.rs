//! CreateStream: a stream that is CREATING for a moment, then ACTIVE.
//!
//! Order of checks: mode and shard count → the name → the account's limits. AWS's texts for a
//! mode that does not fit the shard count are not known; these are ours.

use shardmill_core::stream::StreamMode;
use shardmill_core::{Stream, StreamId};
use shardmill_store::{CommitError, StreamChange, Tx};

use super::account::{room_for_on_demand, room_for_shards};
use super::shape::NAME;
use super::target::is_gone;
use super::{Call, Error, Input, Member, Output, Shape, Target, tags};

/// Shards of a new on-demand stream.
const ON_DEMAND_SHARDS: u32 = 4;

pub(crate) const MEMBERS: &[Member] = &[
    Member::optional("ShardCount", &Shape::Integer((1, i64::MAX))),
    Member::required("StreamName", &NAME),
    Member::optional(
        "StreamModeDetails",
        &Shape::Structure(&[Member::required(
            "StreamMode",
            &Shape::Choice(&["PROVISIONED", "ON_DEMAND"]),
        )]),
    ),
    Member::optional("Tags", &tags::TAGS),
    Member::optional("WarmThroughputMiBps", &Shape::Integer((0, i64::MAX))),
    Member::optional("MaxRecordSizeInKiB", &Shape::Integer((1024, 10_240))),
    Member::optional(
        "RecordDistributionStrategy",
        &Shape::Choice(&["AUTO", "USER_PARTITION_KEY"]),
    ),
];

/// Makes a stream.
///
/// # Errors
/// See the operation's reference.
pub(crate) async fn run(call: &Call<'_>, input: Input) -> Result<Output, Error> {
    let host = call.host;
    let (mode, shards) = mode_and_shards(&input)?;
    unsupported(&input)?;
    let target = Target::of(call, &input)?;
    let scope = &target.scope;
    let tags = tags::checked(input.map("Tags"), target.name, scope.tenant)?;
    let exists = || {
        let account = scope.tenant;
        Error::InUse(format!(
            "Stream {} under account {account} already exists.",
            target.name
        ))
    };
    // The shape has checked the name already.
    let name = target.name.parse();
    let name = name.map_err(|_| target.not_found())?;

    let _control = host.control.lock().await;
    let old = host.store.stream(scope, &name);
    if old.as_ref().is_some_and(|old| !is_gone(old, call)) {
        return Err(exists());
    }
    room_for_shards(call, scope, shards)?;
    if mode == StreamMode::OnDemand {
        room_for_on_demand(call, scope)?;
    }
    let stream = Stream {
        id: StreamId(0),
        scope: scope.clone(),
        name,
        created: call.now,
        active_from: call.now.plus(host.settings.stream_creation_time),
        deleted: None,
        mode,
        retention_hours: Stream::DEFAULT_RETENTION_HOURS,
        max_record_size_kib: input
            .count("MaxRecordSizeInKiB")
            .and_then(|size| size.try_into().ok())
            .unwrap_or(Stream::DEFAULT_MAX_RECORD_SIZE_KIB),
        tags,
        revision: 0,
        updating_until: None,
        count_updates: Vec::new(),
        shards: Stream::initial_shards(shards, call.now),
    };
    // What is left of a namesake whose deletion is over goes in the same transaction.
    let mut streams = Vec::new();
    if let Some(old) = &old {
        streams.push(StreamChange::Remove(old.id));
        host.routes.forget(old.id);
    }
    streams.push(StreamChange::Create(Box::new(stream)));
    let tx = Tx {
        streams,
        ..Tx::default()
    };
    match host.store.commit(tx).await {
        Ok(_) => Ok(Output::default()),
        Err(CommitError::StreamExists(_)) => Err(exists()),
        Err(error) => Err(error.into()),
    }
}

fn mode_and_shards(input: &Input) -> Result<(StreamMode, u32), Error> {
    let mode = input.structure("StreamModeDetails");
    let mode = mode.and_then(|details| details.text("StreamMode"));
    let count = input.count("ShardCount").and_then(|n| n.try_into().ok());
    match (mode, count) {
        (Some("ON_DEMAND"), Some(_)) => Err(Error::InvalidArgument(
            "ShardCount must not be given for a stream in On-Demand mode.".into(),
        )),
        (Some("PROVISIONED"), None) => Err(Error::InvalidArgument(
            "ShardCount is required for a stream in Provisioned mode.".into(),
        )),
        (_, Some(count)) => Ok((StreamMode::Provisioned, count)),
        (_, None) => Ok((StreamMode::OnDemand, ON_DEMAND_SHARDS)),
    }
}

/// What this host cannot do is refused by name, not ignored.
fn unsupported(input: &Input) -> Result<(), Error> {
    let refused = |what: &str| {
        Err(Error::InvalidArgument(format!(
            "{what} is not supported: see docs/parity.md"
        )))
    };
    if input.integer("WarmThroughputMiBps").is_some_and(|n| n > 0) {
        return refused("WarmThroughputMiBps");
    }
    if input.text("RecordDistributionStrategy") == Some("AUTO") {
        return refused("RecordDistributionStrategy AUTO");
    }
    Ok(())
}
