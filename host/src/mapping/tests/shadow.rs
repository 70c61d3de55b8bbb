//! Shadows: what is compared, and that nothing else comes of them.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use shardmill_core::TenantId;
use shardmill_core::admission::Standing;
use shardmill_core::mapping::Shadow;

use super::*;
use crate::mapping::ShadowReport;

fn scope() -> Scope {
    Scope::default()
}

/// What a handler was given.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    module: String,
    version: String,
    /// Under what the ledger notes it: function and mapping.
    noted: (String, Option<String>),
    records: Vec<String>,
    request: String,
    attempt: u32,
    now: UnixMillis,
    seed: [u8; 32],
    /// The window's state, and the flags.
    window: (String, u32),
    /// The value of keyed state of its first record's key.
    found: Option<String>,
    /// When it was invoked.
    at: UnixMillis,
}

/// A sandbox whose modules are texts that say what they do, word by word:
///
/// - `takes=N` ms; `fuel=N` per record; `count=N` added to `done` per record
/// - `sum` adds one per record to the key's value of state; `blind` writes it and reads nothing;
///   `look` reads what `blind` writes; `delete` deletes it
/// - `emit`, `say=TEXT`, `named` (its first record), `json` (takes an event)
/// - `trap`, `once` (fails at first attempts), `throttle`, `panic` (of the host), `flood`
#[derive(Default)]
struct Words {
    calls: Mutex<Vec<Call>>,
    /// Attempts of the tenant that wait for room.
    waiting: AtomicU64,
}

struct Word(String);

impl Module for Word {
    fn digest(&self) -> &str {
        &self.0
    }
    fn carrier(&self) -> Carrier {
        if self.0.contains("json") {
            EVENT
        } else {
            BATCH
        }
    }
}

impl Sandbox for Words {
    fn load(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        let text = String::from_utf8(wasm.to_vec()).unwrap();
        Box::pin(async move { Ok(Arc::new(Word(text)) as Arc<dyn Module>) })
    }

    fn standings(&self) -> Vec<(TenantId, Standing)> {
        let standing = Standing {
            waiting: self.waiting.load(SeqCst),
            ..Standing::default()
        };
        vec![(scope().tenant, standing)]
    }

    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        let module = invocation.module.digest().to_owned();
        let number = |name: &str, default: u64| {
            let word = module.split(' ').find_map(|w| w.strip_prefix(name));
            word.map_or(default, |n| n.parse().unwrap())
        };
        let takes = Duration::from_millis(number("takes=", 2));
        let (fuel, count) = (number("fuel=", 10), number("count=", 1));
        Box::pin(async move {
            if invocation.context.shard.is_empty() {
                return report(ok(String::new()), Effects::default());
            }
            let ran = self.run(&module, &invocation, count);
            tokio::time::sleep(takes).await;
            let mut ran = ran;
            let records = match &invocation.input {
                Input::Records(batch) => batch.len(),
                Input::Event { count, .. } => *count,
            };
            ran.usage.fuel = fuel * records as u64;
            ran
        })
    }
}

fn ok(text: String) -> Outcome {
    Outcome::Ok { text }
}

