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

/// One key `b`, parked with a trap at its head and `ok` behind it.
async fn with_a_parked_key(policy: Policy) -> World {
    let mut world = World::new(RECORD, 1).await;
    world.map(policy).await;
    world.put([of("b", "trap"), of("b", "ok")]).await;
    world.start();
    world.drained().await;
    assert_eq!(world.parked()[0].records, 2);
    world.script.seen.lock().unwrap().clear();
    world
}

fn parking_at_once() -> Policy {
    Policy {
        maximum_retry_attempts: Some(0),
        ..parking()
    }
}

#[tokio::test(start_paused = true)]
async fn later_records_of_a_key_that_is_free_do_not_park_it() {
    // Records were sorted as its later ones, and it was let go on before they were committed: it
    // stood still from then on, without a reason.
    let world = World::new(RECORD, 1).await;
    let mapping = world.map(parking()).await;
    world.put([of("b", "ok 1"), of("b", "ok 2")]).await;
    let shard = shardmill_core::ShardKey {
        stream: mapping.stream_id,
        shard: shardmill_core::ShardId(0),
    };
    let limit = ReadLimit {
        records: 2,
        bytes: 1 << 20,
    };
    let blocks = world.store.read(shard, 1, limit).await.unwrap();
    let slices = blocks.into_iter().map(|block| shardmill_core::Slice {
        from: 0,
        to: block.count(),
        block,
    });
    let batch = shardmill_core::Batch::new(slices);
    let parked = world.mappings.inner.parked_of(&mapping).unwrap();
    let add = |reason| {
        let mut parking = crate::mapping::parked::Parking::default();
        parking.add(&batch, reason);
        assert_eq!(parking.count(), 2);
        let mut tx = Tx::default();
        let added = parked.add_to(&mut tx, &parking, NOW);
        added.map(|added| (added[0].records, tx.expect.len(), tx.writes.len()))
    };
    assert_eq!(add(None), None);
    assert_eq!(add(Some("trap")), Some((2, 1, 2)));
}

