//! States of a mapping, and what a person does to a running one.

use super::*;

async fn state(world: &World) -> MappingState {
    world.view().await.state
}

async fn settled(world: &World, state: MappingState) {
    world.until(async |w| w.view().await.state == state).await;
}

fn enabled(enabled: bool) -> UpdateMapping {
    UpdateMapping {
        enabled: Some(enabled),
        ..UpdateMapping::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_mapping_goes_through_the_states_of_its_changes() {
    let mut world = World::with(RECORD, 1, Duration::from_secs(1)).await;
    world.map(policy(10)).await;
    assert_eq!(state(&world).await, MappingState::Creating);
    world.start();
    settled(&world, MappingState::Enabled).await;
    let scope = Scope::default();
    world.put_all(["ok 1"]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    world
        .mappings
        .update(&scope, "m", enabled(false))
        .await
        .unwrap();
    assert_eq!(state(&world).await, MappingState::Disabling);
    settled(&world, MappingState::Disabled).await;
    assert_eq!(world.counter("done"), 1, "the running batch has ended");
    world.put_all(["ok 2"]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(
        world.counter("done"),
        1,
        "a mapping that says Disabled has stopped"
    );
    world
        .mappings
        .update(&scope, "m", enabled(true))
        .await
        .unwrap();
    assert_eq!(state(&world).await, MappingState::Enabling);
    settled(&world, MappingState::Enabled).await;
    world.until(async |w| w.counter("done") == 2).await;
    world.put_all(["ok 3"]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let change = UpdateMapping {
        policy: Some(policy(5)),
        ..UpdateMapping::default()
    };
    world.mappings.update(&scope, "m", change).await.unwrap();
    assert_eq!(state(&world).await, MappingState::Updating);
    settled(&world, MappingState::Enabled).await;
    world.put_all(["ok 4"]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.mappings.delete(&scope, "m").await.unwrap();
    assert_eq!(state(&world).await, MappingState::Deleting);
    let refused = world.mappings.update(&scope, "m", enabled(true)).await;
    assert!(
        matches!(refused, Err(MappingError::Deleting(_))),
        "{refused:?}"
    );
    world.until_gone().await;
    assert_eq!(world.counter("done"), 4);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_rewind_begins_a_new_epoch_at_the_place() {
    let mut world = World::with(RECORD, 1, Duration::from_millis(50)).await;
    world.map(policy(3)).await;
    world.put_all((0..10).map(|n| format!("ok {n}"))).await;
    world.start();
    world.drained().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let later = world.clock.now();
    world.put_all((10..14).map(|n| format!("ok {n}"))).await;
    world.drained().await;
    assert_eq!(world.counter("done"), 14);
    let number = world.sequence_number(13).await;
    for (to, again) in [
        (RewindTo::TrimHorizon, 14),
        (RewindTo::Time(later), 4),
        (RewindTo::Sequence(number), 2),
        (RewindTo::Latest, 0),
    ] {
        let before = world.counter("done");
        world.rewind(to, RewindOptions::default()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(world.counter("done") - before, again, "{to:?}");
    }
    assert_eq!(world.cursor().epoch, 5);
    let options = RewindOptions {
        reset_state: true,
        ..RewindOptions::default()
    };
    world.rewind(RewindTo::TrimHorizon, options).await.unwrap();
    world.until(async |w| w.counter("done") == 14).await;
    // In the middle of a batch: what is running does not count.
    world.rewind(RewindTo::TrimHorizon, options).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.rewind(RewindTo::TrimHorizon, options).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.counter("done"), 14);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_rewind_reads_closed_parents_again_before_their_children() {
    let mut world = World::new(RECORD, 1).await;
    world.map(policy(3)).await;
    world.put_all(["ok 1", "ok 2"]).await;
    world.split_shard().await;
    world.put_all(["ok 3"]).await;
    world.start();
    world.until(async |w| w.counter("done") == 3).await;
    world.script.seen.lock().unwrap().clear();
    world
        .rewind(RewindTo::TrimHorizon, RewindOptions::default())
        .await
        .unwrap();
    world.until(async |w| w.counter("done") == 6).await;
    assert_eq!(world.seen().concat(), ["ok 1", "ok 2", "ok 3"]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn parked_keys_stand_in_the_way_of_a_rewind() {
    let mut world = World::new(RECORD, 1).await;
    world
        .map(Policy {
            on_exhausted: OnExhausted::Park,
            ..policy(3)
        })
        .await;
    world.put_all(["trap", "ok 1"]).await;
    world.start();
    world.drained().await;
    let refused = world
        .rewind(RewindTo::TrimHorizon, RewindOptions::default())
        .await;
    assert!(
        matches!(refused, Err(MappingError::Parked { keys: 1, .. })),
        "{refused:?}"
    );
    world.script.heal();
    let options = RewindOptions {
        drop_parked: true,
        ..RewindOptions::default()
    };
    world.rewind(RewindTo::TrimHorizon, options).await.unwrap();
    world.until(async |w| w.counter("done") == 2).await;
    assert!(world.parked().is_empty());
    world.finish().await;
}
