//! PutRecords: up to 500 records in one call, in one transaction.

use serde::Deserialize;
use serde::de::IgnoredAny;
use shardmill_core::limits::MAX_PUT_RECORDS;

use super::operations::Running;
use super::put::{Batch, Entry, FastEntry, Text, prepare, target};
use super::shape::{HASH_KEY, NAME, STREAM_ARN};
use super::{Call, Error, Input, Member, Output, Shape, Target};

/// Bytes of an answer per record: `{"SequenceNumber":"<56>","ShardId":"<20>"},` is 110.
const ANSWER_BYTES_PER_RECORD: usize = 112;

const ENTRY: &[Member] = &[
    Member::required("PartitionKey", &super::put_record::PARTITION_KEY),
    Member::optional("ExplicitHashKey", &HASH_KEY),
    Member::required("Data", &super::put_record::DATA),
];

pub(crate) const MEMBERS: &[Member] = &[
    Member::required(
        "Records",
        &Shape::List {
            length: (1, MAX_PUT_RECORDS as i64),
            item: &Shape::Structure(ENTRY),
            shown: "PutRecordsRequestEntry",
        },
    ),
    Member::optional("StreamName", &NAME),
    Member::optional("StreamARN", &STREAM_ARN),
    Member::optional("DryRun", &Shape::Boolean),
];

/// A body that is plainly good.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, rename = "Records")]
    records: Vec<FastEntry<'a>>,
    #[serde(borrow, rename = "StreamName", default)]
    name: Option<Text<'a>>,
    #[serde(borrow, rename = "StreamARN", default)]
    arn: Option<Text<'a>>,
    #[serde(rename = "DryRun", default)]
    dry_run: Option<IgnoredAny>,
}

/// Takes a body that is plainly good around the checks.
pub(crate) fn fast<'a>(call: &'a Call<'a>, body: &'a [u8]) -> Option<Running<'a>> {
    let body: Body<'a> = serde_json::from_slice(body).ok()?;
    if body.dry_run.is_some() || !(1..=MAX_PUT_RECORDS).contains(&body.records.len()) {
        return None;
    }
    let target = target(call, body.name, body.arn)?;
    let entries: Option<Vec<_>> = body.records.into_iter().map(FastEntry::entry).collect();
    let batch = prepare(call, target, entries?).ok()?;
    Some(Box::pin(commit(call, batch)))
}

/// Puts the records of a checked input.
///
/// # Errors
/// See the operation's reference.
pub(crate) async fn run(call: &Call<'_>, input: Input) -> Result<Output, Error> {
    let target = Target::of(call, &input)?;
    target.writable_stream(call)?;
    let entries: Result<Vec<_>, _> = input.structures("Records").map(Entry::of).collect();
    let batch = prepare(call, target, entries?)?;
    call.not_dry(&input)?;
    commit(call, batch).await
}

async fn commit(call: &Call<'_>, batch: Batch<'_>) -> Result<Output, Error> {
    let placed = batch.commit(call).await?;
    let mut out = Output::with_capacity(64 + placed.len() * ANSWER_BYTES_PER_RECORD);
    out.structure(|out| {
        out.member("FailedRecordCount").number(0);
        out.member("Records").list(&placed, |out, record| {
            out.structure(|out| {
                out.member("SequenceNumber").sequence_number(record.number);
                out.member("ShardId").plain(record.shard);
            });
        });
    });
    Ok(out)
}
