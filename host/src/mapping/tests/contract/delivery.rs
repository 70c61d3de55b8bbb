//! Delivery: lanes, shards and their parents, checkpoints.

use shardmill_core::{HashKey, HashKeyRange, ShardId, reshard};

use super::*;

/// Puts a record into the upper half of all hash keys, or the lower one.
async fn put_into(world: &World, upper: bool, data: &str) {
    let halves: Vec<HashKeyRange> = HashKeyRange::tiling(2).collect();
    let mut packed = Records::default();
    let hash = halves[usize::from(upper)].start;
    packed.push("k", Some(HashKey(hash.0 + 1)), data.as_bytes());
    world.put_records(packed).await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_has_one_batch_in_flight() {
    for factor in [1, 3] {
        let mut world = World::with(BATCH, 1, Duration::from_secs(1)).await;
        let policy = Policy {
            parallelization_factor: factor,
            ..plain(1, 0)
        };
        world.map(policy).await;
        let keys = (0..30).map(|n| (format!("k{n}"), format!("ok {n}")));
        world.put(keys).await;
        world.start();
        world.drained().await;
        let most = world.script.most_at_once.load(SeqCst);
        assert_eq!(most, factor as usize, "factor {factor}");
        assert_eq!(world.counter("done"), 30);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_child_of_a_merge_waits_for_both_its_parents() {
    for slow in [false, true] {
        let mut world = World::with(BATCH, 2, Duration::from_secs(1)).await;
        world.map(plain(1, 0)).await;
        put_into(&world, !slow, "ok of the quick parent").await;
        for n in 0..5 {
            put_into(&world, slow, &format!("ok {n} of the slow parent")).await;
        }
        let name = "in".parse().unwrap();
        let stream = world.store.stream(&Scope::default(), &name).unwrap();
        let merged = reshard::merge(&stream, ShardId(0), ShardId(1), world.clock.now()).unwrap();
        let tx = Tx {
            streams: vec![StreamChange::Update(Box::new(merged))],
            ..Tx::default()
        };
        world.store.commit(tx).await.unwrap();
        put_into(&world, slow, "ok of the child").await;
        world.start();
        world.until(async |w| w.counter("done") == 7).await;
        let seen = world.seen().concat();
        assert_eq!(seen.last().map(String::as_str), Some("ok of the child"));
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn siblings_run_side_by_side() {
    let mut world = World::with(BATCH, 1, Duration::from_secs(1)).await;
    world.map(plain(1, 0)).await;
    world.split_shard().await;
    for n in 0..4 {
        put_into(&world, n % 2 == 0, &format!("ok {n}")).await;
    }
    world.start();
    world.until(async |w| w.counter("done") == 4).await;
    assert_eq!(world.script.most_at_once.load(SeqCst), 2);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_mapping_that_is_made_again_begins_at_its_starting_position() {
    for (position, seen) in [
        (StartingPosition::TrimHorizon, vec!["ok 0", "ok 0", "ok 1"]),
        (StartingPosition::Latest, vec!["ok 0", "ok 1"]),
    ] {
        let mut world = World::new(BATCH, 1).await;
        world.map(plain(1, 0)).await;
        world.start();
        world.put_all(["ok 0"]).await;
        world.drained().await;
        world.mappings.delete(&Scope::default(), "m").await.unwrap();
        world.until_gone().await;
        world.map_from(plain(1, 0), position).await;
        world.put_all(["ok 1"]).await;
        world.drained().await;
        assert_eq!(world.seen().concat(), seen, "{position:?}");
        world.finish().await;
    }
}
