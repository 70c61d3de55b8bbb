//! Parked keys.

use super::*;

fn parking() -> Policy {
    Policy {
        on_exhausted: OnExhausted::Park,
        maximum_retry_attempts: Some(1),
        ..policy(10)
    }
}

fn of(key: &str, data: &str) -> (String, String) {
    (key.into(), data.into())
}

#[tokio::test(start_paused = true)]
async fn a_parked_key_waits_in_order_while_others_go_on() {
    for carrier in [RECORD, BATCH] {
        for factor in [1, 3] {
            let mut world = World::new(carrier, 1).await;
            world
                .map(Policy {
                    parallelization_factor: factor,
                    ..parking()
                })
                .await;
            world
                .put([
                    of("a", "ok 1"),
                    of("b", "trap"),
                    of("a", "ok 2"),
                    of("b", "ok 3"),
                ])
                .await;
            world.start();
            world.drained().await;
            world
                .put([of("b", "ok 4"), of("c", "ok 5"), of("b", "ok 6")])
                .await;
            world.drained().await;
            assert_eq!(world.counter("done"), 3, "{carrier:?}, factor {factor}");
            let parked = world.parked();
            assert_eq!(parked.len(), 1);
            assert_eq!((parked[0].key.as_str(), parked[0].records), ("b", 4));
            assert!(
                parked[0].reason.contains("unreachable"),
                "{}",
                parked[0].reason
            );
            let failures = world.failures();
            assert_eq!((failures.len(), failures[0].parked), (1, true));
            world.finish().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_is_parked_once_though_the_host_dies_over_the_batch_before_it() {
    // It was parked ahead of the batch that was gathered before it, and read again after a crash.
    let mut world = World::new(RECORD, 1).await;
    world
        .map(Policy {
            batching_window: Duration::from_secs(60),
            ..parking()
        })
        .await;
    world.put([of("a", "trap")]).await;
    world.start();
    world.drained().await;
    world.put([of("b", "ok 1"), of("a", "ok 2")]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.running.take().unwrap().abort();
    let mut second = World::over(world.store.clone(), RECORD, world.clock);
    second.start();
    second.drained().await;
    assert_eq!(second.counter("done"), 1);
    assert_eq!(second.parked()[0].records, 2);
    second.finish().await;
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_of_parked_keys_the_shard_pauses() {
    let mut world = World::new(RECORD, 1).await;
    world
        .map(Policy {
            max_parked_keys: 2,
            ..parking()
        })
        .await;
    world
        .put([
            of("a", "trap"),
            of("b", "trap"),
            of("c", "trap"),
            of("d", "ok"),
        ])
        .await;
    world.start();
    world
        .until(async |w| w.view().await.shards[0].paused.is_some())
        .await;
    let reason = world.view().await.shards[0].paused.clone().unwrap();
    assert!(reason.starts_with("3 parked keys, 2 allowed"), "{reason}");
    assert_eq!((world.parked().len(), world.counter("done")), (2, 0));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn children_of_a_split_shard_know_the_parked_keys() {
    let mut world = World::new(RECORD, 1).await;
    world.map(parking()).await;
    world.put([of("a", "trap"), of("b", "ok 1")]).await;
    world.start();
    world.drained().await;
    world.split_shard().await;
    world.put([of("a", "ok 2"), of("b", "ok 3")]).await;
    let both = async |w: &World| w.counter("done") == 2 && w.parked()[0].records == 2;
    world.until(both).await;
    world.finish().await;
}

/// A key with a poison record at its head goes on with a version of the function that can take
/// it: the script heals when it is told to.
#[tokio::test(start_paused = true)]
async fn a_released_key_is_delivered_in_order_before_what_came_later() {
    for carrier in [RECORD, BATCH] {
        let mut world = World::new(carrier, 1).await;
        world
            .map(Policy {
                batch_size: 3,
                ..parking()
            })
            .await;
        world.put([of("b", "trap 0"), of("a", "ok 1")]).await;
        world.start();
        world.drained().await;
        world.put((1..8).map(|n| of("b", &format!("ok {n}")))).await;
        world.drained().await;
        assert_eq!(world.parked()[0].records, 8);
        // Still bad: it stays parked, with nothing lost and nothing done.
        world.script.seen.lock().unwrap().clear();
        assert_eq!(world.unpark(None).await, 1);
        world
            .until(async |w| !w.parked()[0].release.releasing)
            .await;
        assert_eq!((world.counter("done"), world.parked()[0].records), (1, 8));
        assert_eq!(
            world.failures().len(),
            2,
            "the new attempts have their own entry"
        );
        world.script.heal();
        world.script.seen.lock().unwrap().clear();
        world.unpark(Some("b")).await;
        world.put([of("b", "ok 8"), of("a", "ok 9")]).await;
        world.until(async |w| w.parked().is_empty()).await;
        world.put([of("b", "ok 9")]).await;
        world.until(async |w| w.counter("done") == 12).await;
        let seen = world.seen().concat();
        let of_b: Vec<&String> = seen.iter().filter(|r| *r != "ok 9").collect();
        let wanted: Vec<String> = (0..9)
            .map(|n| {
                if n == 0 {
                    "trap 0".into()
                } else {
                    format!("ok {n}")
                }
            })
            .collect();
        assert_eq!(of_b, wanted.iter().collect::<Vec<_>>(), "{carrier:?}");
        assert_eq!(world.side_log().len(), 0, "nothing is left of the side log");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_goes_on_after_a_restart() {
    let mut world = World::with(RECORD, 1, Duration::from_millis(100)).await;
    world
        .map(Policy {
            batch_size: 2,
            ..parking()
        })
        .await;
    world.put([of("b", "trap 0")]).await;
    world
        .put((1..10).map(|n| of("b", &format!("ok {n}"))))
        .await;
    world.start();
    world.drained().await;
    world.script.heal();
    world.unpark(None).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    world.stop.cancel();
    world.running.take().unwrap().await.unwrap();
    let done = world.counter("done");
    assert!((2..10).contains(&done), "{done} done before the restart");
    world.stop = CancellationToken::new();
    world.start();
    world.until(async |w| w.parked().is_empty()).await;
    assert_eq!(world.counter("done"), 10);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_mapping_leaves_no_parked_records() {
    let mut world = World::new(RECORD, 1).await;
    world.map(parking()).await;
    world.put([of("b", "trap"), of("b", "ok")]).await;
    world.start();
    world.drained().await;
    assert!(!world.side_log().is_empty());
    world.mappings.delete(&Scope::default(), "m").await.unwrap();
    world.until_gone().await;
    assert!(world.side_log().is_empty());
    world.finish().await;
}