impl Words {
    fn run(&self, module: &str, invocation: &Invocation, count: u64) -> Report {
        let is = |word: &str| module.split(' ').any(|w| w == word);
        let records: Vec<(String, String)> = match &invocation.input {
            Input::Records(batch) => {
                let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
                let both = batch
                    .iter()
                    .map(|r| (r.parts.key.to_owned(), text(r.parts.data)));
                both.collect()
            }
            Input::Event { json, .. } => records_of(json),
        };
        let context = &invocation.context;
        let read = |key: &str, name: &str| invocation.state.get(key, name).unwrap();
        let text = |value: Bytes| String::from_utf8(value.to_vec()).unwrap();
        let first = records.first().map(|(key, _)| key.clone());
        let found = first
            .as_ref()
            .filter(|_| is("sum"))
            .and_then(|key| read(key, "n"));
        let call = Call {
            module: module.to_owned(),
            version: format!("{}:{}", context.function, context.version),
            noted: (
                invocation.owner.function.to_string(),
                invocation.mapping.as_deref().map(str::to_owned),
            ),
            records: records.iter().map(|(_, data)| data.clone()).collect(),
            request: context.request_id.clone(),
            attempt: context.attempt,
            now: invocation.now,
            seed: invocation.seed,
            window: (context.window_state.clone(), context.flags),
            found: found.map(|(value, _)| text(value)),
            at: NOW,
        };
        self.calls.lock().unwrap().push(call);
        assert!(!is("panic"), "a bug in the host");
        if is("throttle") {
            let reason = "no room".into();
            return report(Outcome::Throttled { reason }, Effects::default());
        }
        if is("trap") || (is("once") && context.attempt == 1) {
            let cause = Cause::Trap {
                trap: "unreachable".into(),
                message: "an \u{1b}[31mevil text".into(),
                frames: Vec::new(),
            };
            let record = Some(0).filter(|_| !records.is_empty());
            return report(
                Outcome::Failed(Failure { cause, record }),
                Effects::default(),
            );
        }
        let mut effects = Effects::default();
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for (at, (key, _)) in (0..).zip(&records) {
            let tag = Some(at);
            let add = CounterAdd {
                name: "done".into(),
                amount: count as i64,
            };
            effects.counters.push((tag, add));
            let mut write = |name: &str, value: Option<String>| {
                let (key, name) = (key.as_str().into(), name.into());
                let value = value.map(Bytes::from);
                effects.state.push((tag, StateWrite { key, name, value }));
            };
            if is("sum") {
                let sum = sums.entry(key.clone()).or_insert_with(|| {
                    let found = read(key, "n");
                    effects.reads.push(StateRead {
                        key: key.as_str().into(),
                        name: "n".into(),
                        revision: found.as_ref().map(|f| f.1),
                        first_record: at,
                    });
                    found.map_or(0, |(value, _)| text(value).parse().unwrap())
                });
                *sum += 1;
                write("n", Some(sum.to_string()));
            }
            if is("blind") {
                write("b", Some("x".into()));
            }
            if is("delete") {
                write("b", None);
            }
            if is("look") {
                read(key, "b");
            }
            for _ in 0..if is("flood") {
                1000
            } else {
                usize::from(is("emit"))
            } {
                let emit = Emit {
                    stream: if is("flood") { "nowhere" } else { "in" }.into(),
                    key: key.as_str().into(),
                    data: Bytes::from_static(b"emitted"),
                };
                effects.emits.push((tag, emit));
            }
        }
        if is("named") {
            let (failed, text) = (vec![0], String::new());
            return report(Outcome::Partial { failed, text }, effects);
        }
        let said = module.split(' ').find_map(|w| w.strip_prefix("say="));
        let state = match context.window.1 {
            UnixMillis(0) => String::new(),
            _ => format!(
                "{}",
                context.window_state.parse().unwrap_or(0) + records.len()
            ),
        };
        let text = said.map_or(state, str::to_owned);
        match is("json") {
            true => report(Outcome::Json { text }, effects),
            false => report(ok(text), effects),
        }
    }

    /// What this module was given.
    fn calls(&self, of: &str) -> Vec<Call> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|c| c.module == of).cloned().collect()
    }
}

/// A world with a stream of one shard and version 1, 2, … of `f`.
async fn world(modules: &[&str]) -> (World, Arc<Words>) {
    let clock = Clock::starting_at(NOW);
    let store: Arc<dyn Store> = Arc::new(Memory::new(Arc::new(move || clock.now())));
    let world = World::over(store, BATCH, clock);
    world.create_stream("in", 1).await;
    let (world, words) = again(world);
    for module in modules {
        deploy(&world, "f", module).await;
    }
    (world, words)
}