#[tokio::test(start_paused = true)]
async fn hints_that_mislead_cost_a_released_key_no_more_than_halves() {
    // The releaser forgot that they had: it tried 100 records, 99, 98 …
    let mut world = World::new(BATCH, 1).await;
    let alone = Policy {
        maximum_retry_attempts: Some(0),
        on_exhausted: OnExhausted::Park,
        ..policy(100)
    };
    world.map(alone).await;
    let records = (1..100).map(|n| of("b", &format!("ok {n}")));
    world
        .put([of("b", "trap")].into_iter().chain(records))
        .await;
    world.start();
    world.drained().await;
    assert_eq!(world.parked()[0].records, 100);
    world.script.seen.lock().unwrap().clear();
    world.script.heal();
    world.script.fail_at_the_end();
    world.unpark(None).await;
    world.until(async |w| w.failures().len() == 2).await;
    assert_eq!(world.sizes(), [100, 99, 49, 24, 12, 6, 3, 1]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_released_batch_is_no_larger_than_what_can_be_parked() {
    // It was cut by the function's bound alone, and could not be committed when it was given up.
    const RECORD_BYTES: usize = 1_000_000;
    let mut world = World::new(BATCH, 1).await;
    let settings = FunctionSettings {
        limits: shardmill_core::limits::FunctionLimits {
            batch_bytes: 24 << 20,
            ..shardmill_core::limits::FunctionLimits::default()
        },
        ..FunctionSettings::default()
    };
    let (functions, scope) = (&world.functions, Scope::default());
    let deployed = functions.deploy(&scope, "f", Bytes::new(), settings);
    deployed.await.unwrap();
    world.map(parking_at_once()).await;
    world
        .change_policy(Policy {
            batch_size: 100,
            ..parking_at_once()
        })
        .await;
    world.put([of("b", "trap")]).await;
    for _ in 0..20 {
        world.put([of("b", &"x".repeat(RECORD_BYTES))]).await;
    }
    world.start();
    world.drained().await;
    assert_eq!(world.parked()[0].records, 21);
    world.script.seen.lock().unwrap().clear();
    world.script.heal();
    world.unpark(None).await;
    world.until(async |w| w.parked().is_empty()).await;
    assert_eq!(world.sizes(), [17, 4]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_released_across_a_rewind_does_not_count() {
    // The key was dropped and parked again meanwhile: the new side log lost its head.
    let world = with_a_parked_key(parking_at_once()).await;
    world.script.heal();
    *world.script.next_takes.lock().unwrap() = Duration::from_secs(100);
    world.unpark(None).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.script.healed.store(false, SeqCst);
    let options = RewindOptions {
        drop_parked: true,
        ..RewindOptions::default()
    };
    world.rewind(RewindTo::TrimHorizon, options).await.unwrap();
    world
        .until(async |w| w.parked().first().is_some_and(|key| key.records == 2))
        .await;
    world.script.heal();
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!((world.counter("done"), world.parked()[0].records), (0, 2));
    world.unpark(None).await;
    world.until(async |w| w.parked().is_empty()).await;
    assert_eq!(world.counter("done"), 2);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_record_that_kills_the_process_three_times_stays_parked() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = with_a_parked_key(Policy {
        batch_size: 1,
        ..parking_at_once()
    })
    .await;
    world.unpark(None).await;
    world.stop.cancel();
    world.running.take().unwrap().await.unwrap();
    // It was delivered, and failed, before the host was stopped.
    world.unpark(None).await;
    for death in 0..4 {
        let hour = Duration::from_secs(3600);
        let mut next = World::taking(world.store.clone(), RECORD, world.clock, hour);
        let inner = &next.mappings.inner;
        let delivery = crate::delivery::Delivery::new(
            world.store.clone(),
            world.clock,
            crate::delivery::Settings::default(),
        );
        next.mappings = Mappings::with_notes(
            world.store.clone(),
            inner.sandbox.clone(),
            inner.functions.clone(),
            world.clock,
            Some(folder.path().to_owned()),
            delivery,
        );
        next.start();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let runs = next.script.at_once.load(SeqCst);
        assert_eq!(runs, usize::from(death < 3), "after {death} deaths");
        if death == 3 {
            let key = next.parked().remove(0);
            assert!(!key.release.releasing);
            assert!(key.reason.contains("died 3 times"), "{}", key.reason);
            let failure = next.failures().remove(0);
            assert_eq!(
                (failure.reason, failure.parked),
                (Reason::ProcessDied, true)
            );
        }
        // A process that dies drops nothing: its notes stay as they are.
        let notes: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (std::fs::read(&path).unwrap(), path))
            .collect();
        next.running.take().unwrap().abort();
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (bytes, path) in notes {
            std::fs::write(path, bytes).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_holds_parked_keys_back() {
    let world = with_a_parked_key(Policy {
        circuit_breaker: 1,
        ..parking_at_once()
    })
    .await;
    world.unpark(None).await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(world.script.invocations(), 0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.script.invocations(), 1, "it tries one batch");
    assert_eq!(
        world.view().await.circuit,
        shardmill_core::mapping::Circuit::Open
    );
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_stays_parked_without_an_entry_when_the_failure_store_is_full() {
    let world = with_a_parked_key(parking_at_once()).await;
    let before = world.failures().len();
    let bounds = FailureBounds {
        bytes: 1,
        ..FailureBounds::default()
    };
    world.failure_store().open(bounds).unwrap();
    world.unpark(None).await;
    world
        .until(async |w| !w.parked()[0].release.releasing)
        .await;
    let key = world.parked().remove(0);
    assert!(
        key.reason.starts_with("the failure store is full"),
        "{}",
        key.reason
    );
    assert_eq!((key.records, world.failures().len()), (2, before));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_key_does_not_starve_those_behind_it() {
    let mut world = World::new(RECORD, 1).await;
    world.map(parking_at_once()).await;
    world.put([of("a", "trap"), of("b", "trap")]).await;
    world.start();
    world.drained().await;
    world.script.heal();
    let damaged = world.side_log().remove(0);
    let tx = Tx {
        writes: vec![(damaged, shardmill_store::Value::Delete)],
        ..Tx::default()
    };
    world.store.commit(tx).await.unwrap();
    world.unpark(None).await;
    world.until(async |w| w.parked().len() == 1).await;
    assert_eq!(world.parked()[0].key, "a");
    assert_eq!(world.counter("done"), 1);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_goes_on_while_another_waits_for_its_next_attempt() {
    let mut world = World::new(RECORD, 1).await;
    world
        .map(Policy {
            maximum_retry_attempts: Some(50),
            ..parking()
        })
        .await;
    world.put([of("a", "trap"), of("b", "trap")]).await;
    world.start();
    world.drained().await;
    world.unpark(Some("a")).await;
    // Its attempts are a minute apart by now.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let before = world.script.invocations();
    world.until(async |w| w.script.invocations() > before).await;
    world.script.heal();
    world.unpark(Some("b")).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let left: Vec<String> = world.parked().into_iter().map(|key| key.key).collect();
    assert_eq!(left, ["a"]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn throttles_of_parked_keys_are_counted_and_grow_apart() {
    let world = with_a_parked_key(parking_at_once()).await;
    world.script.heal();
    world.script.throttle(8);
    let began = world.clock.now();
    world.unpark(None).await;
    world.until(async |w| w.parked().is_empty()).await;
    let took = world.clock.now().since(began);
    assert_eq!(world.view().await.metrics.throttles, 8);
    assert!(took > Duration::from_secs(50), "{took:?}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn all_keys_are_let_go_on_in_one_transaction() {
    let mut world = World::new(RECORD, 1).await;
    world.map(parking_at_once()).await;
    let keys = (0..50).map(|n| of(&format!("k{n}"), "trap"));
    world.put(keys).await;
    world.start();
    world.drained().await;
    world.stop.cancel();
    world.running.take().unwrap().await.unwrap();
    let counting = Arc::new(Dying {
        store: world.store.clone(),
        before: |_, _| None,
        left: AtomicUsize::new(100),
        after: false,
        died: CancellationToken::new(),
    });
    let other = World::over(counting.clone(), RECORD, world.clock);
    assert_eq!(other.unpark(None).await, 50);
    assert_eq!(counting.left.load(SeqCst), 99);
    assert!(other.parked().iter().all(|key| key.release.releasing));
}

#[tokio::test(start_paused = true)]
async fn a_mapping_with_parked_keys_gets_no_tumbling_window() {
    let world = with_a_parked_key(parking_at_once()).await;
    let scope = Scope::default();
    let windowed = || UpdateMapping {
        policy: Some(Policy {
            tumbling_window: Duration::from_secs(60),
            ..policy(10)
        }),
        ..UpdateMapping::default()
    };
    let refused = world.mappings.update(&scope, "m", windowed()).await;
    assert!(
        matches!(refused, Err(MappingError::Parked { keys: 1, .. })),
        "{refused:?}"
    );
    world.script.heal();
    world.unpark(None).await;
    world.until(async |w| w.parked().is_empty()).await;
    let changed = world.mappings.update(&scope, "m", windowed()).await;
    assert!(changed.is_ok());
    world.finish().await;
}
