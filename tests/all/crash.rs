//! kill -9 of a real host under load: every acknowledged record is found again, in order, once.
//!
//! Five kills in the normal run; `SHARDMILL_KILLS=50` asks for more.

use std::collections::HashMap;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::host::{Caller, Host};

const STREAM: &str = "load";
const PRODUCERS: u64 = 4;

/// What one producer knows: texts that were acknowledged, with shard and sequence number.
#[derive(Default)]
struct Acknowledged(Vec<(String, String, String)>);

/// Puts batches until the host is gone.
async fn produce(host: Caller, producer: u64, round: u64, seed: u64) -> Acknowledged {
    let mut dice = ChaCha8Rng::seed_from_u64(seed ^ (round << 8) ^ producer);
    let mut acknowledged = Acknowledged::default();
    for call in 0u64.. {
        let count = dice.random_range(1..40);
        let texts: Vec<String> = (0..count)
            .map(|i| format!("{producer}/{round}/{call}/{i}"))
            .collect();
        let padding = "x".repeat(dice.random_range(0..2_000));
        let records: Vec<Value> = texts
            .iter()
            .map(|text| {
                let data = base64_simd::STANDARD.encode_to_string(format!("{text} {padding}"));
                json!({"PartitionKey": format!("{}", dice.random_range(0..20)), "Data": data})
            })
            .collect();
        let Ok(answer) = host
            .kinesis(
                "PutRecords",
                json!({"StreamName": STREAM, "Records": records}),
            )
            .await
        else {
            break;
        };
        for (text, entry) in texts.into_iter().zip(answer["Records"].as_array().unwrap()) {
            let member = |name: &str| entry[name].as_str().unwrap().to_owned();
            acknowledged
                .0
                .push((text, member("ShardId"), member("SequenceNumber")));
        }
    }
    acknowledged
}

/// Everything in the stream, by shard: text and sequence number, in order.
async fn read_all(host: &Host) -> HashMap<String, Vec<(String, String)>> {
    let shards = host
        .kinesis("ListShards", json!({"StreamName": STREAM}))
        .await
        .unwrap();
    let mut all = HashMap::new();
    for shard in shards["Shards"].as_array().unwrap() {
        let id = shard["ShardId"].as_str().unwrap();
        let start =
            json!({"StreamName": STREAM, "ShardId": id, "ShardIteratorType": "TRIM_HORIZON"});
        let answer = host.kinesis("GetShardIterator", start).await.unwrap();
        let mut iterator = answer["ShardIterator"].clone();
        let mut records = Vec::new();
        loop {
            let page = host
                .kinesis("GetRecords", json!({"ShardIterator": iterator}))
                .await
                .unwrap();
            for record in page["Records"].as_array().unwrap() {
                let data = base64_simd::STANDARD
                    .decode_to_vec(record["Data"].as_str().unwrap())
                    .unwrap();
                let text = String::from_utf8(data).unwrap();
                let text = text.split(' ').next().unwrap().to_owned();
                records.push((text, record["SequenceNumber"].as_str().unwrap().to_owned()));
            }
            iterator = page["NextShardIterator"].clone();
            if page["Records"].as_array().unwrap().is_empty() && page["MillisBehindLatest"] == 0 {
                break;
            }
        }
        all.insert(id.to_owned(), records);
    }
    all
}

#[tokio::test]
async fn every_acknowledged_record_survives_kill_9_in_order() {
    let kills: u64 = std::env::var("SHARDMILL_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(5);
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    let mut host = Host::start();
    host.kinesis(
        "CreateStream",
        json!({"StreamName": STREAM, "ShardCount": 3}),
    )
    .await
    .unwrap();
    host.active(STREAM).await;
    let mut acknowledged: HashMap<String, (String, String)> = HashMap::new();
    for round in 0..kills {
        let load = Duration::from_millis(dice.random_range(50..600));
        let done = {
            let client = host.client();
            let produce = |p| tokio::spawn(produce(client.clone(), p, round, seed));
            let producers: Vec<_> = (0..PRODUCERS).map(produce).collect();
            tokio::time::sleep(load).await;
            host.kill();
            let mut done = Vec::new();
            for producer in producers {
                done.extend(producer.await.unwrap().0);
            }
            done
        };
        for (text, shard, number) in done {
            acknowledged.insert(text, (shard, number));
        }
        host.restart();
        let stored = read_all(&host).await;
        let mut found = HashMap::new();
        for (shard, records) in &stored {
            let numbers: Vec<(usize, &String)> =
                records.iter().map(|(_, n)| (n.len(), n)).collect();
            assert!(
                numbers.is_sorted(),
                "seed {seed}, round {round}: {shard} is in order"
            );
            for (text, number) in records {
                let before = found.insert(text.clone(), (shard.clone(), number.clone()));
                assert!(
                    before.is_none(),
                    "seed {seed}, round {round}: {text} is there twice"
                );
            }
        }
        for (text, place) in &acknowledged {
            assert_eq!(
                found.get(text),
                Some(place),
                "seed {seed}, round {round}: {text}"
            );
        }
    }
    assert!(
        acknowledged.len() > 100,
        "seed {seed}: {} records were acknowledged",
        acknowledged.len()
    );
}

#[tokio::test]
async fn a_damaged_journal_is_refused_until_it_is_repaired() {
    let mut host = Host::start();
    let create = json!({"StreamName": STREAM, "ShardCount": 1});
    host.kinesis("CreateStream", create).await.unwrap();
    host.active(STREAM).await;
    let put = async |host: &Host, text: &str| {
        let data = base64_simd::STANDARD.encode_to_string(text);
        let put = json!({"StreamName": STREAM, "PartitionKey": "k", "Data": data});
        host.kinesis("PutRecord", put).await.unwrap();
    };
    for text in [
        "before the damage",
        "the damaged record",
        "behind the damage",
    ] {
        put(&host, text).await;
    }
    host.kill();
    let journal = host.folder().join("data/journal");
    let mut damaged = 0;
    for file in std::fs::read_dir(journal).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let needle = b"the damaged record";
        if let Some(at) = bytes.windows(needle.len()).position(|w| w == needle) {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    let refused = host
        .command()
        .stderr(std::process::Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains(".log") && said.contains("repair --accept-loss"),
        "{said}"
    );
    let data = host.folder().join("data").display().to_string();
    let unsure = host.cli(&["repair", "--data-dir", &data]).output().unwrap();
    assert_eq!(unsure.status.code(), Some(1), "{unsure:?}");
    let repaired = host
        .cli(&["repair", "--data-dir", &data, "--accept-loss"])
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&repaired.stdout).into_owned();
    assert!(
        repaired.status.success() && report.contains("lost"),
        "{repaired:?}"
    );
    host.restart();
    let texts = |all: HashMap<String, Vec<(String, String)>>| all.into_values().flatten().count();
    assert_eq!(
        texts(read_all(&host).await),
        1,
        "what was before the damage is there"
    );
    put(&host, "after the repair").await;
    assert_eq!(texts(read_all(&host).await), 2);
    host.terminate();
}
