//! Streams with closed shards: what is read, listed and forgotten of them.

use serde_json::{Value as Json, json};
use shardmill_core::HashKey;
use shardmill_store::Store;

use super::{Local, quick, scope, text};
use crate::api::kinesis::put::{Data, Entry, prepare};
use crate::api::kinesis::{Call, Error, Target};
use crate::auth::{Caller, Role};

/// A stream of one shard with a record, whose shard is then split in the middle.
async fn split() -> Local {
    let host = Local::start(quick()).await;
    host.stream("s", 1).await;
    let put = json!({"StreamName": "s", "PartitionKey": "k", "Data": "MQ=="});
    host.ok("PutRecord", put).await;
    tokio::time::advance(std::time::Duration::from_secs(100)).await;
    split_first_shard(&host).await;
    host
}

async fn split_first_shard(host: &Local) {
    let input = json!({"StreamName": "s", "ShardToSplit": "0",
        "NewStartingHashKey": "170141183460469231731687303715884105728"});
    host.ok("SplitShard", input).await;
}

fn ids(shards: &Json) -> Vec<String> {
    let shards = shards.as_array().expect("shards").iter();
    shards
        .map(|shard| text(&shard["ShardId"])[19..].to_owned())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_closed_shard_ends_with_its_children() {
    let host = split().await;
    let first = host.iterator("s", 0, "TRIM_HORIZON").await;
    let page = host.ok("GetRecords", json!({"ShardIterator": first})).await;
    assert_eq!(page["Records"][0]["Data"], "MQ==");
    let middle = "170141183460469231731687303715884105727";
    assert_eq!(page.get("NextShardIterator"), None);
    assert_eq!(page["MillisBehindLatest"], 0);
    let children = json!([
        {"ShardId": "shardId-000000000001", "ParentShards": ["shardId-000000000000"],
         "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": middle}},
        {"ShardId": "shardId-000000000002", "ParentShards": ["shardId-000000000000"],
         "HashKeyRange": {"StartingHashKey": "170141183460469231731687303715884105728",
                          "EndingHashKey": "340282366920938463463374607431768211455"}},
    ]);
    assert_eq!(page["ChildShards"], children);
    let latest = host.iterator("s", 0, "LATEST").await;
    let page = host
        .ok("GetRecords", json!({"ShardIterator": latest}))
        .await;
    assert_eq!(
        (page.get("NextShardIterator"), &page["ChildShards"]),
        (None, &children)
    );
}

#[tokio::test(start_paused = true)]
async fn later_records_go_to_the_children() {
    let host = split().await;
    for (explicit, shard) in [("0", "1"), ("340282366920938463463374607431768211455", "2")] {
        let put = json!({"StreamName": "s", "PartitionKey": "k", "Data": "", "ExplicitHashKey": explicit});
        let told = host.ok("PutRecord", put).await;
        assert_eq!(told["ShardId"], format!("shardId-00000000000{shard}"));
    }
}

#[tokio::test(start_paused = true)]
async fn records_on_their_way_into_a_shard_that_closes_go_to_its_children() {
    let host = Local::start(quick()).await;
    host.stream("s", 1).await;
    let call = Call {
        host: &host.services,
        caller: Caller {
            scope: scope(),
            role: Role::Tenant,
        },
        operation: "PutRecords",
        now: host.services.clock.now(),
        producer: None,
    };
    let target = Target::named(&call, Some("s"), None).expect("a target");
    let entry = |explicit| Entry {
        key: "k".into(),
        explicit: Some(HashKey(explicit)),
        data: Data::Bytes(b"x"),
    };
    let entries = vec![entry(u128::MAX), entry(0), entry(u128::MAX)];
    let batch = prepare(&call, target, entries).expect("a good request");
    split_first_shard(&host).await;
    let placed = batch.commit(&call).await.expect("the records are stored");
    let shards: Vec<_> = placed.iter().map(|record| record.shard.0).collect();
    assert_eq!(shards, [2, 1, 2]);
    assert!(
        placed[0].number < placed[2].number,
        "in the request's order"
    );
    assert_eq!(host.memory.stats().records, 3, "each of them once");
}

#[tokio::test(start_paused = true)]
async fn the_last_number_of_a_closed_shard_starts_nothing() {
    let host = split().await;
    let told = host.ok("DescribeStream", json!({"StreamName": "s"})).await;
    let shards = &told["StreamDescription"]["Shards"];
    assert_eq!(shards[1]["ParentShardId"], "shardId-000000000000");
    assert_eq!(shards[1].get("AdjacentParentShardId"), None);
    let end = text(&shards[0]["SequenceNumberRange"]["EndingSequenceNumber"]);
    for kind in ["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"] {
        let input = json!({"StreamName": "s", "ShardId": "0", "ShardIteratorType": kind,
            "StartingSequenceNumber": end});
        let want = format!(
            "Invalid SequenceNumber for ShardIteratorType {kind}, SequenceNumber has reached max \
             possible value for the shard."
        );
        assert_eq!(
            host.call("GetShardIterator", input).await,
            Err(Error::InvalidArgument(want))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_lists_the_shards_of_its_time_and_they_tile_the_space() {
    let host = split().await;
    let closed = host.services.clock.now().seconds();
    let list = async |filter: Json| {
        let told = host
            .ok(
                "ListShards",
                json!({"StreamName": "s", "ShardFilter": filter}),
            )
            .await;
        ids(&told["Shards"])
    };
    assert_eq!(
        list(json!({"Type": "FROM_TRIM_HORIZON"})).await,
        ["0", "1", "2"]
    );
    assert_eq!(list(json!({"Type": "AT_TRIM_HORIZON"})).await, ["0"]);
    assert_eq!(list(json!({"Type": "AT_LATEST"})).await, ["1", "2"]);
    assert_eq!(
        list(json!({"Type": "AFTER_SHARD_ID", "ShardId": "shardId-1"})).await,
        ["2"]
    );
    for (kind, seconds, want) in [
        ("AT_TIMESTAMP", 0, vec!["0"]),
        ("AT_TIMESTAMP", closed, vec!["0"]),
        ("AT_TIMESTAMP", closed + 1, vec!["1", "2"]),
        ("FROM_TIMESTAMP", closed, vec!["0", "1", "2"]),
        ("FROM_TIMESTAMP", closed + 1, vec!["1", "2"]),
    ] {
        let told = list(json!({"Type": kind, "Timestamp": seconds})).await;
        assert_eq!(told, want, "{kind} {seconds}");
    }
    let told = host
        .ok("DescribeStreamSummary", json!({"StreamName": "s"}))
        .await;
    assert_eq!(told["StreamDescriptionSummary"]["OpenShardCount"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_closed_shard_expires_with_its_records() {
    let host = split().await;
    let iterator = host.iterator("s", 0, "TRIM_HORIZON").await;
    tokio::time::advance(std::time::Duration::from_secs(24 * 3600 + 1)).await;
    let told = host.ok("ListShards", json!({"StreamName": "s"})).await;
    assert_eq!(ids(&told["Shards"]), ["1", "2"]);
    let input = json!({"StreamName": "s", "ShardId": "0", "ShardIteratorType": "LATEST"});
    let gone = "Shard shardId-000000000000 in stream s under account 111122223333 does not exist";
    assert_eq!(
        host.call("GetShardIterator", input).await,
        Err(Error::NotFound(gone.into()))
    );
    let told = host
        .call("GetRecords", json!({"ShardIterator": iterator}))
        .await;
    assert!(matches!(told, Err(Error::ExpiredIterator(_))), "{told:?}");
}
