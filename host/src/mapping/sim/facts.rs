//! What a run has left behind, read from the store.

use std::collections::BTreeMap;

use shardmill_core::mapping::{Policy, Position};
use shardmill_core::{Batch, Scope, ShardId};
use shardmill_store::{Key, ReadLimit, Store, Table};

use super::attempt::OF_WINDOW;
use super::handler::{Call, LIST, number_of};
use super::plan::{Act, Plan};
use super::world::World;
use crate::mapping::{FailureEntry, FailureFilter, Failures, ParkedKey};

/// More entries of the failure store than any run makes.
const MAX_ENTRIES: usize = 10_000;

/// What a run has left behind.
pub(super) struct Facts<'a> {
    pub(super) world: &'a World,
    pub(super) plan: &'a Plan,
    pub(super) counters: BTreeMap<String, i64>,
    /// Lists of numbers in keyed state, by key.
    pub(super) lists: BTreeMap<String, Vec<usize>>,
    /// Side logs, by key.
    pub(super) parked: BTreeMap<String, Vec<usize>>,
    pub(super) parked_keys: BTreeMap<String, ParkedKey>,
    pub(super) failures: Vec<(FailureEntry, Batch)>,
    pub(super) emitted: Vec<usize>,
    pub(super) calls: Vec<Call>,
}

impl<'a> Facts<'a> {
    pub(super) async fn of(world: &'a World) -> Self {
        let (memory, scope) = (&world.shell.memory, Scope::default());
        let counters = memory.counters(&scope, "f").expect("counters");
        let lists = Key::new(Table::State, &scope).part("f");
        let lists = memory.scan(&lists, None, usize::MAX).expect("state");
        let lists = lists.into_iter().filter_map(|(key, value)| {
            let (_, parts) = key.split()?;
            let name = String::from_utf8_lossy(parts[1]).into_owned();
            let text = String::from_utf8_lossy(&value.value).into_owned();
            let numbers = text.split_terminator(',').filter_map(|n| n.parse().ok());
            (parts[2] == LIST.as_bytes()).then(|| (name, numbers.collect()))
        });
        Self {
            world,
            plan: &world.plan,
            counters: counters.into_iter().collect(),
            lists: lists.collect(),
            parked: parked(world).await,
            parked_keys: parked_keys(world),
            failures: failures(world).await,
            emitted: emitted(world).await,
            calls: world.handler.seen.lock().unwrap().calls.clone(),
        }
    }

    pub(super) fn broken(&self, text: String) {
        self.world.log.violation(text);
    }

    pub(super) fn counter(&self, name: &str) -> i64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    pub(super) fn is_done(&self, number: usize) -> bool {
        self.counter(&format!("r{number}")) > 0
    }

    pub(super) fn shard_of(&self, number: usize) -> ShardId {
        self.world.places[&number].shard
    }

    /// All settings that the mapping had.
    pub(super) fn policies(&self) -> Vec<&Policy> {
        let mut policies = vec![&self.plan.policy];
        policies.extend(self.plan.steps.iter().filter_map(|step| match &step.act {
            Act::Update(policy) => Some(&**policy),
            _ => None,
        }));
        policies
    }

    /// The filters that were in force: at some time, and always.
    pub(super) fn filtered(&self) -> (bool, bool) {
        let policies = self.policies();
        let mut filters = policies.iter().map(|p| !p.filter_criteria.is_empty());
        (filters.clone().any(|f| f), filters.all(|f| f))
    }
}

/// The numbers of a batch's records.
pub(super) fn numbers_of(batch: &Batch) -> Vec<usize> {
    batch
        .iter()
        .map(|record| number_of(record.parts.data))
        .collect()
}

async fn failures(world: &World) -> Vec<(FailureEntry, Batch)> {
    let scope = Scope::default();
    let failures = Failures::of(&world.mappings);
    let filter = FailureFilter::default();
    let page = failures.list(&scope, &filter, None, MAX_ENTRIES);
    let mut all = Vec::new();
    for entry in page.expect("entries").entries {
        let batch = failures
            .payload(&scope, &entry.id)
            .await
            .expect("a payload");
        all.push((entry, batch));
    }
    all
}

fn parked_keys(world: &World) -> BTreeMap<String, ParkedKey> {
    let prefix = Key::new(Table::ParkedKey, &Scope::default()).part(&world.truth.mapping().id);
    let found = world.shell.memory.scan(&prefix, None, usize::MAX);
    let keys = found.expect("parked keys").into_iter().map(|(_, stored)| {
        let key: ParkedKey = serde_json::from_slice(&stored.value).expect("a parked key");
        (key.key.clone(), key)
    });
    keys.collect()
}

async fn parked(world: &World) -> BTreeMap<String, Vec<usize>> {
    let memory = &world.shell.memory;
    let prefix = Key::new(Table::Parked, &Scope::default()).part(&world.truth.mapping().id);
    let mut parked: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (key, _) in memory.scan(&prefix, None, usize::MAX).expect("parked runs") {
        let stored = memory.blob(&key).await.expect("a blob").expect("a blob");
        let batch = Batch::from_stored(stored).expect("a batch");
        let (_, parts) = key.split().expect("a key");
        let name = String::from_utf8_lossy(parts[1]).into_owned();
        parked.entry(name).or_default().extend(numbers_of(&batch));
    }
    parked
}

async fn emitted(world: &World) -> Vec<usize> {
    let memory = &world.shell.memory;
    let name = "out".parse().expect("a name");
    let Some(stream) = memory.stream(&Scope::default(), &name) else {
        return Vec::new();
    };
    let limit = ReadLimit {
        records: usize::MAX,
        bytes: usize::MAX,
    };
    let shard = shardmill_core::ShardKey {
        stream: stream.id,
        shard: stream.shards[0].id,
    };
    let from = Position::of(1).record;
    let blocks = memory.read(shard, from, limit).await.expect("blocks");
    let records = blocks.iter().flat_map(|block| block.iter());
    let of_record = |data: &&[u8]| *data != OF_WINDOW.as_bytes();
    let number = |data: &[u8]| String::from_utf8_lossy(data).parse().expect("a number");
    let data = records.map(|record| record.parts.data).filter(of_record);
    data.map(number).collect()
}
