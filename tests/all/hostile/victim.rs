//! The second tenant: a steady, numbered traffic through a handler that counts each record and
//! emits it, beside the whole corpus. At the end every record must be done exactly once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::site::{Site, VICTIM};
use crate::host::until;

/// Pause between two puts.
const PACE: Duration = Duration::from_millis(100);
/// Records of a put.
const RECORDS: usize = 5;
/// Partition keys.
const KEYS: usize = 7;
/// From the arrival of a record to the arrival of what was emitted for it, at most. On an idle
/// machine it is some milliseconds; here two cores compile bombs.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The same for 99 of 100 records.
const USUAL_WAIT: Duration = Duration::from_secs(3);

/// A record of a stream: partition key, data, arrival in ms.
struct Record {
    key: String,
    data: String,
    arrival: f64,
}

/// What is the victim's, for others to try.
#[derive(Clone)]
pub(super) struct Theirs {
    /// An iterator of its stream.
    pub(super) iterator: String,
    /// A page token of its stream's shards.
    pub(super) page: String,
    /// The id of its mapping.
    pub(super) mapping: String,
}

pub(super) struct Victim {
    /// What was put: key and data, in order.
    sent: Vec<(String, String)>,
    theirs: Theirs,
}

impl Victim {
    /// Sets the tenant up.
    pub(super) async fn begin(site: &Site) -> Self {
        site.stream(VICTIM, "work", 2).await;
        site.stream(VICTIM, "results", 2).await;
        site.deploy(VICTIM, "worker", "poison").await;
        site.map(VICTIM, "work-worker", "work", "worker").await;
        let queue = json!({"QueueName": "letters"});
        let made = site.sqs(VICTIM, "CreateQueue", &queue).await;
        assert_eq!(made.told(), "200");
        let iterator = iterator(site, "work", "shardId-000000000000").await;
        let page = json!({"StreamName": "work", "MaxResults": 1});
        let page = site.kinesis(VICTIM, "ListShards", &page).await.json();
        let page = page["NextToken"].as_str().unwrap().to_owned();
        let mapping = site.native(VICTIM, "GET", "mappings/work-worker", "");
        let mapping = mapping.await.json()["id"].as_str().unwrap().to_owned();
        Self {
            sent: Vec::new(),
            theirs: Theirs {
                iterator,
                page,
                mapping,
            },
        }
    }

    pub(super) fn theirs(&self) -> Theirs {
        self.theirs.clone()
    }

    /// Goes about its work while something else happens, and a little longer.
    pub(super) async fn while_it_lasts<T>(
        mut self,
        site: &Site,
        other: impl Future<Output = T>,
    ) -> (Self, T) {
        let others_have_ended = AtomicBool::new(false);
        let other = async {
            let ended = other.await;
            others_have_ended.store(true, Ordering::Relaxed);
            ended
        };
        let work = async {
            let mut pace = tokio::time::interval(PACE);
            while !others_have_ended.load(Ordering::Relaxed) {
                pace.tick().await;
                self.work(site).await;
            }
            self.work(site).await;
        };
        let (ended, ()) = tokio::join!(other, work);
        (self, ended)
    }

    /// One put.
    async fn work(&mut self, site: &Site) {
        let from = self.sent.len();
        let line = |n: usize| {
            let data = format!("emit results {n}-{}", "v".repeat(n % 100));
            (format!("key-{}", n % KEYS), data)
        };
        let records: Vec<_> = (from..from + RECORDS).map(line).collect();
        let put = site.put(VICTIM, "work", &records).await;
        assert_eq!(put.told(), "200", "the victim's traffic is never refused");
        self.sent.extend(records);
    }

    /// Every record done exactly once, in order of its key, in time, byte for byte.
    pub(super) async fn is_unharmed(&self, site: &Site) {
        let expected = format!("done={}", self.sent.len());
        until("the victim's records are done", async || {
            site.counters(VICTIM, "worker").await == expected
        })
        .await;
        let mapping = site.drained(VICTIM, "work-worker").await;
        assert_eq!(mapping["processed"], self.sent.len(), "{mapping}");
        assert_eq!(mapping["last_processing_result"], "OK", "{mapping}");
        let failed = site.failures(VICTIM, "work-worker").await;
        assert!(failed.is_empty(), "{failed:?}");
        let (work, results) = (read(site, "work").await, read(site, "results").await);
        assert_eq!(
            work.len(),
            self.sent.len(),
            "nobody else has put into its stream"
        );
        let told = |record: &Record| (record.key.clone(), record.data.clone());
        let by_key = |all: Vec<(String, String)>| {
            let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (key, data) in all {
                keys.entry(key).or_default().push(data);
            }
            keys
        };
        let emitted = |(key, data): &(String, String)| {
            let data = data.strip_prefix("emit results ").unwrap();
            (key.clone(), data.to_owned())
        };
        let wanted = by_key(self.sent.iter().map(emitted).collect());
        assert_eq!(by_key(results.iter().map(told).collect()), wanted);
        let begun: BTreeMap<_, _> = work
            .iter()
            .map(|r| (emitted(&told(r)), r.arrival))
            .collect();
        let mut waits: Vec<f64> = results
            .iter()
            .map(|r| r.arrival - begun[&told(r)])
            .collect();
        waits.sort_by(f64::total_cmp);
        let (usual, longest) = (waits[waits.len() * 99 / 100], waits[waits.len() - 1]);
        println!(
            "{} records of the victim: p99 {usual} s, longest {longest} s",
            waits.len()
        );
        assert!(usual <= USUAL_WAIT.as_secs_f64(), "p99 {usual} s");
        assert!(longest <= LONGEST_WAIT.as_secs_f64(), "longest {longest} s");
    }
}

async fn iterator(site: &Site, stream: &str, shard: &str) -> String {
    let input =
        json!({"StreamName": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"});
    let given = site.kinesis(VICTIM, "GetShardIterator", &input).await;
    given.json()["ShardIterator"].as_str().unwrap().to_owned()
}

/// All that a stream of the victim holds.
async fn read(site: &Site, stream: &str) -> Vec<Record> {
    let mut records = Vec::new();
    for shard in ["shardId-000000000000", "shardId-000000000001"] {
        let mut at = iterator(site, stream, shard).await;
        loop {
            let input = json!({"ShardIterator": at});
            let page = site.kinesis(VICTIM, "GetRecords", &input).await.json();
            let found = page["Records"].as_array().unwrap();
            records.extend(found.iter().map(record));
            if found.is_empty() {
                break;
            }
            at = page["NextShardIterator"].as_str().unwrap().to_owned();
        }
    }
    records
}

fn record(value: &Value) -> Record {
    let data = value["Data"].as_str().unwrap();
    let data = base64_simd::STANDARD.decode_to_vec(data).unwrap();
    Record {
        key: value["PartitionKey"].as_str().unwrap().into(),
        data: String::from_utf8(data).unwrap(),
        arrival: value["ApproximateArrivalTimestamp"].as_f64().unwrap(),
    }
}
