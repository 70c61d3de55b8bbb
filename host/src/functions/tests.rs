//! Functions over a store in memory and a sandbox that counts what it loads and runs nothing.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use shardmill_core::UnixMillis;
use shardmill_core::effects::Effects;
use shardmill_core::mapping::Weight;
use shardmill_core::outcome::{Cause, Failure, Outcome};
use shardmill_core::sandbox::{BoxFuture, Carrier, LoadError, Mode, Usage};
use shardmill_store::Memory;

use super::*;

/// Loads every module that does not begin with `broken`; the dry run of one that begins with
/// `poor` fails.
#[derive(Default)]
struct Counting {
    loads: AtomicUsize,
}

struct Text(String, bool);

impl Module for Text {
    fn digest(&self) -> &str {
        &self.0
    }

    fn carrier(&self) -> Carrier {
        Carrier::Packed {
            mode: Mode::Batch,
            uses_state: false,
        }
    }
}

impl Sandbox for Counting {
    fn load(&self, wasm: Bytes) -> BoxFuture<'_, Result<Arc<dyn Module>, LoadError>> {
        self.loads.fetch_add(1, SeqCst);
        let loaded: Result<Arc<dyn Module>, _> = match wasm.starts_with(b"broken") {
            true => Err(LoadError::Invalid("broken".into())),
            false => Ok(Arc::new(Text(
                deploy::digest_of(&wasm),
                wasm.starts_with(b"poor"),
            ))),
        };
        Box::pin(async move { loaded })
    }

    fn invoke(&self, invocation: Invocation) -> BoxFuture<'_, Report> {
        let module: &dyn std::any::Any = invocation.module.as_ref();
        let poor = module.downcast_ref::<Text>().is_some_and(|text| text.1);
        let outcome = match poor {
            true => Outcome::Failed(Failure {
                cause: Cause::EffectsRefused {
                    reason: "poor".into(),
                },
                record: None,
            }),
            false => Outcome::Ok {
                text: String::new(),
            },
        };
        Box::pin(std::future::ready(Report {
            outcome,
            effects: Effects::default(),
            usage: Usage::default(),
            log: Vec::new(),
            record_fuel: Vec::new(),
            stderr_tail: String::new(),
            output_cut_bytes: 0,
        }))
    }
}

struct Bench {
    store: Arc<dyn Store>,
    sandbox: Arc<Counting>,
    functions: Functions,
    scope: Scope,
}

impl Bench {
    fn new() -> Self {
        let clock = Clock::starting_at(UnixMillis(1_700_000_000_000));
        let store: Arc<dyn Store> = Arc::new(Memory::new(Arc::new(move || clock.now())));
        let sandbox = Arc::new(Counting::default());
        let functions = Functions::new(Arc::clone(&store), sandbox.clone(), clock);
        Self {
            store,
            sandbox,
            functions,
            scope: Scope::default(),
        }
    }

    async fn deploy(&self, wasm: &'static str) -> Result<Arc<Function>, DeployError> {
        let settings = FunctionSettings::default();
        let wasm = Bytes::from_static(wasm.as_bytes());
        self.functions
            .deploy(&self.scope, "f", wasm, settings)
            .await
    }

    /// Deploys to `$LATEST` alone.
    async fn change(&self, wasm: &'static str) -> Arc<Function> {
        let deploy = Deploy {
            wasm: Bytes::from_static(wasm.as_bytes()),
            settings: FunctionSettings::default(),
            publish: false,
        };
        let changed = self.functions.update(&self.scope, "f", deploy).await;
        changed.expect("a module that loads")
    }

    async fn alias(&self, version: u64, second: Option<(u64, f64)>) -> Result<Alias, AliasError> {
        let share = |share| Weight::try_from(share).expect("a weight");
        let spec = AliasSpec {
            version,
            second: second.map(|(version, weight)| (version, share(weight))),
            description: String::new(),
        };
        let named = ("f", "live");
        self.functions
            .set_alias(&self.scope, named, spec, false)
            .await
    }

    /// The versions that a name stands for.
    fn numbers(&self, name: &str) -> Result<Vec<u64>, String> {
        let named: FunctionRef = name.parse().expect("a name");
        let route = self.functions.route(&self.scope, &named);
        Ok(route.map_err(|e| e.to_string())?.numbers())
    }

    fn loads(&self) -> usize {
        self.sandbox.loads.load(SeqCst)
    }
}

#[tokio::test]
async fn a_deploy_makes_the_next_version_and_versions_never_change() {
    let bench = Bench::new();
    let first = bench.deploy("one").await.expect("a deploy");
    let second = bench.deploy("two").await.expect("a deploy");
    assert_eq!((first.version, second.version), (1, 2));
    let again = bench.deploy("two").await.expect("the same");
    assert_eq!(
        (again.version, bench.loads()),
        (2, 2),
        "nothing is loaded again"
    );
    let versions = bench
        .functions
        .versions(&bench.scope, "f")
        .expect("versions");
    assert_eq!(versions, [first.as_ref().clone(), second.as_ref().clone()]);
    let old = bench
        .deploy("one")
        .await
        .expect("an old module, deployed anew");
    assert_eq!(old.version, 3);
}

