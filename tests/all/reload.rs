//! Hot reload: what happens to a file while records flow, and what is seen of it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::host::{Host, until};

const MANIFEST: &str = r#"
[[stream]]
name = "in"
shards = 2

[[function]]
name = "f"
wasm = "f.wasm"

[[mapping]]
name = "m"
stream = "in"
function = "f"
parallelization_factor = 2
"#;

/// A record-mode handler of one version: each record that is done adds one to a counter named for
/// it. `body` is what it does before.
pub(crate) fn module(version: u32, body: &str) -> Vec<u8> {
    let name = format!("v{version:03}");
    let text = format!(
        r#"(module
            (import "shardmill" "progress" (func $progress (param i32) (result i32)))
            (import "shardmill" "counter_add" (func $add (param i32 i32 i64) (result i32)))
            (memory (export "memory") 17)
            (data (i32.const 16) "SMA1\01\00\00\00\00\00\00\00\00\00\00\00")
            (data (i32.const 64) "{name}")
            (func (export "shardmill_abi_v1") (result i32) (i32.const 1))
            (func (export "shardmill_prepare") (param i32) (result i32) (i32.const 65536))
            (func (export "shardmill_handle") (param $ptr i32) (param $len i32) (result i64)
                (local $i i32)
                {body}
                (block $done (loop $each
                    (br_if $done (i32.ge_u (local.get $i) (i32.load offset=12 (local.get $ptr))))
                    (drop (call $progress (local.get $i)))
                    (drop (call $add (i32.const 64) (i32.const 4) (i64.const 1)))
                    (local.set $i (i32.add (local.get $i) (i32.const 1)))
                    (br $each)))
                (i64.const 0x0000001000000010)))"#
    );
    wat::parse_str(text).unwrap()
}

fn replace(file: &Path, wasm: &[u8]) {
    let new = file.with_extension("new");
    fs::write(&new, wasm).unwrap();
    fs::rename(&new, file).unwrap();
}

struct Reloading {
    host: Host,
    file: PathBuf,
    put: i64,
}

impl Reloading {
    fn start() -> Self {
        // Not beside the data and the log: their changes are no business of the watcher's.
        let folder = tempfile::tempdir().unwrap().keep();
        let file = folder.join("f.wasm");
        fs::write(&file, module(1, "")).unwrap();
        let manifest = MANIFEST.replace("f.wasm", &file.display().to_string());
        Self {
            host: Host::with(&[], Some(&manifest)),
            file,
            put: 0,
        }
    }

    async fn put(&mut self, count: usize) {
        let record = |n: usize| {
            let data = base64_simd::STANDARD.encode_to_string(b"record");
            json!({"PartitionKey": format!("k{n}"), "Data": data})
        };
        let records: Vec<Value> = (0..count).map(record).collect();
        let input = json!({"StreamName": "in", "Records": records});
        self.host.kinesis("PutRecords", input).await.unwrap();
        self.put += count as i64;
    }

    fn function(&self) -> Value {
        self.host.json(&["functions", "show", "f"])
    }

    /// Waits until the last deploy is known to have failed with these words.
    async fn failed(&self, why: &str) {
        until(why, async || {
            let reason = &self.function()["failed_deploy"]["reason"];
            reason.as_str().is_some_and(|reason| reason.contains(why))
        })
        .await;
    }

    async fn runs(&self, version: u32) {
        until("the version is there", async || {
            let function = self.function();
            function["version"] == version && function["failed_deploy"].is_null()
        })
        .await;
    }

