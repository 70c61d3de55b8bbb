//! The table that dispatches: every operation of the API, with what it takes and what runs it,
//! or that it is not there yet. `docs/parity.md` is made from it.

use shardmill_core::sandbox::BoxFuture;

use super::*;

/// An operation of the API.
pub(crate) struct Operation {
    /// Its name in `X-Amz-Target`.
    pub(crate) name: &'static str,
    /// Whether it works here.
    pub(crate) support: Support,
    /// What differs from AWS, for `docs/parity.md`.
    pub(crate) note: &'static str,
}

/// Whether an operation works here.
pub(crate) enum Support {
    Yes(Handler),
    No,
}

/// What runs an operation.
#[derive(Clone, Copy)]
pub(crate) struct Handler {
    /// What it takes.
    pub(crate) members: &'static [Member],
    /// Runs it with a checked input.
    pub(crate) run: for<'a> fn(&'a Call<'a>, Input) -> Running<'a>,
    /// A way around the checks for a body that is plainly good; `None`: this one is not.
    pub(crate) fast: for<'a> fn(&'a Call<'a>, &'a [u8]) -> Option<Running<'a>>,
    /// Largest body, bytes.
    pub(crate) body_bytes: usize,
}

/// An operation at work.
pub(crate) type Running<'a> = BoxFuture<'a, Result<Output, Error>>;

/// Largest body of an operation that carries no records: room for a `NextToken` of 1 MiB.
const SMALL_BODY_BYTES: usize = 2 << 20;
/// Largest body of PutRecord and PutRecords: 10 MiB of data is 14 MiB of Base64, and 500
/// partition keys of 256 characters are at most 0.8 MiB of escapes.
const RECORDS_BODY_BYTES: usize = 16 << 20;
/// Largest body of a request that names no operation of this host.
pub(crate) const OTHER_BODY_BYTES: usize = SMALL_BODY_BYTES;

/// What differs in every operation that changes shards.
const RESHARDED: &str = "No throttling. The children take records at once, while the stream is \
     UPDATING; they are dated to the second after their parents close.";

const fn yes(
    name: &'static str,
    members: &'static [Member],
    run: for<'a> fn(&'a Call<'a>, Input) -> Running<'a>,
    note: &'static str,
) -> Operation {
    let handler = Handler {
        members,
        run,
        fast: |_, _| None,
        body_bytes: SMALL_BODY_BYTES,
    };
    Operation {
        name,
        support: Support::Yes(handler),
        note,
    }
}

const fn no(name: &'static str) -> Operation {
    Operation {
        name,
        support: Support::No,
        note: "",
    }
}

/// The operation with this name.
pub(crate) fn find(name: &str) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|operation| operation.name == name)
}

