//! The host calls: what they answer, what they cost, what they leave.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use shardmill_core::effects::{Emit, StateRead, StateWrite};
use shardmill_core::sandbox::{LogLevel, LogLine};

use super::*;

/// "name" at 0x200, "value" at 0x210, "ä" cut in half at 0x220.
const DATA: &str = r#"(data (i32.const 0x200) "name") (data (i32.const 0x210) "value")
    (data (i32.const 0x220) "\c3")"#;

fn with_data(mode: i32, body: &str) -> String {
    with(&handler(mode, body), DATA)
}

/// A body that leaves the answer of an i32 call at 0x300, as one character from 'A' for 0 on.
fn answer_of(call: &str) -> String {
    format!(
        "(i32.store8 (i32.const 0x300) (i32.sub (i32.const 65) {call}))
        (drop (call $log (i32.const 3) (i32.const 0x300) (i32.const 1)))"
    )
}

/// The answers that `answer_of` logged.
fn answers(report: &Report) -> Vec<i32> {
    assert_ok(report);
    report
        .log
        .iter()
        .map(|line| 65 - i32::from(line.text.as_bytes()[0]))
        .collect()
}

#[tokio::test]
async fn calls_answer_with_the_codes_of_the_abi() {
    const RECORD_0: &str = "(drop (call $progress (i32.const 0)))";
    let name = "(i32.const 0x200) (i32.const 4)";
    let value = "(i32.const 0x210) (i32.const 5)";
    let host = Host::start();
    for (before, call, expected) in [
        ("", "(call $progress (i32.const 1))".to_owned(), 0),
        ("", "(call $progress (i32.const 2))".to_owned(), -4),
        ("", "(call $progress (i32.const -1))".to_owned(), -4),
        ("", format!("(call $set {name} {value})"), -2),
        ("", format!("(call $delete {name})"), -2),
        ("", format!("(i32.wrap_i64 (call $get {name} {value}))"), -2),
        ("", format!("(call $counter {name} (i64.const 1))"), 0),
        (RECORD_0, format!("(call $set {name} {value})"), 0),
        (
            RECORD_0,
            format!("(i32.wrap_i64 (call $get {name} {value}))"),
            -1,
        ),
        (
            RECORD_0,
            format!("(call $set (i32.const 0x200) (i32.const 257) {value})"),
            -3,
        ),
        (
            RECORD_0,
            format!("(call $set (i32.const 0x200) (i32.const 0) {value})"),
            -3,
        ),
        (
            RECORD_0,
            format!("(call $set (i32.const 0x220) (i32.const 1) {value})"),
            -3,
        ),
        (
            RECORD_0,
            format!("(call $set {name} (i32.const 0) (i32.const 0x40001))"),
            -3,
        ),
        (
            RECORD_0,
            format!("(call $set {name} (i32.const 0) (i32.const 0x40000))"),
            0,
        ),
        (
            RECORD_0,
            "(call $counter (i32.const 0x200) (i32.const 0) (i64.const 1))".to_owned(),
            -3,
        ),
        (
            RECORD_0,
            "(call $counter (i32.const 0x200) (i32.const 129) (i64.const 1))".to_owned(),
            -3,
        ),
        (
            RECORD_0,
            "(call $counter (i32.const 0x220) (i32.const 1) (i64.const 1))".to_owned(),
            -3,
        ),
        (RECORD_0, format!("(call $emit {name} {name} {value})"), 0),
        (
            RECORD_0,
            format!("(call $emit {name} {name} (i32.const 0) (i32.const 0))"),
            0,
        ),
        (
            RECORD_0,
            format!("(call $emit {name} {name} (i32.const 0) (i32.const 0x100000))"),
            -3,
        ),
        (
            RECORD_0,
            format!("(call $emit {name} {name} (i32.const 0) (i32.const 0xffffc))"),
            0,
        ),
        (
            RECORD_0,
            format!("(call $emit {name} (i32.const 0x200) (i32.const 257) {value})"),
            -3,
        ),
        (
            RECORD_0,
            format!("(call $emit {name} (i32.const 0x200) (i32.const 0) {value})"),
            -3,
        ),
        (
            RECORD_0,
            format!("(call $emit (i32.const 0x200) (i32.const 129) {name} {value})"),
            -3,
        ),
        ("", format!("(call $log (i32.const 0) {name})"), -4),
        ("", format!("(call $log (i32.const 6) {name})"), -4),
    ] {
        let report = host
            .run(
                &with_data(BATCH, &format!("{before} {}", answer_of(&call))),
                2,
            )
            .await;
        assert_eq!(answers(&report), [expected], "{before} {call}");
    }
}

