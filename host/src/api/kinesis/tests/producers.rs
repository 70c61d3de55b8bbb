//! Producers over HTTP's operations while the stream is split, merged and counted anew: whatever
//! was answered is read back along the tree of shards, once and in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value as Json, json};

use super::{Local, quick, text};

const PRODUCERS: usize = 4;
const ROUNDS: usize = 60;
const KEYS: usize = 12;

async fn produce(host: &Local, producer: usize, header: bool) {
    for n in 0..ROUNDS {
        let data = base64_simd::STANDARD.encode_to_string(format!("{n}"));
        let record = |key| json!({"PartitionKey": format!("{producer}/{key}"), "Data": data});
        let records: Vec<_> = (0..KEYS).map(record).collect();
        let body = json!({"StreamName": "s", "Records": records}).to_string();
        let mark = format!("p{producer};{n}");
        let header = if header {
            "x-shardmill-producer"
        } else {
            "x-unused"
        };
        let told = host
            .with_header("PutRecords", body.as_bytes(), (header, &mark))
            .await
            .expect("the records are stored");
        assert_eq!(told["FailedRecordCount"], 0);
        tokio::task::yield_now().await;
    }
}

/// Splits the widest shard, or merges two neighbours, or asks for another count.
async fn reshard(host: &Local, round: usize) {
    let open = host.ok(
        "ListShards",
        json!({"StreamName": "s", "ShardFilter": {"Type": "AT_LATEST"}}),
    );
    let mut open: Vec<(u128, u128, String)> = open.await["Shards"]
        .as_array()
        .expect("shards")
        .iter()
        .map(|shard| {
            let range = &shard["HashKeyRange"];
            let key = |name| text(&range[name]).parse().expect("a hash key");
            (
                key("StartingHashKey"),
                key("EndingHashKey"),
                text(&shard["ShardId"]),
            )
        })
        .collect();
    open.sort();
    match round % 3 {
        0 => {
            let (start, end, shard) = &open[round % open.len()];
            let at = (start + (end - start) / 2).to_string();
            let input = json!({"StreamName": "s", "ShardToSplit": shard, "NewStartingHashKey": at});
            host.ok("SplitShard", input).await;
        }
        1 => {
            let at = round % (open.len() - 1);
            let input = json!({"StreamName": "s", "ShardToMerge": open[at].2,
                "AdjacentShardToMerge": open[at + 1].2});
            host.ok("MergeShards", input).await;
        }
        _ => {
            let target = [
                open.len() + 1,
                2 * open.len(),
                open.len().div_ceil(2).max(2),
            ];
            let input = json!({"StreamName": "s", "TargetShardCount": target[round / 3 % 3],
                "ScalingType": "UNIFORM_SCALING"});
            // Ten times a day.
            let _ = host.call("UpdateShardCount", input).await;
        }
    }
}

/// All records of a shard, and its children, once its end is reached.
async fn read(host: &Local, shard: &str) -> (Vec<Json>, Option<Vec<Json>>) {
    let input = json!({"StreamName": "s", "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"});
    let mut iterator = host.ok("GetShardIterator", input).await["ShardIterator"].clone();
    let mut records = Vec::new();
    loop {
        let input = json!({"ShardIterator": iterator, "Limit": 7});
        let page = host.ok("GetRecords", input).await;
        let page_records = page["Records"].as_array().expect("records");
        records.extend(page_records.iter().cloned());
        let children = page
            .get("ChildShards")
            .map(|c| c.as_array().expect("a list").clone());
        match page.get("NextShardIterator") {
            None => {
                assert!(children.as_ref().is_some_and(|c| !c.is_empty()), "{page}");
                return (records, children);
            }
            Some(next) => {
                assert_eq!(children, None, "only the end has children");
                if page_records.is_empty() {
                    return (records, None);
                }
                iterator = next.clone();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_was_answered_is_read_once_and_in_order_along_the_tree() {
    let host = Arc::new(Local::start(quick()).await);
    host.stream("s", 2).await;
    let running = Arc::new(AtomicUsize::new(PRODUCERS));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let (host, running) = (host.clone(), running.clone());
            tokio::spawn(async move {
                produce(&host, producer, producer % 2 == 0).await;
                running.fetch_sub(1, Ordering::Relaxed);
            })
        })
        .collect();
    let mut rounds = 0;
    while running.load(Ordering::Relaxed) > 0 || rounds < 12 {
        reshard(&host, rounds).await;
        rounds += 1;
        tokio::time::sleep(host.services.settings.stream_creation_time).await;
    }
    for producer in producers {
        producer.await.expect("a producer");
    }

    let mut seen: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    let (mut done, mut waiting) = (BTreeSet::new(), Vec::new());
    let told = host.ok("ListShards", json!({"StreamName": "s"})).await;
    for shard in told["Shards"].as_array().expect("shards") {
        if shard.get("ParentShardId").is_none() {
            waiting.push(text(&shard["ShardId"]));
        }
    }
    while let Some(shard) = waiting.pop() {
        if !done.insert(shard.clone()) {
            continue;
        }
        let (records, children) = read(&host, &shard).await;
        for record in records {
            let data = base64_simd::STANDARD.decode_to_vec(text(&record["Data"]));
            let key = text(&record["PartitionKey"]);
            seen.entry(key).or_default().push(data.expect("Base64"));
        }
        for child in children.into_iter().flatten() {
            let parents = child["ParentShards"].as_array().expect("parents");
            if parents.iter().all(|parent| done.contains(&text(parent))) {
                waiting.push(text(&child["ShardId"]));
            }
        }
    }
    assert_eq!(done.len(), told["Shards"].as_array().expect("shards").len());
    assert!(done.len() > 20, "{} shards", done.len());
    assert_eq!(seen.len(), PRODUCERS * KEYS);
    let all: Vec<_> = (0..ROUNDS).map(|n| n.to_string().into_bytes()).collect();
    for (key, found) in seen {
        assert_eq!(found, all, "{key}");
    }
}
