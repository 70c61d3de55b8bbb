//! Parts that wait for another attempt.

use super::*;

impl World {
    /// Changes the mapping's settings, and waits until they are in force.
    async fn set(&self, policy: Policy) {
        let change = UpdateMapping {
            policy: Some(policy),
            ..UpdateMapping::default()
        };
        let updated = self.mappings.update(&Scope::default(), "m", change).await;
        updated.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_that_has_grown_is_cut_as_a_batch_is() {
    // A filter that keeps 2 of 40 records is taken away while they wait for another attempt.
    let mut world = World::new(BATCH, 1).await;
    let filtered = Policy {
        maximum_retry_attempts: Some(5),
        bisect_batch_on_function_error: false,
        filter_criteria: vec![r#"{"partitionKey":["keep"]}"#.into()],
        ..policy(3)
    };
    world.map(filtered.clone()).await;
    world.start();
    let key = |n| if n == 1 || n == 38 { "keep" } else { "other" };
    world
        .put((0..40).map(|n| (key(n).to_owned(), format!("trap {n}"))))
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.seen(), [["trap 1", "trap 38"]], "two are tried");
    world.script.heal();
    world
        .set(Policy {
            filter_criteria: Vec::new(),
            ..filtered
        })
        .await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let sizes = world.sizes().split_off(1);
    assert!(sizes.iter().all(|size| *size <= 3), "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), 39, "{sizes:?}");
    assert_eq!(world.counter("done"), 39, "the one before it was filtered");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_misleads_costs_no_more_than_halves() {
    // A batch handler that marks each record and fails at the end of the batch, as one whose
    // database is down: its hint is the last record each time.
    let mut world = World::new(BATCH, 1).await;
    world
        .map(Policy {
            maximum_retry_attempts: Some(0),
            ..policy(1_000)
        })
        .await;
    world.script.fail_at_the_end();
    world.put_all((0..1_000).map(|n| format!("ok {n}"))).await;
    world.start();
    world.drained().await;
    let (sizes, records): (Vec<_>, usize) = {
        let sizes = world.sizes();
        let records = sizes.iter().sum();
        (sizes, records)
    };
    assert_eq!(world.failures().len(), 1_000, "each alone");
    assert!(sizes.len() <= 2_001, "{} invocations", sizes.len());
    assert!(records <= 13_000, "{records} records in all invocations");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_part_full_of_parked_records_is_parked_piece_by_piece() {
    // A filter that left out the backlog of a parked key is taken away while a part waits.
    let mut world = World::new(BATCH, 1).await;
    let filtered = Policy {
        maximum_retry_attempts: Some(0),
        bisect_batch_on_function_error: false,
        on_exhausted: OnExhausted::Park,
        filter_criteria: vec![r#"{"data":{"keep":[true]}}"#.into()],
        ..policy(4)
    };
    world.map(filtered.clone()).await;
    world.script.fail_at_the_end();
    world.start();
    let record = |key: &str, keep: bool| (key.to_owned(), format!(r#"{{"keep":{keep}}}"#));
    world.put([record("hot", true)]).await;
    world.until(async |world| world.parked().len() == 1).await;
    world
        .set(Policy {
            maximum_retry_attempts: None,
            ..filtered.clone()
        })
        .await;
    let mut records = vec![record("other", true)];
    records.extend((0..50).map(|_| record("hot", false)));
    records.push(record("other", true));
    world.put(records).await;
    world
        .until(async |world| world.script.invocations() > 2)
        .await;
    world.script.heal();
    world
        .set(Policy {
            maximum_retry_attempts: None,
            filter_criteria: Vec::new(),
            ..filtered
        })
        .await;
    world.drained().await;
    assert_eq!(world.parked()[0].records, 51);
    let parts = world.cursor();
    assert!(parts.has_no_parts(), "{parts:?}");
    world.finish().await;
}