#[tokio::test]
async fn only_log_may_be_called_before_the_handler() {
    let early = "(drop (call $log (i32.const 3) (i32.const 0x200) (i32.const 4)))";
    let call = answer_of("(call $counter (i32.const 0x200) (i32.const 4) (i64.const 1))");
    let wat = with_data(BATCH, "").replace(
        "(param i32) (result i32) (i32.const 65536)",
        &format!("(param i32) (result i32) {early} {call} (i32.const 65536)"),
    );
    let report = Host::start().run(&wat, 1).await;
    assert_eq!(
        report.log[0],
        LogLine {
            level: LogLevel::Info,
            text: "name".into()
        }
    );
    assert_eq!(i32::from(report.log[1].text.as_bytes()[0]), 65 + 2);
    assert!(report.effects.is_empty());
}

#[tokio::test]
async fn a_pointer_outside_memory_is_a_trap() {
    let host = Host::start();
    let (good, bad) = (
        "(i32.const 0x200) (i32.const 4)",
        "(i32.const 0x1ffffe) (i32.const 4)",
    );
    for call in [
        format!("(call $counter {bad} (i64.const 1))"),
        format!("(i32.wrap_i64 (call $get {bad} {good}))"),
        format!("(i32.wrap_i64 (call $get {good} {bad}))"),
        format!("(call $set {bad} {good})"),
        format!("(call $set {good} {bad})"),
        format!("(call $delete {bad})"),
        format!("(call $emit {bad} {good} {good})"),
        format!("(call $emit {good} {bad} {good})"),
        format!("(call $emit {good} {good} {bad})"),
        format!("(call $log (i32.const 3) {bad})"),
        "(call $log (i32.const 3) (i32.const -1) (i32.const -1))".to_owned(),
    ] {
        let body = format!("(drop (call $progress (i32.const 0))) (drop {call})");
        let report = host.run(&with_data(BATCH, &body), 1).await;
        let Cause::Trap { trap, .. } = cause(&report) else {
            panic!("{call}: {report:?}")
        };
        assert_eq!(trap, "memory out of bounds", "{call}");
        assert_eq!(failure(&report).record, Some(0));
        assert!(report.effects.is_empty());
    }
}

#[tokio::test]
async fn each_call_costs_its_price() {
    let host = Host::start();
    let (name, value) = (
        "(i32.const 0x200) (i32.const 4)",
        "(i32.const 0x210) (i32.const 5)",
    );
    for (call, price) in [
        ("(call $progress (i32.const 0))".to_owned(), 10),
        (format!("(call $counter {name} (i64.const 1))"), 104),
        (format!("(call $set {name} {value})"), 509),
        (format!("(call $delete {name})"), 504),
        (format!("(i32.wrap_i64 (call $get {name} {value}))"), 504),
        (format!("(call $emit {name} {name} {value})"), 1_013),
        (format!("(call $log (i32.const 3) {value})"), 205),
    ] {
        let before = "(drop (call $progress (i32.const 0)))";
        let fuel = async |times: usize| {
            let body = format!("{before} {}", format!("(drop {call})").repeat(times));
            let report = host.run(&with_data(BATCH, &body), 1).await;
            assert_ok(&report);
            report.usage.fuel
        };
        let (one, two) = (fuel(1).await, fuel(2).await);
        // The instructions around the call are a few units themselves.
        assert!(
            (price..price + 15).contains(&(two - one)),
            "{call}: {}",
            two - one
        );
    }
}

