//! What holds whatever comes: reading on never repeats or skips, iterators cannot be made up,
//! no body brings the host down, a producer's put is stored once.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};
use shardmill_core::ShardId;

use super::{Local, quick, text};
use crate::api::kinesis::Error;
use crate::api::kinesis::iterator::ShardIterator;
use crate::api::kinesis::operations::{OPERATIONS, Support};

/// A seed of its own for every run, printed for the one that fails.
fn seeds() -> impl Iterator<Item = u64> {
    let first: u64 = rand::random();
    (0..8)
        .map(move |n| first.wrapping_add(n))
        .inspect(|seed| println!("seed {seed}"))
}

/// Puts records of random sizes in random batches; gives what was stored, in order.
async fn fill(host: &Local, rng: &mut StdRng, count: usize) -> Vec<(String, Vec<u8>)> {
    let mut stored = Vec::new();
    while stored.len() < count {
        let batch = rng.random_range(1..=20).min(count - stored.len());
        let data: Vec<Vec<u8>> = (0..batch)
            .map(|_| (0..rng.random_range(0..40)).map(|_| rng.random()).collect())
            .collect();
        let entry = |bytes: &Vec<u8>| json!({"PartitionKey": "k", "Data": base64_simd::STANDARD.encode_to_string(bytes)});
        let records: Vec<_> = data.iter().map(entry).collect();
        let told = host
            .ok("PutRecords", json!({"StreamName": "s", "Records": records}))
            .await;
        for (told, data) in told["Records"]
            .as_array()
            .expect("records")
            .iter()
            .zip(data)
        {
            stored.push((text(&told["SequenceNumber"]), data));
        }
        tokio::time::advance(std::time::Duration::from_millis(rng.random_range(0..3))).await;
    }
    stored
}

