//! Failures: what uses an attempt, what ends them, and what is reported.

use super::*;

#[tokio::test(start_paused = true)]
async fn every_kind_of_function_error_uses_an_attempt() {
    for (word, cause) in [
        ("error", "handler_error"),
        ("trap", "trap"),
        ("slow", "timed_out"),
        ("huge", "out_of_memory"),
        ("exit", "exited"),
    ] {
        let mut world = World::new(BATCH, 1).await;
        world.map(plain(10, 2)).await;
        world.put_all([word]).await;
        world.start();
        world.drained().await;
        let failures = world.failures();
        assert_eq!((failures.len(), failures[0].invocations), (1, 3), "{word}");
        let found = failures[0].cause.as_ref().map(Cause::name);
        assert_eq!(found, Some(cause));
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_conditions_that_stop_retries_the_first_one_wins() {
    // Three attempts take 0.6 s; after 60 s there have been nine.
    for (retries, age, reason) in [
        (Some(2), Some(60), Reason::RetryAttemptsExhausted),
        (Some(1_000), Some(60), Reason::RecordAgeExceeded),
        (Some(10_000), Some(604_800), Reason::Expired),
    ] {
        let mut world = World::new(BATCH, 1).await;
        let policy = Policy {
            maximum_retry_attempts: retries,
            maximum_record_age: age.map(Duration::from_secs),
            ..plain(10, 0)
        };
        world.map(policy).await;
        world.put_all(["error"]).await;
        world.start();
        tokio::time::sleep(Duration::from_secs(100)).await;
        if reason == Reason::Expired {
            assert_eq!(world.failures().len(), 0);
            world.trim_all().await;
        }
        world.until(async |w| w.failures().len() == 1).await;
        assert_eq!(world.failures()[0].reason, reason);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn with_reporting_a_trap_is_a_complete_failure() {
    let mut world = World::new(EVENT, 1).await;
    world.map(reporting(10, 1)).await;
    world.put_all(["ok 0", "trap", "ok 2"]).await;
    world.start();
    world.drained().await;
    let whole = vec!["ok 0", "trap", "ok 2"];
    assert_eq!(world.seen(), [whole.clone(), whole]);
    assert_eq!(world.failures()[0].records, 3);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn item_identifiers_compare_as_integers() {
    // 56 digits: as 64-bit numbers all of a shard's are the same, as text this one is none.
    let response = r#"{"batchItemFailures":[{"itemIdentifier":"000{1}"}]}"#;
    let (seen, given_up) = answered(reporting(10, 0), response).await;
    assert_eq!(seen[1..], [["ok 1", "ok 2"]]);
    assert_eq!(given_up, 2);
}

#[tokio::test(start_paused = true)]
async fn bisect_splits_whether_item_failures_are_reported_or_not() {
    for reported in [false, true] {
        let mut world = World::new(EVENT, 1).await;
        let policy = Policy {
            bisect_batch_on_function_error: true,
            report_batch_item_failures: reported,
            ..plain(10, 0)
        };
        world.map(policy).await;
        world.put_all(["ok 0", "ok 1", "error", "ok 3"]).await;
        world.start();
        world.drained().await;
        assert_eq!(world.sizes(), [4, 2, 2, 1, 1], "reported: {reported}");
        assert_eq!(world.failures()[0].records, 1);
        assert_eq!(world.counter("done"), 3);
        world.finish().await;
    }
}
