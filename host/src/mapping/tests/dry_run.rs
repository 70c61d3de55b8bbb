//! Dry runs: filters and modules on records that are there, without a trace.

use super::*;
use crate::mapping::{DryRunError, DryRunPage, DryRunRequest, RewindTo};

/// Two versions of a handler in record mode, told apart by their wasm: the empty one is `old`.
/// A record `NAME N` adds 1 to the counter NAME and N to the key's state; `old` fails at `bad`,
/// `new` at `worse`, counts `ok` twice and emits every `out`.
#[derive(Default)]
struct Versions {
    loads: AtomicUsize,
}

struct Version {
    is_new: bool,
}

impl Module for Version {
    fn digest(&self) -> &str {
        if self.is_new { "new" } else { "old" }
    }
    fn carrier(&self) -> Carrier {
        RECORD
    }
}

impl Sandbox for Versions {
    fn load(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        let is_new = !wasm.is_empty();
        self.loads.fetch_add(usize::from(is_new), SeqCst);
        Box::pin(async move { Ok(Arc::new(Version { is_new }) as Arc<dyn Module>) })
    }

    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            run(&invocation)
        })
    }
}

fn run(invocation: &Invocation) -> Report {
    let is_new = invocation.module.digest() == "new";
    let Input::Records(batch) = &invocation.input else {
        panic!("records expected");
    };
    let mut effects = Effects::default();
    let mut written: BTreeMap<String, u64> = BTreeMap::new();
    let fuel = |records: u32| Usage {
        fuel: u64::from(records) * if is_new { 20 } else { 10 },
        ..Usage::default()
    };
    for (at, record) in (0..).zip(batch.iter()) {
        let text = std::str::from_utf8(record.parts.data).unwrap();
        let (word, number) = text.split_once(' ').unwrap_or((text, "0"));
        if word == if is_new { "worse" } else { "bad" } {
            let failure = Failure {
                cause: Cause::HandlerError {
                    error_type: "Bad".into(),
                    message: word.into(),
                },
                record: Some(at),
            };
            let mut report = report(Outcome::Failed(failure), effects);
            report.usage = fuel(at + 1);
            return report;
        }
        let times = if is_new && word == "ok" { 2 } else { 1 };
        let add = CounterAdd {
            name: word.into(),
            amount: times,
        };
        effects.counters.push((Some(at), add));
        let key = record.parts.key.to_owned();
        let before = written.get(&key).copied().unwrap_or_else(|| {
            let found = invocation.state.get(&key, "sum").unwrap();
            found.map_or(0, |f| std::str::from_utf8(&f.0).unwrap().parse().unwrap())
        });
        let sum = before + number.parse::<u64>().unwrap_or(0);
        written.insert(key.clone(), sum);
        let write = StateWrite {
            key: key.as_str().into(),
            name: "sum".into(),
            value: Some(sum.to_string().into()),
        };
        effects.state.push((Some(at), write));
        if is_new && word == "out" {
            let emit = Emit {
                stream: "in".into(),
                key: key.as_str().into(),
                data: Bytes::from_static(b"emitted"),
            };
            effects.emits.push((Some(at), emit));
        }
    }
    let mut report = report(
        Outcome::Ok {
            text: String::new(),
        },
        effects,
    );
    report.usage = fuel(batch.len() as u32);
    report
}

/// A world whose mapping runs on [`Versions`], with nothing running.
async fn world(policy: Policy, shards: u32) -> World {
    world_with(policy, shards).await.0
}

async fn world_with(policy: Policy, shards: u32) -> (World, Arc<Versions>) {
    let mut world = World::new(RECORD, shards).await;
    let versions = Arc::new(Versions::default());
    let sandbox: Arc<dyn Sandbox> = versions.clone();
    let functions = Functions::new(world.store.clone(), sandbox.clone(), world.clock);
    world.functions = Arc::new(functions);
    world.mappings = Mappings::new(
        world.store.clone(),
        sandbox,
        world.functions.clone(),
        world.clock,
    );
    world.map(policy).await;
    (world, versions)
}

fn filters(patterns: &[&str]) -> DryRunRequest {
    DryRunRequest {
        filters: Some(patterns.iter().map(|p| (*p).to_owned()).collect()),
        module: None,
        from: RewindTo::TrimHorizon,
        limit: 10_000,
    }
}

fn module(limit: u64) -> DryRunRequest {
    DryRunRequest {
        filters: None,
        module: Some(Bytes::from_static(b"new")),
        from: RewindTo::TrimHorizon,
        limit,
    }
}