/// The same store in a host of its own, as after a restart.
fn again(mut world: World) -> (World, Arc<Words>) {
    let words = Arc::new(Words::default());
    let sandbox: Arc<dyn Sandbox> = words.clone();
    let functions = Functions::new(world.store.clone(), sandbox.clone(), world.clock);
    world.functions = Arc::new(functions);
    let functions = world.functions.clone();
    world.mappings = Mappings::new(world.store.clone(), sandbox, functions, world.clock);
    (world, words)
}

async fn deploy(world: &World, function: &str, module: &str) {
    let wasm = Bytes::from(module.to_owned());
    let (functions, scope) = (&world.functions, scope());
    let deployed = functions.deploy(&scope, function, wasm, FunctionSettings::default());
    deployed.await.unwrap();
}

fn beside(shadow: &str, batch_size: u32) -> Policy {
    Policy {
        shadow: Some(Shadow::of(shadow)),
        ..policy(batch_size)
    }
}

/// The mapping `m` of version 1 of `f`.
async fn map(world: &World, policy: Policy) {
    let request = CreateMapping {
        function: "f:1".into(),
        ..request(policy)
    };
    world.mappings.create(&scope(), request).await.unwrap();
}

fn told(world: &World) -> ShadowReport {
    world.mappings.shadow(&scope(), "m").unwrap()
}

fn numbered(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("r{n}"))
}

/// Waits until all that was shown is compared or dropped.
async fn settled(world: &World) -> ShadowReport {
    world.drained().await;
    let done = |report: &ShadowReport| report.shown == report.compared + report.dropped.total();
    world.until(async |world: &World| done(&told(world))).await;
    told(world)
}

/// A shadow's report of these two versions on 30 records of one key in batches of ten.
async fn compared(primary: &str, shadow: &str) -> ShadowReport {
    let (mut world, _) = world(&[primary, shadow]).await;
    map(&world, beside(":2", 10)).await;
    world.put_all(numbered(30)).await;
    world.start();
    let report = settled(&world).await;
    assert_eq!(report.shown, report.compared, "{report:#?}");
    world.finish().await;
    report
}

#[tokio::test(start_paused = true)]
async fn a_shadow_sees_what_the_primary_saw_and_leaves_nothing() {
    let (mut world, words) = world(&["sum fuel=10", "sum fuel=30 count=2 emit"]).await;
    map(&world, beside(":2", 10)).await;
    world.put_all(numbered(30)).await;
    world.start();
    let report = settled(&world).await;
    let (primary, shadow) = (
        words.calls("sum fuel=10"),
        words.calls("sum fuel=30 count=2 emit"),
    );
    assert_eq!((primary.len(), shadow.len()), (3, 3));
    for (own, other) in primary.iter().zip(&shadow) {
        let as_own = Call {
            module: own.module.clone(),
            version: own.version.clone(),
            noted: own.noted.clone(),
            ..other.clone()
        };
        assert_eq!(*own, as_own, "the same input but for the version");
        assert_eq!(
            (own.version.as_str(), other.version.as_str()),
            ("f:1", "f:2")
        );
    }
    let noted = |call: &Call| call.noted.1.clone().unwrap();
    assert_eq!(
        (noted(&primary[0]), noted(&shadow[0])),
        ("m".into(), "m (shadow)".into())
    );
    let found: Vec<_> = shadow.iter().map(|c| c.found.as_deref()).collect();
    assert_eq!(
        found,
        [None, Some("10"), Some("20")],
        "state before each batch"
    );

    let counts = (
        report.compared,
        report.equal,
        report.different,
        report.uncertain,
    );
    assert_eq!(counts, (3, 0, 3, 0));
    let kinds: Vec<_> = report.kinds.iter().filter(|(_, n)| **n > 0).collect();
    assert_eq!(kinds, [(&"counters", &3), (&"emits", &3)]);
    assert_eq!((report.primary.fuel, report.shadow.fuel), (300, 900));
    assert_eq!(
        (
            report.primary.fuel_per_record,
            report.shadow.fuel_per_record
        ),
        (10, 30)
    );
    assert_eq!(
        (report.fuel_ratio_p50, report.fuel_ratio_p99),
        (Some(3.0), Some(3.0))
    );
    let emits = report
        .differences
        .iter()
        .find(|d| d.what == "emits")
        .unwrap();
    let number = world.sequence_number(1).await.to_string();
    assert_eq!(
        (&emits.sequence_number, emits.partition_key.as_str()),
        (&number, "k")
    );
    assert_eq!(
        (emits.primary.as_str(), emits.shadow.as_str()),
        ("nothing", "in k: emitted")
    );
    assert_eq!(report.versions.len(), 1);
    let pair = &report.versions[0];
    assert_eq!(
        (pair.primary.as_str(), pair.shadow.as_str(), pair.compared),
        ("f:1", "f:2", 3)
    );

    let view = world.view().await;
    assert_eq!(world.counter("done"), 30);
    assert_eq!(
        (
            view.metrics.invocations,
            view.metrics.fuel,
            view.metrics.errors
        ),
        (3, 300, 0)
    );
    assert_eq!(
        view.shadow.map(|s| (s.compared, s.different, s.dropped)),
        Some((3, 3, 0))
    );
    let end = world
        .store
        .seek(shard_zero(&world), Seek::Latest)
        .await
        .unwrap();
    assert_eq!(end, 31, "nothing was emitted");
    world.finish().await;
}

