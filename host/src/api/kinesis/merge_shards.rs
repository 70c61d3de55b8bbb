//! MergeShards: two neighbours close, and one takes over their hash keys.
//!
//! Order of checks: those of [`reshard`](super::reshard), then both shards exist → both are open
//! → the first one's hash keys end where the second one's begin. In the other order they are no
//! pair.

use shardmill_core::reshard::merge;

use super::reshard::{check_open, refused, reshard};
use super::shape::{NAME, STREAM_ARN};
use super::{Call, Error, Input, Member, Output, Target, shards};

pub(crate) const MEMBERS: &[Member] = &[
    Member::required("ShardToMerge", &NAME),
    Member::required("AdjacentShardToMerge", &NAME),
    Member::optional("StreamName", &NAME),
    Member::optional("StreamARN", &STREAM_ARN),
];

/// Merges two shards.
///
/// # Errors
/// See the operation's reference.
pub(crate) async fn run(call: &Call<'_>, input: Input) -> Result<Output, Error> {
    let target = Target::of(call, &input)?;
    let id = |member| {
        let given = input.text(member).unwrap_or_default();
        shards::parse_id(given, target.name, &target.scope)
    };
    let (parent, adjacent) = (id("ShardToMerge")?, id("AdjacentShardToMerge")?);
    reshard(call, &target, |stream, now| {
        check_open(&target, stream, parent, now)?;
        check_open(&target, stream, adjacent, now)?;
        merge(stream, parent, adjacent, now).map_err(|refusal| refused(&target, refusal))
    })
    .await?;
    Ok(Output::default())
}
