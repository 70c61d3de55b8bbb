//! What SplitShard, MergeShards and UpdateShardCount share.
//!
//! Order of checks: the ids' form → the stream exists → it is ACTIVE → it is provisioned → what
//! the operation asks of shards. The rules for shards are `core::reshard`'s; here are AWS's
//! words for them. The new shards take records when the answer is given; the stream is UPDATING
//! for a moment after that, as long as a new one is CREATING.

use shardmill_core::limits::{COUNT_UPDATES_SPAN, MAX_COUNT_UPDATES, MAX_SHARDS_BY_COUNT};
use shardmill_core::reshard::{Refusal, open_shard};
use shardmill_core::stream::{StreamMode, StreamStatus};
use shardmill_core::{ShardId, Stream, UnixMillis};
use shardmill_store::Urgency;

use super::change::change;
use super::{Call, Error, Target, shards};

/// Gives a stream the shards that `decide` says, given the time. Nothing is stored, and the
/// stream stays ACTIVE, when it has them already.
///
/// # Errors
/// The stream's state or mode forbids it, those of `decide`, and failures of the store.
pub(crate) async fn reshard(
    call: &Call<'_>,
    target: &Target<'_>,
    mut decide: impl FnMut(&Stream, UnixMillis) -> Result<Stream, Error> + Send,
) -> Result<(), Error> {
    let takes = call.host.settings.stream_creation_time;
    change(call, target, Urgency::Growth, |stream, now| {
        if stream.status(now) != StreamStatus::Active {
            return Err(target.not_active(stream, now));
        }
        if stream.mode == StreamMode::OnDemand {
            return Err(Error::Validation(format!(
                "Request is invalid. Stream {} under account {} is in On-Demand mode.",
                target.name, target.scope.tenant
            )));
        }
        let mut changed = decide(stream, now)?;
        if changed == *stream {
            return Ok(None);
        }
        changed.updating_until = Some(now.plus(takes));
        Ok(Some(changed))
    })
    .await
}

/// Checks that an open shard has this id. One that has expired is not there.
///
/// # Errors
/// `ResourceNotFoundException`; `InvalidArgumentException` when it is closed.
pub(crate) fn check_open(
    target: &Target<'_>,
    stream: &Stream,
    id: ShardId,
    now: UnixMillis,
) -> Result<(), Error> {
    if shards::find(stream, id, now).is_none() {
        return Err(refused(target, Refusal::NoShard(id)));
    }
    match open_shard(stream, id) {
        Ok(_) => Ok(()),
        Err(refusal) => Err(refused(target, refusal)),
    }
}

/// AWS's words for a refusal. For `HashKey` see the operation, which knows what was asked for.
pub(crate) fn refused(target: &Target<'_>, refusal: Refusal) -> Error {
    let (name, account) = (target.name, target.scope.tenant);
    match refusal {
        Refusal::NoShard(id) => Error::no_shard_id(&id.to_string(), name, &target.scope),
        // AWS's text is not known; this is what is told of it.
        Refusal::Closed(id) => Error::InvalidArgument(format!(
            "Shard {id} in stream {name} under account {account} has already been merged or \
             split, and thus is not eligible for merging or splitting."
        )),
        Refusal::NotAdjacent(parent, adjacent) => Error::InvalidArgument(format!(
            "Shards {parent} and {adjacent} in stream {name} under account {account} are not an \
             adjacent pair of shards eligible for merging"
        )),
        Refusal::OverDouble { open, target } => Error::LimitExceeded(format!(
            "UpdateShardCount cannot scale up over double your current open shard count. Current \
             open shard count: {open} Target shard count: {target}"
        )),
        Refusal::BelowHalf { open, target } => Error::LimitExceeded(format!(
            "UpdateShardCount cannot scale down below half your current open shard count. \
             Current open shard count: {open} Target shard count: {target}"
        )),
        Refusal::TooMany { open, target } => Error::LimitExceeded(format!(
            "Target shard count or number of open shards cannot be greater than \
             {MAX_SHARDS_BY_COUNT}. Current open shard count: {open}, Target shard count: {target}"
        )),
        // AWS's text is not known.
        Refusal::TooOften(next) => Error::LimitExceeded(format!(
            "UpdateShardCount can change stream {name} under account {account} \
             {MAX_COUNT_UPDATES} times in {} hours. The next change is possible at {} seconds \
             since 1970.",
            COUNT_UPDATES_SPAN.as_secs() / 3600,
            next.seconds() + 1
        )),
        Refusal::HashKey { .. } => Error::InvalidArgument(refusal.to_string()),
        Refusal::NoMoreIds => Error::LimitExceeded(refusal.to_string()),
    }
}
