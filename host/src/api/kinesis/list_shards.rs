//! ListShards: a stream's shards in pages, all of them or those that were open at some time.
//!
//! Rules: ListShards, "NextToken" and "ShardFilter". A page token carries the stream and the
//! filter, which is why neither may be given again. AWS's texts for a filter without its
//! argument and for a stream that is not ready are not known.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shardmill_core::{Shard, ShardId, Stream, StreamId, UnixMillis};

use super::shape::{LIMIT, NAME, NEXT_TOKEN, STREAM_ARN};
use super::target::is_gone;
use super::{Call, Error, Input, Member, Output, Shape, Target, page, shards};
use crate::seal::Kind;

/// Shards of one answer, however many were asked for.
const MAX_SHARDS: usize = 1000;

pub(crate) const MEMBERS: &[Member] = &[
    Member::optional("MaxResults", &LIMIT),
    Member::optional("ExclusiveStartShardId", &NAME),
    Member::optional("StreamName", &NAME),
    Member::optional("NextToken", &NEXT_TOKEN),
    Member::optional("StreamCreationTimestamp", &Shape::Timestamp),
    Member::optional(
        "ShardFilter",
        &Shape::Structure(&[
            Member::required(
                "Type",
                &Shape::Choice(&[
                    "AFTER_SHARD_ID",
                    "AT_TRIM_HORIZON",
                    "FROM_TRIM_HORIZON",
                    "AT_LATEST",
                    "AT_TIMESTAMP",
                    "FROM_TIMESTAMP",
                ]),
            ),
            Member::optional("ShardId", &NAME),
            Member::optional("Timestamp", &Shape::Timestamp),
        ]),
    ),
    Member::optional("StreamARN", &STREAM_ARN),
];

/// Which shards are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Filter {
    /// Every one that is not expired.
    FromTrimHorizon,
    /// Open when the oldest records that may be left arrived.
    AtTrimHorizon,
    /// Open now.
    AtLatest,
    /// Open at this second.
    At(u64),
    /// Open at this second or later.
    From(u64),
    /// With a higher id.
    After(ShardId),
}

impl Filter {
    fn takes(self, shard: &Shard, stream: &Stream, now: UnixMillis) -> bool {
        let horizon = shards::horizon(stream, now);
        match self {
            Self::FromTrimHorizon => true,
            Self::AtTrimHorizon => shards::open_at(shard, horizon),
            Self::AtLatest => shard.closed_seconds.is_none(),
            Self::At(seconds) => shards::open_at(shard, seconds.max(horizon)),
            Self::From(seconds) => shards::open_since(shard, seconds),
            Self::After(id) => shard.id > id,
        }
    }
}

/// Which shards come, and from where on; also what a page token says.
#[derive(Serialize, Deserialize)]
struct Place {
    /// The number of the account that it was written for.
    account: u64,
    issued: UnixMillis,
    stream: StreamId,
    after: Option<ShardId>,
    filter: Filter,
}

/// Lists shards.
///
/// # Errors
/// See the operation's reference.
pub(crate) async fn run(call: &Call<'_>, input: Input) -> Result<Output, Error> {
    let (stream, place) = match input.text("NextToken") {
        Some(token) => next_page(call, &input, token)?,
        None => first_page(call, &input)?,
    };
    let limit = input.count("MaxResults").unwrap_or(MAX_SHARDS);
    let limit = limit.min(MAX_SHARDS);
    let mut rest = shards::unexpired(&stream, call.now)
        .filter(|shard| place.after.is_none_or(|after| shard.id > after))
        .filter(|shard| place.filter.takes(shard, &stream, call.now))
        .peekable();
    let mut last = None;
    let mut out = Output::with_capacity(512);
    out.structure(|out| {
        let page = rest.by_ref().take(limit);
        out.member("Shards").list(page, |out, shard| {
            last = Some(shard.id);
            shards::write(out, shard);
        });
        if rest.peek().is_some() {
            let token = Place {
                issued: call.now,
                after: last,
                ..place
            };
            let token = page::seal(call, Kind::ShardPage, &token);
            out.member("NextToken").plain(token);
        }
    });
    Ok(out)
}