fn shard_zero(world: &World) -> shardmill_core::ShardKey {
    shardmill_core::ShardKey {
        stream: world.stream().id,
        shard: shardmill_core::ShardId(0),
    }
}

#[tokio::test(start_paused = true)]
async fn versions_that_do_the_same_are_equal_and_others_are_told_apart() {
    /// Both versions; equal, different, uncertain batches; failed only in the shadow, only in the
    /// primary; what differs.
    type Case = (
        &'static str,
        &'static str,
        [u64; 5],
        &'static [&'static str],
    );
    let cases: [Case; 9] = [
        ("sum", "sum fuel=99", [3, 0, 0, 0, 0], &[]),
        ("sum", "sum say=hello", [0, 3, 0, 0, 0], &["answer"]),
        ("sum", "trap", [0, 3, 0, 3, 0], &["outcome"]),
        ("sum", "blind", [0, 3, 0, 0, 0], &["state"]),
        ("plain", "look", [3, 0, 0, 0, 0], &[]),
        // The value that the primary has written is all that there is by then.
        ("blind", "blind look", [0, 0, 3, 0, 0], &[]),
        ("delete", "delete look", [0, 0, 3, 0, 0], &[]),
        ("plain", "plain json", [3, 0, 0, 0, 0], &[]),
        ("plain", "flood", [0, 3, 0, 3, 0], &["outcome"]),
    ];
    for (primary, shadow, want, differ) in cases {
        let report = compared(primary, shadow).await;
        let counts = [
            report.equal,
            report.different,
            report.uncertain,
            report.failed_only_in_shadow,
            report.failed_only_in_primary,
        ];
        assert_eq!(counts, want, "{primary} / {shadow}: {report:#?}");
        let kinds = report.kinds.iter().filter(|(_, n)| **n > 0);
        let kinds: Vec<_> = kinds.map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, differ, "{primary} / {shadow}");
    }
}

/// What of a mapping a shadow must not change: what its own version was given and when, its figures,
/// its errors, what was given up.
async fn outcome_of(modules: &[&str], policy: Policy, records: usize) -> (String, ShadowTrace) {
    let (mut world, words) = world(modules).await;
    map(&world, policy).await;
    world
        .put((0..records).map(|n| (format!("k{}", n % 7), format!("r{n}"))))
        .await;
    world.start();
    world.drained().await;
    let took = world.clock.now().since(NOW);
    let view = world.view().await;
    let calls: Vec<_> = words
        .calls(modules[0])
        .into_iter()
        .map(|c| (c.records, c.now))
        .collect();
    let trace = format!(
        "{took:?} {:?} {} {:?} {:?} {:?} {:?} {:?} {calls:?}",
        view.metrics,
        view.last_processing_result,
        view.circuit,
        view.roll_back,
        view.shards[0].last_error,
        view.state,
        world.failures().len(),
    );
    let report = world.mappings.shadow(&scope(), "m").ok();
    world.finish().await;
    (trace, report)
}

