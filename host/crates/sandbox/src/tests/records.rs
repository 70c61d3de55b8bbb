//! Record mode: what is kept of the records before the one at fault.

use shardmill_core::effects::StateWrite;

use super::*;

const DATA: &str = r#"(data (i32.const 0x200) "name") (data (i32.const 0x210) "value")"#;

/// Counts each record, writes its state, emits it; then runs `body`.
fn busy(body: &str) -> String {
    each(&format!(
        "(drop (call $counter (i32.const 0x200) (i32.const 4) (i64.const 1)))
        (drop (call $set (i32.const 0x200) (i32.const 4) (i32.const 0x210) (i32.add (local.get $i) (i32.const 1))))
        (drop (call $emit (i32.const 0x200) (i32.const 4) (i32.const 0x210) (i32.const 5) (i32.const 0x210) (i32.const 0)))
        {body}"
    ))
}

fn record_handler(body: &str) -> String {
    with(&handler(RECORD, body), DATA)
}

#[tokio::test]
async fn a_done_batch_folds_its_effects() {
    let report = Host::start().run(&record_handler(&busy("")), 4).await;
    assert_ok(&report);
    assert_eq!(counters(&report), BTreeMap::from([("name".into(), 4)]));
    assert_eq!(
        report.effects.counters.len(),
        1,
        "one entry for all records"
    );
    assert_eq!(
        (report.effects.state.len(), report.effects.emits.len()),
        (4, 4)
    );
}

#[tokio::test]
async fn the_last_write_of_a_value_wins_over_records_with_one_key() {
    let host = Host::start();
    let module = host.load(&record_handler(&busy(""))).await;
    let input = Input::Records(batch_of(&["same"; 3]));
    let report = host
        .invoke(Invocation {
            input,
            ..invocation(&module, 0)
        })
        .await;
    assert_ok(&report);
    let write = StateWrite {
        key: "same".into(),
        name: "name".into(),
        value: Some("val".into()),
    };
    assert_eq!(report.effects.state, [(Some(2), write)]);
}

#[tokio::test]
async fn a_failure_keeps_the_records_before_it_and_nothing_of_its_own() {
    let host = Host::start();
    let spin = "(loop $l (br $l))";
    for (what, at_2) in [
        ("trap", "unreachable"),
        ("out of fuel", spin),
        ("timed out", "(call $nap)"),
        ("exit", "(call $exit (i32.const 1))"),
        (
            "out of memory",
            "(drop (memory.grow (i32.const 60000))) unreachable",
        ),
        ("error", "(return (i64.const 0x0000040000000015))"),
    ] {
        let body = busy(&format!(
            "(if (i32.eq (local.get $i) (i32.const 2)) (then {at_2}))"
        ));
        let nap = sleep(Duration::from_secs(60));
        let error = r#"(data (i32.const 0x400) "SMA1\01\00\02\00\00\00\00\00\05\00\00\00E\nbad")"#;
        let wat = with(
            &record_handler(&body),
            &format!("{error} (func $nap {nap})"),
        );
        let module = host.load(&wat).await;
        let mut invocation = invocation(&module, 4);
        invocation.limits.timeout = Duration::from_millis(200);
        (
            invocation.limits.fuel_base,
            invocation.limits.fuel_per_record,
        ) = (2_000_000, 0);
        let report = host.invoke(invocation).await;
        assert_eq!(failure(&report).record, Some(2), "{what}: {report:?}");
        assert_eq!(
            cause(&report)
                .name()
                .replace('_', " ")
                .replace("handler error", "error")
                .replace("exited", "exit"),
            what
        );
        assert_eq!(
            counters(&report),
            BTreeMap::from([("name".into(), 2)]),
            "{what}"
        );
        let keys: Vec<_> = report
            .effects
            .state
            .iter()
            .map(|(_, write)| write.key.as_ref())
            .collect();
        assert_eq!(
            (keys, report.effects.emits.len()),
            (vec!["k0", "k1"], 2),
            "{what}"
        );
        assert!(!report.effects.has_untagged());
    }
}

#[tokio::test]
async fn a_failure_at_the_first_record_keeps_nothing() {
    let report = Host::start()
        .run(&record_handler(&busy("unreachable")), 3)
        .await;
    assert_eq!(failure(&report).record, Some(0));
    assert!(report.effects.is_empty(), "{:?}", report.effects);
}

#[tokio::test]
async fn a_failure_before_any_record_names_none() {
    let report = Host::start().run(&record_handler("unreachable"), 3).await;
    assert_eq!(failure(&report).record, None);
}

#[tokio::test]
async fn progress_out_of_order_breaks_the_contract_and_keeps_nothing() {
    let host = Host::start();
    let at = |i: i32| {
        format!(
            "(drop (call $progress (i32.const {i}))) (drop (call $counter (i32.const 0x200) (i32.const 4) (i64.const 1)))"
        )
    };
    for (steps, what) in [
        (vec![1], "progress(1) in a batch of 3, where 0 comes next"),
        (
            vec![0, 2],
            "progress(2) in a batch of 3, where 1 comes next",
        ),
        (
            vec![0, 1, 1],
            "progress(1) in a batch of 3, where 2 comes next",
        ),
        (
            vec![0, 1, 0],
            "progress(0) in a batch of 3, where 2 comes next",
        ),
        (
            vec![0, 1, 2, 3],
            "progress(3) in a batch of 3, where 3 comes next",
        ),
        (vec![0, 1], "answered ok after progress through 2 records"),
        (vec![], "answered ok after progress through 0 records"),
    ] {
        let report = host
            .run(
                &record_handler(&steps.into_iter().map(at).collect::<String>()),
                3,
            )
            .await;
        assert_eq!(
            cause(&report),
            &Cause::BadAnswer {
                reason: what.into()
            }
        );
        assert!(report.effects.is_empty(), "{what}");
    }
}

#[tokio::test]
async fn effects_need_a_current_record() {
    let body = format!(
        "(if (i32.ne (call $counter (i32.const 0x200) (i32.const 4) (i64.const 1)) (i32.const -2)) (then unreachable)) {}",
        each("")
    );
    let report = Host::start().run(&record_handler(&body), 1).await;
    assert_ok(&report);
    assert!(report.effects.is_empty());
}

#[tokio::test]
async fn a_partial_answer_is_not_for_record_mode() {
    let host = Host::start();
    let partial =
        r#"(data (i32.const 0x400) "SMA1\01\00\01\00\01\00\00\00\00\00\00\00\00\00\00\00")"#;
    let wat = with(
        &record_handler(&format!(
            "{} (return (i64.const 0x0000040000000014))",
            each("")
        )),
        partial,
    );
    let report = host.run(&wat, 2).await;
    assert_eq!(
        cause(&report),
        &Cause::BadAnswer {
            reason: "a record-mode handler answered with status 1 (partial)".into()
        }
    );
}

#[tokio::test]
async fn an_empty_batch_is_a_dry_run() {
    assert_ok(&Host::start().run(&record_handler(""), 0).await);
}