fn next_page(call: &Call<'_>, input: &Input, token: &str) -> Result<(Arc<Stream>, Place), Error> {
    for other in [
        "StreamName",
        "StreamARN",
        "ExclusiveStartShardId",
        "StreamCreationTimestamp",
        "ShardFilter",
    ] {
        if input.get(other).is_some() {
            return Err(Error::InvalidArgument(format!(
                "NextToken and {other} cannot be provided together."
            )));
        }
    }
    let place: Place = page::open(call, Kind::ShardPage, token)?;
    // Another's is like one that nobody wrote.
    if place.account != call.caller.scope.tenant.number() {
        return Err(page::invalid());
    }
    page::in_time(call, place.issued)?;
    let stream = call.host.store.stream_by_id(place.stream);
    let stream = stream.filter(|s| !is_gone(s, call));
    let stream =
        stream.ok_or_else(|| Error::NotFound("The stream of NextToken does not exist.".into()))?;
    Ok((stream, place))
}

fn first_page(call: &Call<'_>, input: &Input) -> Result<(Arc<Stream>, Place), Error> {
    if input.get("StreamName").is_none() && input.get("StreamARN").is_none() {
        return Err(Error::InvalidArgument(
            "Either NextToken or StreamName should be provided.".into(),
        ));
    }
    let target = Target::of(call, input)?;
    let id = |text: &str| shards::parse_id(text, target.name, &target.scope);
    let after = input.text("ExclusiveStartShardId").map(&id).transpose()?;
    let filter = match input.structure("ShardFilter") {
        Some(filter) => filter_of(filter, id)?,
        None => Filter::FromTrimHorizon,
    };
    let stream = target.stream(call)?;
    let created = i64::try_from(stream.created.0).unwrap_or(i64::MAX);
    let given = input.timestamp("StreamCreationTimestamp");
    // Clients may cut the milliseconds off.
    if given.is_some_and(|given| given.abs_diff(created) >= 1000) {
        return Err(target.not_found());
    }
    if !stream.is_usable(call.now) {
        return Err(target.not_active(&stream, call.now));
    }
    let place = Place {
        account: call.caller.scope.tenant.number(),
        issued: call.now,
        stream: stream.id,
        after,
        filter,
    };
    Ok((stream, place))
}

fn filter_of(filter: &Input, id: impl Fn(&str) -> Result<ShardId, Error>) -> Result<Filter, Error> {
    let kind = filter.text("Type").unwrap_or_default();
    let shard = filter.text("ShardId");
    let seconds = filter.timestamp("Timestamp");
    let seconds = seconds.map(|ms| u64::try_from(ms).unwrap_or_default() / 1000);
    match (kind, shard, seconds) {
        ("FROM_TRIM_HORIZON", None, None) => Ok(Filter::FromTrimHorizon),
        ("AT_TRIM_HORIZON", None, None) => Ok(Filter::AtTrimHorizon),
        ("AT_LATEST", None, None) => Ok(Filter::AtLatest),
        ("AT_TIMESTAMP", None, Some(seconds)) => Ok(Filter::At(seconds)),
        ("FROM_TIMESTAMP", None, Some(seconds)) => Ok(Filter::From(seconds)),
        ("AFTER_SHARD_ID", Some(shard), None) => Ok(Filter::After(id(shard)?)),
        (kind, ..) => Err(Error::InvalidArgument(format!(
            "ShardFilter of type {kind} takes {}.",
            match kind {
                "AFTER_SHARD_ID" => "ShardId and no Timestamp",
                "AT_TIMESTAMP" | "FROM_TIMESTAMP" => "Timestamp and no ShardId",
                _ => "neither ShardId nor Timestamp",
            }
        ))),
    }
}
