//! What a person sees of a mapping: lag whatever it does, counters that balance, the last error.

use super::*;
use shardmill_core::mapping::Circuit;

fn filtered(batch_size: u32) -> Policy {
    Policy {
        filter_criteria: vec![r#"{"data": {"n": [{"numeric": [">", 0]}]}}"#.into()],
        ..policy(batch_size)
    }
}

/// polled = filtered out + first invoked + unsent + put back + waiting.
fn balances(view: &MappingView, waiting: u64) {
    for shard in &view.shards {
        let m = &shard.metrics;
        let ended = m.filtered_out + m.first_invoked + m.unsent + m.put_back;
        assert_eq!(m.polled, ended + shard.waiting_records, "{shard:#?}");
    }
    assert_eq!(view.waiting_records, waiting, "{:#?}", view.metrics);
}

#[tokio::test(start_paused = true)]
async fn what_was_polled_balances_with_what_became_of_it() {
    let poison = || (0..60).map(|i| if i % 13 == 7 { "trap" } else { "ok" });
    type Case = (&'static str, Carrier, Policy, Vec<String>, [u64; 4]);
    let cases: [Case; 4] = [
        (
            "all go well",
            RECORD,
            policy(7),
            (0..50).map(|i| format!("ok {i}")).collect(),
            [50, 0, 0, 50],
        ),
        (
            "some fail, in record mode",
            RECORD,
            policy(10),
            poison().map(str::to_owned).collect(),
            [60, 0, 5, 60],
        ),
        (
            "some fail, with halves, in two lanes",
            BATCH,
            Policy {
                parallelization_factor: 2,
                ..policy(10)
            },
            poison().map(str::to_owned).collect(),
            [60, 0, 5, 60],
        ),
        (
            "filters drop most, in three lanes",
            BATCH,
            Policy {
                parallelization_factor: 3,
                ..filtered(4)
            },
            (0..90)
                .map(|i| match i % 3 {
                    0 => "no json".to_owned(),
                    n => format!("{{\"n\": {}}}", n - 1),
                })
                .collect(),
            [90, 60, 0, 30],
        ),
    ];
    for (name, carrier, policy, records, [polled, filtered, given_up, first]) in cases {
        let mut world = World::new(carrier, 1).await;
        world.map(policy).await;
        let keyed = (0..).zip(records);
        let keyed = keyed.map(|(i, data): (usize, _)| (format!("k{}", i % 5), data));
        world.put(keyed).await;
        world.start();
        world.drained().await;
        world
            .until(async |w| w.view().await.waiting_records == 0)
            .await;
        let view = world.view().await;
        balances(&view, 0);
        let m = view.metrics;
        assert_eq!((m.polled, m.filtered_out), (polled, filtered), "{name}");
        assert_eq!(m.put_back, 0, "{name}");
        assert!(m.invoked >= m.first_invoked, "{name}");
        assert_eq!((m.given_up, m.first_invoked), (given_up, first), "{name}");
        assert_eq!(m.unsent, 0, "{name}");
        assert_eq!(m.failed_records > 0, m.errors > 0, "{name}");
        if filtered > 0 {
            assert_eq!(m.not_json, 30, "{name}");
        }
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_are_parked_unsent_balance_too() {
    let mut world = World::new(RECORD, 1).await;
    let park = Policy {
        on_exhausted: OnExhausted::Park,
        ..policy(10)
    };
    world.map(park).await;
    world.put_all(["ok", "trap", "ok"]).await;
    world.start();
    world.drained().await;
    world.put_all(["ok", "ok"]).await;
    world
        .until(async |w| w.view().await.parked_records == 4)
        .await;
    let view = world.view().await;
    balances(&view, 0);
    let m = view.metrics;
    assert_eq!((m.polled, m.first_invoked, m.unsent), (5, 3, 2));
    assert_eq!((m.parked, m.processed), (4, 1));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn records_behind_a_failing_batch_wait_and_are_not_counted_twice() {
    let mut world = World::new(BATCH, 1).await;
    let stubborn = Policy {
        maximum_retry_attempts: None,
        bisect_batch_on_function_error: false,
        ..policy(2)
    };
    world.map(stubborn).await;
    world.put_all(["trap", "ok", "ok", "ok", "ok"]).await;
    world.start();
    world.until(async |w| w.script.invocations() >= 5).await;
    let view = world.view().await;
    let shard = &view.shards[0];
    assert_eq!(
        (view.metrics.first_invoked, view.metrics.invoked % 2),
        (2, 0)
    );
    // One batch is gathered ahead at the most, and never while one waits for its next attempt.
    balances(&view, view.metrics.polled - 2);
    assert!(view.waiting_records <= 2, "{:?}", view.metrics);
    assert_eq!(shard.state, ShardState::Retrying);
    assert!(shard.attempts >= 4, "{shard:#?}");
    assert!(shard.not_before.is_some(), "{shard:#?}");
    assert!(shard.last_error.as_ref().unwrap().message.contains("trap"));
    assert_eq!(shard.records_behind, 5);
    world.script.heal();
    world.drained().await;
    let view = world.view().await;
    balances(&view, 0);
    assert_eq!((view.metrics.polled, view.metrics.first_invoked), (5, 5));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_poller_that_is_replaced_puts_back_what_it_had_gathered() {
    let mut world = World::new(BATCH, 1).await;
    let slow = Policy {
        batching_window: Duration::from_secs(300),
        ..policy(10)
    };
    world.map(slow).await;
    world.put_all(["ok", "ok", "ok"]).await;
    world.start();
    world
        .until(async |w| w.view().await.waiting_records == 3)
        .await;
    let change = UpdateMapping {
        policy: Some(policy(10)),
        ..UpdateMapping::default()
    };
    let scope = Scope::default();
    world.mappings.update(&scope, "m", change).await.unwrap();
    world.drained().await;
    let view = world.view().await;
    balances(&view, 0);
    let m = view.metrics;
    assert_eq!((m.polled, m.put_back, m.first_invoked), (6, 3, 3));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn lag_is_told_whatever_the_mapping_does() {
    let mut world = World::new(RECORD, 1).await;
    world
        .map(Policy {
            on_exhausted: OnExhausted::Pause,
            maximum_record_age: Some(Duration::from_secs(7200)),
            ..policy(10)
        })
        .await;
    world.put_all(["trap", "ok"]).await;
    // Nothing runs yet.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let view = world.view().await;
    let shard = &view.shards[0];
    assert_eq!((shard.iterator_age_ms, shard.records_behind), (10_000, 2));
    let bytes = "ktrapkok".len() as u64;
    assert_eq!(
        (shard.bytes_behind, shard.expires_in_ms),
        (bytes, Some(7_190_000))
    );
    assert_eq!(
        (shard.state, view.circuit),
        (ShardState::Running, Circuit::Closed)
    );
    world.start();
    world
        .until(async |w| w.view().await.state == MappingState::Paused)
        .await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let view = world.view().await;
    let shard = &view.shards[0];
    assert_eq!(shard.state, ShardState::Paused);
    assert!(shard.iterator_age_ms >= 3_610_000, "{shard:#?}");
    assert!(shard.expires_in_ms.unwrap() <= 3_590_000, "{shard:#?}");
    world.script.heal();
    world.mappings.resume(&Scope::default(), "m").await.unwrap();
    world.drained().await;
    let view = world.view().await;
    let shard = &view.shards[0];
    assert_eq!((shard.iterator_age_ms, shard.bytes_behind), (0, 0));
    assert_eq!((shard.state, shard.expires_in_ms), (ShardState::Idle, None));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_mapping_that_filters_everything_out_is_not_behind() {
    let mut world = World::new(RECORD, 2).await;
    world.map(filtered(10)).await;
    world.put_all((0..100).map(|_| "{\"n\": 0}")).await;
    world.start();
    world.drained().await;
    let view = world.view().await;
    balances(&view, 0);
    assert_eq!(
        (view.metrics.filtered_out, view.metrics.invocations),
        (100, 0)
    );
    assert!(view.shards.iter().all(|s| s.iterator_age_ms == 0));
    world.finish().await;
}
