//! The mapping as a resource: what identifies it, what can be changed, its states and results.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_second_mapping_of_the_same_stream_and_function_is_refused() {
    let world = World::new(BATCH, 1).await;
    world.map(plain(10, 0)).await;
    let again = CreateMapping {
        name: Some("other".into()),
        ..request(plain(20, 1))
    };
    let scope = Scope::default();
    let refused = world.mappings.create(&scope, again.clone()).await;
    assert!(
        matches!(&refused, Err(MappingError::Exists(name)) if name == "m"),
        "{refused:?}"
    );
    // Another stream makes another mapping.
    world.create_stream("in2", 1).await;
    let other = CreateMapping {
        stream: "in2".parse().unwrap(),
        ..again
    };
    world.mappings.create(&scope, other).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn stream_and_starting_position_stay_whatever_is_changed() {
    let world = World::new(BATCH, 1).await;
    let before = world.map(plain(10, 0)).await;
    // There is nothing else that a change could name.
    let change = UpdateMapping {
        function: Some("f".into()),
        policy: Some(reporting(20, 5)),
        enabled: Some(false),
        on_failure: Some(None),
    };
    let scope = Scope::default();
    let after = world.mappings.update(&scope, "m", change).await.unwrap();
    assert_eq!(after.policy, reporting(20, 5));
    assert_eq!(
        (after.stream, after.stream_id, after.starting_position),
        (before.stream, before.stream_id, before.starting_position)
    );
}

#[test]
fn the_defaults_are_awss_value_by_value() {
    let policy = Policy {
        batch_size: 100,
        batching_window: Duration::ZERO,
        maximum_retry_attempts: None,
        maximum_record_age: None,
        bisect_batch_on_function_error: false,
        report_batch_item_failures: false,
        on_exhausted: OnExhausted::Discard,
        parallelization_factor: 1,
        tumbling_window: Duration::ZERO,
        filter_criteria: Vec::new(),
        deaggregate: false,
        // These are not AWS's.
        circuit_breaker: 0,
        max_parked_keys: 1_000,
        max_parked_bytes: 64 << 20,
        roll_back_failure_percent: 0,
        roll_back_batches: 20,
        shadow: None,
    };
    assert_eq!(Policy::aws(), policy);
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_of_filters_removes_them() {
    let mut world = World::new(BATCH, 1).await;
    let filtered = Policy {
        filter_criteria: vec![r#"{"partitionKey":["other"]}"#.into()],
        ..plain(10, 0)
    };
    world.map(filtered).await;
    world.start();
    world.put_all(["ok 0"]).await;
    world.drained().await;
    assert_eq!(world.counter("done"), 0);
    world.change_policy(plain(10, 0)).await;
    let enabled = async |w: &World| w.view().await.state == MappingState::Enabled;
    world.until(enabled).await;
    world.put_all(["ok 1"]).await;
    world.drained().await;
    assert_eq!(world.seen(), [["ok 1"]]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_timestamp_in_the_future_is_no_starting_position() {
    let world = World::new(BATCH, 1).await;
    let now = world.clock.now();
    let at = |at| CreateMapping {
        starting_position: StartingPosition::AtTimestamp(at),
        ..request(plain(10, 0))
    };
    let scope = Scope::default();
    let late = at(now.plus(Duration::from_millis(1)));
    let refused = world.mappings.create(&scope, late).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "starting_position_timestamp 2023-11-14T22:13:20.001Z is in the future: at most \
         2023-11-14T22:13:20.000Z expected, which is now"
    );
    world.mappings.create(&scope, at(now)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pattern_too_long_and_too_many_patterns_are_refused_for_reasons_of_their_own() {
    let world = World::new(BATCH, 1).await;
    let create = async |filters: Vec<String>| {
        let policy = Policy {
            filter_criteria: filters,
            ..plain(10, 0)
        };
        let scope = Scope::default();
        let refused = world.mappings.create(&scope, request(policy)).await;
        refused.unwrap_err().to_string()
    };
    let good = r#"{"partitionKey":["k"]}"#;
    assert_eq!(
        create(vec![format!("{good:4097}")]).await,
        "filter 1: 4097 characters, and a pattern has at most 4096"
    );
    assert_eq!(
        create(vec![good.into(); 11]).await,
        "11 filters, and a mapping has at most 10: join some with `$or`"
    );
}

#[tokio::test(start_paused = true)]
async fn a_mapping_made_disabled_goes_from_creating_to_disabled_and_is_never_enabled() {
    let mut world = World::new(BATCH, 1).await;
    let disabled = CreateMapping {
        enabled: false,
        ..request(plain(10, 0))
    };
    let scope = Scope::default();
    world.mappings.create(&scope, disabled).await.unwrap();
    world.put_all(["ok"]).await;
    let mut states = vec![world.view().await.state];
    world.start();
    for _ in 0..2_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let state = world.view().await.state;
        if states.last() != Some(&state) {
            states.push(state);
        }
    }
    assert_eq!(states, [MappingState::Creating, MappingState::Disabled]);
    assert_eq!(world.script.invocations(), 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_mapping_whose_function_is_deleted_stays_enabled_with_a_problem() {
    let mut world = World::new(BATCH, 1).await;
    world.map(plain(10, 0)).await;
    world.start();
    world.put_all(["ok 0"]).await;
    world.drained().await;
    world
        .functions
        .delete(&Scope::default(), "f")
        .await
        .unwrap();
    world.put_all(["ok 1"]).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let view = world.view().await;
    assert_eq!(view.state, MappingState::Enabled);
    let result = view.last_processing_result;
    assert!(result.starts_with("PROBLEM: "), "{result}");
    assert_eq!(view.shards[0].records_behind, 1, "nothing is lost");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn no_records_are_processed_when_age_drops_them_before_a_first_invocation() {
    let mut world = World::new(BATCH, 1).await;
    let policy = Policy {
        maximum_record_age: Some(Duration::from_secs(60)),
        ..plain(10, 0)
    };
    world.map(policy).await;
    world.put_all(["ok"]).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    world.start();
    world.until(async |w| w.failures().len() == 1).await;
    assert_eq!(world.failures()[0].reason, Reason::RecordAgeExceeded);
    let result = world.view().await.last_processing_result;
    assert_eq!(result, "No records processed");
    world.finish().await;
}
