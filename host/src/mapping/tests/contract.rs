//! AWS's contract, row by row: Lambda developer guide, "Process Amazon Kinesis Data Streams
//! records with Lambda", and what was recorded of it. Each test is named after its claim.

mod delivery;
mod failure;
mod resource;

use super::*;

/// AWS's defaults with few retries and no split, so that each row stands by itself.
fn plain(batch_size: u32, retries: u32) -> Policy {
    Policy {
        batch_size,
        maximum_retry_attempts: Some(retries),
        ..Policy::aws()
    }
}

fn reporting(batch_size: u32, retries: u32) -> Policy {
    Policy {
        report_batch_item_failures: true,
        ..plain(batch_size, retries)
    }
}

/// Runs three records `ok 0 … 2` through a handler that answers with `response`, in which `{n}`
/// stands for the sequence number of the record with that data. Gives the records of each
/// invocation and how many were given up.
async fn answered(policy: Policy, response: &str) -> (Vec<Vec<String>>, u64) {
    let mut world = World::new(EVENT, 1).await;
    world.script.answer(response);
    world.map(policy).await;
    world.put_all(["ok 0", "ok 1", "ok 2"]).await;
    world.start();
    world.drained().await;
    let given_up = world.failures().iter().map(|f| f.records).sum();
    let seen = world.seen();
    world.finish().await;
    (seen, given_up)
}