/// Every operation of the API, in the order of the reference.
pub(crate) static OPERATIONS: &[Operation] = &[
    yes(
        "CreateStream",
        create_stream::MEMBERS,
        |call, input| Box::pin(create_stream::run(call, input)),
        "No limit on streams in CREATING. `WarmThroughputMiBps` and \
         `RecordDistributionStrategy: AUTO` are refused. Without `ShardCount` and mode the \
         stream is on demand: it has 4 shards, which do not split by load yet.",
    ),
    yes(
        "DeleteStream",
        delete_stream::MEMBERS,
        |call, input| Box::pin(delete_stream::run(call, input)),
        "There are no consumers yet, so `EnforceConsumerDeletion` changes nothing.",
    ),
    yes(
        "DescribeStream",
        describe_stream::MEMBERS,
        |call, input| Box::pin(describe_stream::run(call, input)),
        "",
    ),
    yes(
        "DescribeStreamSummary",
        describe_stream_summary::MEMBERS,
        |call, input| Box::pin(describe_stream_summary::run(call, input)),
        "Without `WarmThroughput`, `ChannelCount` and `QueueCount`.",
    ),
    yes(
        "ListStreams",
        list_streams::MEMBERS,
        |call, input| Box::pin(list_streams::run(call, input)),
        "",
    ),
    yes(
        "ListShards",
        list_shards::MEMBERS,
        |call, input| Box::pin(list_shards::run(call, input)),
        "",
    ),
    no("DescribeLimits"),
    Operation {
        name: "PutRecord",
        support: Support::Yes(Handler {
            members: put_record::MEMBERS,
            run: |call, input| Box::pin(put_record::run(call, input)),
            fast: put_record::fast,
            body_bytes: RECORDS_BODY_BYTES,
        }),
        note: "No throttling. `PartitionKey` is required. Header \
               `x-shardmill-producer: ID;NUMBER` stores a retried put once.",
    },
    Operation {
        name: "PutRecords",
        support: Support::Yes(Handler {
            members: put_records::MEMBERS,
            run: |call, input| Box::pin(put_records::run(call, input)),
            fast: put_records::fast,
            body_bytes: RECORDS_BODY_BYTES,
        }),
        note: "All or nothing: `FailedRecordCount` is always 0. No throttling. `PartitionKey` is \
               required. Header `x-shardmill-producer: ID;NUMBER` stores a retried put once.",
    },
    yes(
        "GetShardIterator",
        get_shard_iterator::MEMBERS,
        |call, input| Box::pin(get_shard_iterator::run(call, input)),
        "No throttling.",
    ),
    yes(
        "GetRecords",
        get_records::MEMBERS,
        |call, input| Box::pin(get_records::run(call, input)),
        "No throttling. No empty page while there are records behind it.",
    ),
    yes(
        "SplitShard",
        split_shard::MEMBERS,
        |call, input| Box::pin(split_shard::run(call, input)),
        RESHARDED,
    ),
    yes(
        "MergeShards",
        merge_shards::MEMBERS,
        |call, input| Box::pin(merge_shards::run(call, input)),
        RESHARDED,
    ),
    yes(
        "UpdateShardCount",
        update_shard_count::MEMBERS,
        |call, input| Box::pin(update_shard_count::run(call, input)),
        "As SplitShard. The count that a stream has already is accepted, changes nothing and is \
         not one of the 10 changes in 24 hours. AWS does not say which shards it splits and \
         merges on the way: the ranges are the same, ids may differ.",
    ),
    no("UpdateStreamMode"),
    no("UpdateStreamWarmThroughput"),
    no("UpdateMaxRecordSize"),
    no("UpdateStreamRecordDistributionStrategy"),
    no("IncreaseStreamRetentionPeriod"),
    no("DecreaseStreamRetentionPeriod"),
    no("AddTagsToStream"),
    no("RemoveTagsFromStream"),
    no("ListTagsForStream"),
    no("TagResource"),
    no("UntagResource"),
    no("ListTagsForResource"),
    no("RegisterStreamConsumer"),
    no("DeregisterStreamConsumer"),
    no("DescribeStreamConsumer"),
    no("ListStreamConsumers"),
    no("SubscribeToShard"),
    no("EnableEnhancedMonitoring"),
    no("DisableEnhancedMonitoring"),
    no("StartStreamEncryption"),
    no("StopStreamEncryption"),
    no("PutResourcePolicy"),
    no("GetResourcePolicy"),
    no("DeleteResourcePolicy"),
    no("DescribeAccountSettings"),
    no("UpdateAccountSettings"),
    no("AcknowledgeDeadLetterQueueRecords"),
    no("AcknowledgeQueueRecords"),
    no("CreateChannel"),
    no("CreateQueue"),
    no("DeleteChannel"),
    no("DeleteQueue"),
    no("DescribeChannel"),
    no("DescribeQueue"),
    no("ListChannels"),
    no("ListQueues"),
    no("ReceiveDeadLetterQueueRecords"),
    no("ReceiveQueueRecords"),
    no("RestoreDeadLetterQueueRecords"),
    no("UpdateChannel"),
    no("UpdateDeadLetterQueueRecordsVisibility"),
    no("UpdateQueue"),
    no("UpdateQueueRecordsVisibility"),
];