async fn tried(world: &World, request: DryRunRequest) -> DryRunPage {
    let scope = Scope::default();
    let before = trace(world);
    let mut page = world.mappings.dry_run(&scope, "m", request).await.unwrap();
    while !page.done {
        page = world.mappings.dry_run_on(&scope, &page.id).await.unwrap();
    }
    assert_eq!(trace(world), before, "a dry run leaves no trace");
    page
}

/// Everything that a mapping changes.
fn trace(world: &World) -> impl PartialEq + std::fmt::Debug {
    use shardmill_store::Table;
    let tables = [Table::Cursor, Table::State, Table::Function, Table::Failure];
    let all = tables.map(|table| {
        let key = Key::new(table, &Scope::default());
        world.store.scan(&key, None, usize::MAX).unwrap()
    });
    let stats = world.store.stats();
    (all, stats.transactions, stats.records)
}

#[tokio::test(start_paused = true)]
async fn filters_are_counted_and_explained_field_by_field() {
    for (lanes, aggregate) in [(1, false), (3, false), (1, true)] {
        let policy = Policy {
            parallelization_factor: lanes,
            deaggregate: aggregate,
            ..policy(7)
        };
        let world = world(policy, 2).await;
        world
            .put((0..60).map(|i| {
                let data = match i % 3 {
                    0 => format!("{{\"price\": {i}}}"),
                    1 => "{\"cost\": 1}".to_owned(),
                    _ => "plain text".to_owned(),
                };
                (format!("k{i}"), data)
            }))
            .await;
        let pattern = r#"{"data": {"price": [{"numeric": [">=", 30]}]}}"#;
        let page = tried(&world, filters(&[pattern])).await;
        assert_eq!((page.records, page.total), (60, 60));
        let report = page.filter.unwrap();
        assert_eq!(
            (report.matched, report.not_matched, report.not_json),
            (10, 30, 20)
        );
        assert_eq!(report.fields[0].path, "data.price");
        assert_eq!(report.fields[0].records, 30);
        assert_eq!(
            [
                report.matching.len(),
                report.not_matching.len(),
                report.unreadable.len()
            ],
            [3, 3, 3]
        );
        let sample = &report.not_matching[0];
        let mismatch = &sample.filters[0].mismatches[0];
        assert_eq!(mismatch.path, "data.price");
        assert!(!mismatch.reason.is_empty());
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        let odd = tried(&world, filters(&[r#"{"price": [1]}"#])).await;
        assert_eq!(odd.filter.unwrap().warnings.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_module_is_compared_with_the_current_version() {
    let world = world(policy(10), 1).await;
    let records = [
        "ok 1", "bad 2", "out 3", "worse 4", "ok 5", "ok 6", "out 7", "bad 8", "x 9", "ok 10",
        "ok 11", "ok 12",
    ];
    world.put_all(records).await;
    let page = tried(&world, module(10_000)).await;
    let (current, new) = (page.current.unwrap(), page.new.unwrap());
    assert_eq!((current.records, new.records), (12, 12));
    assert_eq!((current.batches, new.batches), (2, 2));
    assert_eq!((current.failed_records, new.failed_records), (2, 1));
    assert_eq!((current.failed_batches, new.failed_batches), (1, 1));
    assert_eq!((current.invocations, new.invocations), (4, 3));
    assert_eq!(current.causes.len(), 1);
    let cause = &new.causes[0];
    assert_eq!(
        (cause.message.as_str(), cause.records, cause.batches),
        ("Bad: worse", 1, 1)
    );
    assert_eq!(
        (current.fuel_max_per_record, new.fuel_max_per_record),
        (10, 20)
    );
    let d = page.differences.unwrap();
    assert_eq!(
        [d.same_outcome, d.fail_now, d.mended, d.fail_otherwise],
        [9, 1, 2, 0]
    );
    assert_eq!(
        (d.outcomes[0].current.as_str(), d.outcomes[0].new.as_str()),
        ("Bad: bad", "done")
    );
    let counters: Vec<(&str, i64, i64)> = d
        .counters
        .iter()
        .map(|c| (c.name.as_str(), c.current, c.new))
        .collect();
    assert_eq!(counters, [("bad", 0, 2), ("ok", 6, 12), ("worse", 1, 0)]);
    assert_eq!(d.same_counters, 2, "out and x");
    let sum = &d.state_values[0];
    assert_eq!(
        (sum.current.as_deref(), sum.new.as_deref()),
        (Some("68"), Some("74")),
        "the second batch saw what the first had written"
    );
    assert_eq!((d.emits, new.emits, current.emits), (1, 2, 0));
    assert_eq!(d.emitted[0].new.as_deref(), Some("in k: emitted"));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_sees_the_state_that_is_stored() {
    let world = world(policy(10), 1).await;
    let key = Key::new(shardmill_store::Table::State, &Scope::default())
        .part("f")
        .part("k")
        .part("sum");
    let tx = Tx {
        writes: vec![(key, shardmill_store::Value::Inline("100".into()))],
        ..Tx::default()
    };
    world.store.commit(tx).await.unwrap();
    world.put_all(["ok 1", "bad 2"]).await;
    let d = tried(&world, module(10)).await.differences.unwrap();
    let sum = &d.state_values[0];
    assert_eq!(
        (sum.current.as_deref(), sum.new.as_deref()),
        (Some("101"), Some("103"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_keeps_to_its_beginning_and_its_limit() {
    let world = world(policy(3), 1).await;
    world.put_all((0..10).map(|i| format!("ok {i}"))).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.put_all((10..20).map(|i| format!("ok {i}"))).await;
    let later = UnixMillis(NOW.0 + 1_000);
    for (from, limit, want) in [
        (RewindTo::TrimHorizon, 10_000, 20),
        (RewindTo::TrimHorizon, 7, 7),
        (RewindTo::Time(later), 10_000, 10),
        (RewindTo::Time(later), 1, 1),
        (RewindTo::Latest, 10, 0),
    ] {
        let request = DryRunRequest {
            from,
            ..module(limit)
        };
        let page = tried(&world, request).await;
        assert_eq!((page.records, page.total), (want, want), "{from:?} {limit}");
        assert_eq!(page.new.unwrap().records, want);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_tried_is_refused() {
    let world = world(policy(3), 1).await;
    let scope = Scope::default();
    let begin = async |request| world.mappings.dry_run(&scope, "m", request).await;
    let nothing = DryRunRequest {
        module: None,
        ..module(1)
    };
    assert!(matches!(begin(nothing).await, Err(DryRunError::Nothing(_))));
    for limit in [0, 1_000_001] {
        let refused = begin(module(limit)).await;
        assert!(matches!(refused, Err(DryRunError::Limit(_))), "{limit}");
    }
    let bad = begin(filters(&["{"])).await;
    assert!(matches!(bad, Err(DryRunError::Filter(_))), "{bad:?}");
    let gone = world.mappings.dry_run_on(&scope, "no such").await;
    assert!(matches!(gone, Err(DryRunError::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_takes_its_place_before_its_module_is_compiled_and_loses_it_when_forgotten() {
    let (world, versions) = world_with(policy(1), 1).await;
    world.put_all((0..3_000).map(|i| format!("ok {i}"))).await;
    let scope = Scope::default();
    let begin = async || world.mappings.dry_run(&scope, "m", module(10_000)).await;
    let first = begin().await.unwrap();
    let second = begin().await.unwrap();
    assert!(!first.done && !second.done);
    for _ in 0..3 {
        let refused = begin().await;
        assert!(matches!(refused, Err(DryRunError::TooMany)), "{refused:?}");
    }
    assert_eq!(versions.loads.load(SeqCst), 2);
    tokio::time::sleep(Duration::from_secs(59)).await;
    world.mappings.sweep_dry_runs();
    let second = world.mappings.dry_run_on(&scope, &second.id).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.mappings.sweep_dry_runs();
    let forgotten = world.mappings.dry_run_on(&scope, &first.id).await;
    assert!(matches!(forgotten, Err(DryRunError::NotFound(_))));
    assert!(world.mappings.dry_run_on(&scope, &second.id).await.is_ok());
    // What cannot be begun gives its place back.
    let bad = || DryRunRequest {
        from: RewindTo::Latest,
        ..filters(&["{"])
    };
    for _ in 0..3 {
        let refused = world.mappings.dry_run(&scope, "m", bad()).await;
        assert!(matches!(refused, Err(DryRunError::Filter(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn hints_that_mislead_cost_a_dry_run_no_more_than_halves() {
    // They were believed each time: 100 records, 99, 98 …
    let world = World::new(BATCH, 1).await;
    world.map(policy(100)).await;
    world.script.fail_at_the_end();
    world.put_all((0..100).map(|n| format!("ok {n}"))).await;
    let report = tried(&world, module(100)).await.new.unwrap();
    assert_eq!(report.failed_records, 100);
    // Of both versions.
    let records: usize = world.sizes().iter().sum();
    assert!(records <= 2_000, "{records} records in all invocations");
}