type ShadowTrace = Option<ShadowReport>;

#[tokio::test(start_paused = true)]
async fn a_hostile_shadow_leaves_the_primary_untouched() {
    let plain = Policy {
        circuit_breaker: 2,
        roll_back_failure_percent: 50,
        roll_back_batches: 5,
        parallelization_factor: 2,
        ..policy(5)
    };
    let own = "sum takes=7";
    let (want, _) = outcome_of(&[own], plain.clone(), 200).await;
    for hostile in [
        "trap",
        "panic",
        "throttle",
        "flood",
        "named",
        "delete",
        "takes=86400000",
        "json say={",
        "fuel=1000000000000",
    ] {
        let policy = Policy {
            shadow: Some(Shadow::of(":2")),
            ..plain.clone()
        };
        let (trace, report) = outcome_of(&[own, hostile], policy, 200).await;
        assert_eq!(trace, want, "{hostile}");
        let report = report.unwrap();
        assert!(report.shown >= 40, "{hostile}: {report:#?}");
        let ended = report.compared + report.dropped.total() + report.waiting;
        assert!(report.shown - ended <= 1, "{hostile}: {report:#?}");
        let problem = report.problem.map_or_else(String::new, |p| p.message);
        assert_eq!(problem.contains("a bug in the host"), hostile == "panic");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_shadow_costs_the_primary_nothing_and_what_it_misses_is_counted() {
    let (want, _) = outcome_of(&["sum"], policy(1), 600).await;
    let (trace, report) = outcome_of(&["sum", "sum takes=1000"], beside(":2", 1), 600).await;
    assert_eq!(trace, want);
    let report = report.unwrap();
    assert_eq!(report.shown, 600);
    assert!(report.dropped.queue_full > 500, "{report:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_shadow_burns_no_more_fuel_than_it_may() {
    let (mut world, words) = world(&["sum takes=100", "sum fuel=500000"]).await;
    let policy = Policy {
        shadow: Some(Shadow {
            fuel_per_second: 1_000_000,
            ..Shadow::of(":2")
        }),
        ..policy(1)
    };
    map(&world, policy).await;
    world.put_all(numbered(200)).await;
    world.start();
    let report = settled(&world).await;
    // 200 batches in 20 s; two of them a second, and a second's worth to begin with.
    assert_eq!(words.calls("sum fuel=500000").len() as u64, report.compared);
    assert!((38..=43).contains(&report.compared), "{report:#?}");
    assert_eq!(report.dropped.fuel, 200 - report.compared);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_shadow_gives_way_to_attempts_that_wait_for_room() {
    let (mut world, words) = world(&["sum", "sum takes=60000"]).await;
    map(&world, beside(":2", 1)).await;
    world.start();
    world.put_all(numbered(1)).await;
    world.drained().await;
    world
        .until(async |_: &World| words.calls("sum takes=60000").len() == 1)
        .await;
    words.waiting.store(1, SeqCst);
    tokio::time::sleep(Duration::from_millis(25)).await;
    assert_eq!(told(&world).dropped.no_room, 1, "cut off within 20 ms");
    world.put_all(numbered(1)).await;
    let report = settled(&world).await;
    assert_eq!((report.dropped.no_room, report.compared), (2, 0));
    assert_eq!(
        words.calls("sum takes=60000").len(),
        1,
        "the second one never began"
    );
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn only_its_share_of_the_batches_is_shown_and_only_first_attempts() {
    let (mut world, words) = world(&["once", "plain"]).await;
    let policy = Policy {
        shadow: Some(Shadow {
            percent: 30,
            ..Shadow::of(":2")
        }),
        bisect_batch_on_function_error: false,
        ..policy(1)
    };
    map(&world, policy).await;
    world.put_all(numbered(400)).await;
    world.start();
    let report = settled(&world).await;
    assert!((70..170).contains(&report.shown), "{report:#?}");
    let shown = words.calls("plain");
    assert!(shown.iter().all(|call| call.attempt == 1));
    let ids: BTreeSet<_> = shown.iter().map(|call| &call.request).collect();
    assert_eq!(ids.len(), shown.len(), "no batch twice");
    assert_eq!(report.failed_only_in_primary, report.compared);
    assert_eq!(words.calls("once").len(), 800);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_shadow_whose_version_is_deleted_says_so_and_can_be_replaced() {
    let (mut world, _) = world(&["sum", "blind", "plain"]).await;
    map(&world, beside(":2", 10)).await;
    world.start();
    world.put_all(numbered(10)).await;
    assert_eq!(settled(&world).await.compared, 1);
    world
        .functions
        .delete_version(&scope(), "f", 2)
        .await
        .unwrap();
    let problem = told(&world).problem.expect("a problem");
    assert!(problem.message.contains("has no version 2"), "{problem:?}");
    world.put_all(numbered(10)).await;
    let report = settled(&world).await;
    assert_eq!((report.compared, report.dropped.unavailable), (1, 1));
    assert_eq!(world.counter("done"), 20);

    // Other settings can still be changed; a version that is not there cannot be set.
    world.change_policy(beside(":2", 5)).await;
    let change = UpdateMapping {
        policy: Some(beside(":9", 5)),
        ..UpdateMapping::default()
    };
    let refused = world
        .mappings
        .update(&scope(), "m", change)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("no version 9"), "{refused}");
    world.change_policy(beside(":3", 5)).await;
    world
        .until(async |w: &World| w.view().await.state == MappingState::Enabled)
        .await;
    world.put_all(numbered(10)).await;
    let report = settled(&world).await;
    assert_eq!((report.function.as_str(), report.compared), ("f:3", 2));
    assert_eq!(
        (report.dropped.total(), report.problem),
        (0, None),
        "counted anew"
    );

    world.change_policy(policy(5)).await;
    let gone = world.mappings.shadow(&scope(), "m").unwrap_err();
    assert!(gone.to_string().contains("has no shadow"), "{gone}");
    assert!(world.view().await.shadow.is_none());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_shadow_that_spins_holds_up_no_change_and_no_stop() {
    let (mut world, _) = world(&["sum", "takes=86400000", "plain"]).await;
    map(&world, beside(":2", 10)).await;
    world.start();
    world.put_all(numbered(10)).await;
    world.drained().await;
    let before = world.clock.now();
    world.change_policy(beside(":3", 10)).await;
    world
        .until(async |w: &World| w.view().await.state == MappingState::Enabled)
        .await;
    assert!(world.clock.now().since(before) < Duration::from_secs(1));
    world.put_all(numbered(10)).await;
    assert_eq!(settled(&world).await.compared, 1);
    world.change_policy(beside(":2", 10)).await;
    world
        .until(async |w: &World| w.view().await.state == MappingState::Enabled)
        .await;
    world.put_all(numbered(10)).await;
    world.drained().await;
    let before = world.clock.now();
    let clock = world.clock;
    world.mappings.delete(&scope(), "m").await.unwrap();
    world.until_gone().await;
    world.finish().await;
    assert!(clock.now().since(before) < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn another_function_may_run_beside_and_sees_the_mappings_state() {
    let (mut world, words) = world(&["sum"]).await;
    deploy(&world, "g", "sum count=1 fuel=7").await;
    map(&world, beside("g", 10)).await;
    world.start();
    world.put_all(numbered(20)).await;
    let report = settled(&world).await;
    assert_eq!((report.equal, report.function.as_str()), (2, "g"));
    let calls = words.calls("sum count=1 fuel=7");
    assert!(calls.iter().all(|c| c.noted.0 == "g"), "it pays itself");
    let found: Vec<_> = calls.iter().map(|c| c.found.as_deref()).collect();
    assert_eq!(found, [None, Some("10")]);
    assert!(world.store.counters(&scope(), "g").unwrap().is_empty());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn in_a_window_the_shadow_gets_the_primarys_state_each_time() {
    let (mut world, words) = world(&["sum", "sum fuel=3 say=7"]).await;
    let policy = Policy {
        tumbling_window: Duration::from_secs(10),
        ..beside(":2", 1)
    };
    map(&world, policy).await;
    world.start();
    world.put_all(numbered(3)).await;
    world.drained().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let report = settled(&world).await;
    let windows = |of: &str| {
        let calls = words.calls(of).into_iter();
        calls.map(|c| c.window).collect::<Vec<_>>()
    };
    let own = windows("sum");
    assert_eq!(
        windows("sum fuel=3 say=7"),
        own,
        "the final invocation, too"
    );
    assert_eq!(own.last().unwrap().1 & 1, 1, "{own:?}");
    assert_eq!(report.kinds["answer"], report.compared, "{report:#?}");
    assert_eq!(world.view().await.metrics.windows_closed, 1);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn lanes_splits_and_restarts_show_each_batch_once() {
    let (mut world, words) = world(&["sum", "sum fuel=3"]).await;
    let lanes = Policy {
        parallelization_factor: 4,
        ..beside(":2", 3)
    };
    map(&world, lanes).await;
    world.start();
    let records = |from: usize| (from..from + 60).map(|n| (format!("k{n}"), format!("r{n}")));
    world.put(records(0)).await;
    settled(&world).await;
    world.split_shard().await;
    world.put(records(60)).await;
    world
        .until(async |w: &World| w.counter("done") == 120)
        .await;
    let report = settled(&world).await;
    let own = words.calls("sum").len();
    assert_eq!((report.equal, report.dropped.total()), (own as u64, 0));
    assert_eq!(report.records, 120);
    world.stop.cancel();
    world.running.take().unwrap().await.unwrap();

    let (mut world, words) = again(world);
    world.stop = CancellationToken::new();
    world.start();
    world.put(records(120)).await;
    world
        .until(async |w: &World| w.counter("done") == 180)
        .await;
    let report = settled(&world).await;
    assert_eq!(report.records, 60, "counted since the host started");
    let own = words.calls("sum").len();
    assert_eq!(report.equal, own as u64);
    assert_eq!(world.counter("done"), 180);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn parked_records_that_are_let_go_on_are_not_shown() {
    let (mut world, words) = world(&["once fuel=1", "plain"]).await;
    let policy = Policy {
        on_exhausted: OnExhausted::Park,
        maximum_retry_attempts: Some(0),
        ..beside(":2", 1)
    };
    map(&world, policy).await;
    world.start();
    world.put_all(numbered(1)).await;
    settled(&world).await;
    assert_eq!(world.parked().len(), 1);
    let shown = words.calls("plain").len();
    world.unpark(None).await;
    world.until(async |w: &World| all_rest(w)).await;
    assert!(words.calls("once fuel=1").len() > 1, "it was tried again");
    assert_eq!(words.calls("plain").len(), shown);
    world.finish().await;
}

/// Whether no parked key is on its way.
fn all_rest(world: &World) -> bool {
    world.parked().iter().all(|key| !key.release.releasing)
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_too_large_for_the_shadow_is_left_out() {
    let (mut world, words) = world(&["sum", "plain json"]).await;
    map(&world, beside(":2", 10)).await;
    // 5 MB, of which base64 makes more than 6 MiB.
    let large = (0..5).map(|_| "x".repeat(1_000_000));
    world.put_all(large).await;
    world.start();
    world.put_all(numbered(1)).await;
    let report = settled(&world).await;
    let [own, other] = ["sum", "plain json"].map(|of| words.calls(of).len() as u64);
    assert!(report.dropped.too_large >= 1, "{report:#?}");
    assert_eq!(
        (report.compared, report.dropped.too_large),
        (other, own - other)
    );
    world.finish().await;
}
