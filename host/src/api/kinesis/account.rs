//! What an account may have in a region: open shards and on-demand streams.
//!
//! Rules: Kinesis Data Streams, "Quotas and limits". A stream that is being deleted no longer
//! counts. Decided while the control lock is held, so that two requests cannot share the last
//! free shard.

use std::sync::Arc;

use shardmill_core::reshard::open_count;
use shardmill_core::stream::{StreamMode, StreamStatus};
use shardmill_core::{Scope, Stream};

use super::{Call, Error};

/// Whether an account may have `more` open shards.
///
/// # Errors
/// `LimitExceededException`.
pub(crate) fn room_for_shards(call: &Call<'_>, scope: &Scope, more: u32) -> Result<(), Error> {
    let streams = counted(call, scope);
    let current: u32 = streams.iter().map(|stream| open_count(stream)).sum();
    let limit = call.host.settings.shard_limit;
    let (account, region) = (scope.tenant, &scope.region);
    if current.saturating_add(more) <= limit {
        let room = call
            .host
            .tenancy
            .room_for_shards(account, more, call.host.store.as_ref());
        // AWS has no quota over all regions; its text for one, without the region.
        return room.map_err(|(current, allowed)| {
            Error::LimitExceeded(format!(
                "This request would exceed the shard limit for the account {account}. Current \
                 shard count for the account in all regions: {current}. Limit: {allowed}. Number \
                 of additional shards that would have resulted from this request: {more}. The \
                 host's operator sets the limit."
            ))
        });
    }
    Err(Error::LimitExceeded(format!(
        "This request would exceed the shard limit for the account {account} in {region}. \
         Current shard count for the account: {current}. Limit: {limit}. Number of additional \
         shards that would have resulted from this request: {more}. Refer to the AWS Service \
         Limits page (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) \
         for current limits and how to request higher limits."
    )))
}

/// Whether an account may have one more on-demand stream.
///
/// # Errors
/// `LimitExceededException`.
pub(crate) fn room_for_on_demand(call: &Call<'_>, scope: &Scope) -> Result<(), Error> {
    let streams = counted(call, scope);
    let on_demand = |stream: &&Arc<Stream>| stream.mode == StreamMode::OnDemand;
    let current = streams.iter().filter(on_demand).count();
    let limit = call.host.settings.on_demand_stream_limit;
    if current < limit as usize {
        return Ok(());
    }
    let (account, region) = (scope.tenant, &scope.region);
    Err(Error::LimitExceeded(format!(
        "This request would exceed the limit on the number of On-Demand streams for the \
         account {account} in {region}. Current On-Demand streams count: {current}. Limit: \
         {limit}."
    )))
}

fn counted(call: &Call<'_>, scope: &Scope) -> Vec<Arc<Stream>> {
    let mut streams = call.host.store.streams(Some(scope));
    streams.retain(|stream| stream.status(call.now) != StreamStatus::Deleting);
    streams
}