fn page_of(page: &Json) -> Vec<(String, Vec<u8>)> {
    let record = |record: &Json| {
        let data = base64_simd::STANDARD.decode_to_vec(text(&record["Data"]));
        (text(&record["SequenceNumber"]), data.expect("Base64"))
    };
    page["Records"]
        .as_array()
        .expect("records")
        .iter()
        .map(record)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn reading_on_from_any_record_never_repeats_nor_skips() {
    for seed in seeds() {
        let mut rng = StdRng::seed_from_u64(seed);
        let host = Local::start(quick()).await;
        host.stream("s", 1).await;
        let stored = fill(&host, &mut rng, 60).await;
        for (index, (number, _)) in stored.iter().enumerate() {
            for (kind, from) in [
                ("AT_SEQUENCE_NUMBER", index),
                ("AFTER_SEQUENCE_NUMBER", index + 1),
            ] {
                let input = json!({"StreamName": "s", "ShardId": "0", "ShardIteratorType": kind,
                    "StartingSequenceNumber": number});
                let mut iterator = text(&host.ok("GetShardIterator", input).await["ShardIterator"]);
                let mut seen = Vec::new();
                let mut pages = 0;
                loop {
                    let limit = rng.random_range(1..=25);
                    let input = json!({"ShardIterator": iterator, "Limit": limit});
                    let page = host.ok("GetRecords", input).await;
                    let records = page_of(&page);
                    assert!(records.len() <= limit);
                    let empty = records.is_empty();
                    seen.extend(records);
                    iterator = text(&page["NextShardIterator"]);
                    pages += 1;
                    if page["MillisBehindLatest"] == 0 {
                        break;
                    }
                    assert!(!empty, "an empty page with records behind it, page {pages}");
                }
                assert_eq!(seen, stored[from..], "{kind} record {index}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn numbers_that_no_record_has_lie_where_they_sort() {
    let host = Local::start(quick()).await;
    host.stream("s", 1).await;
    let mut rng = StdRng::seed_from_u64(1);
    let stored = fill(&host, &mut rng, 3).await;
    let stream = host.services.store.streams(None).remove(0);
    let shard = &stream.shards[0];
    let made_up = |counter, seconds| shard.sequence_number(counter, seconds).to_string();
    let now = host.services.clock.now().seconds();
    for (number, kind, from) in [
        (made_up(0, shard.created_seconds), "AT_SEQUENCE_NUMBER", 0),
        (
            made_up(0, shard.created_seconds),
            "AFTER_SEQUENCE_NUMBER",
            0,
        ),
        (made_up(2, now - 1), "AT_SEQUENCE_NUMBER", 1),
        (made_up(2, now - 1), "AFTER_SEQUENCE_NUMBER", 1),
        (made_up(2, now + 9), "AT_SEQUENCE_NUMBER", 2),
        (made_up(2, now + 9), "AFTER_SEQUENCE_NUMBER", 2),
    ] {
        let input = json!({"StreamName": "s", "ShardId": "0", "ShardIteratorType": kind,
            "StartingSequenceNumber": number});
        let iterator = host.ok("GetShardIterator", input).await["ShardIterator"].clone();
        let page = host
            .ok("GetRecords", json!({"ShardIterator": iterator}))
            .await;
        assert_eq!(page_of(&page), stored[from..], "{kind} {number}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_iterator_of_another_account_or_host_is_refused() {
    let host = Local::start(quick()).await;
    host.stream("s", 1).await;
    let other = Local::start(quick()).await;
    other.stream("s", 1).await;
    let invalid = Err(Error::InvalidArgument("Invalid ShardIterator.".into()));
    let stream = host.services.store.streams(None).remove(0);
    let mut iterator = ShardIterator {
        scope: super::scope(),
        stream: stream.id,
        name: "s".into(),
        shard: ShardId(0),
        position: 1,
        issued: host.services.clock.now(),
    };
    let own = json!({"ShardIterator": iterator.seal(&host.services.seal)});
    assert!(host.call("GetRecords", own.clone()).await.is_ok());
    assert_eq!(other.call("GetRecords", own).await, invalid);
    iterator.scope = shardmill_core::Scope::default();
    let foreign = json!({"ShardIterator": iterator.seal(&host.services.seal)});
    assert_eq!(host.call("GetRecords", foreign).await, invalid);
}

#[tokio::test(start_paused = true)]
async fn the_namesake_of_a_deleted_stream_is_not_read_by_its_iterators() {
    let host = Local::start(quick()).await;
    host.stream("s", 1).await;
    let iterator = json!({"ShardIterator": host.iterator("s", 0, "TRIM_HORIZON").await});
    host.ok("DeleteStream", json!({"StreamName": "s"})).await;
    tokio::time::advance(std::time::Duration::from_millis(1)).await;
    host.stream("s", 1).await;
    let told = host.call("GetRecords", iterator).await;
    let want = "Shard shardId-000000000000 in stream s under account 111122223333 does not exist";
    assert_eq!(told, Err(Error::NotFound(want.into())));
}

#[tokio::test(start_paused = true)]
async fn a_put_with_a_producers_number_is_stored_once() {
    let host = Local::start(quick()).await;
    host.stream("s", 3).await;
    let records: Vec<_> = (0..10)
        .map(|n| json!({"PartitionKey": n.to_string(), "Data": ""}))
        .collect();
    let body = json!({"StreamName": "s", "Records": records}).to_string();
    let put = async |producer: &str| {
        let header = ("x-shardmill-producer", producer);
        host.with_header("PutRecords", body.as_bytes(), header)
            .await
    };
    let first = put("p;1").await.expect("the first put");
    assert_eq!(
        put("p;1").await.as_ref(),
        Ok(&first),
        "the same answer again"
    );
    assert_eq!(host.services.store.stats().records, 10, "and nothing more");
    assert_ne!(put("p;2").await.as_ref(), Ok(&first));
    assert!(
        matches!(put("p;1").await, Err(Error::InvalidArgument(_))),
        "a number gone by"
    );
    for bad in ["p", "p;", ";1", "p;-1", "p;x"] {
        assert!(
            matches!(put(bad).await, Err(Error::InvalidArgument(_))),
            "{bad}"
        );
    }
    // The fast way and the careful way agree on where each record is.
    let plain = host
        .ok("PutRecords", serde_json::from_str(&body).expect("JSON"))
        .await;
    for (a, b) in first["Records"]
        .as_array()
        .into_iter()
        .flatten()
        .zip(plain["Records"].as_array().into_iter().flatten())
    {
        assert_eq!(a["ShardId"], b["ShardId"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_records_and_still_reads_and_deletes() {
    let host = Local::start(quick()).await;
    host.stream("s", 1).await;
    let put = json!({"StreamName": "s", "PartitionKey": "k", "Data": "MQ=="});
    host.ok("PutRecord", put.clone()).await;
    host.memory.pretend_disk(Some((1, 2)));
    let told = host
        .call("PutRecord", put)
        .await
        .expect_err("no room")
        .told();
    assert_eq!((told.status, told.kind), (503, "ServiceUnavailable"));
    let iterator = host.iterator("s", 0, "TRIM_HORIZON").await;
    let page = host
        .ok("GetRecords", json!({"ShardIterator": iterator}))
        .await;
    assert_eq!(page["Records"].as_array().map(Vec::len), Some(1));
    host.ok("DeleteStream", json!({"StreamName": "s"})).await;
}

#[tokio::test(start_paused = true)]
async fn the_fast_way_and_the_careful_way_store_the_same() {
    let host = Local::start(quick()).await;
    host.stream("s", 1).await;
    let record = r#"{"PartitionKey":"kä","Data":"aGk=","ExplicitHashKey":"5"}"#;
    for body in [
        format!(r#"{{"StreamName":"s","Records":[{record}]}}"#),
        format!(r#"{{"StreamName":"s","Records":[{record}],"DryRun":false}}"#),
        format!(
            r#"{{"StreamName":"s","Records":[{}]}}"#,
            record.replace("k", r"\u006b")
        ),
        format!(r#"{{"StreamName":"s","Records":[],"Records":[{record}]}}"#),
    ] {
        host.bytes("PutRecords", body.as_bytes())
            .await
            .expect(&body);
    }
    let iterator = host.iterator("s", 0, "TRIM_HORIZON").await;
    let page = host
        .ok("GetRecords", json!({"ShardIterator": iterator}))
        .await;
    let records = page["Records"].as_array().expect("records");
    assert_eq!(records.len(), 4);
    for record in records {
        assert_eq!(
            (&record["PartitionKey"], &record["Data"]),
            (&json!("kä"), &json!("aGk="))
        );
    }
}

/// Bodies that work, one for each operation.
fn good_bodies(iterator: &str) -> Vec<(&'static str, Json)> {
    let record = json!({"PartitionKey": "k", "Data": "aGVsbG8=", "ExplicitHashKey": "77"});
    vec![
        (
            "CreateStream",
            json!({"StreamName": "n", "ShardCount": 2, "Tags": {"a": "b"}}),
        ),
        (
            "DeleteStream",
            json!({"StreamName": "n", "EnforceConsumerDeletion": true}),
        ),
        (
            "DescribeStream",
            json!({"StreamName": "s", "Limit": 3, "ExclusiveStartShardId": "0"}),
        ),
        ("DescribeStreamSummary", json!({"StreamName": "s"})),
        (
            "ListStreams",
            json!({"Limit": 3, "ExclusiveStartStreamName": "a"}),
        ),
        (
            "ListShards",
            json!({"StreamName": "s", "MaxResults": 1, "StreamCreationTimestamp": 1.5,
            "ShardFilter": {"Type": "AT_TIMESTAMP", "Timestamp": 1_700_000_000.25}}),
        ),
        (
            "PutRecord",
            json!({"StreamName": "s", "PartitionKey": "k", "Data": "aGk=",
            "SequenceNumberForOrdering": "49546986683135544286507457936321625675700192471156785154"}),
        ),
        (
            "PutRecords",
            json!({"StreamName": "s", "Records": [record, record]}),
        ),
        (
            "GetShardIterator",
            json!({"StreamName": "s", "ShardId": "shardId-000000000000",
            "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1_700_000_000}),
        ),
        ("GetRecords", json!({"ShardIterator": iterator, "Limit": 5})),
        (
            "SplitShard",
            json!({"StreamName": "s", "ShardToSplit": "0", "NewStartingHashKey": "77"}),
        ),
        (
            "MergeShards",
            json!({"StreamName": "s", "ShardToMerge": "3", "AdjacentShardToMerge": "1"}),
        ),
        (
            "UpdateShardCount",
            json!({"StreamName": "s", "TargetShardCount": 3, "ScalingType": "UNIFORM_SCALING"}),
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn no_body_makes_the_host_fail() {
    for seed in seeds() {
        let mut rng = StdRng::seed_from_u64(seed);
        let host = Local::start(quick()).await;
        host.stream("s", 2).await;
        let iterator = host.iterator("s", 0, "TRIM_HORIZON").await;
        let bodies = good_bodies(&iterator);
        let supported = OPERATIONS
            .iter()
            .filter(|o| matches!(o.support, Support::Yes(_)));
        assert_eq!(bodies.len(), supported.count(), "a body for each operation");
        for _ in 0..400 {
            let (operation, body) = bodies.choose(&mut rng).expect("a body");
            let mut body = body.clone();
            for _ in 0..rng.random_range(0..3) {
                mutate(&mut body, &mut rng);
            }
            let mut bytes = body.to_string().into_bytes();
            if rng.random_bool(0.3) {
                for _ in 0..rng.random_range(1..4) {
                    scramble(&mut bytes, &mut rng);
                }
            }
            let told = host.bytes(operation, &bytes).await;
            let failed = matches!(&told, Err(Error::Internal(_) | Error::Unavailable(_)))
                // AWS fails for these numbers, and so do we.
                && !matches!(&told, Err(Error::Internal(why)) if why.contains("version 0"));
            assert!(
                !failed,
                "{operation} {}: {told:?}",
                String::from_utf8_lossy(&bytes)
            );
        }
    }
}

/// Changes one value somewhere.
fn mutate(json: &mut Json, rng: &mut StdRng) {
    match json {
        Json::Object(members) if !members.is_empty() && rng.random_bool(0.9) => {
            let mut names: Vec<_> = members.keys().cloned().collect();
            names.shuffle(rng);
            if let Some(inner) = members.get_mut(&names[0]) {
                mutate(inner, rng);
            }
        }
        Json::Array(items) if !items.is_empty() && rng.random_bool(0.7) => {
            let at = rng.random_range(0..items.len());
            mutate(&mut items[at], rng);
        }
        other => {
            let long = "9".repeat(rng.random_range(1..200));
            *other = [
                json!(null),
                json!(true),
                json!(-1),
                json!(0),
                json!(1e300),
                json!(i64::MIN),
                json!(u64::MAX),
                json!(""),
                json!("ü\u{0}\u{10ffff}"),
                json!([]),
                json!({}),
                json!([null]),
                json!({"": {"": []}}),
                json!(long),
                json!("\"\""),
                json!("===="),
                json!("340282366920938463463374607431768211456"),
                json!("shardId--1"),
                json!(0.5),
            ]
            .choose(rng)
            .expect("a value")
            .clone();
        }
    }
}

/// Changes, drops or doubles a byte.
fn scramble(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.random_range(0..bytes.len());
    match rng.random_range(0..3) {
        0 => bytes[at] = rng.random(),
        1 => drop(bytes.remove(at)),
        _ => bytes.insert(at, bytes[at]),
    }
}
