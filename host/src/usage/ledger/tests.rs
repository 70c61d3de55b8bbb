mod faulty;

use std::sync::atomic::Ordering::Relaxed;

use futures_util::FutureExt;
use shardmill_core::block::{Placement, Records};
use shardmill_core::effects::Effects;
use shardmill_core::limits::FunctionLimits;
use shardmill_core::sandbox::{
    BoxFuture, Carrier, Input, Invocation, LoadError, Mode, Module, NoState, Sandbox, Usage,
};
use shardmill_core::{BatchContext, Block, ShardId, Slice, TenantId, UnixMillis};
use shardmill_store::Memory;

use super::*;
use faulty::{Fault, Faulty};

/// A batch with one record of each key.
pub(crate) fn batch(keys: &[String]) -> Batch {
    let mut records = Records::default();
    for key in keys {
        records.push(key, None, b"data");
    }
    let (index, blob) = records.into_parts();
    let placement = Placement {
        shard: ShardId(0),
        created_seconds: 1,
        first: 1,
        arrival: UnixMillis(5),
    };
    let block = Block::new(placement, index.into(), blob.into()).expect("a block");
    Batch::new([Slice {
        block,
        from: 0,
        to: keys.len() as u32,
    }])
}

pub(crate) fn owner(tenant: u64, function: &str) -> Arc<Owner> {
    Arc::new(Owner {
        scope: Scope {
            tenant: TenantId::from_number(tenant).expect("a tenant"),
            ..Scope::default()
        },
        function: function.into(),
    })
}

pub(crate) fn report(fuel: u64) -> Report {
    Report {
        outcome: Outcome::Ok {
            text: String::new(),
        },
        effects: Effects::default(),
        usage: Usage {
            fuel,
            duration: Duration::from_micros(7),
            ..Usage::default()
        },
        record_fuel: Vec::new(),
        log: Vec::new(),
        stderr_tail: String::new(),
        output_cut_bytes: 0,
    }
}

fn store() -> Arc<dyn Store> {
    Arc::new(Memory::new(Arc::new(|| UnixMillis(0))))
}

async fn fuels(
    ledger: &Ledger,
    scope: Option<&Scope>,
    days: u64,
) -> Vec<(u64, String, String, u64)> {
    let entries = ledger.since(scope, days).await.expect("a readable store");
    let view = |e: Entry| (e.day, e.function, e.mapping, e.row.fuel);
    entries.into_iter().map(view).collect()
}

#[tokio::test(start_paused = true)]
async fn sums_are_kept_by_day_function_and_mapping_through_a_restart() {
    let (store, clock) = (store(), Clock::starting_at(UnixMillis(10 * DAY_MS)));
    let ledger = Ledger::new(Arc::clone(&store), clock);
    let (a, b) = (owner(1, "a"), owner(2, "b"));
    let mapping: Arc<str> = "clicks".into();
    ledger.note(&a, Some(&mapping), 3, &report(100));
    ledger.flush().await.expect("a write");
    ledger.note(&a, Some(&mapping), 3, &report(20));
    ledger.note(&a, None, 1, &report(1));
    ledger.note(&b, None, 1, &report(5));
    let mine = [
        (10, "a".to_owned(), String::new(), 1),
        (10, "a".to_owned(), "clicks".to_owned(), 120),
    ];
    assert_eq!(fuels(&ledger, Some(&a.scope), 0).await, mine);
    ledger.flush().await.expect("a write");
    assert_eq!(fuels(&ledger, Some(&a.scope), 0).await, mine);
    tokio::time::advance(Duration::from_secs(24 * 3600)).await;
    let again = Ledger::new(Arc::clone(&store), clock);
    assert!(fuels(&again, None, 0).await.is_empty(), "a new day");
    again.note(&a, Some(&mapping), 3, &report(7));
    again.flush().await.expect("a write");
    assert_eq!(fuels(&again, Some(&a.scope), 1).await.len(), 3);
    assert_eq!(fuels(&again, None, 1).await.len(), 4);
    tokio::time::advance(Duration::from_secs(35 * 24 * 3600)).await;
    again.flush().await.expect("a write");
    assert_eq!(
        fuels(&again, None, 100).await,
        [(11, "a".into(), "clicks".into(), 7)]
    );
}

