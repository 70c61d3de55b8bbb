use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shardmill_core::limits::{COUNTER_OVERFLOW_NAME, MAX_COUNTER_NAMES};
use shardmill_core::{HashKey, ShardId};

use super::*;
use crate::Table;
use crate::test_support::{CREATED, records, stream_of};
use crate::tx::{Append, CounterAdd, Route, Tx};

/// A state to decide against: what the engines do, without their storage.
#[derive(Default)]
struct World {
    catalog: Catalog,
    values: BTreeMap<Key, Versioned>,
}

impl Values for World {
    fn get(&self, key: &Key) -> Result<Option<Versioned>, ReadError> {
        Ok(self.values.get(key).cloned())
    }

    fn count(&self, prefix: &Key) -> Result<usize, ReadError> {
        let own = |key: &&Key| key.as_bytes().starts_with(prefix.as_bytes());
        Ok(self.values.keys().filter(own).count())
    }
}

impl World {
    fn decide(&self, tx: Tx, now: UnixMillis) -> Result<Decision, CommitError> {
        let prepared = Prepared::new(tx, |id| self.catalog.stream(id).cloned())?;
        decide(prepared, now, &self.catalog, self)
    }

    fn apply(&mut self, resolved: &Resolved) {
        self.catalog.apply(&resolved.change());
        for (key, value) in &resolved.puts {
            match value {
                Value::Delete => drop(self.values.remove(key)),
                Value::Inline(value) | Value::Blob(value) => {
                    let stored = Versioned {
                        value: value.clone(),
                        revision: resolved.revision,
                    };
                    self.values.insert(key.clone(), stored);
                }
            }
        }
    }

    fn run(&mut self, tx: Tx, now: UnixMillis) -> Result<(Resolved, Receipt), CommitError> {
        match self.decide(tx, now)? {
            Decision::Do(resolved, receipt) => {
                self.apply(&resolved);
                Ok((resolved, receipt))
            }
            Decision::Repeated(receipt) => Ok((Resolved::default(), receipt)),
        }
    }
}

fn random_tx(rng: &mut StdRng, world: &World, step: u64) -> Tx {
    let key = |n: u64| Key::new(Table::State, &Scope::default()).number(n);
    let mut tx = Tx::default();
    let streams = world.catalog.streams(None);
    match rng.random_range(0..10) {
        0 => {
            let stream = stream_of(&format!("s{}", rng.random_range(0..4)), 3);
            tx.streams.push(StreamChange::Create(Box::new(stream)));
        }
        1 if !streams.is_empty() => {
            let at = rng.random_range(0..streams.len());
            tx.streams.push(StreamChange::Remove(streams[at].id));
        }
        2 if !streams.is_empty() => {
            let mut stream = Stream::clone(&streams[rng.random_range(0..streams.len())]);
            let at = ShardId(rng.random_range(0..stream.shards.len() as u32));
            let start = HashKey(rng.random());
            if let Ok(split) = reshard::split(&stream, at, start, CREATED) {
                stream = split;
            }
            stream.revision -= u64::from(rng.random_range(0..5) == 0);
            tx.streams.push(StreamChange::Update(Box::new(stream)));
        }
        _ => {}
    }
    for _ in 0..rng.random_range(0..3) {
        let Some(stream) = streams.get(rng.random_range(0..4)) else {
            continue;
        };
        let shard = ShardId(rng.random_range(0..stream.shards.len() as u32));
        let count = rng.random_range(0..5);
        tx.appends.push(Append {
            stream: stream.id,
            route: if rng.random() {
                Route::HashKey
            } else {
                Route::Shard(shard)
            },
            records: records((0..count).map(|i| format!("key {step} {i}"))),
        });
        if rng.random_range(0..4) == 0 {
            tx.trims.push(Trim {
                shard: ShardKey {
                    stream: stream.id,
                    shard,
                },
                before: rng.random_range(0..50),
            });
        }
    }
    for _ in 0..rng.random_range(0..3) {
        let key = key(rng.random_range(0..5));
        let revision = world.values.get(&key).map(|v| v.revision);
        let stale = rng.random_range(0..5) == 0;
        let expected = if stale { Some(1 << 40) } else { revision };
        tx.expect.push(Expect::Revision(key.clone(), expected));
        let delete = rng.random_range(0..3) == 0;
        let value = Value::Inline(Bytes::copy_from_slice(&step.to_le_bytes()));
        tx.writes
            .push((key, if delete { Value::Delete } else { value }));
    }
    tx
}

#[test]
fn positions_are_dense_and_arrivals_and_revisions_never_go_back() {
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::default();
        let mut ends: HashMap<ShardKey, (u64, UnixMillis)> = HashMap::new();
        let mut ids = BTreeSet::new();
        let mut revision = 0;
        for step in 1..400 {
            // The clock may go back.
            let now = UnixMillis(CREATED.0 + rng.random_range(0..100_000));
            let tx = random_tx(&mut rng, &world, step);
            let before = world.catalog.clone();
            let Ok((resolved, receipt)) = world.run(tx, now) else {
                assert_eq!(
                    format!("{before:?}"),
                    format!("{:?}", world.catalog),
                    "seed {seed}"
                );
                continue;
            };
            assert_eq!(resolved.revision, revision + 1, "seed {seed}");
            revision = resolved.revision;
            for id in receipt.created {
                assert!(ids.insert(id), "seed {seed}: {id:?} given twice");
            }
            for block in &resolved.blocks {
                let created = UnixMillis(block.created_seconds * 1000);
                let (next, arrival) = ends.get(&block.shard).copied().unwrap_or((1, created));
                assert_eq!(block.first, next, "seed {seed} step {step}");
                assert!(block.arrival >= arrival.max(now), "seed {seed} step {step}");
                ends.insert(block.shard, (block.end(), block.arrival));
            }
            for trim in &resolved.trims {
                assert!(
                    trim.before <= ends[&trim.shard].0,
                    "seed {seed} step {step}"
                );
            }
        }
        assert!(revision > 100, "seed {seed}: too little happened");
    }
}

