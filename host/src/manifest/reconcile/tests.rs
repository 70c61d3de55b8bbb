//! Manifests against a store in memory and a sandbox that takes every module but one.

use std::path::Path;

use bytes::Bytes;
use shardmill_core::Scope;
use shardmill_core::sandbox::{BoxFuture, Carrier, Invocation, LoadError, Module, Report};
use shardmill_store::Memory;

use super::*;
use crate::workloads::Workloads;

/// Loads every module that does not say that it is broken, and counts; runs none.
#[derive(Default)]
struct Loader(std::sync::atomic::AtomicUsize);

struct Loaded(String);

impl Module for Loaded {
    fn digest(&self) -> &str {
        &self.0
    }

    fn carrier(&self) -> Carrier {
        Carrier::Command
    }
}

impl shardmill_core::Sandbox for Loader {
    fn load(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let digest: String = Sha256::digest(&wasm)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let loaded: Result<Arc<dyn Module>, _> = match wasm.as_ref() {
            b"broken" => Err(LoadError::Invalid("broken".into())),
            _ => Ok(Arc::new(Loaded(digest))),
        };
        Box::pin(async move { loaded })
    }

    fn invoke(&self, _: Invocation) -> BoxFuture<'_, Report> {
        unreachable!("nothing is invoked")
    }
}

struct Bench {
    folder: tempfile::TempDir,
    loader: Arc<Loader>,
    reconciler: Reconciler,
}

impl Bench {
    fn new() -> Self {
        let clock = Clock::system();
        let store: Arc<dyn Store> = Arc::new(Memory::new(Arc::new(move || clock.now())));
        Self::over(store, tempfile::tempdir().expect("a folder"))
    }

    /// The same data and files in a host of its own, as after a restart.
    fn again(self) -> Self {
        Self::over(self.reconciler.store, self.folder)
    }

    fn over(store: Arc<dyn Store>, folder: tempfile::TempDir) -> Self {
        let clock = Clock::system();
        let loader = Arc::new(Loader::default());
        let workloads = Workloads::new(Arc::clone(&store), loader.clone(), clock, None);
        let bench = Self {
            folder,
            loader,
            reconciler: Reconciler {
                store,
                functions: workloads.functions,
                mappings: workloads.mappings,
                clock,
            },
        };
        bench.module("one");
        bench
    }

    fn module(&self, text: &str) {
        std::fs::write(self.folder.path().join("f.wasm"), text).expect("a module");
    }

    fn loads(&self) -> usize {
        self.loader.0.load(std::sync::atomic::Ordering::SeqCst)
    }

    async fn apply(&self, text: &str) -> Summary {
        let path = self.folder.path().join("shardmill.toml");
        let manifest = Manifest::parse(text, Path::new(&path)).expect("a good manifest");
        self.reconciler.reconcile(&manifest).await
    }
}

const WHOLE: &str = r#"
[[stream]]
name = "s"
shards = 2

[[function]]
name = "f"
wasm = "f.wasm"

[[mapping]]
name = "m"
stream = "s"
function = "f"
"#;

