//! SplitShard, MergeShards, UpdateShardCount: when they may, and what the stream is meanwhile.

use std::time::Duration;

use serde_json::{Value as Json, json};
use shardmill_core::Stream;
use shardmill_core::stream::StreamMode;
use shardmill_store::{CommitError, Store, StreamChange, Tx};

use super::{ACCOUNT, Local, REGION, change, quick, stream_of, text};
use crate::api::kinesis::Error;
use crate::services::Settings;

const MIDDLE: &str = "170141183460469231731687303715884105728";

fn split(shard: &str, at: &str) -> (&'static str, Json) {
    let input = json!({"StreamName": "s", "ShardToSplit": shard, "NewStartingHashKey": at});
    ("SplitShard", input)
}

fn merge(parent: &str, adjacent: &str) -> (&'static str, Json) {
    let input =
        json!({"StreamName": "s", "ShardToMerge": parent, "AdjacentShardToMerge": adjacent});
    ("MergeShards", input)
}

fn count(target: u32) -> (&'static str, Json) {
    let input = json!({"StreamName": "s", "TargetShardCount": target,
        "ScalingType": "UNIFORM_SCALING"});
    ("UpdateShardCount", input)
}

async fn done(host: &Local, (operation, input): (&str, Json)) -> Json {
    let told = host.ok(operation, input).await;
    tokio::time::sleep(host.services.settings.stream_creation_time).await;
    told
}

/// The type and the text of the error that an operation ends with.
async fn refused(host: &Local, (operation, input): (&str, Json)) -> (&'static str, String) {
    let shown = format!("{operation} {input}");
    let told = host.call(operation, input).await.expect_err(&shown).told();
    assert_eq!(told.status, 400, "{shown}");
    (told.kind, told.message.unwrap_or_default())
}

async fn status(host: &Local) -> Json {
    let told = host.ok("DescribeStreamSummary", json!({"StreamName": "s"}));
    told.await["StreamDescriptionSummary"]["StreamStatus"].clone()
}

