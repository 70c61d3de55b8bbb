//! The failure store on simulated time: what entries keep, and what can be done with them.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shardmill_core::limits::FunctionLimits;

use super::*;

fn no_retries() -> Policy {
    Policy {
        maximum_retry_attempts: Some(0),
        ..policy(100)
    }
}

fn scope() -> Scope {
    Scope::default()
}

/// A world in which these records were put under one key and read to the end.
async fn ran(carrier: Carrier, policy: Policy, records: &[&str]) -> World {
    let mut world = World::new(carrier, 1).await;
    world.map(policy).await;
    world.put_all(records).await;
    world.start();
    world.drained().await;
    world
}

fn ids(world: &World, filter: &FailureFilter) -> Vec<String> {
    let page = world.failure_store().list(&scope(), filter, None, 1000);
    let entries = page.unwrap().entries;
    entries.into_iter().map(|entry| entry.id).collect()
}

#[tokio::test(start_paused = true)]
async fn a_replay_sees_the_keyed_state_of_its_attempt_and_changes_nothing() {
    for carrier in [RECORD, BATCH] {
        let world = ran(
            carrier,
            Policy {
                bisect_batch_on_function_error: false,
                ..no_retries()
            },
            &["add", "ok", "trap", "ok"],
        )
        .await;
        let failures = world.failures();
        let [entry] = failures.as_slice() else {
            panic!("one entry: {failures:#?}")
        };
        let replay = entry.replay.clone().unwrap();
        assert_eq!((replay.batch_len, replay.inexact.clone()), (4, None));
        assert_eq!(replay.limits, FunctionLimits::default());
        // Whatever the state is by now, the replay adds 1 to what was there then: nothing.
        world.put_all(["add", "add"]).await;
        world.drained().await;
        let done = world.counter("done");
        let replayed = world
            .failure_store()
            .replay(&scope(), &entry.id, None)
            .await;
        let replayed = replayed.unwrap();
        assert_eq!(
            (replayed.same, replayed.differences, replayed.warnings),
            (Some(true), vec![], vec![]),
            "{carrier:?}"
        );
        if carrier == RECORD {
            let values = replayed.report.effects.state.iter();
            let values: Vec<_> = values.map(|(_, w)| w.value.clone().unwrap()).collect();
            assert_eq!(values, ["1"]);
        }
        assert_eq!(world.counter("done"), done, "nothing was committed");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn entries_of_one_batch_share_what_is_kept_of_it() {
    let long = format!("ok {}", "x".repeat(10_000));
    let records = ["ok", "trap", &long, "trap", "ok", "trap"];
    let world = ran(RECORD, no_retries(), &records).await;
    let failures = world.failures();
    let bytes: Vec<bool> = failures.iter().map(|f| f.bytes > 10_000).collect();
    assert_eq!(
        bytes,
        [false, false, true],
        "newest first; only one keeps the long record"
    );
    let store = world.failure_store();
    for entry in &failures {
        let replayed = store.replay(&scope(), &entry.id, None).await.unwrap();
        assert_eq!(replayed.same, Some(true));
        assert_eq!(replayed.warnings, [] as [String; 0]);
    }
    // What the others referred to is gone: they still have their own records, and say so.
    store.delete(&scope(), &failures[2].id).await.unwrap();
    let replayed = store.replay(&scope(), &failures[1].id, None).await.unwrap();
    assert_eq!(replayed.same, Some(true), "it traps all the same");
    assert!(
        replayed.warnings[0].contains("an earlier entry, which is gone"),
        "{:?}",
        replayed.warnings
    );
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_module_that_was_replaced_and_deleted_is_still_replayed() {
    let world = ran(EVENT, no_retries(), &["trap"]).await;
    let entry = world.failures().remove(0);
    world.mappings.delete(&scope(), "m").await.unwrap();
    world.functions.delete(&scope(), "f").await.unwrap();
    let store = world.failure_store();
    let replayed = store.replay(&scope(), &entry.id, None).await.unwrap();
    assert_eq!(replayed.same, Some(true));
    let refused = store.redrive(&scope(), &entry.id).await.unwrap_err();
    assert_eq!(refused.to_string(), "function \"f\" does not exist");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_is_newest_first_and_every_filter_leaves_out() {
    let mut world = World::new(RECORD, 1).await;
    world.map(no_retries()).await;
    world.start();
    for record in ["trap", "error", "spin", "trap"] {
        world.put_all([record]).await;
        world.drained().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let all = ids(&world, &FailureFilter::default());
    assert_eq!(all.len(), 4);
    assert!(all.iter().rev().is_sorted());
    let created = |at: usize| world.failures()[at].created;
    let text = |text: &str| Some(text.to_owned());
    let base = FailureFilter::default;
    let cases: [(FailureFilter, &[usize]); 11] = [
        (
            FailureFilter {
                cause: text("trap"),
                ..base()
            },
            &[0, 3],
        ),
        (
            FailureFilter {
                cause: text("timed_out"),
                ..base()
            },
            &[],
        ),
        (
            FailureFilter {
                mapping: text("m"),
                ..base()
            },
            &[0, 1, 2, 3],
        ),
        (
            FailureFilter {
                mapping: text("other"),
                ..base()
            },
            &[],
        ),
        (
            FailureFilter {
                function: text("g"),
                ..base()
            },
            &[],
        ),
        (
            FailureFilter {
                stream: text("in"),
                shard: text("shardId-000000000000"),
                ..base()
            },
            &[0, 1, 2, 3],
        ),
        (
            FailureFilter {
                shard: text("shardId-000000000001"),
                ..base()
            },
            &[],
        ),
        (
            FailureFilter {
                reason: Some(Reason::Expired),
                ..base()
            },
            &[],
        ),
        (
            FailureFilter {
                since: Some(created(1)),
                ..base()
            },
            &[0, 1],
        ),
        (
            FailureFilter {
                until: Some(created(1)),
                ..base()
            },
            &[2, 3],
        ),
        (
            FailureFilter {
                redriven: Redriven::Only,
                ..base()
            },
            &[],
        ),
    ];
    for (filter, want) in cases {
        let want: Vec<&String> = want.iter().map(|at| &all[*at]).collect();
        assert_eq!(
            ids(&world, &filter).iter().collect::<Vec<_>>(),
            want,
            "{filter:?}"
        );
    }
    let store = world.failure_store();
    let (mut paged, mut before): (Vec<String>, Option<String>) = (Vec::new(), None);
    loop {
        let page = store.list(&scope(), &base(), before.as_deref(), 1).unwrap();
        paged.extend(page.entries.into_iter().map(|entry| entry.id));
        before = page.before;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(paged, all, "page by page");
    assert_eq!(store.resolve(&scope(), &all[2]).unwrap(), all[2]);
    let ambiguous = store.resolve(&scope(), &all[2][..2]).unwrap_err();
    assert!(
        ambiguous.to_string().contains("give more of it"),
        "{ambiguous}"
    );
    assert!(store.resolve(&scope(), "ffff").is_err());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn records_go_to_their_stream_again_once() {
    let world = ran(RECORD, no_retries(), &["ok", "trap"]).await;
    let entry = world.failures().remove(0);
    let store = world.failure_store();
    let outcome = store.to_stream(&scope(), &entry.id).await.unwrap();
    assert_eq!(outcome, RedriveOutcome::Done { records: 1 });
    world.drained().await;
    let failures = world.failures();
    assert_eq!(failures.len(), 1, "it traps again, as an entry of its own");
    assert_ne!(failures[0].id, entry.id);
    let marked = store.get(&scope(), &entry.id).unwrap();
    assert_eq!(marked.redriven_to.as_deref(), Some("in"));
    for again in [
        store.to_stream(&scope(), &entry.id).await,
        store.redrive(&scope(), &entry.id).await,
    ] {
        assert!(
            matches!(again, Err(FailuresError::Redriven(_))),
            "{again:?}"
        );
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_store_pauses_a_manifests_shard_and_keeps_metadata_for_the_apis() {
    for origin in [Origin::Manifest, Origin::Api] {
        let mut world = World::new(RECORD, 1).await;
        world.map_by(origin, no_retries()).await;
        let store = world.failure_store();
        let bounds = FailureBounds {
            bytes: 20_000,
            ..FailureBounds::default()
        };
        store.open(bounds).unwrap();
        let poison = format!("trap {}", "x".repeat(6_000));
        world.put_all([&poison, &poison, &poison, "ok"]).await;
        world.start();
        if origin == Origin::Api {
            world.drained().await;
            let kept: Vec<bool> = world
                .failures()
                .iter()
                .map(|f| f.withheld.is_none())
                .collect();
            assert_eq!(kept, [false, true, true], "newest first");
            let bare = &world.failures()[0];
            let refused = store.redrive(&scope(), &bare.id).await.unwrap_err();
            assert!(
                refused.to_string().contains("failure store was full"),
                "{refused}"
            );
            assert_eq!(world.counter("done"), 1);
        } else {
            let paused = async |w: &World| w.view().await.state == MappingState::Paused;
            world.until(paused).await;
            assert_eq!((world.failures().len(), world.counter("done")), (2, 0));
            let reason = world.view().await.shards[0].paused.clone().unwrap();
            for text in [
                "the failure store is full",
                "failures_max_mib",
                "mappings resume m",
            ] {
                assert!(reason.contains(text), "{text:?} in {reason}");
            }
            store.open(FailureBounds::default()).unwrap();
            world.mappings.resume(&scope(), "m").await.unwrap();
            world.drained().await;
            assert_eq!((world.failures().len(), world.counter("done")), (3, 1));
        }
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn entries_go_when_they_are_too_old_and_their_bytes_with_them() {
    let world = ran(RECORD, no_retries(), &["trap", "ok", "trap"]).await;
    let store = world.failure_store();
    let (used, _) = store.used(&scope());
    assert_eq!(used, world.failures().iter().map(|f| f.bytes).sum::<u64>());
    tokio::time::sleep(Duration::from_secs(29 * 86_400)).await;
    world.put_all(["trap"]).await;
    world.drained().await;
    assert_eq!(store.sweep().await.unwrap(), 0);
    tokio::time::sleep(Duration::from_secs(2 * 86_400)).await;
    assert_eq!(store.sweep().await.unwrap(), 2);
    let left = world.failures();
    assert_eq!(left.len(), 1);
    assert_eq!(store.used(&scope()).0, left[0].bytes);
    // Counted from the table, the totals are the same.
    store.open(FailureBounds::default()).unwrap();
    assert_eq!(store.used(&scope()).0, left[0].bytes);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_exported_entry_is_replayed_elsewhere_and_never_redriven() {
    let there = ran(RECORD, no_retries(), &["add", "trap", "ok", "trap"]).await;
    for entry in there.failures() {
        let file = there
            .failure_store()
            .export(&scope(), &entry.id, true, true)
            .await;
        let file = Bytes::from(file.unwrap());
        let here = World::new(RECORD, 1).await;
        let store = here.failure_store();
        let imported = store.import(&scope(), &file).await.unwrap();
        let origin = imported.imported.clone().unwrap();
        assert_eq!(
            (origin.id, origin.created),
            (entry.id.clone(), entry.created)
        );
        assert_ne!(imported.id, entry.id);
        let replayed = store.replay(&scope(), &imported.id, None).await.unwrap();
        assert_eq!((replayed.same, replayed.warnings), (Some(true), vec![]));
        for refused in [
            store.redrive(&scope(), &imported.id).await,
            store.to_stream(&scope(), &imported.id).await,
        ] {
            assert!(
                matches!(refused, Err(FailuresError::Imported(_))),
                "{refused:?}"
            );
        }
        let open = FailureFilter {
            can_redrive: true,
            ..FailureFilter::default()
        };
        assert_eq!(ids(&here, &open), [] as [String; 0]);
        let garbage = store.import(&scope(), &file.slice(..file.len() - 1)).await;
        assert!(
            matches!(garbage, Err(FailuresError::Bundle(_))),
            "{garbage:?}"
        );
    }
    there.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_apis_failures_fill_no_more_than_an_eighth_beyond_the_bound_and_are_counted_then() {
    let mut world = World::new(RECORD, 1).await;
    world.map_by(Origin::Api, no_retries()).await;
    let store = world.failure_store();
    let bytes = 256 << 10;
    let bounds = FailureBounds {
        bytes,
        ..FailureBounds::default()
    };
    store.open(bounds).unwrap();
    let poison = format!("trap {}", "x".repeat(6_000));
    world.put_all(vec![poison.as_str(); 100]).await;
    world.start();
    world.drained().await;
    let (kept, bare): (Vec<_>, Vec<_>) = world
        .failures()
        .into_iter()
        .partition(|f| f.withheld.is_none());
    assert!(
        kept.len() > 3 && bare.len() > 3,
        "{} {}",
        kept.len(),
        bare.len()
    );
    let used = store.used(&scope()).0;
    assert!(used < bytes + bytes / 8 + (4 << 10), "{used}");
    let metrics = world.view().await.metrics;
    assert_eq!(metrics.given_up, 100);
    let entries = kept.len() + bare.len();
    assert_eq!(metrics.failures_dropped, 100 - entries as u64);
    assert_eq!(store.kept().0[0].1.entries, entries as u64);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_a_window_is_put_to_its_stream_and_not_redriven() {
    let windows = Policy {
        tumbling_window: Duration::from_secs(60),
        ..no_retries()
    };
    let world = ran(RECORD, windows, &["ok", "trap"]).await;
    let entry = world.failures().remove(0);
    world.script.heal();
    let store = world.failure_store();
    // Whether its mapping is still there or not.
    for gone in [false, true] {
        if gone {
            world.mappings.delete(&scope(), "m").await.unwrap();
            let gone = async |w: &World| w.mappings.list(&scope()).unwrap().is_empty();
            world.until(gone).await;
        }
        let refused = store.redrive(&scope(), &entry.id).await;
        assert!(
            matches!(refused, Err(FailuresError::Window(_))),
            "{refused:?}"
        );
        assert!(refused.unwrap_err().to_string().contains("--to-stream"));
    }
    let put = store.to_stream(&scope(), &entry.id).await.unwrap();
    assert_eq!(put, RedriveOutcome::Done { records: 1 });
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_redrive_that_the_host_has_no_room_for_is_no_failure_of_the_handler() {
    let world = ran(RECORD, no_retries(), &["trap"]).await;
    let entry = world.failures().remove(0);
    world.script.heal();
    world.script.throttle(1);
    let store = world.failure_store();
    let throttled = store.redrive(&scope(), &entry.id).await;
    assert!(
        matches!(throttled, Err(FailuresError::Throttled(_))),
        "{throttled:?}"
    );
    let done = store.redrive(&scope(), &entry.id).await.unwrap();
    assert_eq!(done, RedriveOutcome::Done { records: 1 });
    world.finish().await;
}

/// An exported entry with these members of its JSON replaced, and this module.
fn rewritten(file: &[u8], members: &[(&str, Value)], module: &[u8]) -> Bytes {
    let (mut out, mut rest) = (file[..8].to_vec(), &file[8..file.len() - 32]);
    let part = |out: &mut Vec<u8>, kind: u8, bytes: &[u8]| {
        out.push(kind);
        out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    while !rest.is_empty() {
        let len = u64::from_le_bytes(rest[1..9].try_into().unwrap()) as usize;
        let (kind, mut bytes) = (rest[0], rest[9..9 + len].to_vec());
        if kind == 1 {
            let mut entry: Value = serde_json::from_slice(&bytes).unwrap();
            for (pointer, value) in members {
                *entry.pointer_mut(pointer).unwrap() = value.clone();
            }
            bytes = entry.to_string().into();
        }
        part(&mut out, kind, &bytes);
        rest = &rest[9 + len..];
    }
    if !module.is_empty() {
        part(&mut out, 4, module);
    }
    let checksum = Sha256::digest(&out);
    out.extend_from_slice(&checksum);
    out.into()
}

#[tokio::test(start_paused = true)]
async fn limits_that_no_host_would_set_are_not_imported() {
    let world = ran(RECORD, no_retries(), &["trap"]).await;
    let entry = world.failures().remove(0);
    let store = world.failure_store();
    let file = store
        .export(&scope(), &entry.id, false, false)
        .await
        .unwrap();
    for (limit, value) in [
        (
            "timeout",
            json!({ "secs": u64::MAX / 2, "nanos": 999_999_999 }),
        ),
        ("effect_bytes", json!(usize::MAX)),
        ("output_bytes", json!(usize::MAX)),
        ("memory_bytes", json!(1_u64 << 40)),
    ] {
        let pointer = format!("/replay/limits/{limit}");
        let file = rewritten(&file, &[(&pointer, value)], b"");
        let refused = store.import(&scope(), &file).await.unwrap_err().to_string();
        assert!(refused.contains(limit), "{refused}");
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_imported_module_is_counted_and_goes_with_the_last_entry_that_names_it() {
    let world = ran(RECORD, no_retries(), &["trap"]).await;
    let entry = world.failures().remove(0);
    let store = world.failure_store();
    let file = store
        .export(&scope(), &entry.id, false, false)
        .await
        .unwrap();
    let module = [7; 5_000];
    let digest = Sha256::digest(module);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let file = rewritten(&file, &[("/digest", json!(digest))], &module);
    let is_kept = async || {
        let wasm = world.functions.wasm(&scope(), &digest).await;
        wasm.unwrap().is_some()
    };
    for aged in [false, true] {
        let before = store.used(&scope()).0;
        let first = store.import(&scope(), &file).await.unwrap();
        let second = store.import(&scope(), &file).await.unwrap();
        assert!(store.used(&scope()).0 - before >= 10_000);
        store.delete(&scope(), &first.id).await.unwrap();
        assert!(is_kept().await, "the second one names it");
        if aged {
            tokio::time::sleep(Duration::from_secs(31 * 86_400)).await;
            store.sweep().await.unwrap();
        } else {
            store.delete(&scope(), &second.id).await.unwrap();
            assert_eq!(store.used(&scope()).0, before);
        }
        assert!(!is_kept().await, "aged: {aged}");
    }
    let own = world.functions.wasm(&scope(), &entry.digest).await;
    assert!(own.unwrap().is_some(), "what was deployed stays");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_two_delete_at_once_is_taken_off_once() {
    let world = ran(RECORD, no_retries(), &["trap", "ok", "trap"]).await;
    let [kept, deleted] = &world.failures()[..] else {
        panic!("two entries")
    };
    let slow = Dying {
        store: world.store.clone(),
        before: |_, _| None,
        left: AtomicUsize::new(usize::MAX),
        after: false,
        died: CancellationToken::new(),
    };
    let other = World::over(Arc::new(slow), RECORD, world.clock);
    let store = other.failure_store();
    store.open(FailureBounds::default()).unwrap();
    let scope = scope();
    let (first, second) = tokio::join!(
        store.delete(&scope, &deleted.id),
        store.delete(&scope, &deleted.id)
    );
    let second = [first, second].into_iter().filter_map(Result::err);
    assert!(matches!(
        &second.collect::<Vec<_>>()[..],
        [FailuresError::NotFound(_)]
    ));
    assert_eq!(store.used(&scope).0, kept.bytes);
    world.finish().await;
}
