//! Tumbling windows.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn windows(batch_size: u32) -> Policy {
    Policy {
        tumbling_window: MINUTE,
        ..policy(batch_size)
    }
}

/// The start of the window of now, and the time until it ends.
fn window_now(world: &World) -> (UnixMillis, Duration) {
    let now = world.clock.now();
    let start = UnixMillis(now.0 - now.0 % 60_000);
    (start, start.plus(MINUTE).since(now))
}

#[tokio::test(start_paused = true)]
async fn a_window_carries_its_state_and_ends_with_a_final_invocation() {
    for carrier in [RECORD, BATCH] {
        let mut world = World::new(carrier, 1).await;
        world.map(windows(2)).await;
        world.start();
        let (start, left) = window_now(&world);
        world.put_all(["ok 1", "ok 2", "ok 3"]).await;
        tokio::time::sleep(left + Duration::from_millis(500)).await;
        // A record of the next window ends the first one at once.
        world.put_all(["ok 4"]).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let seen = world.script.windows.lock().unwrap().clone();
        let calls: Vec<(u64, &str, u32)> = seen
            .iter()
            .map(|(at, state, flags, _)| (at.0 - start.0, state.as_str(), *flags))
            .collect();
        assert_eq!(
            calls,
            [(0, "{}", 0), (0, "2", 0), (0, "3", 1), (60_000, "{}", 0)],
            "{carrier:?}"
        );
        // The idle shard's window is closed by the clock.
        tokio::time::sleep(2 * MINUTE).await;
        let seen = world.script.windows.lock().unwrap().clone();
        let (at, state, flags, when) = seen.last().unwrap().clone();
        assert_eq!((at, state.as_str(), flags), (start.plus(MINUTE), "1", 1));
        assert_eq!(when.since(start.plus(2 * MINUTE)), Duration::from_secs(1));
        assert_eq!(seen.len(), 5, "each window is closed once");
        assert_eq!(world.cursor().window, None);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_that_grows_too_large_ends_its_window_early() {
    let mut world = World::new(BATCH, 1).await;
    world.map(windows(1)).await;
    world.start();
    world.put_all(["ok", "grow", "ok"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = world.script.windows.lock().unwrap().clone();
    let calls: Vec<(&str, u32)> = seen
        .iter()
        .map(|(_, s, flags, _)| (&s[..1], *flags))
        .collect();
    assert_eq!(calls, [("{", 0), ("1", 0), ("\"", 3), ("{", 0)]);
    assert!(
        seen.iter().all(|(at, ..)| *at == seen[0].0),
        "the same window"
    );
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_in_a_window_keeps_nothing_of_its_batch() {
    let mut world = World::new(RECORD, 1).await;
    world
        .map(Policy {
            maximum_retry_attempts: Some(0),
            ..windows(10)
        })
        .await;
    world.start();
    world.put_all(["ok 1", "trap", "ok 2"]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    // Split at the record at fault, since no state came for what was before it.
    let seen: Vec<Vec<String>> = world.seen();
    assert_eq!(
        seen,
        [
            vec!["ok 1", "trap", "ok 2"],
            vec!["ok 1"],
            vec!["trap"],
            vec!["ok 2"]
        ]
    );
    assert_eq!(world.counter("done"), 2);
    let windows = world.script.windows.lock().unwrap().clone();
    let states: Vec<&str> = windows
        .iter()
        .map(|(_, state, ..)| state.as_str())
        .collect();
    assert_eq!(states, ["{}", "1"], "the state goes on with what is done");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_shard_closes_its_window() {
    let mut world = World::new(BATCH, 1).await;
    world.map(windows(10)).await;
    world.start();
    world.put_all(["ok 1"]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.split_shard().await;
    world.put_all(["ok 2"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = world.script.windows.lock().unwrap().clone();
    let calls: Vec<(&str, u32)> = seen
        .iter()
        .map(|(_, s, flags, _)| (s.as_str(), *flags))
        .collect();
    assert_eq!(
        calls,
        [("{}", 0), ("1", 1), ("{}", 0)],
        "the child begins anew"
    );
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_state_is_a_function_error() {
    let mut world = World::new(EVENT, 1).await;
    world
        .map(Policy {
            maximum_retry_attempts: Some(1),
            bisect_batch_on_function_error: false,
            ..windows(10)
        })
        .await;
    world.script.answer("{}");
    world.start();
    world.put_all(["ok 1"]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let failures = world.failures();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].invocations, 2);
    let Some(Cause::BadAnswer { reason }) = &failures[0].cause else {
        panic!("{:?}", failures[0].cause);
    };
    assert!(reason.contains("needs the window's `state`"), "{reason}");
    assert_eq!(world.cursor().window, None, "no window opened");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn in_a_window_item_failures_count_only_when_they_are_reported() {
    let response = r#"{"state":{"n":1},"batchItemFailures":[{"itemIdentifier":"{1}"}]}"#;
    for (reported, sizes) in [(false, vec![3]), (true, vec![3, 2])] {
        let mut world = World::new(EVENT, 1).await;
        let policy = Policy {
            report_batch_item_failures: reported,
            maximum_retry_attempts: Some(0),
            bisect_batch_on_function_error: false,
            ..windows(10)
        };
        world.map(policy).await;
        world.script.answer(response);
        world.start();
        world.put_all(["ok 0", "ok 1", "ok 2"]).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(world.sizes(), sizes, "reported: {reported}");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_call_of_every_window_has_the_state_of_nothing() {
    let mut world = World::new(BATCH, 1).await;
    world.map(windows(10)).await;
    world.start();
    for record in ["ok 1", "ok 2", "ok 3"] {
        world.put_all([record]).await;
        tokio::time::sleep(2 * MINUTE).await;
    }
    let seen = world.script.windows.lock().unwrap().clone();
    let first: Vec<&str> = seen
        .iter()
        .filter(|(.., flags, _)| *flags == 0)
        .map(|(_, state, ..)| state.as_str())
        .collect();
    assert_eq!(first, ["{}"; 3]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_final_invocation_that_fails_suspends_the_shard_until_retries_or_age_end_it() {
    for (retries, age, reason) in [
        (Some(3), None, Reason::RetryAttemptsExhausted),
        (None, Some(MINUTE), Reason::RecordAgeExceeded),
    ] {
        let mut world = World::new(BATCH, 1).await;
        let policy = Policy {
            maximum_retry_attempts: retries,
            maximum_record_age: age,
            ..windows(10)
        };
        world.map(policy).await;
        world.start();
        let (_, left) = window_now(&world);
        world.put_all(["ok 1"]).await;
        world.until(async |w| w.counter("done") == 1).await;
        world.script.fail_finals(usize::MAX);
        tokio::time::sleep(left + Duration::from_millis(10)).await;
        world.put_all(["ok 2"]).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(world.counter("done"), 1, "the shard waits");
        world.until(async |w| w.counter("done") == 2).await;
        let failures = world.failures();
        assert_eq!((failures.len(), failures[0].reason), (1, reason));
        assert_eq!(failures[0].records, 0, "it had none");
        if let Some(retries) = retries {
            assert_eq!(failures[0].invocations, 1 + retries);
        }
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_final_invocation_that_succeeds_at_last_lets_the_shard_go_on() {
    let mut world = World::new(BATCH, 1).await;
    world.map(windows(10)).await;
    world.start();
    let (_, left) = window_now(&world);
    world.put_all(["ok 1"]).await;
    world.until(async |w| w.counter("done") == 1).await;
    world.script.fail_finals(2);
    tokio::time::sleep(left + Duration::from_millis(10)).await;
    world.put_all(["ok 2"]).await;
    world.until(async |w| w.counter("done") == 2).await;
    assert_eq!(world.failures().len(), 0);
    let metrics = world.view().await.metrics;
    assert_eq!((metrics.failed_invocations, metrics.windows_closed), (2, 1));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_window_that_is_open_is_closed_when_the_mapping_has_no_windows_any_more() {
    // It stayed open, and the end of its shard was never reached. Lanes were made beside it, which
    // all went on with its state.
    let mut world = World::new(RECORD, 1).await;
    world.map(windows(2)).await;
    world.start();
    let (start, left) = window_now(&world);
    world.put_all(["ok 1", "ok 2"]).await;
    world.until(async |w| w.counter("done") == 2).await;
    for lanes in [3, 1] {
        let policy = Policy {
            parallelization_factor: lanes,
            tumbling_window: if lanes == 1 { MINUTE } else { Duration::ZERO },
            ..windows(2)
        };
        let update = UpdateMapping {
            policy: Some(policy),
            ..UpdateMapping::default()
        };
        world
            .mappings
            .update(&Scope::default(), "m", update)
            .await
            .unwrap();
        let applied = async |w: &World| {
            let enabled = w.view().await.state == MappingState::Enabled;
            enabled && w.cursor().window.is_none()
        };
        world.until(applied).await;
        world.put_all(["ok 3"]).await;
        world.drained().await;
        assert_eq!(world.cursor().lanes.len(), lanes as usize);
    }
    let seen = world.script.windows.lock().unwrap().clone();
    let calls: Vec<(u64, &str, u32)> = seen
        .iter()
        .map(|(at, state, flags, _)| (at.0.saturating_sub(start.0), state.as_str(), *flags))
        .collect();
    // A record that comes after its window was closed goes into the next one.
    assert!(left > Duration::from_secs(10), "{left:?}");
    assert_eq!(
        calls[..3],
        [(0, "{}", 0), (0, "2", 1), (60_000, "{}", 0)],
        "{calls:?}"
    );
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn parts_that_wait_are_not_run_in_a_window_that_ended_early() {
    let mut world = World::new(BATCH, 1).await;
    let policy = Policy {
        maximum_retry_attempts: Some(0),
        ..windows(10)
    };
    world.map(policy).await;
    world.start();
    // Split at the trap: `grow` by itself ends the window, then the others run in a new one.
    world.put_all(["grow", "trap", "ok"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = world.script.windows.lock().unwrap().clone();
    let calls: Vec<(&str, u32)> = seen
        .iter()
        .map(|(_, s, flags, _)| (&s[..1], *flags))
        .collect();
    assert_eq!(calls, [("{", 0), ("\"", 3), ("{", 0)]);
    assert_eq!(world.counter("done"), 2);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_final_invocation_that_is_refused_leaves_no_effects() {
    let mut world = World::new(BATCH, 1).await;
    world
        .map(Policy {
            maximum_retry_attempts: Some(2),
            ..windows(10)
        })
        .await;
    world.script.emit_at_the_end("nowhere");
    world.start();
    world.put_all(["ok 1"]).await;
    tokio::time::sleep(2 * MINUTE).await;
    let seen = world.script.windows.lock().unwrap().clone();
    let finals = seen.iter().filter(|(_, _, flags, _)| *flags == 1).count();
    assert_eq!(finals, 3, "{seen:?}");
    assert_eq!(world.counter("closed"), 0, "its counter is not kept");
    assert_eq!(world.failures().len(), 1, "the window is given up");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_a_window_may_hold_a_state_that_ends_it() {
    let mut world = World::new(BATCH, 1).await;
    world.map(windows(10)).await;
    world.start();
    world.put_all(["ok 1"]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let allowed = world.script.allowed.load(SeqCst);
    assert!(
        allowed > shardmill_core::mapping::MAX_WINDOW_STATE_BYTES + 16,
        "{allowed} bytes"
    );
    world.finish().await;
}
