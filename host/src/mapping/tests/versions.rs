//! Versions in a mapping: reloads under load, aliases with weights, roll-backs.

use std::collections::BTreeSet;

use shardmill_core::mapping::Weight;

use super::*;
use crate::functions::AliasSpec;

fn scope() -> Scope {
    Scope::default()
}

/// What a handler was given: the version that the host named, the module that ran, the request,
/// the records, and whether it failed.
#[derive(Clone, Debug)]
struct Call {
    version: String,
    module: String,
    request: String,
    records: Vec<String>,
    failed: bool,
}

/// A sandbox whose modules are texts: one that begins with `bad` fails every batch, one that begins
/// with `once` the first attempt at each. Records that are done add one to `done`.
#[derive(Default)]
struct Texts {
    calls: Mutex<Vec<Call>>,
}

struct Text(String);

impl Module for Text {
    fn digest(&self) -> &str {
        &self.0
    }
    fn carrier(&self) -> Carrier {
        BATCH
    }
}

impl Sandbox for Texts {
    fn load(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        let text = String::from_utf8(wasm.to_vec()).unwrap();
        Box::pin(async move {
            // A compile takes its time.
            tokio::time::sleep(Duration::from_millis(3)).await;
            Ok(Arc::new(Text(text)) as Arc<dyn Module>)
        })
    }

    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        let Input::Records(batch) = &invocation.input else {
            unreachable!("a packed handler");
        };
        let records: Vec<String> = batch
            .iter()
            .map(|r| String::from_utf8_lossy(r.parts.data).into_owned())
            .collect();
        let context = &invocation.context;
        let module = invocation.module.digest().to_owned();
        let first = context.attempt == 1;
        let failed = !records.is_empty()
            && (module.starts_with("bad") || (module.starts_with("once") && first));
        if !records.is_empty() {
            self.calls.lock().unwrap().push(Call {
                version: context.version.clone(),
                module,
                request: context.request_id.clone(),
                records: records.clone(),
                failed,
            });
        }
        let mut effects = Effects::default();
        let outcome = match failed {
            true => failed_at_none(),
            false => {
                effects.counters.push((
                    Some(0),
                    CounterAdd {
                        name: "done".into(),
                        amount: records.len() as i64,
                    },
                ));
                Outcome::Ok {
                    text: String::new(),
                }
            }
        };
        let effects = if records.is_empty() {
            Effects::default()
        } else {
            effects
        };
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            report(outcome, effects)
        })
    }
}

fn failed_at_none() -> Outcome {
    Outcome::Failed(Failure {
        cause: Cause::EffectsRefused {
            reason: "bad".into(),
        },
        record: None,
    })
}

/// A world whose functions are texts, and the texts.
async fn world(shards: u32, module: &str) -> (World, Arc<Texts>) {
    let clock = Clock::starting_at(NOW);
    let store: Arc<dyn Store> = Arc::new(Memory::new(Arc::new(move || clock.now())));
    let world = World::over(store, BATCH, clock);
    world.create_stream("in", shards).await;
    let (world, texts) = again(world);
    deploy(&world, module, 0).await;
    (world, texts)
}

/// The same store in a host of its own, as after a restart.
fn again(mut world: World) -> (World, Arc<Texts>) {
    let texts = Arc::new(Texts::default());
    let sandbox: Arc<dyn Sandbox> = texts.clone();
    let functions = Functions::new(world.store.clone(), sandbox.clone(), world.clock);
    world.functions = Arc::new(functions);
    world.mappings = Mappings::new(
        world.store.clone(),
        sandbox,
        world.functions.clone(),
        world.clock,
    );
    (world, texts)
}

async fn deploy(world: &World, module: &str, state_format: u32) {
    let settings = FunctionSettings {
        state_format,
        ..FunctionSettings::default()
    };
    let wasm = Bytes::from(module.to_owned());
    let (functions, scope) = (&world.functions, scope());
    let deployed = functions.deploy(&scope, "f", wasm, settings);
    deployed.await.unwrap();
}

async fn alias(world: &World, version: u64, second: Option<(u64, f64)>) {
    let second = second.map(|(version, share)| (version, Weight::try_from(share).unwrap()));
    let spec = AliasSpec {
        version,
        second,
        description: String::new(),
    };
    let (functions, scope) = (&world.functions, scope());
    let set = functions.set_alias(&scope, ("f", "live"), spec, false);
    set.await.unwrap();
}

async fn map_to(world: &World, function: &str, policy: Policy) {
    let request = CreateMapping {
        function: function.into(),
        ..request(policy)
    };
    world.mappings.create(&scope(), request).await.unwrap();
}

fn numbered(from: usize, count: usize) -> impl Iterator<Item = (String, String)> {
    (from..from + count).map(|n| (format!("key-{}", n % 97), n.to_string()))
}

