//! Lanes, filters, aggregates and the circuit breaker.

use shardmill_core::aggregate::Aggregator;
use shardmill_core::mapping::lane_of;

use super::*;

fn lanes(factor: u32, batch_size: u32) -> Policy {
    Policy {
        parallelization_factor: factor,
        ..policy(batch_size)
    }
}

/// Keys that fall to each of `count` lanes, one each.
fn key_per_lane(count: usize) -> Vec<String> {
    let key = |lane| {
        let keys = (0..).map(|n| format!("k{n}"));
        keys.into_iter().find(|key| lane_of(key, count) == lane)
    };
    (0..count).map(|lane| key(lane).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn lanes_find_full_batches_in_a_backlog() {
    let mut world = World::with(RECORD, 1, Duration::from_millis(100)).await;
    world.map(lanes(10, 20)).await;
    // Blocks of few records, so that a lane that reads too little finds too little.
    for first in (0..4_000).step_by(10) {
        let records = (first..first + 10).map(|n| (format!("key-{n}"), format!("ok {n}")));
        world.put(records).await;
    }
    world.start();
    world.drained().await;
    assert_eq!(world.counter("done"), 4_000);
    let batches = world.script.invocations();
    assert!(
        (200..300).contains(&batches),
        "{batches} batches, 200 at best"
    );
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn lanes_run_side_by_side_and_each_key_stays_in_order() {
    let mut world = World::with(RECORD, 1, Duration::from_millis(100)).await;
    world.map(lanes(4, 5)).await;
    let keys: Vec<String> = (0..20).map(|k| format!("key-{k}")).collect();
    let records = (0..400).map(|n| (keys[n % 20].clone(), format!("ok {n}")));
    world.put(records).await;
    world.start();
    world.drained().await;
    assert_eq!(world.counter("done"), 400);
    assert_eq!(
        world.script.most_at_once.load(SeqCst),
        4,
        "one batch per lane"
    );
    let seen = world.script.seen.lock().unwrap().clone();
    let order = seen.iter().flat_map(|(records, _)| records);
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    for record in order {
        let n: usize = record[3..].parse().unwrap();
        if let Some(before) = last.insert(n % 20, n) {
            assert!(
                before < n,
                "key {} out of order: {before} before {n}",
                n % 20
            );
        }
    }
    let cursor = world.cursor();
    assert_eq!(
        cursor.low().record,
        401,
        "the joined checkpoint is behind all of them"
    );
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_lane_holds_up_no_other_and_a_restart_delivers_nothing_twice() {
    let keys = key_per_lane(3);
    let mut world = World::new(RECORD, 1).await;
    world
        .map(Policy {
            maximum_retry_attempts: None,
            ..lanes(3, 2)
        })
        .await;
    let mut records = vec![(keys[0].clone(), "trap".to_owned())];
    for n in 0..60 {
        records.push((keys[n % 3].clone(), format!("ok {n}")));
    }
    world.put(records).await;
    world.start();
    world.until(async |w| w.counter("done") == 40).await;
    let lag = world.view().await.shards[0].records_behind;
    assert_eq!(lag, 61, "the low mark stays before the record that fails");
    world.stop.cancel();
    world.running.take().unwrap().await.unwrap();
    world.script.seen.lock().unwrap().clear();
    world.stop = CancellationToken::new();
    world.start();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(world.counter("done"), 40);
    let seen = world.script.seen.lock().unwrap().clone();
    assert!(
        !seen.is_empty() && seen.iter().all(|(r, _)| r[0] == "trap"),
        "{seen:?}"
    );
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_factor_changes_when_the_lanes_have_met() {
    let mut world = World::with(RECORD, 1, Duration::from_millis(50)).await;
    world.map(lanes(4, 3)).await;
    let record = |n: usize| (format!("key-{}", n % 16), format!("ok {n}"));
    world.put((0..100).map(record)).await;
    world.start();
    for (factor, from) in [(2, 100), (10, 200), (1, 300), (3, 400)] {
        tokio::time::sleep(Duration::from_millis(120)).await;
        let change = UpdateMapping {
            policy: Some(lanes(factor, 3)),
            ..UpdateMapping::default()
        };
        let updated = world.mappings.update(&Scope::default(), "m", change).await;
        updated.unwrap();
        world.put((from..from + 100).map(record)).await;
    }
    world.drained().await;
    assert_eq!(world.counter("done"), 500);
    assert_eq!(world.cursor().lanes.len(), 3);
    let seen = world.script.seen.lock().unwrap().clone();
    let all: Vec<usize> = seen
        .iter()
        .flat_map(|(records, _)| records.iter().map(|r| r[3..].parse().unwrap()))
        .collect();
    for key in 0..16 {
        let of_key: Vec<usize> = all.iter().copied().filter(|n| n % 16 == key).collect();
        assert!(of_key.is_sorted(), "key {key}: {of_key:?}");
    }
    assert_eq!(all.len(), 500, "none twice");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn filtered_records_are_done_without_an_invocation() {
    let mut world = World::new(BATCH, 1).await;
    world
        .map(Policy {
            filter_criteria: vec![r#"{"data":{"take":[true]}}"#.into()],
            ..policy(3)
        })
        .await;
    let data = |n: usize| match n % 10 {
        0 => format!(r#"{{"take":true,"n":{n}}}"#),
        1 => "no json".into(),
        _ => r#"{"take":false}"#.into(),
    };
    world.put_all((0..100).map(data)).await;
    world.start();
    world.drained().await;
    assert_eq!(world.counter("done"), 10);
    let sizes: Vec<usize> = world.sizes();
    assert_eq!(
        sizes,
        [3, 3, 3, 1],
        "a dropped record does not count for the batch"
    );
    let metrics = world.view().await.metrics;
    assert_eq!((metrics.filtered_out, metrics.not_json), (90, 10));
    // Only dropped records: no invocation, and the checkpoint moves within a second or so.
    world.put_all((0..50).map(|_| "no json")).await;
    world.drained().await;
    assert_eq!(world.sizes().len(), 4);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn inner_records_of_an_aggregate_take_part_one_by_one() {
    for (deaggregate, sizes) in [(true, vec![4, 4, 4]), (false, vec![3])] {
        let mut world = World::new(RECORD, 1).await;
        world
            .map(Policy {
                deaggregate,
                ..policy(4)
            })
            .await;
        let mut aggregator = Aggregator::new(1 << 20);
        for n in 0..10 {
            let data = if n == 6 {
                "trap".into()
            } else {
                format!("ok {n}")
            };
            aggregator
                .push(&format!("inner-{n}"), None, data.as_bytes())
                .unwrap();
        }
        let aggregate = aggregator.take().unwrap().data;
        let mut packed = Records::default();
        packed.push("outer", None, b"ok before");
        packed.push("outer", None, &aggregate);
        packed.push("outer", None, b"ok after");
        world.put_records(packed).await;
        world.start();
        world.drained().await;
        if deaggregate {
            assert_eq!(world.counter("done"), 11);
            let failures = world.failures();
            assert_eq!((failures.len(), failures[0].records), (1, 1));
            let seen = world.script.seen.lock().unwrap().clone();
            let first: Vec<&str> = seen[0].0.iter().map(String::as_str).collect();
            assert_eq!(first, ["ok before", "ok 0", "ok 1", "ok 2"]);
            let mut done: Vec<String> = seen.into_iter().flat_map(|(r, _)| r).collect();
            done.retain(|r| r != "trap");
            done.dedup();
            assert_eq!(done.len(), 11, "{done:?}");
        } else {
            assert_eq!(world.sizes(), sizes);
            assert_eq!(world.counter("done"), 3);
        }
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_breaker_opens_after_failures_in_a_row_and_tries_one_batch() {
    let mut world = World::new(BATCH, 4).await;
    world
        .map(Policy {
            circuit_breaker: 3,
            maximum_retry_attempts: None,
            bisect_batch_on_function_error: false,
            ..policy(1)
        })
        .await;
    world
        .put((0..40).map(|n| (format!("key-{n}"), "error".into())))
        .await;
    world.start();
    tokio::time::sleep(Duration::from_secs(25)).await;
    let opened = world.script.invocations();
    assert!(
        (3..=6).contains(&opened),
        "{opened} invocations before it opened"
    );
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.script.invocations(), opened + 1, "one batch tries");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_part_keeps_its_wait_when_its_first_record_is_filtered_meanwhile() {
    // Looked at early for the age of a record that is the part's no more, it was run at once.
    let mut world = World::new(BATCH, 1).await;
    let aging = Policy {
        maximum_retry_attempts: None,
        maximum_record_age: Some(Duration::from_secs(60)),
        bisect_batch_on_function_error: false,
        ..policy(10)
    };
    world.map(aging.clone()).await;
    world.put_all([r#"{"old":true}"#]).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.put_all([r#"error {"old":false}"#]).await;
    world.start();
    tokio::time::sleep(Duration::from_secs(15)).await;
    let change = UpdateMapping {
        policy: Some(Policy {
            filter_criteria: vec![
                r#"{"approximateArrivalTimestamp":[{"numeric":[">",1700000020]}]}"#.into(),
            ],
            ..aging
        }),
        ..UpdateMapping::default()
    };
    world
        .mappings
        .update(&Scope::default(), "m", change)
        .await
        .unwrap();
    let before = world.script.invocations();
    tokio::time::sleep(Duration::from_secs(40)).await;
    let invocations = world.script.invocations() - before;
    assert!(
        invocations <= 3,
        "{invocations} invocations within two waits"
    );
    world.finish().await;
}