fn names(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

#[tokio::test]
async fn a_manifest_is_brought_about_once_and_its_changes_later() {
    let bench = Bench::new();
    let all = names(&["stream \"s\"", "function \"f\"", "mapping \"m\""]);
    assert_eq!(
        bench.apply(WHOLE).await,
        Summary {
            created: all,
            ..Summary::default()
        }
    );
    assert_eq!(
        bench.apply(WHOLE).await,
        Summary::default(),
        "nothing is left to do"
    );

    bench.module("two");
    let changed = WHOLE.replace("shards = 2", "shards = 2\nretention_hours = 48")
        + "batch_size = 7\nenabled = false\n";
    let all = names(&["stream \"s\"", "function \"f\"", "mapping \"m\""]);
    assert_eq!(
        bench.apply(&changed).await,
        Summary {
            updated: all,
            ..Summary::default()
        }
    );
    let mapping = bench
        .reconciler
        .mappings
        .get(&Scope::default(), "m")
        .expect("the mapping");
    assert_eq!((mapping.policy.batch_size, mapping.enabled), (7, false));
    assert_eq!(
        bench.apply(WHOLE).await.updated.len(),
        2,
        "retention and policy go back"
    );
    let mapping = bench
        .reconciler
        .mappings
        .get(&Scope::default(), "m")
        .expect("the mapping");
    assert!(
        !mapping.enabled,
        "a manifest that does not say so starts nothing"
    );
}

#[tokio::test]
async fn a_module_that_does_not_load_leaves_the_old_version() {
    let bench = Bench::new();
    bench.apply(WHOLE).await;
    bench.module("broken");
    let summary = bench.apply(WHOLE).await;
    let [problem] = summary.problems.as_slice() else {
        panic!("one problem: {summary:?}")
    };
    assert!(
        problem.kept
            && problem
                .why
                .ends_with("f.wasm: not a usable WebAssembly module: broken")
    );
    let function = bench.reconciler.functions.describe(&Scope::default(), "f");
    assert_eq!(function.expect("the function").version, 1);
}

#[tokio::test]
async fn what_is_no_longer_named_stays_until_it_is_pruned() {
    let bench = Bench::new();
    bench.apply(WHOLE).await;
    bench
        .apply(
            &WHOLE
                .replace("\"m\"", "\"other\"")
                .replace("\"f\"", "\"g\""),
        )
        .await;
    let left = bench.apply("").await;
    let all = [
        "mapping \"m\"",
        "mapping \"other\"",
        "function \"f\"",
        "function \"g\"",
        "stream \"s\"",
    ];
    assert_eq!(
        left,
        Summary {
            unnamed: names(&all),
            ..Summary::default()
        }
    );
    let pruned = bench.apply("prune = true").await;
    assert_eq!(
        pruned,
        Summary {
            removed: names(&all),
            ..Summary::default()
        }
    );
    assert_eq!(bench.apply("prune = true").await, Summary::default());
    assert!(bench.reconciler.store.streams(None).is_empty());
}

fn shards(bench: &Bench) -> (u32, usize) {
    let stream = &bench.reconciler.store.streams(None)[0];
    (reshard::open_count(stream), stream.shards.len())
}

#[tokio::test]
async fn a_changed_number_of_shards_is_brought_about_in_one_step() {
    let bench = Bench::new();
    bench.apply(WHOLE).await;
    let with = |count| WHOLE.replace("shards = 2", &format!("shards = {count}"));
    for (count, updated) in [(7, 1), (7, 0), (1, 1), (2, 1)] {
        let summary = bench.apply(&with(count)).await;
        assert_eq!(summary.updated.len(), updated, "{count}: {summary:?}");
        assert_eq!(shards(&bench).0, count);
    }
    let stream = Stream::clone(&bench.reconciler.store.streams(None)[0]);
    let (id, now) = (
        stream.open_shards().next().expect("one").id,
        bench.reconciler.clock.now(),
    );
    let split = reshard::split(&stream, id, shardmill_core::HashKey(9), now).expect("a split");
    let split = vec![StreamChange::Update(Box::new(split))];
    bench.reconciler.change(split).await.expect("a split");
    assert_eq!(shards(&bench).0, 3);
    bench.apply(WHOLE).await;
    assert_eq!(shards(&bench).0, 2, "what somebody did by hand is undone");
}

#[tokio::test]
async fn an_on_demand_stream_keeps_its_shards() {
    let bench = Bench::new();
    bench.apply(WHOLE).await;
    let mut stream = Stream::clone(&bench.reconciler.store.streams(None)[0]);
    stream.mode = StreamMode::OnDemand;
    let changes = vec![StreamChange::Update(Box::new(stream))];
    bench.reconciler.change(changes).await.expect("a change");
    let changed = WHOLE.replace("shards = 2", "shards = 5\nretention_hours = 48");
    let summary = bench.apply(&changed).await;
    assert_eq!(summary.updated, names(&["stream \"s\""]), "its retention");
    assert_eq!(shards(&bench), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_and_others_do_not_undo_each_other() {
    let bench = Bench::new();
    bench.apply(WHOLE).await;
    let store = Arc::clone(&bench.reconciler.store);
    let others = tokio::spawn(async move {
        for n in 0..300 {
            loop {
                let mut stream = Stream::clone(&store.streams(None)[0]);
                stream.tags.insert(n.to_string(), String::new());
                let tx = Tx {
                    streams: vec![StreamChange::Update(Box::new(stream))],
                    ..Tx::default()
                };
                match store.commit(tx).await {
                    Ok(_) => break,
                    Err(error) => assert!(matches!(error, CommitError::StreamChanged(_))),
                }
            }
        }
    });
    let mut rounds = 0;
    while !others.is_finished() || rounds < 20 {
        let count = [4, 3, 1, 2][rounds % 4];
        let changed = WHOLE.replace("shards = 2", &format!("shards = {count}"));
        // When others change it all the time, that is said, and the next try brings it about.
        let mut tries = 0;
        while let [problem] = bench.apply(&changed).await.problems.as_slice() {
            assert!(
                problem.why.starts_with("others keep changing it"),
                "{problem:?}"
            );
            tries += 1;
            assert!(tries < 100, "never brought about");
        }
        assert_eq!(shards(&bench).0, count);
        rounds += 1;
    }
    others.await.expect("the others");
    assert_eq!(bench.reconciler.store.streams(None)[0].tags.len(), 300);
}

#[tokio::test]
async fn a_mapping_s_destination_follows_the_manifest() {
    let bench = Bench::new();
    let arn = "arn:aws:sqs:us-east-1:000000000000:dead-letters";
    let to = |destination: &str| format!("{WHOLE}on_failure = \"{destination}\"\n");
    let summary = bench.apply(&to(arn)).await;
    let [problem] = summary.problems.as_slice() else {
        panic!("{summary:?}");
    };
    assert_eq!(problem.item, "mapping \"m\"");
    assert!(problem.why.contains("make it first"), "{}", problem.why);
    let destination = || {
        let mapping = bench.reconciler.mappings.get(&Scope::default(), "m");
        mapping.expect("the mapping").on_failure.map(String::from)
    };
    let queue = "[[queue]]\nname = \"dead-letters\"\n";
    let made = bench.apply(&format!("{}{queue}", to(arn))).await;
    assert_eq!(
        made.created,
        names(&["queue \"dead-letters\"", "mapping \"m\""])
    );
    assert_eq!(destination().as_deref(), Some(arn));
    let changed = bench.apply(&to("file:///srv/given-up")).await;
    assert_eq!(changed.updated, names(&["mapping \"m\""]));
    assert_eq!(destination().as_deref(), Some("file:///srv/given-up"));
    let removed = bench.apply(WHOLE).await;
    assert_eq!(removed.updated, names(&["mapping \"m\""]));
    assert_eq!(destination(), None);
}

#[tokio::test]
async fn a_start_with_a_thousand_functions_loads_none_before_it_is_needed() {
    const FUNCTIONS: usize = 1_000;
    let bench = Bench::new();
    let function = |n: usize| {
        std::fs::write(bench.folder.path().join(format!("{n}.wasm")), n.to_string())
            .expect("a module");
        format!("[[function]]\nname = \"f{n}\"\nwasm = \"{n}.wasm\"\n")
    };
    let manifest: String = (0..FUNCTIONS).map(function).collect();
    assert_eq!(bench.apply(&manifest).await.created.len(), FUNCTIONS);
    assert_eq!(bench.loads(), FUNCTIONS);
    let bench = bench.again();
    assert_eq!(bench.apply(&manifest).await, Summary::default());
    assert_eq!(bench.loads(), 0);
    let functions = &bench.reconciler.functions;
    let loaded = functions.get(&Scope::default(), "f7").await;
    assert_eq!(loaded.expect("the function").function.version, 1);
    assert_eq!(bench.loads(), 1);
}

#[tokio::test]
async fn a_deploy_that_failed_is_shown_until_the_file_is_good_again() {
    let bench = Bench::new();
    bench.apply(WHOLE).await;
    let failed = || {
        let record = bench.reconciler.functions.record(&Scope::default(), "f");
        let record = record.expect("the function");
        assert_eq!(record.latest.version, 1);
        record.failed_deploy.map(|failed| failed.reason)
    };
    bench.module("broken");
    bench.apply(WHOLE).await;
    let broken = Some("not a usable WebAssembly module: broken".to_owned());
    assert_eq!(failed(), broken);
    std::fs::remove_file(bench.folder.path().join("f.wasm")).expect("a file");
    let summary = bench.apply(WHOLE).await;
    assert!(summary.problems[0].kept, "{summary:?}");
    assert!(failed().expect("a reason").contains("No such file"));
    bench.module("one");
    assert_eq!(bench.apply(WHOLE).await, Summary::default());
    assert_eq!(failed(), None);
}

#[tokio::test]
async fn aliases_are_brought_about_changed_and_pruned() {
    let bench = Bench::new();
    let alias = |routing: &str| {
        let (mapped, name) = (
            WHOLE.replace("function = \"f\"", "function = \"f:live\""),
            "live",
        );
        format!("{mapped}\n[[alias]]\nname = \"{name}\"\nfunction = \"f\"\n{routing}")
    };
    let summary = bench.apply(&alias("version = 1\n")).await;
    assert!(
        summary.created.contains(&"alias \"f:live\"".to_owned()),
        "{summary:?}"
    );
    assert!(summary.problems.is_empty(), "{summary:?}");
    assert_eq!(
        bench.apply(&alias("version = 1\n")).await,
        Summary::default()
    );
    bench.module("two");
    bench.apply(&alias("version = 1\n")).await;
    let summary = bench
        .apply(&alias("version = 1\nrouting = { 2 = 0.25 }\n"))
        .await;
    assert_eq!(summary.updated, names(&["alias \"f:live\""]));
    let functions = &bench.reconciler.functions;
    let found = functions
        .alias(&Scope::default(), "f", "live")
        .expect("the alias");
    assert_eq!(
        found.second.map(|s| (s.version, f64::from(s.weight))),
        Some((2, 0.25))
    );
    let summary = bench.apply(&alias("version = 9\n")).await;
    assert!(summary.problems[0].kept && summary.problems[0].why.contains("no version 9"));
    let pruned = format!("prune = true\n{WHOLE}");
    let summary = bench.apply(&pruned).await;
    assert_eq!(summary.removed, names(&["alias \"f:live\""]));
}