#[tokio::test]
async fn a_call_that_the_fuel_does_not_cover_does_not_act() {
    let host = Host::start();
    let body = "(drop (call $progress (i32.const 0)))
        (drop (call $log (i32.const 3) (i32.const 0x200) (i32.const 4)))
        (drop (call $emit (i32.const 0x200) (i32.const 4) (i32.const 0x200) (i32.const 4) (i32.const 0) (i32.const 4000)))
        (drop (call $log (i32.const 3) (i32.const 0x200) (i32.const 4)))";
    let module = host.load(&with_data(BATCH, body)).await;
    let mut invocation = invocation(&module, 1);
    (
        invocation.limits.fuel_base,
        invocation.limits.fuel_per_record,
    ) = (4_000, 0);
    let report = host.invoke(invocation).await;
    assert!(
        matches!(cause(&report), Cause::OutOfFuel { allowed: 4_000, .. }),
        "{report:?}"
    );
    assert_eq!((report.log.len(), report.usage.fuel), (1, 4_000));
}

#[tokio::test]
async fn effects_carry_the_record_that_was_current() {
    let add =
        |n: i64| format!("(drop (call $counter (i32.const 0x200) (i32.const 4) (i64.const {n})))");
    let emit = "(drop (call $emit (i32.const 0x200) (i32.const 4) (i32.const 0x210) (i32.const 5) (i32.const 0x210) (i32.const 5)))";
    let at = |i: u32| format!("(drop (call $progress (i32.const {i})))");
    let set = "(drop (call $set (i32.const 0x200) (i32.const 4) (i32.const 0x210) (i32.const 5)))";
    let body = [
        add(1),
        add(2),
        at(1),
        add(4),
        emit.into(),
        set.into(),
        at(0),
        add(8),
        at(1),
        add(16),
        set.into(),
    ]
    .concat();
    let report = Host::start().run(&with_data(BATCH, &body), 2).await;
    assert_ok(&report);
    let counted: Vec<_> = report
        .effects
        .counters
        .iter()
        .map(|(tag, add)| (*tag, add.amount))
        .collect();
    assert_eq!(counted, [(None, 3), (Some(1), 20), (Some(0), 8)]);
    let emit = Emit {
        stream: "name".into(),
        key: "value".into(),
        data: "value".into(),
    };
    assert_eq!(report.effects.emits, [(Some(1), emit)]);
    let write = StateWrite {
        key: "k1".into(),
        name: "name".into(),
        value: Some("value".into()),
    };
    assert_eq!(report.effects.state, [(Some(1), write)]);
    assert!(
        report.effects.reads.is_empty(),
        "a write alone depends on nothing"
    );
    assert!(report.effects.has_untagged());
}

#[tokio::test]
async fn writes_of_one_value_under_several_records_stay_apart_and_in_order() {
    let host = Host::start();
    let at = |i: u32| format!("(drop (call $progress (i32.const {i})))");
    let set = |len: u32| {
        format!(
            "(drop (call $set (i32.const 0x200) (i32.const 4) (i32.const 0x210) (i32.const {len})))"
        )
    };
    let body = [at(0), set(1), at(1), set(2), at(0), set(3), set(4)].concat();
    let module = host.load(&with_data(BATCH, &body)).await;
    let input = Input::Records(batch_of(&["same", "same"]));
    let report = host
        .invoke(Invocation {
            input,
            ..invocation(&module, 0)
        })
        .await;
    assert_ok(&report);
    let writes = report.effects.state.iter();
    let lens: Vec<_> = writes
        .map(|(tag, write)| (*tag, write.value.as_ref().map(Bytes::len)))
        .collect();
    assert_eq!(
        lens,
        [(Some(0), Some(1)), (Some(1), Some(2)), (Some(0), Some(4))]
    );
}

/// One value under (`k0`, "name"), which changes with every read.
#[derive(Default)]
struct Shifting {
    reads: AtomicUsize,
    asked: Mutex<Vec<(String, String)>>,
}

impl StateView for Shifting {
    fn get(&self, key: &str, name: &str) -> Result<Option<(Bytes, u64)>, String> {
        self.asked
            .lock()
            .expect("not poisoned")
            .push((key.into(), name.into()));
        let read = self.reads.fetch_add(1, Ordering::Relaxed) as u64;
        Ok((key == "k0").then(|| (Bytes::from(format!("v{read}")), 40 + read)))
    }
}

