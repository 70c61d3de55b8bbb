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
