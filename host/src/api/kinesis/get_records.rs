//! GetRecords: a page of a shard's records, and where to go on.
//!
//! A page ends at `Limit`, at 10 MiB, or where the shard ends for now; it is never empty while
//! records are behind it. At the end of a closed shard there is no next iterator, and the
//! children are named instead. Records older than the retention are not there, trimmed or not.

use std::sync::Arc;

use shardmill_core::limits::{MAX_GET_RECORDS, MAX_GET_RECORDS_BYTES};
use shardmill_core::{Block, RecordRef, Shard, ShardKey, Stream};
use shardmill_store::{ReadLimit, Seek};

use super::iterator::ShardIterator;
use super::shape::{LIMIT, STREAM_ARN};
use super::target::is_gone;
use super::{Call, Error, Input, Member, Output, Shape, shards};

/// Bytes of a record in an answer beside its Base64 and its key: 113 of names and punctuation,
/// 56 of sequence number, 14 of timestamp.
const ANSWER_BYTES_PER_RECORD: usize = 184;

pub(crate) const MEMBERS: &[Member] = &[
    Member::optional("Limit", &LIMIT),
    Member::required(
        "ShardIterator",
        &Shape::Text {
            length: (1, 512),
            pattern: None,
        },
    ),
    Member::optional("StreamARN", &STREAM_ARN),
    Member::optional("DryRun", &Shape::Boolean),
];

/// Reads records.
///
/// # Errors
/// See the operation's reference.
pub(crate) async fn run(call: &Call<'_>, input: Input) -> Result<Output, Error> {
    let host = call.host;
    let text = input.text("ShardIterator").unwrap_or_default();
    let lifetime = host.settings.iterator_lifetime;
    let iterator = ShardIterator::open(text, &host.seal, call.now, lifetime)?;
    let (stream, shard) = place(call, &input, &iterator)?;
    call.not_dry(&input)?;
    let limit = input.count("Limit").unwrap_or(MAX_GET_RECORDS);
    let key = ShardKey {
        stream: stream.id,
        shard: shard.id,
    };
    let page = read(call, &stream, key, iterator.position, limit).await?;
    let next = ShardIterator {
        position: page.next,
        issued: call.now,
        ..iterator
    };
    let ended = page.caught_up && shard.closed_seconds.is_some();
    let mut out = Output::with_capacity(page.answer_bytes());
    out.structure(|out| {
        out.member("Records").list(page.records(), write_record);
        if !ended {
            let next = next.seal(&host.seal);
            out.member("NextShardIterator").plain(next);
        }
        out.member("MillisBehindLatest").number(page.behind(call));
        if ended {
            let children = stream.children(shard.id);
            out.member("ChildShards").list(children, write_child);
        }
    });
    Ok(out)
}

/// The stream and the shard that an iterator reads.
fn place(
    call: &Call<'_>,
    input: &Input,
    iterator: &ShardIterator,
) -> Result<(Arc<Stream>, Shard), Error> {
    let invalid = || Error::InvalidArgument("Invalid ShardIterator.".into());
    if iterator.scope.tenant != call.caller.scope.tenant {
        return Err(invalid());
    }
    let not_found = || Error::shard_not_found(iterator.shard, &iterator.name, &iterator.scope);
    let stream = call.host.store.stream_by_id(iterator.stream);
    let stream = stream.filter(|stream| !is_gone(stream, call));
    let stream = stream.ok_or_else(not_found)?;
    if input
        .text("StreamARN")
        .is_some_and(|arn| arn != stream.arn())
    {
        return Err(invalid());
    }
    let shard = shards::find(&stream, iterator.shard, call.now);
    let shard = shard.ok_or_else(not_found)?.clone();
    Ok((stream, shard))
}

/// Records to answer with.
struct Page {
    blocks: Vec<Block>,
    from: u64,
    /// The position after the last record, or where to look again.
    next: u64,
    /// Whether nothing is behind `next` now.
    caught_up: bool,
    /// Bytes of keys and data.
    bytes: usize,
}

async fn read(
    call: &Call<'_>,
    stream: &Stream,
    key: ShardKey,
    from: u64,
    limit: usize,
) -> Result<Page, Error> {
    let store = &call.host.store;
    let bounds = ReadLimit {
        records: limit,
        bytes: MAX_GET_RECORDS_BYTES,
    };
    let tip = store.subscribe(key)?;
    let end_before = *tip.borrow();
    let horizon = call.now.minus(stream.retention());
    let mut from = from;
    let mut blocks = store.read(key, from, bounds).await?;
    if blocks
        .first()
        .is_some_and(|block| block.arrival() < horizon)
    {
        from = from.max(store.seek(key, Seek::AtTime(horizon)).await?);
        blocks = store.read(key, from, bounds).await?;
    }
    if blocks.is_empty() {
        // Whatever was there before the read is trimmed.
        from = from.max(end_before);
    }
    let mut page = Page {
        blocks,
        from,
        next: from,
        caught_up: false,
        bytes: 0,
    };
    let records = page.blocks.iter().flat_map(Block::iter);
    for record in records.filter(|record| record.position >= from).take(limit) {
        let size = record.payload_bytes();
        if page.bytes > 0 && page.bytes + size > MAX_GET_RECORDS_BYTES {
            break;
        }
        page.bytes += size;
        page.next = record.position + 1;
    }
    page.caught_up = page.next >= *tip.borrow();
    Ok(page)
}

impl Page {
    fn records(&self) -> impl Iterator<Item = RecordRef<'_>> {
        let all = self.blocks.iter().flat_map(Block::iter);
        all.filter(|record| (self.from..self.next).contains(&record.position))
    }

    fn answer_bytes(&self) -> usize {
        let records = (self.next - self.from) as usize;
        let records = records.min(MAX_GET_RECORDS);
        1024 + records * ANSWER_BYTES_PER_RECORD + self.bytes / 3 * 4
    }

    /// How far the page's last record lies behind now, in milliseconds; 0 when nothing is
    /// behind it.
    fn behind(&self, call: &Call<'_>) -> u64 {
        let last = self.blocks.iter().rfind(|block| block.first() < self.next);
        match last {
            Some(block) if !self.caught_up => {
                let millis = call.now.since(block.arrival()).as_millis();
                u64::try_from(millis).unwrap_or(u64::MAX).max(1)
            }
            _ => 0,
        }
    }
}

fn write_record(out: &mut Output, record: RecordRef<'_>) {
    out.structure(|out| {
        out.member("SequenceNumber")
            .sequence_number(record.sequence_number());
        out.member("ApproximateArrivalTimestamp")
            .timestamp(record.arrival);
        out.member("Data").blob(record.parts.data);
        out.member("PartitionKey").text(record.parts.key);
    });
}

fn write_child(out: &mut Output, child: &Shard) {
    out.structure(|out| {
        out.member("ShardId").plain(child.id);
        let parents = &child.parents;
        out.member("ParentShards")
            .list(parents, |out, parent| out.plain(parent));
        shards::write_range(out, child.range);
    });
}