async fn open(host: &Local) -> u64 {
    let told = host.ok("DescribeStreamSummary", json!({"StreamName": "s"}));
    let open = told.await["StreamDescriptionSummary"]["OpenShardCount"].clone();
    open.as_u64().expect("a count")
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_updating_serves_data_but_is_not_changed_again() {
    let host = Local::start(Settings::default()).await;
    host.stream("s", 2).await;
    let name = json!({"StreamName": "s"});
    for (number, operation) in [split("0", "9"), merge("1", "0"), count(4)]
        .iter()
        .enumerate()
    {
        let first = match number {
            0 => split("0", "9"),
            1 => merge("3", "1"),
            _ => count(3),
        };
        host.ok(first.0, first.1).await;
        assert_eq!(status(&host).await, "UPDATING");
        let busy =
            format!("Stream s under account {ACCOUNT} not ACTIVE, instead in state UPDATING");
        let told = refused(&host, operation.clone()).await;
        assert_eq!(told, ("ResourceInUseException", busy));
        let put = json!({"StreamName": "s", "PartitionKey": "k", "Data": ""});
        let shard = text(&host.ok("PutRecord", put).await["ShardId"]);
        let input =
            json!({"StreamName": "s", "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"});
        let iterator = host.ok("GetShardIterator", input).await["ShardIterator"].clone();
        let page = host
            .ok("GetRecords", json!({"ShardIterator": iterator}))
            .await;
        assert_eq!(page["Records"].as_array().map(Vec::len), Some(1));
        let listed = host.ok("ListShards", name.clone()).await;
        let described = host.ok("DescribeStream", name.clone()).await;
        assert_eq!(listed["Shards"], described["StreamDescription"]["Shards"]);
        assert_ne!(listed["Shards"], json!([]));
        let takes = host.services.settings.stream_creation_time;
        tokio::time::sleep(takes - Duration::from_millis(1)).await;
        assert_eq!(status(&host).await, "UPDATING");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(status(&host).await, "ACTIVE");
    }
    let (operation, input) = split("2", "4");
    host.call(operation, input)
        .await
        .expect_err("closed or too narrow");
    assert_eq!(
        status(&host).await,
        "ACTIVE",
        "what is refused changes nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_updating_can_be_deleted() {
    let host = Local::start(Settings::default()).await;
    host.stream("s", 1).await;
    let (operation, input) = split("0", MIDDLE);
    host.ok(operation, input).await;
    host.ok("DeleteStream", json!({"StreamName": "s"})).await;
    assert_eq!(status(&host).await, "DELETING");
    let told = refused(&host, count(4)).await;
    assert_eq!(told.0, "ResourceInUseException");
}

#[tokio::test(start_paused = true)]
async fn a_closed_shard_is_not_split_or_merged() {
    let host = Local::start(quick()).await;
    host.stream("s", 2).await;
    done(&host, split("0", "9")).await;
    for operation in [split("0", "5"), merge("0", "1"), merge("3", "0")] {
        let closed = format!(
            "Shard shardId-000000000000 in stream s under account {ACCOUNT} has already been \
             merged or split, and thus is not eligible for merging or splitting."
        );
        let told = refused(&host, operation).await;
        assert_eq!(told, ("InvalidArgumentException", closed));
    }
    tokio::time::advance(Duration::from_secs(24 * 3600 + 1)).await;
    let gone =
        format!("Could not find shard shardId-000000000000 in stream s under account {ACCOUNT}.");
    for operation in [split("0", "5"), merge("0", "1")] {
        let told = refused(&host, operation).await;
        assert_eq!(told, ("ResourceNotFoundException", gone.clone()));
    }
}

#[tokio::test(start_paused = true)]
async fn checks_come_in_awss_order() {
    let host = Local::start(Settings {
        shard_limit: 2,
        ..quick()
    })
    .await;
    let no_id =
        |id: &str| format!("Could not find shard {id} in stream s under account {ACCOUNT}.");
    let missing = format!("Stream s under account {ACCOUNT} not found.");
    let (not_found, invalid) = ("ResourceNotFoundException", "InvalidArgumentException");
    assert_eq!(
        refused(&host, split("x", "1")).await,
        (not_found, no_id("x"))
    );
    assert_eq!(
        refused(&host, merge("0", "x")).await,
        (not_found, no_id("x"))
    );
    assert_eq!(refused(&host, split("9", "1")).await, (not_found, missing));
    host.stream("s", 1).await;
    let nine = no_id("shardId-000000000009");
    assert_eq!(refused(&host, split("9", "1")).await, (not_found, nine));
    assert_eq!(refused(&host, split("0", "1")).await.0, invalid);
    done(&host, split("0", MIDDLE)).await;
    // The limit stands before the hash key, and behind the shard.
    let limit = format!(
        "This request would exceed the shard limit for the account {ACCOUNT} in {REGION}. \
         Current shard count for the account: 2. Limit: 2. Number of additional shards that \
         would have resulted from this request: 1. Refer to the AWS Service Limits page \
         (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current \
         limits and how to request higher limits."
    );
    assert_eq!(
        refused(&host, split("1", "1")).await,
        ("LimitExceededException", limit)
    );
    assert_eq!(refused(&host, split("0", "1")).await.0, invalid, "closed");
    assert_eq!(refused(&host, count(4)).await.0, "LimitExceededException");
    assert_eq!(open(&host).await, 2);
    done(&host, merge("1", "2")).await;
    assert_eq!(open(&host).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_count_is_changed_ten_times_a_day() {
    let host = Local::start(quick()).await;
    host.stream("s", 2).await;
    let unchanged = host.ok("UpdateShardCount", count(2).1).await;
    assert_eq!(
        unchanged,
        json!({"StreamName": "s", "CurrentShardCount": 2, "TargetShardCount": 2,
            "StreamARN": format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/s")})
    );
    assert_eq!(status(&host).await, "ACTIVE", "nothing was to be done");
    for n in 0..10 {
        let told = done(&host, count(3 + n % 2)).await;
        assert_eq!(told["TargetShardCount"], 3 + n % 2);
        tokio::time::advance(Duration::from_secs(3600)).await;
    }
    let (kind, text) = refused(&host, count(3)).await;
    assert_eq!(kind, "LimitExceededException", "{text}");
    assert!(text.contains("10 times in 24 hours"), "{text}");
    // What changes nothing is no change, and the other two operations are not counted.
    done(&host, count(4)).await;
    let id = host.memory.streams(None)[0]
        .open_shards()
        .next()
        .expect("one")
        .id;
    let (_, mut input) = split(&id.to_string(), "");
    let range = host.memory.streams(None)[0].shard(id).expect("it").range;
    input["NewStartingHashKey"] = json!((range.start.0 + 9).to_string());
    done(&host, ("SplitShard", input)).await;
    tokio::time::advance(Duration::from_secs(14 * 3600 - 1)).await;
    assert_eq!(refused(&host, count(3)).await.0, "LimitExceededException");
    tokio::time::advance(Duration::from_secs(1)).await;
    done(&host, count(3)).await;
}

#[tokio::test(start_paused = true)]
async fn bounds_of_a_count_come_in_order() {
    let host = Local::start(Settings {
        shard_limit: 100_000,
        ..quick()
    })
    .await;
    host.stream("s", 3).await;
    let limit = "LimitExceededException";
    for (target, want) in [
        (
            7,
            "UpdateShardCount cannot scale up over double your current open shard count. Current open shard count: 3 Target shard count: 7",
        ),
        (
            1,
            "UpdateShardCount cannot scale down below half your current open shard count. Current open shard count: 3 Target shard count: 1",
        ),
        (
            10_001,
            "Target shard count or number of open shards cannot be greater than 10000. Current open shard count: 3, Target shard count: 10001",
        ),
    ] {
        assert_eq!(
            refused(&host, count(target)).await,
            (limit, want.to_owned())
        );
    }
    // Halved twice a half away from even: 3, 2, 1.
    done(&host, count(2)).await;
    done(&host, count(1)).await;
    assert_eq!(open(&host).await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_on_demand_stream_keeps_its_shards() {
    let host = Local::start(quick()).await;
    host.stream("s", 1).await;
    let mut demand = stream_of(4);
    demand.name = "demand".parse().expect("a name");
    demand.mode = StreamMode::OnDemand;
    demand.active_from = host.services.clock.now();
    change(&host.services, StreamChange::Create(Box::new(demand))).await;
    let input = json!({"StreamName": "demand", "ShardToSplit": "0", "NewStartingHashKey": "9"});
    let text =
        format!("Request is invalid. Stream demand under account {ACCOUNT} is in On-Demand mode.");
    assert_eq!(
        host.call("SplitShard", input).await,
        Err(Error::Validation(text))
    );
    done(&host, split("0", MIDDLE)).await;
    let shards: Vec<_> = host
        .memory
        .streams(None)
        .iter()
        .map(|s| s.shards.len())
        .collect();
    assert_eq!(shards, [4, 3], "by name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_and_what_others_change_meanwhile_both_stand() {
    let host = Local::start(quick()).await;
    host.stream("s", 1).await;
    let store = host.services.store.clone();
    let others = tokio::spawn(async move {
        for n in 0..300 {
            loop {
                let mut stream = Stream::clone(&store.streams(None)[0]);
                stream.tags.insert(n.to_string(), String::new());
                let tx = Tx {
                    streams: vec![StreamChange::Update(Box::new(stream))],
                    ..Tx::default()
                };
                match store.commit(tx).await {
                    Ok(_) => break,
                    Err(error) => assert!(matches!(error, CommitError::StreamChanged(_))),
                }
            }
            tokio::task::yield_now().await;
        }
    });
    let mut splits = 0;
    while !others.is_finished() || splits < 10 {
        let (operation, mut input) = split("", MIDDLE);
        let open = host.memory.streams(None)[0]
            .open_shards()
            .max_by_key(|shard| shard.range.end.0 - shard.range.start.0)
            .expect("one")
            .clone();
        let middle = open.range.start.0 + (open.range.end.0 - open.range.start.0) / 2;
        input["ShardToSplit"] = json!(open.id.to_string());
        input["NewStartingHashKey"] = json!(middle.to_string());
        done(&host, (operation, input)).await;
        splits += 1;
    }
    others.await.expect("the others");
    let stream = &host.memory.streams(None)[0];
    assert_eq!(stream.tags.len(), 300);
    assert_eq!(stream.shards.len(), 1 + 2 * splits);
}