#[tokio::test]
async fn failures_count_and_throttles_burn_nothing() {
    let ledger = Ledger::new(store(), Clock::starting_at(UnixMillis(0)));
    let a = owner(1, "a");
    let throttled = Report {
        outcome: Outcome::Throttled {
            reason: "full".into(),
        },
        ..report(0)
    };
    ledger.note(&a, None, 3, &report(10));
    ledger.note(&a, None, 3, &throttled);
    let entries = ledger.since(None, 0).await.expect("a readable store");
    let row = Row {
        fuel: 10,
        invocations: 1,
        records: 3,
        duration_us: 7,
        throttles: 1,
        errors: 0,
        cancelled: 0,
    };
    assert_eq!(entries[0].row, row);
}

fn ledger_over(store: &Arc<Faulty>) -> Ledger {
    let clock = Clock::starting_at(UnixMillis(100 * DAY_MS));
    Ledger::new(Arc::clone(store) as Arc<dyn Store>, clock)
}

async fn fuel(ledger: &Ledger) -> u64 {
    let entries = ledger.since(None, 0).await.expect("a readable store");
    entries.iter().map(|entry| entry.row.fuel).sum()
}

/// Rows were once put back and added to what had been stored after all.
#[tokio::test]
async fn a_write_whose_end_is_not_known_is_counted_once() {
    for done in [true, false] {
        let store = Faulty::new();
        let ledger = ledger_over(&store);
        ledger.note(&owner(1, "a"), None, 1, &report(1));
        ledger.flush().await.expect("a write");
        ledger.note(&owner(1, "a"), None, 1, &report(100));
        *store.fault.lock().unwrap() = Fault::Unknown { done };
        for _ in 0..3 {
            ledger.flush().await.expect_err("a fault");
            assert_eq!(fuel(&ledger).await, 101, "done: {done}");
        }
        ledger.note(&owner(1, "a"), None, 1, &report(20));
        *store.fault.lock().unwrap() = Fault::None;
        assert_eq!(fuel(&ledger).await, 121, "done: {done}");
        ledger.flush().await.expect("a write");
        assert_eq!(fuel(&ledger).await, 121, "done: {done}");
        assert!(held(&ledger.sums).rows.is_empty(), "nothing is left over");
        assert_eq!(fuel(&ledger_over(&store)).await, 121, "done: {done}");
    }
}

#[tokio::test]
async fn a_flush_that_is_dropped_loses_nothing() {
    for done in [true, false] {
        let store = Faulty::new();
        let ledger = ledger_over(&store);
        ledger.note(&owner(1, "a"), None, 1, &report(100));
        *store.fault.lock().unwrap() = Fault::Held { done };
        assert!(ledger.flush().now_or_never().is_none(), "it is held");
        ledger.note(&owner(1, "a"), None, 1, &report(20));
        *store.fault.lock().unwrap() = Fault::None;
        assert_eq!(fuel(&ledger).await, 120, "done: {done}");
        ledger.flush().await.expect("a write");
        assert_eq!(fuel(&ledger_over(&store)).await, 120, "done: {done}");
    }
}

#[tokio::test]
async fn what_is_being_written_is_shown_once() {
    for done in [true, false] {
        let store = Faulty::new();
        let ledger = ledger_over(&store);
        ledger.note(&owner(1, "a"), None, 1, &report(100));
        *store.fault.lock().unwrap() = Fault::Held { done };
        let let_go = async { store.go_on.notify_one() };
        let (flushed, shown, ()) = tokio::join!(ledger.flush(), fuel(&ledger), let_go);
        flushed.expect("a write");
        assert_eq!(shown, 100, "done: {done}");
    }
}

