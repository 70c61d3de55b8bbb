//! Hostile modules: each is deployed by the attacker and, if that succeeds, run by a mapping on
//! three records. What must come of it stands in its first lines; `tests/hostile/README.md`
//! describes them.

use std::path::PathBuf;

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::bombs;
use super::expected::Complaints;
use super::site::{ATTACKER, Site};

/// Modules that are tried at a time.
const AT_A_TIME: usize = 4;
/// Bytes of an entry of the failure store without its records, at most: forty frames of the
/// longest name, or the longest message.
const MOST_OF_AN_ENTRY: usize = 64 << 10;
/// Records that each is run on.
const RECORDS: u64 = 3;

/// A module, and what must come of it.
#[derive(Clone)]
pub(super) struct Module {
    pub(super) name: String,
    /// What it tries.
    pub(super) tries: String,
    /// What deploying it is answered with.
    pub(super) deploy: String,
    /// What its mapping ends in: `done`, or what its entries of the failure store say.
    pub(super) end: Option<String>,
    /// How many entries there are.
    entries: usize,
    /// The function's counters at the end.
    counters: Option<String>,
    /// The function's settings, JSON.
    settings: String,
    /// Its mapping reads the stream of its own name.
    own_stream: bool,
    pub(super) wasm: fn(&Self) -> Vec<u8>,
    text: String,
}

impl Module {
    /// A module that is refused.
    pub(super) fn refused(
        name: &str,
        tries: &str,
        deploy: &str,
        wasm: fn(&Self) -> Vec<u8>,
    ) -> Self {
        Self {
            name: name.into(),
            tries: tries.into(),
            deploy: deploy.into(),
            end: None,
            entries: 0,
            counters: None,
            settings: "{}".into(),
            own_stream: false,
            wasm,
            text: String::new(),
        }
    }

    /// A module that is deployed, and whose mapping gives up what it reads with this cause.
    pub(super) fn gives_up(name: &str, tries: &str, end: &str, wasm: fn(&Self) -> Vec<u8>) -> Self {
        Self {
            end: Some(end.into()),
            entries: 1,
            ..Self::refused(name, tries, "200", wasm)
        }
    }

    /// From the text of a file of the corpus.
    fn read(name: &str, text: &str) -> Self {
        let mut module = Self::refused(name, "", "200", from_text);
        module.end = Some("done".into());
        let mut mode = 2;
        for line in text.lines().map_while(|line| line.strip_prefix(";;")) {
            let (word, rest) = line.split_once(':').unwrap_or_else(|| {
                panic!("{name}: {line}: WORD: TEXT expected");
            });
            let rest = rest.trim();
            match word.trim() {
                "tries" => module.tries = rest.into(),
                "mode" => {
                    mode = match rest {
                        "record" => 1,
                        "batch" => 2,
                        "event" => 4,
                        other => panic!("{name}: {other}: record, batch or event expected"),
                    }
                }
                "settings" => module.settings = rest.into(),
                "deploy" => (module.deploy, module.end) = (rest.into(), None),
                "end" => (module.end, module.entries) = (Some(rest.into()), 1),
                "entries" => module.entries = rest.parse().unwrap(),
                "counters" => module.counters = Some(rest.into()),
                "stream" => module.own_stream = rest == "own",
                other => panic!("{name}: {other}: nobody knows what that is"),
            }
        }
        if module.end.as_deref() == Some("done") {
            module.entries = 0;
        }
        assert!(
            !module.tries.is_empty(),
            "{name}: it must say what it tries"
        );
        module.text = if text.contains("\n(module") || text.contains("\n(component") {
            text.into()
        } else {
            completed(text, mode)
        };
        module
    }
}

fn from_text(module: &Module) -> Vec<u8> {
    wat::parse_str(&module.text).unwrap_or_else(|e| panic!("{}: {e}", module.name))
}

