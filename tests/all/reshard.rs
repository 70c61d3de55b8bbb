//! Shards that are split, merged and counted anew on a real host, by hand and under load.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use crate::host::{Caller, Host, guest, until};

const STREAM: &str = "s";
const PRODUCERS: usize = 3;
const KEYS: usize = 10;

/// What a command line prints when it succeeds.
fn told(host: &Host, arguments: &[&str]) -> String {
    let output = host.cli(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

fn refused(host: &Host, arguments: &[&str]) -> String {
    let output = host.cli(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr)
        .unwrap()
        .trim_end()
        .to_owned()
}

#[test]
fn shards_are_changed_from_the_command_line() {
    let host = Host::start();
    told(&host, &["streams", "create", STREAM]);
    let split = told(&host, &["streams", "split", STREAM, "0"]);
    assert_eq!(
        split,
        "shardId-000000000000 split into shardId-000000000001 and shardId-000000000002"
    );
    let merged = host.json(&["streams", "merge", STREAM, "2", "shardId-000000000001"]);
    assert_eq!(
        merged,
        json!({"name": STREAM, "closed": ["shardId-000000000001", "shardId-000000000002"],
            "opened": ["shardId-000000000003"]})
    );
    let scaled = told(&host, &["streams", "scale", STREAM, "2"]);
    assert_eq!(scaled, "stream s has 2 open shards now, 1 before");
    told(&host, &["streams", "split", STREAM, "4", "--at", "1000"]);
    let shown = told(&host, &["streams", "describe", STREAM]);
    let line = |id: &str| {
        let line = shown.lines().find(|line| line.trim_start().starts_with(id));
        let line = line.unwrap_or_else(|| panic!("no {id}: {shown}"));
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let merged = [
        "closed",
        "shardId-000000000001",
        "shardId-000000000002",
        "0",
        "0",
    ];
    assert_eq!(line("shardId-000000000003")[1..6], merged);
    assert_eq!(
        line("shardId-000000000006")[1..],
        ["open", "shardId-000000000004", "0", "0", "999"]
    );
    for (arguments, want) in [
        (
            vec!["split", STREAM, "4"],
            "stream \"s\" has no open shard shardId-000000000004",
        ),
        (
            vec!["split", STREAM, "x"],
            "\"x\" is no shard: give it as shardId-000000000002 or 2",
        ),
        (vec!["split", "t", "0"], "stream \"t\" does not exist"),
        (
            vec!["scale", STREAM, "7"],
            "UpdateShardCount cannot scale up over double your current open shard count. Current \
             open shard count: 3 Target shard count: 7",
        ),
        (
            vec!["merge", STREAM, "6", "5"],
            "Shards shardId-000000000006 and shardId-000000000005 in stream s under account \
             000000000000 are not an adjacent pair of shards eligible for merging",
        ),
    ] {
        let arguments = [vec!["streams"], arguments].concat();
        let error = refused(&host, &arguments);
        assert!(error.contains(want), "{arguments:?}: {error}");
    }
}

#[test]
fn tail_shows_a_key_in_order_along_the_tree() {
    let host = Host::start();
    told(&host, &["streams", "create", STREAM, "--shards", "2"]);
    let mut n = 0;
    let mut put = || {
        let lines: String = (n..n + 300)
            .map(|n| format!("{{\"user\": {}, \"n\": {n}}}\n", n % 7))
            .collect();
        n += 300;
        let file = host.folder().join("lines");
        std::fs::write(&file, lines).unwrap();
        let file = file.display().to_string();
        told(&host, &["put", STREAM, "--key-pointer", "/user", &file]);
    };
    put();
    for step in [
        ["split", "0", ""],
        ["merge", "3", "1"],
        ["scale", "4", ""],
        ["scale", "2", ""],
    ] {
        let [command, rest @ ..] = step;
        let arguments: Vec<_> = ["streams", command, STREAM]
            .into_iter()
            .chain(rest.into_iter().filter(|text| !text.is_empty()))
            .collect();
        told(&host, &arguments);
        put();
    }
    let tail = [
        "tail",
        STREAM,
        "--from",
        "trim-horizon",
        "--no-follow",
        "--json",
    ];
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in told(&host, &tail).lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let event: Value = serde_json::from_str(record["text"].as_str().unwrap()).unwrap();
        let key = record["partition_key"].as_str().unwrap().to_owned();
        seen.entry(key)
            .or_default()
            .push(event["n"].as_u64().unwrap());
    }
    assert_eq!(seen.len(), 7);
    for (user, numbers) in seen {
        let user: u64 = user.parse().unwrap();
        let want: Vec<u64> = (0..1500).filter(|n| n % 7 == user).collect();
        assert_eq!(numbers, want, "user {user}");
    }
}

/// Puts rounds of one record per key until the host is gone. Gives how many were acknowledged.
async fn produce(host: Caller, producer: usize) -> u64 {
    for n in 0u64.. {
        let data = base64_simd::STANDARD.encode_to_string(n.to_string());
        let record = |key| json!({"PartitionKey": format!("{producer}/{key}"), "Data": data});
        let records: Vec<Value> = (0..KEYS).map(record).collect();
        let input = json!({"StreamName": STREAM, "Records": records});
        if host.kinesis("PutRecords", input).await.is_err() {
            return n;
        }
    }
    unreachable!()
}

/// Splits or merges a shard of a stream, if it is ACTIVE. `None` when the host is gone.
async fn change(host: &Caller, stream: &str, round: usize) -> Option<bool> {
    let input = json!({"StreamName": stream, "ShardFilter": {"Type": "AT_LATEST"}});
    let listed = host.kinesis("ListShards", input).await.ok()?;
    let mut open: Vec<(u128, u128, &str)> = listed["Shards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|shard| {
            let range = &shard["HashKeyRange"];
            let key = |name: &str| range[name].as_str().unwrap().parse().unwrap();
            let id = shard["ShardId"].as_str().unwrap();
            (key("StartingHashKey"), key("EndingHashKey"), id)
        })
        .collect();
    open.sort_unstable();
    let (operation, input) = if open.len() < 3 || (open.len() < 6 && round.is_multiple_of(2)) {
        let (start, end, id) = open[round % open.len()];
        let at = (start + (end - start) / 2).to_string();
        let input = json!({"StreamName": stream, "ShardToSplit": id, "NewStartingHashKey": at});
        ("SplitShard", input)
    } else {
        let at = round % (open.len() - 1);
        let input = json!({"StreamName": stream, "ShardToMerge": open[at].2,
            "AdjacentShardToMerge": open[at + 1].2});
        ("MergeShards", input)
    };
    match host.kinesis(operation, input).await {
        Ok(_) => Some(true),
        // UPDATING.
        Err((_, why)) if why["__type"] == "ResourceInUseException" => Some(false),
        Err((_, why)) if why.is_string() => None,
        Err(why) => panic!("{operation}: {why:?}"),
    }
}

/// Splits and merges until the host is gone. Gives how many changes were acknowledged.
async fn reshard(host: Caller) -> usize {
    let mut changes = 0;
    for round in 0.. {
        match change(&host, STREAM, round).await {
            Some(changed) => changes += usize::from(changed),
            None => return changes,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!()
}

/// Every record of a stream by partition key, read parents first.
async fn read_tree(host: &Host, stream: &str) -> BTreeMap<String, Vec<u64>> {
    let listed = host
        .kinesis("ListShards", json!({"StreamName": stream}))
        .await
        .unwrap();
    let shards = listed["Shards"].as_array().unwrap();
    let roots = shards
        .iter()
        .filter(|shard| shard["ParentShardId"].is_null());
    let mut waiting: VecDeque<Value> = roots.map(|shard| shard["ShardId"].clone()).collect();
    let mut ended = BTreeSet::new();
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    while let Some(id) = waiting.pop_front() {
        let start =
            json!({"StreamName": stream, "ShardId": id, "ShardIteratorType": "TRIM_HORIZON"});
        let mut iterator =
            host.kinesis("GetShardIterator", start).await.unwrap()["ShardIterator"].take();
        loop {
            let page = host
                .kinesis("GetRecords", json!({"ShardIterator": iterator}))
                .await
                .unwrap();
            let records = page["Records"].as_array().unwrap();
            for record in records {
                let data = base64_simd::STANDARD.decode_to_vec(record["Data"].as_str().unwrap());
                let n = String::from_utf8(data.unwrap()).unwrap().parse().unwrap();
                let key = record["PartitionKey"].as_str().unwrap().to_owned();
                seen.entry(key).or_default().push(n);
            }
            let Some(next) = page.get("NextShardIterator") else {
                assert!(ended.insert(id.to_string()), "{id} is read twice");
                for child in page["ChildShards"].as_array().unwrap() {
                    let mut parents = child["ParentShards"].as_array().unwrap().iter();
                    if parents.all(|parent| ended.contains(&parent.to_string())) {
                        waiting.push_back(child["ShardId"].clone());
                    }
                }
                break;
            };
            if records.is_empty() {
                assert!(ended.insert(id.to_string()), "{id} is read twice");
                break;
            }
            iterator = next.clone();
        }
    }
    assert_eq!(ended.len(), shards.len(), "every shard is reached");
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_shards_change_loses_nothing_and_leaves_a_whole_tree() {
    let mut host = Host::start();
    told(&host, &["streams", "create", STREAM, "--shards", "2"]);
    let resharding = tokio::spawn(reshard(host.client()));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| tokio::spawn(produce(host.client(), producer)))
        .collect();
    until("twelve changes", async || {
        let input = json!({"StreamName": STREAM});
        let listed = host.kinesis("ListShards", input).await.unwrap();
        listed["Shards"].as_array().unwrap().len() > 20
    })
    .await;
    host.kill();
    let changes = resharding.await.unwrap();
    assert!(changes >= 10, "{changes} changes");
    let mut acknowledged = Vec::new();
    for producer in producers {
        acknowledged.push(producer.await.unwrap());
    }
    for restart in 0..2 {
        host.restart();
        let seen = read_tree(&host, STREAM).await;
        for (producer, count) in acknowledged.iter().enumerate() {
            for key in 0..KEYS {
                let found = seen
                    .get(&format!("{producer}/{key}"))
                    .cloned()
                    .unwrap_or_default();
                // One more may be stored that nobody was told of.
                let all: Vec<u64> = (0..(*count).max(found.len() as u64)).collect();
                assert_eq!(found, all, "restart {restart}: {producer}/{key}");
                assert!(found.len() as u64 <= count + 1);
            }
        }
    }
    // The stream goes on.
    until("the stream is ACTIVE", async || {
        let input = json!({"StreamName": STREAM, "TargetShardCount": 3,
            "ScalingType": "UNIFORM_SCALING"});
        host.kinesis("UpdateShardCount", input).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_follows_the_tree_and_handlers_emit_into_another_one() {
    let manifest = format!(
        r#"
[[stream]]
name = "in"
shards = 2

[[stream]]
name = "out"
shards = 2

[[function]]
name = "f"
wasm = "{}"

[[mapping]]
name = "m"
stream = "in"
function = "f"
starting_position = "TRIM_HORIZON"
"#,
        guest("poison").display()
    );
    let host = Host::with(&[], Some(&manifest));
    let client = host.client();
    let (rounds, mut changes) = (60u64, 0);
    for n in 0..rounds {
        let data = base64_simd::STANDARD.encode_to_string(format!("emit out {n}"));
        let record = |key| json!({"PartitionKey": format!("{key}"), "Data": data});
        let records: Vec<Value> = (0..KEYS).map(record).collect();
        let input = json!({"StreamName": "in", "Records": records});
        host.kinesis("PutRecords", input).await.unwrap();
        for stream in ["in", "out"] {
            let changed = change(&client, stream, n as usize).await.unwrap();
            changes += usize::from(changed);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(changes > 20, "{changes} changes");
    let all = rounds as i64 * KEYS as i64;
    until("every record is done", async || {
        host.counters("f")
            .get("done")
            .is_some_and(|done| *done >= all)
    })
    .await;
    assert_eq!(host.counters("f").get("done"), Some(&all));
    let emitted = read_tree(&host, "out").await;
    assert_eq!(emitted.len(), KEYS);
    for (key, found) in emitted {
        let want: Vec<u64> = (0..rounds).collect();
        assert_eq!(
            found, want,
            "{key}: each record once, in the order it was put"
        );
    }
}
