//! PutRecord: one record.
//!
//! `SequenceNumberForOrdering` is checked as AWS checks it and then needs nothing: a record that
//! is put after another was answered always gets a higher number in its shard.

use serde::Deserialize;
use serde::de::IgnoredAny;
use shardmill_core::limits::{MAX_PARTITION_KEY_CHARS, MAX_PUT_RECORDS_BYTES};

use super::operations::Running;
use super::put::{Batch, Entry, FastEntry, Text, prepare, target};
use super::shape::{HASH_KEY, NAME, SEQUENCE_NUMBER, STREAM_ARN};
use super::starting_number::Given;
use super::{Call, Error, Input, Member, Output, Shape, Target};

pub(crate) const PARTITION_KEY: Shape = Shape::Text {
    length: (1, MAX_PARTITION_KEY_CHARS as i64),
    pattern: None,
};

/// The largest record that any stream can be set to take.
pub(crate) const DATA: Shape = Shape::Blob {
    length: (0, MAX_PUT_RECORDS_BYTES as i64),
};

pub(crate) const MEMBERS: &[Member] = &[
    Member::optional("SequenceNumberForOrdering", &SEQUENCE_NUMBER),
    Member::required("PartitionKey", &PARTITION_KEY),
    Member::optional("ExplicitHashKey", &HASH_KEY),
    Member::required("Data", &DATA),
    Member::optional("StreamName", &NAME),
    Member::optional("StreamARN", &STREAM_ARN),
    Member::optional("DryRun", &Shape::Boolean),
];

/// A body that is plainly good.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, rename = "Data")]
    data: Text<'a>,
    #[serde(borrow, rename = "PartitionKey")]
    key: Text<'a>,
    #[serde(borrow, rename = "ExplicitHashKey", default)]
    explicit: Option<Text<'a>>,
    #[serde(borrow, rename = "StreamName", default)]
    name: Option<Text<'a>>,
    #[serde(borrow, rename = "StreamARN", default)]
    arn: Option<Text<'a>>,
    #[serde(rename = "SequenceNumberForOrdering", default)]
    ordering: Option<IgnoredAny>,
    #[serde(rename = "DryRun", default)]
    dry_run: Option<IgnoredAny>,
}

/// Takes a body that is plainly good around the checks.
pub(crate) fn fast<'a>(call: &'a Call<'a>, body: &'a [u8]) -> Option<Running<'a>> {
    let body: Body<'a> = serde_json::from_slice(body).ok()?;
    if body.dry_run.is_some() || body.ordering.is_some() {
        return None;
    }
    let target = target(call, body.name, body.arn)?;
    let entry = FastEntry {
        data: body.data,
        key: body.key,
        explicit: body.explicit,
    };
    let batch = prepare(call, target, vec![entry.entry()?]).ok()?;
    Some(Box::pin(commit(call, batch)))
}

/// Puts the record of a checked input.
///
/// # Errors
/// See the operation's reference.
pub(crate) async fn run(call: &Call<'_>, input: Input) -> Result<Output, Error> {
    let target = Target::of(call, &input)?;
    target.writable_stream(call)?;
    let entry = Entry::of(&input)?;
    if let Some(text) = input.text("SequenceNumberForOrdering")
        && !may_order(text, call.now.seconds())
    {
        return Err(Error::InvalidArgument(format!(
            "ExclusiveMinimumSequenceNumber {text} used in PutRecord on stream {} under account {} \
             is invalid.",
            target.name, target.scope.tenant
        )));
    }
    let batch = prepare(call, target, vec![entry])?;
    call.not_dry(&input)?;
    commit(call, batch).await
}

/// Whether AWS takes a number, of whatever stream, for `SequenceNumberForOrdering`.
fn may_order(text: &str, now_seconds: u64) -> bool {
    match Given::parse(text) {
        Some(Given::Current { fields, .. }) => fields.seconds <= now_seconds,
        Some(Given::Version1 { .. }) => true,
        Some(Given::Version0 { .. }) | None => false,
    }
}

async fn commit(call: &Call<'_>, batch: Batch<'_>) -> Result<Output, Error> {
    let placed = batch.commit(call).await?;
    let mut out = Output::with_capacity(128);
    out.structure(|out| {
        for record in &placed {
            out.member("ShardId").plain(record.shard);
            out.member("SequenceNumber").sequence_number(record.number);
        }
    });
    Ok(out)
}