#[tokio::test(start_paused = true)]
async fn a_response_that_names_no_failure_is_complete_success() {
    for response in [
        r#""""#,
        "[]",
        "null",
        "{}",
        r#"{"batchItemFailures":[]}"#,
        r#"{"batchItemFailures":null}"#,
        r#"{"something":"else"}"#,
    ] {
        let (seen, given_up) = answered(reporting(10, 1), response).await;
        assert_eq!((seen.len(), given_up), (1, 0), "{response}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_identifier_that_is_none_fails_the_whole_batch() {
    for item in [
        r#"{"itemIdentifier":""}"#,
        r#"{"itemIdentifier":null}"#,
        r#"{"foo":"{1}"}"#,
        r#"{"itemIdentifier":"123"}"#,
        r#"{"itemIdentifier":"{1}"},{"itemIdentifier":"123"}"#,
    ] {
        let response = format!(r#"{{"batchItemFailures":[{item}]}}"#);
        let (seen, given_up) = answered(reporting(10, 1), &response).await;
        let whole = vec!["ok 0".to_owned(), "ok 1".into(), "ok 2".into()];
        assert_eq!(seen, [whole.clone(), whole], "{item}");
        assert_eq!(given_up, 3, "{item}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_identifiers_the_lowest_counts_and_all_behind_it_is_retried() {
    let response = r#"{"batchItemFailures":[{"itemIdentifier":"{2}"},{"itemIdentifier":"{1}"}]}"#;
    let (seen, given_up) = answered(reporting(10, 1), response).await;
    // The suffix is a new batch with its own attempts: first and one retry.
    let suffix = vec!["ok 1".to_owned(), "ok 2".into()];
    assert_eq!(seen[1..], [suffix.clone(), suffix]);
    assert_eq!(given_up, 2);
}

#[tokio::test(start_paused = true)]
async fn a_response_is_ignored_unless_item_failures_are_reported() {
    let response = r#"{"batchItemFailures":[{"itemIdentifier":"{1}"}]}"#;
    let (seen, given_up) = answered(plain(10, 1), response).await;
    assert_eq!((seen.len(), given_up), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn with_bisect_a_valid_partial_response_is_the_split_point() {
    let policy = Policy {
        bisect_batch_on_function_error: true,
        ..reporting(10, 0)
    };
    let response = r#"{"batchItemFailures":[{"itemIdentifier":"{1}"}]}"#;
    let (seen, given_up) = answered(policy, response).await;
    assert_eq!(seen[0].len(), 3);
    assert_eq!(seen[1], ["ok 1", "ok 2"], "the prefix is done");
    assert_eq!(seen[2], ["ok 1"]);
    assert_eq!(seen[3], ["ok 2"]);
    assert_eq!(given_up, 1, "only the record that is named");
}

#[tokio::test(start_paused = true)]
async fn without_a_hint_bisect_halves_with_the_smaller_half_first() {
    let mut world = World::new(EVENT, 1).await;
    let policy = Policy {
        bisect_batch_on_function_error: true,
        ..plain(10, 0)
    };
    world.map(policy).await;
    world
        .put_all(["ok 0", "ok 1", "ok 2", "error", "ok 4"])
        .await;
    world.start();
    world.drained().await;
    let sizes: Vec<String> = world.seen().iter().map(|r| r.join(",")).collect();
    assert_eq!(
        sizes,
        [
            "ok 0,ok 1,ok 2,error,ok 4",
            "ok 0,ok 1",
            "ok 2,error,ok 4",
            "ok 2",
            "error,ok 4",
            "error",
            "ok 4",
        ]
    );
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_invoked_one_time_more_than_it_has_retries() {
    for retries in [0, 1, 5] {
        let mut world = World::new(BATCH, 1).await;
        world.map(plain(10, retries)).await;
        world.put_all(["error", "ok"]).await;
        world.start();
        world.drained().await;
        assert_eq!(world.script.invocations(), 1 + retries as usize);
        let failures = world.failures();
        assert_eq!((failures.len(), failures[0].records), (1, 2));
        assert_eq!(failures[0].invocations, 1 + retries);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_retries_go_on_until_retention_ends() {
    let mut world = World::new(BATCH, 1).await;
    world.map(Policy::aws()).await;
    world.put_all(["error"]).await;
    world.start();
    tokio::time::sleep(Duration::from_secs(86_000)).await;
    assert!(world.script.invocations() > 1_400, "once a minute");
    assert_eq!(world.failures().len(), 0);
    world.trim_all().await;
    world.until(async |w| w.failures().len() == 1).await;
    assert_eq!(world.failures()[0].reason, Reason::Expired);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn age_is_a_matter_of_each_record_in_a_mixed_batch() {
    let mut world = World::new(BATCH, 1).await;
    let policy = Policy {
        maximum_retry_attempts: None,
        maximum_record_age: Some(Duration::from_secs(60)),
        ..Policy::aws()
    };
    world.map(policy).await;
    world.put_all(["error old"]).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    world.put_all(["ok young"]).await;
    world.start();
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(world.counter("done"), 0, "both are retried");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let failures = world.failures();
    assert_eq!((failures.len(), failures[0].records), (1, 1));
    assert_eq!(failures[0].reason, Reason::RecordAgeExceeded);
    assert!(failures[0].invocations > 3);
    assert_eq!(world.counter("done"), 1, "the young one is delivered");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_throttle_uses_no_attempt_and_the_batch_keeps_its_request_id() {
    let mut world = World::new(BATCH, 1).await;
    world.map(plain(10, 0)).await;
    world.script.throttle(5);
    world.put_all(["ok"]).await;
    world.start();
    world.drained().await;
    assert_eq!((world.counter("done"), world.failures().len()), (1, 0));
    assert_eq!(world.view().await.metrics.throttles, 5);
    let (_, id) = world.script.seen.lock().unwrap()[0].clone();
    assert_eq!(*world.script.throttled.lock().unwrap(), vec![id; 5]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_processing_result_is_that_of_the_last_invocation() {
    let mut world = World::new(EVENT, 1).await;
    world.map(reporting(1, 0)).await;
    world.start();
    let result = async |w: &World| w.view().await.last_processing_result;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(result(&world).await, "No records processed");
    world.put_all(["ok 0"]).await;
    world.drained().await;
    assert_eq!(result(&world).await, "OK");
    world.put_all(["error"]).await;
    world.drained().await;
    assert_eq!(
        result(&world).await,
        "PROBLEM: Function call failed",
        "a decision to discard does not change it"
    );
    world
        .script
        .answer(r#"{"batchItemFailures":[{"itemIdentifier":"{1}"}]}"#);
    world.put_all(["ok 1"]).await;
    world.drained().await;
    assert_eq!(result(&world).await, "OK", "a valid partial response");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_too_large_is_cut_and_a_record_too_large_for_any_is_given_up() {
    let mut world = World::new(EVENT, 1).await;
    world.map(plain(100, 1)).await;
    // Four of these in Base64 pass 6 MiB, three do not.
    let half: String = format!("ok {}", "x".repeat(1_300_000));
    let large = format!("ok {}", "x".repeat(5_000_000));
    world
        .put_all([half.clone(), half.clone(), half.clone(), half.clone()])
        .await;
    world.put_all([large, "ok behind".into()]).await;
    world.start();
    world.drained().await;
    assert_eq!(world.sizes(), [3, 1, 1]);
    let failures = world.failures();
    assert_eq!((failures.len(), failures[0].records), (1, 1));
    assert_eq!(failures[0].reason, Reason::RecordTooLarge);
    assert_eq!(failures[0].invocations, 0, "it never reached the handler");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_mapping_begins_where_it_was_told_and_children_with_their_first_record() {
    for (position, first) in [
        (StartingPosition::TrimHorizon, "ok 0"),
        (
            StartingPosition::AtTimestamp(NOW.plus(Duration::from_secs(5))),
            "ok 1",
        ),
        (StartingPosition::Latest, "ok 2"),
    ] {
        let mut world = World::new(BATCH, 1).await;
        world.put_all(["ok 0"]).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        world.put_all(["ok 1"]).await;
        world.map_from(plain(1, 0), position).await;
        world.put_all(["ok 2"]).await;
        world.split_shard().await;
        world.put_all(["ok 3"]).await;
        world.start();
        world
            .until(async |w| w.seen().concat().contains(&"ok 3".into()))
            .await;
        let seen = world.seen().concat();
        assert_eq!(seen[0], first, "{position:?}");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_mapping_that_is_enabled_again_goes_on_at_its_checkpoint() {
    let mut world = World::new(BATCH, 1).await;
    world.map_from(plain(1, 0), StartingPosition::Latest).await;
    world.start();
    world.put_all(["ok 0"]).await;
    world.drained().await;
    let enabled = |enabled| UpdateMapping {
        enabled: Some(enabled),
        ..UpdateMapping::default()
    };
    let scope = Scope::default();
    world
        .mappings
        .update(&scope, "m", enabled(false))
        .await
        .unwrap();
    world.put_all(["ok 1", "ok 2"]).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    world
        .mappings
        .update(&scope, "m", enabled(true))
        .await
        .unwrap();
    world.until(async |w| w.counter("done") == 3).await;
    assert_eq!(world.seen().concat(), ["ok 0", "ok 1", "ok 2"]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_window_begins_when_the_lane_is_free_again() {
    let mut world = World::with(BATCH, 1, Duration::from_secs(2)).await;
    let policy = Policy {
        batching_window: Duration::from_secs(5),
        ..plain(100, 0)
    };
    world.map(policy).await;
    world.start();
    world.put_all(["ok 0"]).await;
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    // The first batch runs from 5 s to 7 s; the next window begins then.
    world.put_all(["ok 1"]).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    world.put_all(["ok 2"]).await;
    world.drained().await;
    assert_eq!(world.seen(), [vec!["ok 0"], vec!["ok 1", "ok 2"]]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_takes_all_that_is_there_however_many_reads_that_is() {
    // Larger than one read of the store brings; with lanes, a lane's own records lie far apart.
    for (factor, sizes) in [(1, vec![24]), (2, vec![12, 12])] {
        let mut world = World::new(BATCH, 1).await;
        let policy = Policy {
            parallelization_factor: factor,
            ..plain(100, 0)
        };
        world.map(policy).await;
        let key = |lane: usize| {
            let mut keys = (0..).map(|n| format!("k{n}"));
            let falls = |key: &String| shardmill_core::mapping::lane_of(key, 2) == lane;
            keys.find(falls).unwrap()
        };
        let data = format!("ok {}", "x".repeat(500_000));
        for n in 0..24 {
            world.put([(key(n / 12), data.clone())]).await;
        }
        world.start();
        world.drained().await;
        assert_eq!(world.sizes(), sizes, "factor {factor}");
        world.finish().await;
    }
}
