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
async fn a_rewind_returns_though_a_poller_commits_before_each_of_its_transactions() {
    // It expected the revision of every cursor, and went round as long as there was work.
    let mut world = World::new(RECORD, 1).await;
    world.map(policy(3)).await;
    world.put_all(["ok 1", "ok 2"]).await;
    world.start();
    world.drained().await;
    let busy = Dying {
        store: world.store.clone(),
        left: AtomicUsize::new(100),
        after: false,
        died: CancellationToken::new(),
        before: |store, tx| {
            let of = |key: &Key, table| key.table() == Some(table);
            let mut writes = tx.writes.iter();
            writes.find(|(key, _)| of(key, shardmill_store::Table::Mapping))?;
            let cursors = Key::table_prefix(shardmill_store::Table::Cursor);
            let cursors = store.scan(&cursors, None, usize::MAX).unwrap().into_iter();
            let again = |(key, stored): (Key, Versioned)| {
                (key, shardmill_store::Value::Inline(stored.value))
            };
            Some(Tx {
                writes: cursors.map(again).collect(),
                ..Tx::default()
            })
        },
    };
    let other = World::over(Arc::new(busy), RECORD, world.clock);
    let rewind = other.rewind(RewindTo::TrimHorizon, RewindOptions::default());
    let rewound = tokio::time::timeout(Duration::from_secs(60), rewind).await;
    assert_eq!(rewound.unwrap().unwrap().len(), 1);
    assert_eq!(world.cursor().epoch, 2);
    world.mappings.inner.changed(&world.view().await.mapping.id);
    world.until(async |w| w.counter("done") == 4).await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_rewind_to_a_record_leaves_what_other_shards_have_parked() {
    let mut world = World::new(RECORD, 2).await;
    world
        .map(Policy {
            on_exhausted: OnExhausted::Park,
            maximum_retry_attempts: Some(0),
            ..policy(3)
        })
        .await;
    let stream = world.stream();
    let mut records = Records::default();
    for (key, shard) in [("a", 0), ("both", 0), ("b", 1), ("both", 1)] {
        let hash = stream.shards[shard].range.start;
        records.push(key, Some(hash), b"trap");
    }
    world.put_records(records).await;
    world.start();
    world
        .until(async |w| w.parked().iter().map(|k| k.records).sum::<u64>() == 4)
        .await;
    world.script.heal();
    let number = world.sequence_number(1).await;
    let to = RewindTo::Sequence(number);
    let refused = world.rewind(to, RewindOptions::default()).await;
    assert!(
        matches!(refused, Err(MappingError::Parked { keys: 2, .. })),
        "{refused:?}"
    );
    let options = RewindOptions {
        drop_parked: true,
        ..RewindOptions::default()
    };
    world.rewind(to, options).await.unwrap();
    // `a` is delivered again; what came for `both` again is put behind what is left of it.
    world.until(async |w| w.counter("done") == 1).await;
    world
        .until(async |w| w.parked().iter().map(|k| k.records).sum::<u64>() == 3)
        .await;
    let keys: Vec<(String, u64)> = world
        .parked()
        .into_iter()
        .map(|key| (key.key, key.records))
        .collect();
    assert_eq!(keys, [("b".into(), 1), ("both".into(), 2)]);
    world.unpark(None).await;
    world.until(async |w| w.counter("done") == 4).await;
    world.until(async |w| w.parked().is_empty()).await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_rewind_drops_and_does_not_read_again_can_be_redriven() {
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
    world.script.heal();
    let options = RewindOptions {
        drop_parked: true,
        ..RewindOptions::default()
    };
    world.rewind(RewindTo::Latest, options).await.unwrap();
    let entry = world.failures().remove(0);
    assert!(!entry.parked);
    let redriven = world.failure_store();
    let redriven = redriven.redrive(&Scope::default(), &entry.id).await;
    assert_eq!(redriven.unwrap(), RedriveOutcome::Done { records: 1 });
    assert_eq!(world.counter("done"), 1);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_update_makes_no_second_mapping_of_a_stream_and_a_function() {
    let world = World::new(RECORD, 1).await;
    world.map(policy(3)).await;
    let scope = Scope::default();
    let settings = FunctionSettings::default();
    let deployed = world.functions.deploy(&scope, "g", Bytes::new(), settings);
    deployed.await.unwrap();
    let mut second = CreateMapping {
        name: Some("n".into()),
        stream: "in".parse().unwrap(),
        function: "g".into(),
        starting_position: StartingPosition::TrimHorizon,
        policy: policy(3),
        enabled: true,
        origin: Origin::Manifest,
        on_failure: None,
    };
    world.mappings.create(&scope, second.clone()).await.unwrap();
    let to = |function: &str| UpdateMapping {
        function: Some(function.into()),
        ..UpdateMapping::default()
    };
    let refused = world.mappings.update(&scope, "n", to("f")).await;
    assert!(matches!(&refused, Err(MappingError::Exists(m)) if m == "m"));
    world.mappings.update(&scope, "n", to("g")).await.unwrap();
    second.name = Some("o".into());
    let refused = world.mappings.create(&scope, second).await;
    assert!(matches!(&refused, Err(MappingError::Exists(m)) if m == "n"));
}

#[tokio::test(start_paused = true)]
async fn a_mapping_whose_poller_died_says_so_and_can_be_changed_and_deleted() {
    let mut world = World::new(RECORD, 1).await;
    world.map(policy(3)).await;
    world.put_all(["panic"]).await;
    world.start();
    settled(&world, MappingState::Paused).await;
    let why = world.view().await.shards[0].paused.clone().unwrap();
    assert!(why.starts_with("a bug in the host"), "{why}");
    world.script.heal();
    let resumed = world.mappings.resume(&Scope::default(), "m").await;
    assert_eq!(resumed.unwrap(), 1);
    world.until(async |w| w.counter("done") == 1).await;
    assert_eq!(state(&world).await, MappingState::Enabled);
    world.script.healed.store(false, SeqCst);
    world.put_all(["panic"]).await;
    settled(&world, MappingState::Paused).await;
    let change = UpdateMapping {
        policy: Some(policy(5)),
        ..UpdateMapping::default()
    };
    let scope = Scope::default();
    world.mappings.update(&scope, "m", change).await.unwrap();
    settled(&world, MappingState::Paused).await;
    world.mappings.delete(&scope, "m").await.unwrap();
    world.until_gone().await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_wakes_the_pollers_of_its_own_mapping_only() {
    let world = World::new(RECORD, 1).await;
    let mapping = world.map(policy(3)).await;
    let inner = &world.mappings.inner;
    let (own, other) = (inner.watch(&mapping.id), inner.watch("another"));
    let change = UpdateMapping {
        policy: Some(policy(5)),
        ..UpdateMapping::default()
    };
    let scope = Scope::default();
    world.mappings.update(&scope, "m", change).await.unwrap();
    assert!(own.has_changed().unwrap() && !other.has_changed().unwrap());
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

fn dropping() -> RewindOptions {
    RewindOptions {
        drop_parked: true,
        ..RewindOptions::default()
    }
}

/// Three records of a parked key, of which only the first has an entry.
async fn with_three_parked() -> World {
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
    world.put_all(["ok 2"]).await;
    world.drained().await;
    assert_eq!(world.parked()[0].records, 3);
    assert_eq!(world.failures().len(), 1);
    world.script.heal();
    world
}

#[tokio::test(start_paused = true)]
async fn every_parked_record_that_a_rewind_does_not_read_again_can_be_redriven() {
    // Later records of a key had no entry, and what the stream had trimmed was taken for read
    // again when the place was a record's.
    let one = with_three_parked().await.sequence_number(1).await;
    for (to, trimmed) in [
        (RewindTo::Latest, false),
        (RewindTo::TrimHorizon, true),
        (RewindTo::Sequence(one), true),
    ] {
        let world = with_three_parked().await;
        if trimmed {
            world.trim_all().await;
        }
        world.rewind(to, dropping()).await.unwrap();
        let failures = world.failures();
        let records: u64 = failures.iter().map(|entry| entry.records).sum();
        assert_eq!(records, 3, "{to:?}");
        let store = world.failure_store();
        for entry in failures.iter().rev() {
            assert!(!entry.parked, "{to:?}");
            let redriven = store.redrive(&Scope::default(), &entry.id).await;
            let records = entry.records as usize;
            assert_eq!(redriven.unwrap(), RedriveOutcome::Done { records });
        }
        assert_eq!(world.counter("done"), 3, "{to:?}");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_rewind_reads_again_cannot_be_redriven_too() {
    let world = with_three_parked().await;
    let second = world.sequence_number(2).await;
    let to = RewindTo::Sequence(second);
    world.rewind(to, dropping()).await.unwrap();
    world.until(async |w| w.counter("done") == 2).await;
    let failures = world.failures();
    assert_eq!((failures.len(), failures[0].parked), (1, false));
    world.finish().await;

    let world = with_three_parked().await;
    let to = RewindTo::TrimHorizon;
    world.rewind(to, dropping()).await.unwrap();
    world.until(async |w| w.counter("done") == 3).await;
    let failures = world.failures();
    assert_eq!((failures.len(), failures[0].parked), (1, true));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_a_rewind_leaves_no_dropped_record_marked_as_parked() {
    for (commits, dropped) in [(1, false), (2, true)] {
        let mut world = with_three_parked().await;
        world.stop.cancel();
        world.running.take().unwrap().await.unwrap();
        let dying = Arc::new(Dying {
            store: world.store.clone(),
            before: |_, _| None,
            left: AtomicUsize::new(commits),
            after: true,
            died: CancellationToken::new(),
        });
        let died = dying.died.clone();
        let other = World::over(dying, RECORD, world.clock);
        tokio::select! {
            done = other.rewind(RewindTo::Latest, dropping()) => panic!("{done:?}"),
            () = died.cancelled() => {}
        }
        let next = World::over(world.store.clone(), RECORD, world.clock);
        let parked = |world: &World| world.failures().iter().filter(|e| e.parked).count();
        assert_eq!(parked(&next), if dropped { 0 } else { 2 });
        assert_eq!(next.parked().is_empty(), dropped);
        let rewound = next.rewind(RewindTo::Latest, dropping()).await;
        rewound.unwrap();
        assert_eq!((next.failures().len(), parked(&next)), (2, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_rewind_for_whose_lost_records_there_is_no_room_drops_nothing() {
    let world = with_three_parked().await;
    let bounds = FailureBounds {
        bytes: 1,
        ..FailureBounds::default()
    };
    world.failure_store().open(bounds).unwrap();
    let refused = world.rewind(RewindTo::Latest, dropping()).await;
    assert!(
        matches!(
            refused,
            Err(MappingError::Failures(FailuresError::Full { .. }))
        ),
        "{refused:?}"
    );
    assert_eq!(world.parked()[0].records, 3);
    // What is read again needs no room.
    let to = RewindTo::TrimHorizon;
    world.rewind(to, dropping()).await.unwrap();
    world.until(async |w| w.counter("done") == 3).await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn damaged_parked_records_take_no_later_ones_of_their_key_along() {
    let world = with_three_parked().await;
    let run = world.side_log().remove(0);
    let damage = shardmill_store::Value::Blob(Bytes::from_static(b"?"));
    let tx = Tx {
        writes: vec![(run, damage)],
        ..Tx::default()
    };
    world.store.commit(tx).await.unwrap();
    world.rewind(RewindTo::Latest, dropping()).await.unwrap();
    let kept = world.failures().into_iter().filter(|entry| !entry.parked);
    assert_eq!(kept.map(|entry| entry.records).sum::<u64>(), 2);
    world.finish().await;
}
