//! One tenant against another: whatever names the other's things is answered as if there were no
//! such thing, so that nobody learns what others have.

use serde_json::{Value as Json, json};

use super::{ACCOUNT, AUTHORIZATION, Local, quick, text};
use crate::api::kinesis::{Error, OPERATIONS, Support};

const OTHER: &str = "444455556666";

async fn of_other(host: &Local, operation: &str, input: &Json) -> Result<Json, Error> {
    let authorization = AUTHORIZATION.replace(ACCOUNT, OTHER);
    let body = input.to_string().into_bytes();
    let unused = ("x-unused", "");
    host.signed(&authorization, operation, &body, unused).await
}

/// Everything that any operation asks for.
fn input(name: &str, arn: bool) -> Json {
    let mut input = json!({
        "ShardId": "shardId-000000000000", "ShardIteratorType": "LATEST", "PartitionKey": "k",
        "Data": "AAAA", "Records": [{"PartitionKey": "k", "Data": "AAAA"}],
        "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "5",
        "ShardToMerge": "shardId-000000000000",
        "AdjacentShardToMerge": "shardId-000000000001",
        "TargetShardCount": 3, "ScalingType": "UNIFORM_SCALING",
    });
    let arn_of = format!("arn:aws:kinesis:eu-central-1:{ACCOUNT}:stream/{name}");
    match arn {
        true => input["StreamARN"] = json!(arn_of),
        false => input["StreamName"] = json!(name),
    }
    input
}

#[tokio::test(start_paused = true)]
async fn anothers_stream_is_like_none_to_every_operation() {
    let host = Local::start(quick()).await;
    host.stream("secret", 2).await;
    let mut refused = 0;
    for operation in OPERATIONS {
        if matches!(operation.support, Support::No) || operation.name == "CreateStream" {
            continue;
        }
        for arn in [false, true] {
            let told = async |name| {
                let told = of_other(&host, operation.name, &input(name, arn)).await;
                told.map_err(|error| format!("{error:?}").replace(name, "NAME"))
            };
            let (theirs, nothing) = (told("secret").await, told("nobody").await);
            assert_eq!(theirs, nothing, "{} {arn}", operation.name);
            refused += u32::from(theirs.is_err());
        }
    }
    assert!(refused >= 20, "most operations name a stream: {refused}");
    let streams = of_other(&host, "ListStreams", &json!({})).await;
    assert_eq!(streams.expect("a list")["StreamNames"], json!([]));
    let kept = host
        .ok("DescribeStreamSummary", json!({"StreamName": "secret"}))
        .await;
    let summary = &kept["StreamDescriptionSummary"];
    assert_eq!(summary["OpenShardCount"], 2, "nothing was changed");
}

#[tokio::test(start_paused = true)]
async fn anothers_iterators_and_tokens_are_like_forged_ones() {
    let host = Local::start(quick()).await;
    host.stream("secret", 2).await;
    let iterator = host.iterator("secret", 0, "LATEST").await;
    let theirs = of_other(&host, "GetRecords", &json!({"ShardIterator": iterator})).await;
    let forged = json!({"ShardIterator": "A".repeat(iterator.len() - 2) + "=="});
    let forged = of_other(&host, "GetRecords", &forged).await;
    assert_eq!(theirs, forged);
    assert!(theirs.is_err());

    let first = json!({"StreamName": "secret", "MaxResults": 1});
    let token = |page: Json| json!({"NextToken": text(&page["NextToken"])});
    let page = token(host.ok("ListShards", first.clone()).await);
    let theirs = of_other(&host, "ListShards", &page).await;
    let forged = json!({"NextToken": "A".repeat(118) + "=="});
    assert_eq!(theirs, of_other(&host, "ListShards", &forged).await);
    assert!(theirs.is_err());

    host.stream("secrets", 1).await;
    let page = token(host.ok("ListStreams", json!({"Limit": 1})).await);
    let theirs = of_other(&host, "ListStreams", &page).await;
    assert_eq!(theirs, of_other(&host, "ListStreams", &forged).await);
    assert!(theirs.is_err());
}
