//! What is left of a stream's shards when their time is over.

use bytes::Bytes;
use serde_json::json;
use shardmill_core::Scope;
use shardmill_core::sandbox::{BoxFuture, Carrier, Invocation, LoadError, Module, Report};

use super::*;
use crate::api::kinesis::tests::{Local, quick, scope};
use crate::functions::FunctionSettings;
use crate::mapping::{CreateMapping, Origin};
use crate::workloads::Workloads;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A stream `s` with two records in its one shard, which is split, and whose lower child is split.
async fn split_twice() -> Local {
    let host = Local::start(quick()).await;
    host.stream("s", 1).await;
    put(&host).await;
    for (shard, at) in [("0", "99"), ("1", "9")] {
        let input = json!({"StreamName": "s", "ShardToSplit": shard, "NewStartingHashKey": at});
        host.ok("SplitShard", input).await;
        tokio::time::advance(Duration::from_secs(60)).await;
    }
    put(&host).await;
    host
}

async fn put(host: &Local) {
    for explicit in ["0", "50", "77777777"] {
        let put = json!({"StreamName": "s", "PartitionKey": "k", "Data": "",
            "ExplicitHashKey": explicit});
        host.ok("PutRecord", put).await;
    }
}

fn kept(host: &Local) -> Vec<u32> {
    let stream = &host.services.store.streams(None)[0];
    stream.shards.iter().map(|shard| shard.id.0).collect()
}

#[tokio::test(start_paused = true)]
async fn closed_shards_are_forgotten_when_their_records_are_too_old() {
    let host = split_twice().await;
    round(&host.services).await;
    assert_eq!(kept(&host), [0, 1, 2, 3, 4]);
    tokio::time::advance(DAY - Duration::from_secs(120)).await;
    round(&host.services).await;
    assert_eq!(kept(&host), [0, 1, 2, 3, 4], "a day is kept, to the second");
    tokio::time::advance(Duration::from_secs(1)).await;
    round(&host.services).await;
    assert_eq!(kept(&host), [1, 2, 3, 4]);
    tokio::time::advance(DAY).await;
    round(&host.services).await;
    assert_eq!(kept(&host), [2, 3, 4], "open shards stay");
    // Ids go on where they were, and lineage is shown as it was.
    let input = json!({"StreamName": "s", "ShardToMerge": "3", "AdjacentShardToMerge": "4"});
    host.ok("MergeShards", input).await;
    assert_eq!(kept(&host), [2, 3, 4, 5]);
    put(&host).await;
    let told = host.ok("ListShards", json!({"StreamName": "s"})).await;
    assert_eq!(told["Shards"][0]["ParentShardId"], "shardId-000000000000");
}

/// Loads everything, runs nothing.
struct Idle;

struct Loaded;

impl Module for Loaded {
    fn digest(&self) -> &str {
        "digest"
    }

    fn carrier(&self) -> Carrier {
        Carrier::Command
    }
}

impl shardmill_core::Sandbox for Idle {
    fn load(&self, _: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        Box::pin(async { Ok(Arc::new(Loaded) as Arc<dyn Module>) })
    }

    fn invoke(&self, _: Invocation) -> BoxFuture<'_, Report> {
        unreachable!("nothing is invoked")
    }
}

/// A store in which the index of one stream is damaged.
struct Damaged {
    store: Arc<dyn Store>,
    stream: StreamId,
}

impl Store for Damaged {
    fn seek(&self, shard: ShardKey, to: Seek) -> BoxFuture<'_, Result<u64, ReadError>> {
        match shard.stream == self.stream {
            true => Box::pin(async { Err(ReadError::Damaged("an index".into())) }),
            false => self.store.seek(shard, to),
        }
    }

    shardmill_store::pass_on!(store: commit read extent subscribe get scan scan_back blob has_room catalog);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_tidied_is_no_matter_to_the_rest() {
    let host = split_twice().await;
    host.stream("z", 1).await;
    let input = json!({"StreamName": "z", "ShardToSplit": "0", "NewStartingHashKey": "99"});
    host.ok("SplitShard", input).await;
    let streams = || host.services.store.streams(None);
    let damaged = Damaged {
        store: Arc::clone(&host.services.store),
        stream: streams()[0].id,
    };
    let (store, clock) = (Arc::new(damaged), host.services.clock);
    let services = Services::start(store, clock, quick()).await;
    tokio::time::advance(2 * DAY).await;
    round(&services.expect("services")).await;
    assert_eq!(kept(&host), [0, 1, 2, 3, 4], "not the damaged one");
    let behind: Vec<u32> = streams()[1].shards.iter().map(|s| s.id.0).collect();
    assert_eq!(behind, [1, 2], "but the one behind it");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_a_mapping_has_not_read_is_kept_with_its_children() {
    let host = split_twice().await;
    let store = Arc::clone(&host.services.store);
    let clock = host.services.clock;
    let workloads = Workloads::new(Arc::clone(&store), Arc::new(Idle), clock, None);
    let settings = FunctionSettings::default();
    let scope = scope();
    let deployed = workloads
        .functions
        .deploy(&scope, "f", Bytes::new(), settings);
    deployed.await.expect("a function");
    let mapping = CreateMapping {
        name: Some("m".into()),
        stream: "s".parse().expect("a name"),
        function: "f".into(),
        starting_position: shardmill_core::mapping::StartingPosition::TrimHorizon,
        policy: shardmill_core::mapping::Policy::aws(),
        enabled: false,
        on_failure: None,
        origin: Origin::Api,
    };
    let made = workloads.mappings.create(&scope, mapping).await;
    made.expect("a mapping");
    let services = Services::start(store, clock, quick())
        .await
        .expect("services");
    let services = services.with_workloads(workloads.clone());
    tokio::time::advance(2 * DAY).await;
    round(&services).await;
    assert_eq!(
        kept(&host),
        [0, 1, 2, 3, 4],
        "1 is empty, but its parent is not read"
    );
    let elsewhere = Scope::default();
    assert_eq!(
        workloads.mappings.list(&elsewhere).map(|m| m.len()).ok(),
        Some(0)
    );
    let mappings = &workloads.mappings;
    let deleted = mappings.delete(&scope, "m").await;
    deleted.expect("it was there");
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::select! {
        () = mappings.run(stop.clone(), stop.clone()) => {}
        () = async {
            while mappings.get(&scope, "m").is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        } => {}
    }
    round(&services).await;
    assert_eq!(kept(&host), [2, 3, 4]);
}