#[tokio::test]
async fn state_is_read_once_and_seen_through_the_attempts_own_writes() {
    let host = Host::start();
    let get = "(drop (call $log (i32.const 3) (i32.const 0x300)
        (i32.wrap_i64 (call $get (i32.const 0x200) (i32.const 4) (i32.const 0x300) (i32.const 16)))))";
    let set = "(drop (call $set (i32.const 0x200) (i32.const 4) (i32.const 0x210) (i32.const 5)))";
    let body = ["(drop (call $progress (i32.const 0)))", get, get, set, get].concat();
    let module = host.load(&with_data(BATCH, &body)).await;
    let view = Arc::new(Shifting::default());
    let report = host
        .invoke(Invocation {
            state: view.clone(),
            ..invocation(&module, 2)
        })
        .await;
    assert_ok(&report);
    let texts: Vec<_> = report.log.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(texts, ["v0", "v0", "value"]);
    let read = StateRead {
        key: "k0".into(),
        name: "name".into(),
        revision: Some(40),
        first_record: 0,
    };
    assert_eq!(report.effects.reads, [read]);
    assert_eq!(
        *view.asked.lock().expect("not poisoned"),
        [("k0".to_owned(), "name".to_owned())]
    );
}

#[tokio::test]
async fn a_value_longer_than_its_room_is_measured_and_not_written() {
    let host = Host::start();
    let body = "(drop (call $progress (i32.const 0))) (i32.store8 (i32.const 0x300) (i32.const 120))
        (drop (call $log (i32.const 3) (i32.const 0x300)
        (i32.wrap_i64 (call $get (i32.const 0x200) (i32.const 4) (i32.const 0x300) (i32.const 1)))))";
    let module = host.load(&with_data(BATCH, body)).await;
    let state = Arc::new(Shifting::default());
    let report = host
        .invoke(Invocation {
            state,
            ..invocation(&module, 1)
        })
        .await;
    assert_eq!(report.log[0].text, "x\0");
}

#[tokio::test]
async fn a_deleted_value_is_absent_to_the_guest_and_an_empty_write_to_the_store() {
    let body = format!(
        "(drop (call $progress (i32.const 0))) (drop (call $delete (i32.const 0x200) (i32.const 4))) {}",
        answer_of(
            "(i32.wrap_i64 (call $get (i32.const 0x200) (i32.const 4) (i32.const 0) (i32.const 0)))"
        )
    );
    let host = Host::start();
    let module = host.load(&with_data(BATCH, &body)).await;
    let state = Arc::new(Shifting::default());
    let report = host
        .invoke(Invocation {
            state,
            ..invocation(&module, 1)
        })
        .await;
    assert_eq!(answers(&report), [-1]);
    let write = StateWrite {
        key: "k0".into(),
        name: "name".into(),
        value: None,
    };
    assert_eq!(report.effects.state, [(Some(0), write)]);
    assert!(report.effects.reads.is_empty());
}

#[tokio::test]
async fn reading_without_end_is_bounded_by_the_items() {
    let body = each("(i32.store8 (i32.const 0x200) (i32.add (i32.const 65) (i32.rem_u (local.get $i) (i32.const 26))))
        (drop (call $get (i32.const 0x200) (i32.const 4) (i32.const 0) (i32.const 0)))");
    let host = Host::start();
    let module = host.load(&with_data(RECORD, &body)).await;
    let mut invocation = invocation(&module, 20);
    invocation.limits.effect_items = 10;
    let report = host.invoke(invocation).await;
    assert!(
        matches!(
            cause(&report),
            Cause::EffectsExceeded {
                asked: 11,
                allowed: 10,
                ..
            }
        ),
        "{report:?}"
    );
    assert_eq!(report.effects.reads.len(), 10);
}

#[tokio::test]
async fn log_texts_are_cut_and_share_the_output_limit() {
    let host = Host::start();
    let text = "(drop (call $log (i32.const 1) (i32.const 0x300) (i32.const 5000)))";
    let module = host.load(&with_data(BATCH, &text.repeat(3))).await;
    let mut invocation = invocation(&module, 1);
    invocation.limits.output_bytes = 5_000;
    let report = host.invoke(invocation).await;
    assert_ok(&report);
    let lens: Vec<_> = report
        .log
        .iter()
        .map(|line| (line.level, line.text.len()))
        .collect();
    assert_eq!(
        lens,
        [(LogLevel::Error, 4096), (LogLevel::Error, 5_000 - 4097 - 1)]
    );
    assert_eq!(report.output_cut_bytes, 4096 - 902 + 4096);
}
