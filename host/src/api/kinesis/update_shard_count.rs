//! UpdateShardCount: as many open shards as asked for, with even ranges.
//!
//! Order of checks: those of [`reshard`](super::reshard), then the most that a stream may have →
//! double → half → how often today → the account has room. The count that a stream has already
//! is accepted and changes nothing: whether AWS does so is not known.

use shardmill_core::reshard::{open_count, update_count};

use super::account::room_for_shards;
use super::reshard::{refused, reshard};
use super::shape::{NAME, STREAM_ARN};
use super::{Call, Error, Input, Member, Output, Shape, Target};

pub(crate) const MEMBERS: &[Member] = &[
    Member::optional("StreamName", &NAME),
    Member::required("TargetShardCount", &Shape::Integer((1, i64::MAX))),
    Member::required("ScalingType", &Shape::Choice(&["UNIFORM_SCALING"])),
    Member::optional("StreamARN", &STREAM_ARN),
];

/// Gives a stream another number of shards.
///
/// # Errors
/// See the operation's reference.
pub(crate) async fn run(call: &Call<'_>, input: Input) -> Result<Output, Error> {
    let target = Target::of(call, &input)?;
    let count = input.count("TargetShardCount").unwrap_or_default();
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let (mut current, mut arn) = (0, String::new());
    reshard(call, &target, |stream, now| {
        (current, arn) = (open_count(stream), stream.arn());
        let refused = |refusal| refused(&target, refusal);
        let changed = update_count(stream, count, now).map_err(refused)?;
        if count > current {
            room_for_shards(call, &target.scope, count - current)?;
        }
        Ok(changed)
    })
    .await?;
    let mut out = Output::with_capacity(512);
    out.structure(|out| {
        out.member("StreamName").plain(target.name);
        out.member("CurrentShardCount").number(u64::from(current));
        out.member("TargetShardCount").number(u64::from(count));
        out.member("StreamARN").plain(&arn);
    });
    Ok(out)
}
