//! What time does: timestamps as starting points, retention, expiry, the janitor. The clock is
//! paused and moved.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{Local, quick, text};
use crate::api::kinesis::Error;
use crate::janitor;

async fn put(host: &Local, data: &str) {
    let input = json!({"StreamName": "s", "PartitionKey": "k", "Data": data});
    host.ok("PutRecord", input).await;
}

async fn read(host: &Local, iterator: &str) -> Json {
    host.ok("GetRecords", json!({"ShardIterator": iterator}))
        .await
}

async fn first_at(host: &Local, seconds: f64) -> Json {
    let input = json!({"StreamName": "s", "ShardId": "0", "ShardIteratorType": "AT_TIMESTAMP",
        "Timestamp": seconds});
    let iterator = text(&host.ok("GetShardIterator", input).await["ShardIterator"]);
    read(host, &iterator).await["Records"][0]["Data"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_timestamp_finds_the_first_record_that_is_not_older() {
    let host = Local::start(quick()).await;
    host.stream("s", 1).await;
    put(&host, "MQ==").await;
    tokio::time::advance(Duration::from_millis(7)).await;
    let between = host.services.clock.now().0 as f64 / 1000.0;
    tokio::time::advance(Duration::from_millis(7)).await;
    put(&host, "Mg==").await;
    let second = host.services.clock.now().0 as f64 / 1000.0;
    assert_eq!(first_at(&host, between).await, "Mg==");
    assert_eq!(first_at(&host, second).await, "Mg==", "its own arrival");
    assert_eq!(first_at(&host, 0.0).await, "MQ==", "before the horizon");
    tokio::time::advance(Duration::from_millis(7)).await;
    let after = host.services.clock.now().0 as f64 / 1000.0;
    assert_eq!(first_at(&host, after).await, Json::Null, "like LATEST");
    let iterator = host.iterator("s", 0, "TRIM_HORIZON").await;
    let page = read(&host, &iterator).await;
    assert_eq!(page["Records"][1]["ApproximateArrivalTimestamp"], second);
}

#[tokio::test(start_paused = true)]
async fn records_past_their_retention_are_gone_before_they_are_trimmed() {
    let host = Local::start(quick()).await;
    host.stream("s", 1).await;
    put(&host, "MQ==").await;
    put(&host, "Mg==").await;
    tokio::time::advance(Duration::from_secs(23 * 3600)).await;
    put(&host, "Mw==").await;
    tokio::time::advance(Duration::from_secs(3600)).await;
    let iterator = host.iterator("s", 0, "TRIM_HORIZON").await;
    let page = read(&host, &iterator).await;
    assert_eq!(
        page["Records"].as_array().map(Vec::len),
        Some(3),
        "24 hours are kept"
    );
    tokio::time::advance(Duration::from_millis(2)).await;
    let page = read(&host, &iterator).await;
    assert_eq!(page["Records"].as_array().map(Vec::len), Some(1));
    assert_eq!(page["Records"][0]["Data"], "Mw==");
    tokio::time::advance(Duration::from_secs(23 * 3600)).await;
    let iterator = host.iterator("s", 0, "TRIM_HORIZON").await;
    let page = read(&host, &iterator).await;
    assert_eq!(
        (&page["Records"], &page["MillisBehindLatest"]),
        (&json!([]), &json!(0))
    );
    put(&host, "NA==").await;
    let page = read(&host, &text(&page["NextShardIterator"])).await;
    assert_eq!(page["Records"][0]["Data"], "NA==");
}

#[tokio::test(start_paused = true)]
async fn an_iterator_lives_five_minutes() {
    let host = Local::start(quick()).await;
    host.stream("s", 1).await;
    let iterator = host.iterator("s", 0, "LATEST").await;
    tokio::time::advance(Duration::from_secs(300)).await;
    let page = read(&host, &iterator).await;
    tokio::time::advance(Duration::from_millis(1)).await;
    let told = host
        .call("GetRecords", json!({"ShardIterator": iterator}))
        .await;
    assert!(matches!(told, Err(Error::ExpiredIterator(_))), "{told:?}");
    read(&host, &text(&page["NextShardIterator"])).await;
}

#[tokio::test(start_paused = true)]
async fn page_tokens_expire_too() {
    let host = Local::start(quick()).await;
    host.stream("s", 2).await;
    let page = host
        .ok("ListShards", json!({"StreamName": "s", "MaxResults": 1}))
        .await;
    tokio::time::advance(Duration::from_secs(301)).await;
    let told = host
        .call("ListShards", json!({"NextToken": page["NextToken"]}))
        .await;
    assert!(matches!(told, Err(Error::ExpiredNextToken(_))), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn the_janitor_trims_and_removes() {
    let host = Local::start(quick()).await;
    host.stream("s", 1).await;
    put(&host, "MQ==").await;
    host.stream("t", 1).await;
    host.ok("DeleteStream", json!({"StreamName": "t"})).await;
    let store = &host.services.store;
    assert_eq!(store.streams(None).len(), 2);
    let work = janitor::run(host.services.clone());
    tokio::select! {
        () = work => {}
        () = tokio::time::sleep(Duration::from_secs(24 * 3600 + 20)) => {}
    }
    assert_eq!(store.streams(None).len(), 1);
    let shard = shardmill_core::ShardKey {
        stream: store.streams(None)[0].id,
        shard: shardmill_core::ShardId(0),
    };
    let oldest = store.seek(shard, shardmill_store::Seek::TrimHorizon).await;
    assert_eq!(oldest, Ok(2), "the only record is trimmed");
}