/// What is left out of most files: imports, a memory, the exports. The handler calls `$attack`
/// unless the batch is empty, as in the dry run of a deploy.
fn completed(text: &str, mode: u8) -> String {
    let unless = |there: &str, or: &str| {
        if text.contains(there) {
            String::new()
        } else {
            or.to_owned()
        }
    };
    let prepare = unless(
        "\"shardmill_prepare\"",
        "(func (export \"shardmill_prepare\") (param i32) (result i32) (i32.const 0x10000))",
    );
    let abi = unless(
        "\"shardmill_abi_v1\"",
        &format!("(func (export \"shardmill_abi_v1\") (result i32) (i32.const {mode}))"),
    );
    let memory = unless("(memory (export", "(memory (export \"memory\") 32)");
    let handle = unless(
        "\"shardmill_handle\"",
        "(func (export \"shardmill_handle\") (param $ptr i32) (param $len i32) (result i64)
            (if (i32.eqz (i32.load offset=12 (local.get $ptr))) (then (return (i64.const 0x0000000800000010))))
            (call $attack (local.get $ptr) (local.get $len)))",
    );
    format!(
        r#"(module
        (import "shardmill" "progress" (func $progress (param i32) (result i32)))
        (import "shardmill" "counter_add" (func $counter (param i32 i32 i64) (result i32)))
        (import "shardmill" "state_get" (func $get (param i32 i32 i32 i32) (result i64)))
        (import "shardmill" "state_set" (func $set (param i32 i32 i32 i32) (result i32)))
        (import "shardmill" "state_delete" (func $delete (param i32 i32) (result i32)))
        (import "shardmill" "emit" (func $emit (param i32 i32 i32 i32 i32 i32) (result i32)))
        (import "shardmill" "log" (func $log (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        {memory}
        (data (i32.const 8) "SMA1\01\00\00\00\00\00\00\00\00\00\00\00")
        {abi} {prepare} {handle}
        (func $must (param $is i32) (param $be i32)
            (if (i32.ne (local.get $is) (local.get $be)) (then unreachable)))
        {text})"#
    )
}

/// All modules, by name.
pub(super) fn all() -> Vec<Module> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/hostile"));
    let mut modules = bombs::all();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "wat") {
            let name = path.file_stem().unwrap().to_str().unwrap();
            modules.push(Module::read(name, &std::fs::read_to_string(&path).unwrap()));
        }
    }
    modules.sort_by(|a, b| a.name.cmp(&b.name));
    modules
}

/// Tries each of them.
pub(super) async fn run(site: &Site) -> Complaints {
    site.stream(ATTACKER, "bait", 1).await;
    bait(site, "bait").await;
    let tried = futures_util::stream::iter(all())
        .map(|module| async move {
            let told = attack(site, &module).await;
            (module, told)
        })
        .buffer_unordered(AT_A_TIME);
    let mut complaints = Complaints::default();
    let tried: Vec<_> = tried.collect().await;
    for (module, told) in tried {
        for (expected, outcome) in told {
            complaints.expect(&module.name, &expected, &outcome);
        }
    }
    complaints
}

async fn bait(site: &Site, stream: &str) {
    let record = |n| (format!("key-{n}"), format!("bait {n}"));
    let records: Vec<_> = (0..RECORDS).map(record).collect();
    let put = site.put(ATTACKER, stream, &records).await;
    assert_eq!(put.told(), "200", "{stream}");
}

/// What must come of a module, beside what came of it.
async fn attack(site: &Site, module: &Module) -> Vec<(String, String)> {
    let name = &module.name;
    let settings = super::sign::escaped(&module.settings);
    let wasm = (module.wasm)(module);
    let path = format!("functions/{name}?settings={settings}");
    let deployed = site.native(ATTACKER, "PUT", &path, wasm).await;
    let mut told = vec![(module.deploy.clone(), deployed.told())];
    let (Some(end), 200) = (&module.end, deployed.status) else {
        return told;
    };
    let stream = if module.own_stream { name } else { "bait" };
    if module.own_stream {
        site.stream(ATTACKER, name, 1).await;
        bait(site, name).await;
    }
    site.map(ATTACKER, name, stream, name).await;
    let view = site.drained(ATTACKER, name).await;
    let failures = site.failures(ATTACKER, name).await;
    told.push((
        format!("{} entries", module.entries),
        format!("{} entries", failures.len()),
    ));
    told.extend(failures.iter().map(|entry| (end.clone(), cause(entry))));
    for entry in &failures {
        let path = format!("failures/{}", entry["id"].as_str().unwrap());
        let shown = site.native(ATTACKER, "GET", &path, "").await;
        told.push(("200".into(), shown.told()));
    }
    if !module.own_stream {
        let given_up: u64 = failures
            .iter()
            .map(|e| e["records"].as_u64().unwrap())
            .sum();
        let done = RECORDS - given_up;
        let counted = format!("{} records done", view["processed"]);
        told.push((format!("{done} records done"), counted));
    }
    if let Some(counters) = &module.counters {
        told.push((counters.clone(), site.counters(ATTACKER, name).await));
    }
    let path = format!("mappings/{name}");
    let gone = site.native(ATTACKER, "DELETE", &path, "").await;
    told.push(("200".into(), gone.told()));
    told
}

fn cause(entry: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let frames = entry["cause"]["frames"].as_array().map_or(0, Vec::len);
    let size = entry.to_string().len();
    if frames > 40 || size > MOST_OF_AN_ENTRY {
        return format!("an entry of {frames} frames and {size} bytes, without its records");
    }
    if entry["reason"] == json!("RetryAttemptsExhausted") {
        text(&entry["message"])
    } else {
        format!("{}: {}", text(&entry["reason"]), text(&entry["message"]))
    }
}
