//! DescribeStreamSummary: a stream without its shards.

use super::describe_stream::{listed, write_stream};
use super::shape::{NAME, STREAM_ARN};
use super::{Call, Error, Input, Member, Output, Target};

pub(crate) const MEMBERS: &[Member] = &[
    Member::optional("StreamName", &NAME),
    Member::optional("StreamARN", &STREAM_ARN),
];

/// Describes a stream.
///
/// # Errors
/// See the operation's reference.
pub(crate) async fn run(call: &Call<'_>, input: Input) -> Result<Output, Error> {
    let target = Target::of(call, &input)?;
    let stream = target.stream(call)?;
    let open = listed(&stream, call.now).filter(|shard| shard.closed_seconds.is_none());
    let mut out = Output::with_capacity(512);
    out.structure(|out| {
        out.member("StreamDescriptionSummary").structure(|out| {
            write_stream(out, &stream, call.now);
            out.member("OpenShardCount").number(open.count() as u64);
            out.member("ConsumerCount").number(0);
            out.member("MaxRecordSizeInKiB")
                .number(u64::from(stream.max_record_size_kib));
            out.member("RecordDistributionStrategy")
                .plain("USER_PARTITION_KEY");
        });
    });
    Ok(out)
}
