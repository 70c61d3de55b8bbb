//! GetShardIterator: a place in a shard as an iterator.
//!
//! Order of checks: the shard's id → the stream and the shard → a number that does not belong to
//! the type → the number's form → its shard → its stream → a missing number → the timestamp.

use shardmill_core::sequence::{Fields, LAST_COUNTER};
use shardmill_core::stream::StreamStatus;
use shardmill_core::{SequenceNumber, Shard, ShardKey, UnixMillis};
use shardmill_store::{ReadLimit, Seek};

use super::iterator::ShardIterator;
use super::shape::{NAME, SEQUENCE_NUMBER, STREAM_ARN};
use super::starting_number::Given;
use super::{Call, Error, Input, Member, Output, Shape, Target, shards};

pub(crate) const MEMBERS: &[Member] = &[
    Member::required("ShardId", &NAME),
    Member::required(
        "ShardIteratorType",
        &Shape::Choice(&[
            "AFTER_SEQUENCE_NUMBER",
            "LATEST",
            "AT_TIMESTAMP",
            "AT_SEQUENCE_NUMBER",
            "TRIM_HORIZON",
        ]),
    ),
    Member::optional("StartingSequenceNumber", &SEQUENCE_NUMBER),
    Member::optional("StreamName", &NAME),
    Member::optional("Timestamp", &Shape::Timestamp),
    Member::optional("StreamARN", &STREAM_ARN),
    Member::optional("DryRun", &Shape::Boolean),
];

/// Makes an iterator.
///
/// # Errors
/// See the operation's reference.
pub(crate) async fn run(call: &Call<'_>, input: Input) -> Result<Output, Error> {
    let target = Target::of(call, &input)?;
    let given_id = input.text("ShardId").unwrap_or_default();
    let id = shards::parse_id(given_id, target.name, &target.scope)?;
    let not_found = || Error::shard_not_found(id, target.name, &target.scope);
    let stream = target.find(call).ok_or_else(not_found)?;
    if stream.status(call.now) == StreamStatus::Creating {
        return Err(not_found());
    }
    let shard = shards::find(&stream, id, call.now).ok_or_else(not_found)?;
    let key = ShardKey {
        stream: stream.id,
        shard: id,
    };
    let position = position(call, &target, &input, shard, key).await?;
    call.not_dry(&input)?;
    let iterator = ShardIterator {
        scope: stream.scope.clone(),
        stream: stream.id,
        name: stream.name.as_str().to_owned(),
        shard: id,
        position,
        issued: call.now,
    };
    let mut out = Output::with_capacity(512);
    out.structure(|out| {
        out.member("ShardIterator")
            .plain(iterator.seal(&call.host.seal));
    });
    Ok(out)
}

/// The first position that the iterator reads.
async fn position(
    call: &Call<'_>,
    target: &Target<'_>,
    input: &Input,
    shard: &Shard,
    key: ShardKey,
) -> Result<u64, Error> {
    let kind = input.text("ShardIteratorType").unwrap_or_default();
    let given = input.text("StartingSequenceNumber");
    if let ("TRIM_HORIZON" | "LATEST", Some(_)) = (kind, given) {
        return Err(number_or_not(kind, "also a StartingSequenceNumber."));
    }
    let number = given.map(|text| checked(text, target, shard)).transpose()?;
    let store = &call.host.store;
    Ok(match (kind, number) {
        ("AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER", None) => {
            return Err(number_or_not(kind, "no StartingSequenceNumber."));
        }
        ("AT_SEQUENCE_NUMBER", Some((number, fields))) => {
            let at = record_at(call, key, fields.counter, kind).await?;
            // A made-up number may lie just above the record with its counter.
            fields.counter + u64::from(at.is_some_and(|at| at < number))
        }
        ("AFTER_SEQUENCE_NUMBER", Some((number, fields))) => {
            let at = record_at(call, key, fields.counter, kind).await?;
            fields.counter + u64::from(at.is_none_or(|at| at <= number))
        }
        ("TRIM_HORIZON", _) => store.seek(key, Seek::TrimHorizon).await?,
        ("AT_TIMESTAMP", _) => {
            let at = timestamp(call, input)?;
            store.seek(key, Seek::AtTime(at)).await?
        }
        _ => store.seek(key, Seek::Latest).await?,
    })
}

/// The number of the record at a position, if there is one.
async fn record_at(
    call: &Call<'_>,
    key: ShardKey,
    position: u64,
    kind: &str,
) -> Result<Option<SequenceNumber>, Error> {
    if position == LAST_COUNTER {
        return Err(Error::InvalidArgument(format!(
            "Invalid SequenceNumber for ShardIteratorType {kind}, SequenceNumber has reached max \
             possible value for the shard."
        )));
    }
    let one = ReadLimit {
        records: 1,
        bytes: 1,
    };
    let blocks = call.host.store.read(key, position, one).await?;
    let block = blocks
        .iter()
        .find(|block| (block.first()..block.end()).contains(&position));
    Ok(block.map(|block| block.sequence_number(position)))
}

/// Checks a number against the shard.
fn checked(
    text: &str,
    target: &Target<'_>,
    shard: &Shard,
) -> Result<(SequenceNumber, Fields), Error> {
    let invalid = |why: &str| {
        Error::InvalidArgument(format!(
            "StartingSequenceNumber {text} used in GetShardIterator on shard {} in stream {} under \
             account {} is invalid{why}.",
            shard.id, target.name, target.scope.tenant
        ))
    };
    let given = Given::parse(text).ok_or_else(|| invalid(""))?;
    let index = given.shard_index();
    if i64::from(index) != i64::from(shard.id.0) {
        return Err(Error::InvalidArgument(format!(
            "Invalid StartingSequenceNumber. It encodes shardId-{index:012}, while it was used in a \
             call to a shard with {}",
            shard.id
        )));
    }
    let foreign = " because it did not come from this stream";
    match given {
        Given::Current { number, fields } if fields.created_seconds == shard.created_seconds => {
            Ok((number, fields))
        }
        Given::Current { .. } | Given::Version1 { .. } => Err(invalid(foreign)),
        // Production Kinesis fails like this too.
        Given::Version0 { .. } => Err(Error::Internal("a number of version 0".into())),
    }
}

fn timestamp(call: &Call<'_>, input: &Input) -> Result<UnixMillis, Error> {
    let given = input.timestamp("Timestamp").ok_or_else(|| {
        Error::InvalidArgument(
            "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current \
             request has no timestamp parameter."
                .into(),
        )
    })?;
    let at = UnixMillis(given.try_into().unwrap_or_default());
    if at > call.now {
        return Err(Error::InvalidArgument(format!(
            "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
             timestampInMillis: {}, currentTimestampInMillis: {}",
            at.0, call.now.0
        )));
    }
    Ok(at)
}

fn number_or_not(kind: &str, what: &str) -> Error {
    Error::InvalidArgument(format!(
        "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and \
         StartingSequenceNumber or (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. \
         Request specified {kind} and {what}"
    ))
}