#[test]
fn records_go_where_the_receipt_says() {
    let mut world = World::default();
    let create = Tx {
        streams: vec![StreamChange::Create(Box::new(stream_of("s", 4)))],
        ..Tx::default()
    };
    let (_, receipt) = world.run(create, CREATED).expect("a stream");
    let append = Append {
        stream: receipt.created[0],
        route: Route::HashKey,
        records: records((0..50).map(|i| format!("key {i}"))),
    };
    let tx = Tx {
        appends: vec![append],
        ..Tx::default()
    };
    let (resolved, receipt) = world.run(tx, CREATED).expect("an append");
    assert_eq!(receipt.appended.len(), 50);
    assert!(resolved.blocks.len() > 1);
    for (i, at) in receipt.appended.iter().enumerate() {
        let block = resolved.blocks.iter().find(|b| b.shard.shard == at.shard);
        let block = block.expect("its shard").to_block().expect("a block");
        let record = block.iter().find(|r| r.position == at.first);
        assert_eq!(record.expect("the record").parts.key, format!("key {i}"));
    }
}

#[test]
fn records_sorted_before_a_split_go_to_the_children() {
    let mut world = World::default();
    let create = Tx {
        streams: vec![StreamChange::Create(Box::new(stream_of("s", 1)))],
        ..Tx::default()
    };
    let (_, receipt) = world.run(create, CREATED).expect("a stream");
    let id = receipt.created[0];
    let tx = Tx {
        appends: vec![Append {
            stream: id,
            route: Route::HashKey,
            records: records((0..20).map(|i| format!("key {i}"))),
        }],
        ..Tx::default()
    };
    let prepared = Prepared::new(tx, |id| world.catalog.stream(id).cloned()).expect("sorted");
    let mut stream = Stream::clone(world.catalog.stream(id).expect("the stream"));
    let half = u128::MAX / 2;
    let parent = stream.shards[0].clone();
    stream.shards[0].closed_seconds = Some(1);
    for (index, (start, end)) in [(1, (0, half)), (2, (half + 1, u128::MAX))] {
        let mut child = parent.clone();
        child.id = ShardId(index);
        child.range.start = HashKey(start);
        child.range.end = HashKey(end);
        stream.shards.push(child);
    }
    let split = Tx {
        streams: vec![StreamChange::Update(Box::new(stream))],
        ..Tx::default()
    };
    world.run(split, CREATED).expect("a split");
    let Ok(Decision::Do(resolved, receipt)) = decide(prepared, CREATED, &world.catalog, &world)
    else {
        panic!("refused");
    };
    assert_eq!(receipt.appended.len(), 20);
    for (i, at) in receipt.appended.iter().enumerate() {
        let low = HashKey::of_partition_key(&format!("key {i}")).0 <= half;
        assert_eq!(at.shard, ShardId(if low { 1 } else { 2 }));
    }
    assert_eq!(resolved.blocks.iter().map(NewBlock::count).sum::<u64>(), 20);
}

#[test]
fn counter_names_beyond_the_limit_are_added_to_one_name() {
    let add = |name: String, amount| CounterAdd {
        scope: Scope::default(),
        function: "f".into(),
        name: name.into(),
        amount,
    };
    let mut world = World::default();
    let first = Tx {
        counters: (0..MAX_COUNTER_NAMES - 1)
            .map(|i| add(format!("n{i}"), 1))
            .collect(),
        ..Tx::default()
    };
    world.run(first, CREATED).expect("names");
    let second = Tx {
        counters: ["last", "over", "n0", "beyond", "over"]
            .map(|n| add(n.into(), 5))
            .into(),
        ..Tx::default()
    };
    let (resolved, _) = world.run(second, CREATED).expect("more names");
    let sums: Vec<_> = resolved
        .puts
        .iter()
        .map(|(key, value)| {
            let (_, parts) = key.split().expect("a counter's key");
            let Value::Inline(value) = value else {
                panic!("not a sum")
            };
            let name = String::from_utf8_lossy(parts[1]).into_owned();
            (name, counters::sum_of(value).expect("a sum"))
        })
        .collect();
    let want = [("n0", 6), ("last", 5), (COUNTER_OVERFLOW_NAME, 15)];
    assert_eq!(
        BTreeMap::from_iter(sums),
        want.map(|(n, s)| (n.to_owned(), s)).into()
    );
}

#[test]
fn a_foreign_lease_is_fenced() {
    let world = World::default();
    let tx = Tx {
        epoch: EPOCH + 1,
        ..Tx::default()
    };
    assert!(matches!(
        world.decide(tx, CREATED),
        Err(CommitError::Fenced)
    ));
}
