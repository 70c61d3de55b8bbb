//! Modules that cost more to compile than the host has, and modules that were compiled before.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::host::{Host, guest, until};

fn manifest() -> String {
    format!(
        r#"
[[stream]]
name = "in"
shards = 1

[[function]]
name = "f"
wasm = "{}"

[[mapping]]
name = "m"
stream = "in"
function = "f"
starting_position = "TRIM_HORIZON"
"#,
        guest("poison").display()
    )
}

async fn put(host: &Host, count: usize) {
    let data = base64_simd::STANDARD.encode_to_string("ok");
    let record = json!({"PartitionKey": "k", "Data": data});
    let records: Vec<Value> = vec![record; count];
    let input = json!({"StreamName": "in", "Records": records});
    host.kinesis("PutRecords", input).await.unwrap();
}

/// `n` in LEB128.
fn leb(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        if n == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A module of so many functions of nothing: 6 bytes each, and kilobytes to compile.
fn bomb(functions: usize) -> Vec<u8> {
    let section = |id: u8, content: &[u8]| {
        let mut section = vec![id];
        section.extend(leb(content.len()));
        section.extend(content);
        section
    };
    let repeated = |item: &[u8]| {
        let mut content = leb(functions);
        content.extend(item.repeat(functions));
        content
    };
    let mut wasm = b"\0asm\x01\0\0\0".to_vec();
    wasm.extend(section(1, b"\x01\x60\x00\x01\x7f"));
    wasm.extend(section(3, &repeated(b"\0")));
    wasm.extend(section(10, &repeated(b"\x04\0\x41\x01\x0b")));
    wasm
}

#[tokio::test]
async fn a_bomb_costs_the_host_an_error_and_nothing_else() {
    let host = Host::with(&[], Some(&manifest()));
    host.active("in").await;
    let wasm = host.folder().join("bomb.wasm");
    fs::write(&wasm, bomb(900_000)).unwrap();
    let mut deploy = host.cli(&["functions", "deploy", "f"]);
    let deploy = deploy.arg(&wasm).stderr(std::process::Stdio::piped());
    let deploy = deploy.spawn().unwrap();
    put(&host, 300).await;
    host.drained("m").await;
    let ended = deploy.wait_with_output().unwrap();
    let why = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{why}");
    assert!(why.contains("to compile: make it smaller"), "{why}");
    put(&host, 20).await;
    until("all are done", async || {
        host.counters("f").get("done") == Some(&320)
    })
    .await;
}

#[tokio::test]
async fn a_start_compiles_nothing_unless_the_disk_has_spoilt_what_was_compiled() {
    let mut host = Host::with(&[], Some(&manifest()));
    host.active("in").await;
    let artifact = artifact(&host);
    let written = |path: &PathBuf| fs::metadata(path).unwrap().ino();
    let first = written(&artifact);
    host.terminate();
    host.restart();
    put(&host, 1).await;
    until("it is done", async || {
        host.counters("f").get("done") == Some(&1)
    })
    .await;
    assert_eq!(written(&artifact), first, "it was not written again");
    host.terminate();
    let mut bytes = fs::read(&artifact).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&artifact, bytes).unwrap();
    host.restart();
    put(&host, 1).await;
    until("both are done", async || {
        host.counters("f").get("done") == Some(&2)
    })
    .await;
    assert_ne!(written(&artifact), first, "it was compiled again");
}

/// The one artifact of a host.
fn artifact(host: &Host) -> PathBuf {
    let engines = fs::read_dir(host.folder().join("data/artifacts")).unwrap();
    let [engine]: [PathBuf; 1] = engines
        .map(|e| e.unwrap().path())
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    let files = fs::read_dir(engine).unwrap().map(|e| e.unwrap().path());
    let mut artifacts = files.filter(|path| path.extension().is_none());
    artifacts.next().unwrap()
}

#[tokio::test]
async fn a_start_loads_no_module_before_a_record_needs_it() {
    let mut host = Host::with(&[], Some(&manifest()));
    host.active("in").await;
    put(&host, 1).await;
    until("it is done", async || {
        host.counters("f").get("done") == Some(&1)
    })
    .await;
    let artifact = artifact(&host);
    host.terminate();
    // Without the manifest, which would compare the module with its file.
    host.forget_manifest();
    let mut bytes = fs::read(&artifact).unwrap();
    bytes[0] ^= 1;
    fs::write(&artifact, &bytes).unwrap();
    host.restart();
    host.drained("m").await;
    assert_eq!(fs::read(&artifact).unwrap(), bytes, "nobody looked at it");
    put(&host, 1).await;
    until("both are done", async || {
        host.counters("f").get("done") == Some(&2)
    })
    .await;
    assert_ne!(fs::read(&artifact).unwrap(), bytes, "it was needed");
}