#[tokio::test]
async fn a_flush_between_reading_the_store_and_the_memory_hides_nothing() {
    let store = Faulty::new();
    let ledger = Arc::new(ledger_over(&store));
    ledger.note(&owner(1, "a"), None, 1, &report(100));
    let ((read, has_read), (go_on, goes_on)) =
        (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    *store.held_scan.lock().unwrap() = Some((read, goes_on));
    let reader = Arc::clone(&ledger);
    let shown = tokio::spawn(async move { fuel(&reader).await });
    tokio::task::spawn_blocking(move || has_read.recv().expect("a scan"))
        .await
        .expect("it has read");
    assert!(ledger.flush().now_or_never().is_none(), "it has to wait");
    go_on.send(()).expect("a reader");
    assert_eq!(shown.await.expect("an answer"), 100);
}

async fn put(store: &Faulty, rows: impl IntoIterator<Item = (Key, String)>) {
    let rows = rows.into_iter();
    let writes = rows.map(|(key, json)| (key, Value::Inline(json.into())));
    let tx = Tx {
        writes: writes.collect(),
        ..Tx::default()
    };
    store.commit(tx).await.expect("a write");
}

#[tokio::test]
async fn a_damaged_row_is_left_out_and_begins_anew() {
    let store = Faulty::new();
    let (a, b) = (owner(1, "a"), owner(1, "b"));
    let nobody = Key::new(Table::Usage, &a.scope).number(100).part("c");
    let rows = [
        (key(100, &a, None), r#"{"fuel":"#.to_owned()),
        // As an earlier version has written it.
        (
            key(100, &b, None),
            r#"{"fuel":7,"invocations":1}"#.to_owned(),
        ),
        (nobody, "{}".to_owned()),
    ];
    put(&store, rows).await;
    let ledger = ledger_over(&store);
    let of = |function: &str, fuel| (100, function.to_owned(), String::new(), fuel);
    assert_eq!(fuels(&ledger, None, 0).await, [of("b", 7)]);
    ledger.note(&a, None, 1, &report(5));
    ledger.note(&b, None, 1, &report(5));
    ledger.flush().await.expect("a write");
    let again = ledger_over(&store);
    assert_eq!(fuels(&again, None, 0).await, [of("a", 5), of("b", 12)]);
}

#[tokio::test]
async fn old_days_go_and_little_else_is_read_for_it() {
    let store = Faulty::new();
    let row = |day, tenant, n: u64| {
        let owner = owner(tenant, &format!("f{n:04}"));
        (key(day, &owner, None), "{}".to_owned())
    };
    for tenant in 1..=3 {
        for day in [10, 63, 64] {
            put(&store, (0..700).map(|n| row(day, tenant, n))).await;
        }
        for day in [65, 100] {
            put(&store, (0..2_000).map(|n| row(day, tenant, n))).await;
        }
    }
    put(
        &store,
        [(Key::table_prefix(Table::Usage).part("x"), "{}".to_owned())],
    )
    .await;
    ledger_over(&store).flush().await.expect("a write");
    let (page, values) = (store.page.load(Relaxed), store.values.load(Relaxed));
    assert!(page <= ROWS_AT_ONCE, "{page} at once");
    let old = 3 * 3 * 700;
    assert!((old..old + 100).contains(&values), "{values} read");
    let left = store
        .scan(&Key::table_prefix(Table::Usage), None, usize::MAX)
        .expect("a readable store");
    assert_eq!(left.len(), 3 * 2 * 2_000);
    let mut days = left
        .iter()
        .map(|(key, _)| key.split().unwrap().1[0].to_vec());
    assert!(days.all(|day| day.as_slice() >= 65u64.to_be_bytes().as_slice()));
}

#[tokio::test]
async fn more_rows_than_an_answer_takes_are_refused() {
    let store = Faulty::new();
    for tenant in [1, 2] {
        for part in 0..=(MAX_ROWS as u64 / 2_000) {
            let row = |n| {
                (
                    key(100, &owner(tenant, &format!("{part}-{n}")), None),
                    "{}".into(),
                )
            };
            put(&store, (0..1_000).map(row)).await;
        }
    }
    let ledger = ledger_over(&store);
    let one = ledger.since(Some(&owner(1, "").scope), 0).await;
    assert_eq!(one.expect("half of them").len(), MAX_ROWS / 2 + 1_000);
    let all = ledger.since(None, 0).await.expect_err("all of them");
    assert!(all.to_string().contains("100000 rows"), "{all}");
}

/// A sandbox whose attempts never end.
pub(crate) struct Never;

impl Sandbox for Never {
    fn load(&self, _: bytes::Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        Box::pin(std::future::pending())
    }

    fn invoke(&self, _: Invocation) -> BoxFuture<'_, Report> {
        Box::pin(std::future::pending())
    }
}

struct Nothing;

impl Module for Nothing {
    fn digest(&self) -> &str {
        "0"
    }

    fn carrier(&self) -> Carrier {
        Carrier::Packed {
            mode: Mode::Record,
            uses_state: false,
        }
    }
}

/// An attempt of a mapping.
pub(crate) fn invocation() -> Invocation {
    Invocation {
        owner: owner(1, "a"),
        mapping: Some("clicks".into()),
        module: Arc::new(Nothing),
        input: Input::Records(batch(&["a".to_owned()])),
        context: BatchContext::default(),
        limits: FunctionLimits::default(),
        environment: Arc::default(),
        state: Arc::new(NoState),
        now: UnixMillis(0),
        seed: [0; 32],
    }
}