#[tokio::test]
async fn latest_changes_alone_until_it_is_published() {
    let bench = Bench::new();
    bench.deploy("one").await.expect("a deploy");
    let changed = bench.change("two").await;
    assert_eq!((changed.version, changed.label()), (0, "$LATEST".into()));
    let other = bench.change("three").await;
    assert_ne!(changed.number(), other.number(), "they are told apart");
    let versions = bench
        .functions
        .versions(&bench.scope, "f")
        .expect("versions");
    assert_eq!(versions.len(), 1);
    let publish = || bench.functions.publish(&bench.scope, "f", "said".into());
    let published = publish().await.expect("a version");
    assert_eq!(
        (published.version, published.description.as_str()),
        (2, "said")
    );
    assert_eq!(publish().await.expect("the same").version, 2);
    let stored = bench.functions.version(&bench.scope, "f", 2);
    assert_eq!(stored.expect("a version"), *published);
    assert_eq!(published.digest, other.digest);
}

#[tokio::test]
async fn an_alias_names_one_version_or_two_that_share() {
    let bench = Bench::new();
    bench.deploy("one").await.expect("a deploy");
    bench.deploy("two").await.expect("a deploy");
    assert_eq!(
        bench.numbers("f:live"),
        Err("function \"f\" has no alias \"live\"".into())
    );
    bench.alias(1, None).await.expect("an alias");
    assert_eq!(bench.numbers("f:live"), Ok(vec![1]));
    bench.alias(1, Some((2, 0.1))).await.expect("an alias");
    assert_eq!(bench.numbers("f:live"), Ok(vec![1, 2]));
    bench.alias(1, Some((2, 0.0))).await.expect("an alias");
    assert_eq!(bench.numbers("f:live"), Ok(vec![1]), "a share of nothing");
    bench.alias(1, Some((2, 1.0))).await.expect("an alias");
    assert_eq!(bench.numbers("f:live"), Ok(vec![2]), "a share of all");
    bench.alias(0, None).await.expect("an alias");
    assert_eq!(bench.numbers("f:live"), Ok(vec![2]), "$LATEST");
    bench.deploy("three").await.expect("a deploy");
    assert_eq!(bench.numbers("f:live"), Ok(vec![3]), "it goes with $LATEST");
    for (version, second, why) in [
        (9, None, "function \"f\" has no version 9"),
        (1, Some((9, 0.5)), "function \"f\" has no version 9"),
        (1, Some((1, 0.5)), "version 1 is the alias's own"),
        (0, Some((1, 0.5)), "$LATEST cannot share"),
    ] {
        let refused = bench
            .alias(version, second)
            .await
            .expect_err(why)
            .to_string();
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!(
        bench.numbers("f:live"),
        Ok(vec![3]),
        "what was refused changed nothing"
    );
}

#[tokio::test]
async fn a_version_goes_unless_something_names_it_and_its_number_is_not_used_again() {
    let bench = Bench::new();
    for module in ["one", "two", "three"] {
        bench.deploy(module).await.expect("a deploy");
    }
    bench.alias(1, Some((2, 0.5))).await.expect("an alias");
    let delete = |version| bench.functions.delete_version(&bench.scope, "f", version);
    for (version, why) in [
        (1, "named by alias \"live\""),
        (2, "named by alias \"live\""),
        (3, "what $LATEST runs"),
        (4, "has no version 4"),
    ] {
        let refused = delete(version).await.expect_err(why).to_string();
        assert!(refused.contains(why), "{refused}");
    }
    bench.alias(1, None).await.expect("an alias");
    let gone = delete(2).await.expect("it goes");
    let kept = async || {
        let wasm = bench.functions.wasm(&bench.scope, &gone.digest).await;
        wasm.expect("a read").is_some()
    };
    assert!(kept().await);
    let removed = bench.functions.remove_module(&bench.scope, &gone.digest);
    removed.await.expect("its module goes");
    assert!(!kept().await);
    let first = bench
        .functions
        .version(&bench.scope, "f", 1)
        .expect("it stays");
    let removed = bench.functions.remove_module(&bench.scope, &first.digest);
    removed.await.expect("nothing to do");
    let wasm = bench.functions.wasm(&bench.scope, &first.digest).await;
    assert!(wasm.expect("a read").is_some(), "a version runs it");
    bench.change("four").await;
    delete(3).await.expect("$LATEST is another one");
    let next = bench.functions.publish(&bench.scope, "f", String::new());
    assert_eq!(next.await.expect("a version").version, 4);
}

#[tokio::test]
async fn a_deploy_that_fails_leaves_what_runs_and_says_why_until_one_succeeds() {
    let bench = Bench::new();
    bench.deploy("one").await.expect("a deploy");
    let failed = || {
        let record = bench
            .functions
            .record(&bench.scope, "f")
            .expect("the function");
        assert_eq!(record.latest.version, 1);
        record.failed_deploy.map(|failed| failed.reason)
    };
    for (module, why) in [
        ("broken", "not a usable WebAssembly module: broken"),
        ("poor", "the dry run of an empty batch failed: "),
    ] {
        bench.deploy(module).await.expect_err(module);
        let reason = failed().expect("a reason");
        assert!(reason.starts_with(why), "{reason}");
        assert_eq!(bench.numbers("f"), Ok(vec![1]));
    }
    bench.deploy("one").await.expect("what runs");
    assert_eq!(failed(), None);
    let note = bench
        .functions
        .note_failed(&bench.scope, "f", "no file".into());
    note.await;
    assert_eq!(failed().as_deref(), Some("no file"));
    assert_eq!(
        bench.deploy("two").await.expect("a deploy").version,
        2,
        "no number is lost"
    );
}

#[tokio::test]
async fn what_is_held_in_memory_is_bounded_and_loaded_again_when_it_is_needed() {
    const FUNCTIONS: usize = 700;
    let bench = Bench::new();
    let name = |n: usize| format!("f{n}");
    for n in 0..FUNCTIONS {
        let wasm = Bytes::from(format!("module {n}"));
        let (functions, settings) = (&bench.functions, FunctionSettings::default());
        let name = name(n);
        let deployed = functions.deploy(&bench.scope, &name, wasm, settings);
        deployed.await.expect("a deploy");
    }
    let before = bench.loads();
    let newest = bench
        .functions
        .get(&bench.scope, &name(FUNCTIONS - 1))
        .await;
    newest.expect("it is held");
    assert_eq!(bench.loads(), before);
    let oldest = bench.functions.get(&bench.scope, &name(0)).await;
    assert_eq!(oldest.expect("it is loaded").function.name, name(0));
    assert_eq!(bench.loads(), before + 1);
    let module = Arc::downgrade(
        &bench
            .functions
            .get(&bench.scope, &name(1))
            .await
            .expect("f1"),
    );
    for n in 2..FUNCTIONS {
        bench
            .functions
            .get(&bench.scope, &name(n))
            .await
            .expect("a function");
    }
    assert!(module.upgrade().is_none(), "nothing of it is held");
    let in_use = bench
        .functions
        .get(&bench.scope, &name(1))
        .await
        .expect("f1");
    for n in 2..FUNCTIONS {
        bench
            .functions
            .get(&bench.scope, &name(n))
            .await
            .expect("a function");
    }
    let again = bench
        .functions
        .get(&bench.scope, &name(1))
        .await
        .expect("f1");
    assert!(
        Arc::ptr_eq(&in_use, &again),
        "what is at work is not loaded twice"
    );
}

#[tokio::test]
async fn reloads_leave_few_old_versions_in_memory() {
    let bench = Bench::new();
    let mut modules = Vec::new();
    for n in 0..20 {
        let wasm = Bytes::from(format!("module {n}"));
        let settings = FunctionSettings::default();
        let deployed = bench.functions.deploy(&bench.scope, "f", wasm, settings);
        deployed.await.expect("a deploy");
        let loaded = bench.functions.get(&bench.scope, "f").await.expect("f");
        modules.push(Arc::downgrade(&loaded.module));
    }
    let held = modules.iter().filter(|module| module.strong_count() > 0);
    assert_eq!(held.count(), 4);
}

#[tokio::test]
async fn a_function_that_was_made_again_does_not_run_the_old_module() {
    let bench = Bench::new();
    let old = bench.deploy("one").await.expect("a deploy");
    let digests = bench
        .functions
        .delete(&bench.scope, "f")
        .await
        .expect("it goes");
    assert_eq!(digests, std::slice::from_ref(&old.digest));
    assert!(
        bench
            .functions
            .versions(&bench.scope, "f")
            .expect("a read")
            .is_empty()
    );
    let new = bench.deploy("two").await.expect("a deploy");
    assert_eq!(new.version, 1);
    let loaded = bench
        .functions
        .get(&bench.scope, "f")
        .await
        .expect("the function");
    assert_eq!(loaded.module.digest(), new.digest);
}

#[tokio::test]
async fn what_an_earlier_host_stored_is_read() {
    let bench = Bench::new();
    bench.deploy("one").await.expect("a deploy");
    let key = function_key(&bench.scope, "f");
    let stored = bench
        .store
        .get(&key)
        .expect("a read")
        .expect("the function");
    let mut json: serde_json::Value = serde_json::from_slice(&stored.value).expect("json");
    let record = json.as_object_mut().expect("an object");
    record.remove("update");
    record.remove("newest");
    record.insert("version".into(), 7.into());
    let version = keys::version_key(&bench.scope, "f", 1);
    let tx = Tx {
        writes: vec![
            (key, Value::Inline(to_json(&json))),
            (version, Value::Delete),
        ],
        ..Tx::default()
    };
    bench.store.commit(tx).await.expect("a commit");
    bench.functions.cache().changed(&bench.scope, "f");
    assert_eq!(bench.numbers("f"), Ok(vec![7]));
    assert_eq!(bench.deploy("two").await.expect("a deploy").version, 8);
}
