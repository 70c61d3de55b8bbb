//! SplitShard: a shard closes, and two take over its hash keys.
//!
//! Order of checks: those of [`reshard`](super::reshard), then the shard exists → it is open →
//! the account has room for one more → the hash key.

use shardmill_core::HashKey;
use shardmill_core::reshard::{Refusal, split};

use super::account::room_for_shards;
use super::reshard::{check_open, refused, reshard};
use super::shape::{HASH_KEY, NAME, STREAM_ARN};
use super::{Call, Error, Input, Member, Output, Target, shards};

pub(crate) const MEMBERS: &[Member] = &[
    Member::required("NewStartingHashKey", &HASH_KEY),
    Member::optional("StreamName", &NAME),
    Member::required("ShardToSplit", &NAME),
    Member::optional("StreamARN", &STREAM_ARN),
];

/// Splits a shard.
///
/// # Errors
/// See the operation's reference.
pub(crate) async fn run(call: &Call<'_>, input: Input) -> Result<Output, Error> {
    let target = Target::of(call, &input)?;
    let given = input.text("ShardToSplit").unwrap_or_default();
    let id = shards::parse_id(given, target.name, &target.scope)?;
    let given = input.text("NewStartingHashKey").unwrap_or_default();
    // What is beyond the space is at least as wrong as its last key, which no split begins at.
    let start = given.parse().map_or(HashKey(u128::MAX), HashKey);
    reshard(call, &target, |stream, now| {
        check_open(&target, stream, id, now)?;
        room_for_shards(call, &target.scope, 1)?;
        split(stream, id, start, now).map_err(|refusal| match refusal {
            Refusal::HashKey { shard, range } => Error::InvalidArgument(format!(
                "NewStartingHashKey {given} used in SplitShard() on shard {shard} in stream {} \
                 under account {} is not both greater than one plus the shard's StartingHashKey \
                 {} and less than the shard's EndingHashKey {}.",
                target.name, target.scope.tenant, range.start, range.end
            )),
            other => refused(&target, other),
        })
    })
    .await?;
    Ok(Output::default())
}