    async fn all_done(&self) -> std::collections::BTreeMap<String, i64> {
        until("all are done", async || {
            self.host.counters("f").values().sum::<i64>() == self.put
        })
        .await;
        self.host.counters("f")
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        if let Some(folder) = self.file.parent() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

#[tokio::test]
async fn no_state_of_the_file_disturbs_the_running_version_and_each_says_why() {
    let mut here = Reloading::start();
    here.host.active("in").await;
    let file = here.file.clone();
    let good = module(2, "");
    let lacks = wat::parse_str(r#"(module (import "env" "nothing" (func)))"#).unwrap();
    type Spoil<'a> = &'a dyn Fn();
    let spoils: [(&str, Spoil<'_>); 6] = [
        ("not a usable WebAssembly module", &|| {
            fs::write(&file, &good[..good.len() / 2]).unwrap();
        }),
        ("read ", &|| fs::remove_file(&file).unwrap()),
        ("not a usable WebAssembly module", &|| {
            replace(&file, b"no module")
        }),
        ("import \"env\" \"nothing\" is not offered", &|| {
            replace(&file, &lacks)
        }),
        ("the dry run of an empty batch failed", &|| {
            replace(&file, &module(9, "unreachable"));
        }),
        ("not a usable WebAssembly module", &|| {
            fs::write(&file, b"").unwrap()
        }),
    ];
    for (why, spoil) in spoils {
        here.put(50).await;
        spoil();
        here.failed(why).await;
        here.put(50).await;
        let done = here.all_done().await;
        assert_eq!(done.keys().collect::<Vec<_>>(), ["v001"], "{why}");
        assert_eq!(here.function()["version"], 1);
        let log = fs::read_to_string(here.host.log()).unwrap();
        assert!(log.contains(why), "the log tells: {why}");
    }
    // A writer that pauses in the midst of the file.
    fs::write(&file, &good[..good.len() / 2]).unwrap();
    here.failed("not a usable").await;
    let mut writer = fs::File::options().append(true).open(&file).unwrap();
    std::io::Write::write_all(&mut writer, &good[good.len() / 2..]).unwrap();
    drop(writer);
    here.runs(2).await;
    here.put(50).await;
    let done = here.all_done().await;
    assert!(done.contains_key("v002"), "{done:?}");
    assert!(here.host.failures().is_empty());
}

#[tokio::test]
async fn reloads_while_records_flow_lose_none_and_repeat_none() {
    let mut here = Reloading::start();
    here.host.active("in").await;
    for version in 2..=12 {
        here.put(100).await;
        replace(&here.file, &module(version, ""));
        here.put(100).await;
        here.runs(version).await;
    }
    here.put(100).await;
    let done = here.all_done().await;
    assert!(done.len() > 2, "{done:?}");
    assert_eq!(done.keys().last().map(String::as_str), Some("v012"));
    let mapping = here.host.mapping("m");
    assert_eq!(
        (&mapping["errors"], &mapping["retried"]),
        (&json!(0), &json!(0))
    );
    for shard in mapping["shards"].as_array().unwrap() {
        let last = shard["versions"].as_array().unwrap().last().unwrap();
        assert_eq!(last["version"], "12");
        assert!(
            last["first_sequence_number"]
                .as_str()
                .unwrap()
                .starts_with("49")
        );
    }
    let log = fs::read_to_string(here.host.log()).unwrap();
    assert!(
        log.contains("a version begins"),
        "the log tells where each begins"
    );
}

#[tokio::test]
async fn versions_and_aliases_are_managed_from_the_command_line() {
    let here = Reloading::start();
    here.host.active("in").await;
    replace(&here.file, &module(2, ""));
    here.runs(2).await;
    let run = |arguments: &[&str]| {
        let output = here.host.cli(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), text + &errors)
    };
    let set = [
        "aliases",
        "set",
        "f:live",
        "--version",
        "1",
        "--weight",
        "2=0.25",
    ];
    let (good, text) = run(&set);
    assert!(
        good && text == "alias f:live set: version 1, version 2 takes 25 %\n",
        "{text}"
    );
    let listed = here.host.json(&["aliases", "list", "f"]);
    assert_eq!(listed["aliases"][0]["routing"], json!({"2": 0.25}));
    for (arguments, why) in [
        (
            &["functions", "delete", "f:1"][..],
            "named by alias \"live\"",
        ),
        (&["functions", "delete", "f:2"], "named by alias \"live\""),
        (&["functions", "delete", "f:7"], "has no version 7"),
        (
            &["aliases", "set", "f:live", "--version", "9"],
            "has no version 9",
        ),
        (
            &["aliases", "set", "f:live", "--weight", "2=1.5"],
            "0.0 to 1.0 expected",
        ),
        (
            &["aliases", "set", "f:7", "--version", "1"],
            "qualifier \"7\"",
        ),
        (&["invoke", "f:nobody"], "has no alias \"nobody\""),
    ] {
        let (good, text) = run(arguments);
        assert!(!good && text.contains(why), "{arguments:?}: {text}");
    }
    assert_eq!(
        here.host.json(&["invoke", "f:1", "--record", "x"])["version"],
        "1"
    );
    assert_eq!(
        here.host.json(&["invoke", "f", "--record", "x"])["version"],
        "2"
    );
    let wasm = here.file.with_extension("three");
    fs::write(&wasm, module(3, "")).unwrap();
    let wasm = wasm.display().to_string();
    let (_, text) = run(&["functions", "deploy", "f", &wasm, "--latest-only"]);
    assert_eq!(text, "function f deployed, version $LATEST\n");
    let (_, text) = run(&["functions", "publish", "f", "--description", "the third"]);
    assert_eq!(text, "function f published as version 3\n");
    let versions = here.host.json(&["functions", "versions", "f"]);
    assert_eq!(versions["versions"].as_array().unwrap().len(), 3);
    assert_eq!(versions["versions"][2]["description"], "the third");
    let (good, text) = run(&["mappings", "update", "m", "--set", "function=f:live"]);
    assert!(good, "{text}");
    assert_eq!(here.host.mapping("m")["function"], "f:live");
    assert!(run(&["aliases", "set", "f:live", "--version", "3"]).0);
    let (good, text) = run(&["functions", "delete", "f:1"]);
    assert!(good, "{text}");
    assert!(run(&["aliases", "delete", "f:live"]).0);
    assert_eq!(
        here.host.json(&["aliases", "list", "f"])["aliases"],
        json!([])
    );
}