#[tokio::test(start_paused = true)]
async fn five_hundred_reloads_under_load_lose_nothing_repeat_nothing_and_fail_nothing() {
    const RELOADS: usize = 500;
    const RECORDS: usize = 12;
    let (mut world, texts) = world(3, "module 0").await;
    let lanes = Policy {
        parallelization_factor: 4,
        ..policy(5)
    };
    map_to(&world, "f", lanes).await;
    world.start();
    for n in 0..RELOADS {
        let put = world.put(numbered(n * RECORDS, RECORDS));
        let name = format!("module {}", n + 1);
        tokio::join!(put, deploy(&world, &name, 0));
    }
    world.drained().await;
    let calls = texts.calls.lock().unwrap().clone();
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for call in &calls {
        assert!(!call.failed, "a batch failed: {call:?}");
        let ran: u64 = call.module["module ".len()..].parse().unwrap();
        assert_eq!(
            call.version,
            (ran + 1).to_string(),
            "the version named is the one that ran"
        );
        for record in &call.records {
            *times.entry(record).or_default() += 1;
        }
    }
    assert_eq!(times.len(), RELOADS * RECORDS, "every record was delivered");
    assert!(times.values().all(|n| *n == 1), "none was delivered twice");
    assert_eq!(world.counter("done"), (RELOADS * RECORDS) as i64);
    let versions: BTreeSet<&str> = calls.iter().map(|c| c.version.as_str()).collect();
    assert!(
        versions.len() > RELOADS / 2,
        "only {} versions ran",
        versions.len()
    );
    let view = world.view().await;
    assert_eq!((view.metrics.errors, view.metrics.retried), (0, 0));
    for shard in &view.shards {
        let last = shard.versions.last().unwrap();
        let of_last: Vec<&Call> = calls.iter().filter(|c| c.version == last.version).collect();
        assert!(!of_last.is_empty(), "{last:?}");
        assert!(last.first_sequence_number.starts_with("49"), "{last:?}");
        assert!((2..=8).contains(&shard.versions.len()));
    }
    assert!(world.failures().is_empty());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_alias_shares_batches_by_weight_and_a_retry_stays_on_its_version() {
    let (mut world, texts) = world(1, "one").await;
    deploy(&world, "once", 0).await;
    alias(&world, 1, Some((2, 0.3))).await;
    map_to(&world, "f:live", policy(1)).await;
    world.put(numbered(0, 600)).await;
    world.start();
    world.drained().await;
    let calls = texts.calls.lock().unwrap().clone();
    let mut of: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for call in &calls {
        of.entry(&call.request).or_default().insert(&call.version);
    }
    assert!(
        of.values().all(|versions| versions.len() == 1),
        "an id stays on its version"
    );
    let second = of
        .values()
        .filter(|versions| versions.contains("2"))
        .count();
    assert!(
        (120..240).contains(&second),
        "{second} of 600 on the second version"
    );
    assert!(calls.iter().filter(|c| c.failed).all(|c| c.version == "2"));
    assert_eq!(world.counter("done"), 600);
    let shard = world.view().await.shards.remove(0);
    let versions: Vec<&str> = shard.versions.iter().map(|v| v.version.as_str()).collect();
    assert_eq!(
        versions.len(),
        2,
        "taking turns is not a new version: {versions:?}"
    );

    alias(&world, 2, None).await;
    world.put(numbered(600, 20)).await;
    world.drained().await;
    let later = texts.calls.lock().unwrap().split_off(calls.len());
    assert!(later.iter().all(|call| call.version == "2"), "{later:?}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_mapping_can_name_a_version_and_stays_on_it() {
    let (mut world, texts) = world(1, "one").await;
    map_to(&world, "f:1", policy(10)).await;
    deploy(&world, "bad", 0).await;
    world.put(numbered(0, 30)).await;
    world.start();
    world.drained().await;
    assert!(
        texts
            .calls
            .lock()
            .unwrap()
            .iter()
            .all(|c| c.module == "one")
    );
    assert_eq!(world.counter("done"), 30);
    for (function, why) in [
        ("f:9", "function \"f\" has no version 9"),
        ("f:live", "function \"f\" has no alias \"live\""),
        ("g", "function \"g\" does not exist"),
        ("f:", "qualifier \"\""),
    ] {
        let request = CreateMapping {
            name: Some("other".into()),
            function: function.into(),
            ..request(policy(1))
        };
        let refused = world.mappings.create(&scope(), request).await.unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
    }
    world.finish().await;
}

/// Records are retried for ever, so that none is lost with a bad version.
fn careful(batches: u32) -> Policy {
    Policy {
        maximum_retry_attempts: None,
        bisect_batch_on_function_error: false,
        roll_back_failure_percent: 50,
        roll_back_batches: batches,
        ..policy(10)
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_fails_is_rolled_back_for_good_and_says_so() {
    let (mut world, texts) = world(2, "good 1").await;
    map_to(&world, "f", careful(10)).await;
    world.start();
    world.put(numbered(0, 40)).await;
    world.drained().await;
    deploy(&world, "bad 2", 0).await;
    world.put(numbered(40, 40)).await;
    world.drained().await;
    let failed = texts
        .calls
        .lock()
        .unwrap()
        .iter()
        .filter(|c| c.failed)
        .count();
    assert!(
        (5..=6).contains(&failed),
        "half of ten batches decide: {failed}"
    );
    assert_eq!(world.counter("done"), 80, "version 1 has done the rest");
    let view = world.view().await;
    let back = view.roll_back.expect("a roll-back");
    assert_eq!((back.from.as_str(), back.to.as_deref()), ("2", Some("1")));
    assert!(
        back.reason.contains("version 2 failed 5 of its first"),
        "{}",
        back.reason
    );
    assert_eq!(view.metrics.roll_backs, 1);
    assert!(world.failures().is_empty());

    world.stop.cancel();
    world.running.take().unwrap().await.unwrap();
    world.stop = CancellationToken::new();
    let (mut world, texts) = again(world);
    world.start();
    world.put(numbered(80, 40)).await;
    world.drained().await;
    assert!(
        texts.calls.lock().unwrap().iter().all(|c| c.version == "1"),
        "after a restart"
    );
    assert!(world.view().await.roll_back.is_some());

    deploy(&world, "good 3", 0).await;
    world.put(numbered(120, 200)).await;
    world.drained().await;
    let view = world.view().await;
    assert_eq!(
        (view.roll_back, view.trials),
        (None, Vec::new()),
        "it has passed"
    );
    assert_eq!(texts.calls.lock().unwrap().last().unwrap().version, "3");
    assert_eq!(world.counter("done"), 320);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_person_who_resumes_has_the_version_tried_once_more() {
    let (mut world, texts) = world(1, "good 1").await;
    map_to(&world, "f", careful(4)).await;
    world.start();
    world.put(numbered(0, 10)).await;
    world.drained().await;
    deploy(&world, "bad 2", 0).await;
    world.put(numbered(10, 10)).await;
    world.drained().await;
    assert!(world.view().await.roll_back.is_some());
    let before = texts.calls.lock().unwrap().len();
    world.mappings.resume(&scope(), "m").await.unwrap();
    assert_eq!(world.view().await.roll_back, None);
    world.put(numbered(20, 10)).await;
    world.drained().await;
    let later = texts.calls.lock().unwrap().split_off(before);
    assert!(
        later.iter().any(|c| c.version == "2" && c.failed),
        "it was tried"
    );
    assert!(world.view().await.roll_back.is_some(), "and failed again");
    assert_eq!(world.counter("done"), 30);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_version_with_another_form_of_state_pauses_the_mapping_instead() {
    let (mut world, texts) = world(2, "good 1").await;
    map_to(&world, "f", careful(4)).await;
    world.start();
    world.put(numbered(0, 40)).await;
    world.drained().await;
    deploy(&world, "bad 2", 7).await;
    world.put(numbered(40, 40)).await;
    let paused = async |world: &World| {
        let shards = world.view().await.shards;
        shards.iter().all(|shard| shard.paused.is_some())
    };
    world.until(paused).await;
    let view = world.view().await;
    let why = view.shards[0].paused.clone().unwrap();
    assert!(why.contains("state_format 0, the newer one 7"), "{why}");
    assert_eq!(view.roll_back.unwrap().to, None);
    assert_eq!(world.counter("done"), 40);
    let calls = texts.calls.lock().unwrap().len();
    deploy(&world, "good 3", 7).await;
    world.drained().await;
    assert!(
        texts
            .calls
            .lock()
            .unwrap()
            .split_off(calls)
            .iter()
            .all(|c| c.version == "3")
    );
    assert_eq!(world.counter("done"), 80, "a newer version lets it go on");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_mapping_that_cannot_go_back_goes_on_when_its_alias_leaves_the_version_out() {
    let (mut world, _) = world(1, "good 1").await;
    deploy(&world, "bad 2", 7).await;
    alias(&world, 1, None).await;
    map_to(&world, "f:live", careful(4)).await;
    world.start();
    world.put(numbered(0, 20)).await;
    world.drained().await;
    alias(&world, 1, Some((2, 0.99))).await;
    world.put(numbered(20, 20)).await;
    let paused = async |world: &World| world.view().await.shards[0].paused.is_some();
    world.until(paused).await;
    alias(&world, 1, None).await;
    world.drained().await;
    assert_eq!(world.counter("done"), 40);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_fails_leaves_all_batches_to_its_neighbour() {
    let (mut world, texts) = world(1, "good 1").await;
    deploy(&world, "bad 2", 0).await;
    alias(&world, 1, None).await;
    map_to(
        &world,
        "f:live",
        Policy {
            batch_size: 1,
            ..careful(6)
        },
    )
    .await;
    world.start();
    world.put(numbered(0, 10)).await;
    world.drained().await;
    alias(&world, 1, Some((2, 0.5))).await;
    world.put(numbered(10, 60)).await;
    world.drained().await;
    let failed = texts
        .calls
        .lock()
        .unwrap()
        .iter()
        .filter(|c| c.failed)
        .count();
    assert_eq!(failed, 3, "half of six");
    let back = world.view().await.roll_back.expect("a roll-back");
    assert_eq!((back.from.as_str(), back.to.as_deref()), ("2", Some("1")));
    alias(&world, 2, Some((1, 0.0))).await;
    assert_eq!(world.view().await.roll_back, None, "the alias was changed");
    assert_eq!(world.counter("done"), 70);
    world.finish().await;
}
