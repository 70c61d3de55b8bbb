//! The clickstream handler on a real access log: exactly the figures that an independent count
//! over the same file gives, and the one broken line in the failure store.
//!
//! The log is not part of the project. It is looked for in `SHARDMILL_TEST_DATA`, else in
//! `../shared/data` beside the project.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::host::{Host, guest};

/// The line that no parser of the combined format accepts, counted from 1.
const BROKEN_LINE: usize = 8899;

struct Log {
    path: PathBuf,
    expected: Value,
}

/// The log and what it must come to; without them the test is skipped by name.
fn log(test: &str) -> Option<Log> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("SHARDMILL_TEST_DATA").map_or_else(beside, PathBuf::from);
    let path = folder.join("access.log");
    let Ok(expected) = std::fs::read_to_string(folder.join("access-expected.json")) else {
        let _ = writeln!(
            std::io::stdout(),
            "skipped: {test} (no access log in {}; set SHARDMILL_TEST_DATA)",
            folder.display()
        );
        return None;
    };
    Some(Log {
        path,
        expected: serde_json::from_str(&expected).unwrap(),
    })
}

fn manifest(batch_size: u32) -> String {
    format!(
        r#"
[[stream]]
name = "clicks"
shards = 4

[[function]]
name = "clickstream"
wasm = "{}"

[[mapping]]
name = "clicks"
stream = "clicks"
function = "clickstream"
batch_size = {batch_size}
starting_position = "TRIM_HORIZON"
"#,
        guest("clickstream").display()
    )
}

fn put(host: &Host, log: &Log) -> std::process::Child {
    let file = log.path.display().to_string();
    let mut put = host.cli(&["put", "clicks", &file, "--key-regex", r"^(\S+)"]);
    put.stdout(Stdio::null()).spawn().unwrap()
}

fn check(host: &Host, log: &Log) {
    let counters = host.counters("clickstream");
    let count = |name: &str| counters.get(name).copied().unwrap_or(0);
    let group = |prefix: &str| -> BTreeMap<String, i64> {
        let own = counters
            .iter()
            .filter_map(|(name, n)| Some((name.strip_prefix(prefix)?.to_owned(), *n)));
        own.collect()
    };
    let expected = &log.expected;
    let map = |name: &str| -> BTreeMap<String, i64> {
        let members = expected[name].as_object().unwrap();
        members
            .iter()
            .map(|(k, v)| (k.clone(), v.as_i64().unwrap()))
            .collect()
    };
    assert_eq!(count("hits"), expected["parsed"].as_i64().unwrap());
    assert_eq!(count("bytes"), expected["bytes_sent"].as_i64().unwrap());
    assert_eq!(
        count("clients"),
        expected["unique_clients"].as_i64().unwrap()
    );
    assert_eq!(
        count("sessions"),
        expected["sessions_30min_gap"].as_i64().unwrap()
    );
    assert_eq!(group("status:"), map("status"));
    assert_eq!(group("method:"), map("methods"));
    assert_eq!(group("day:"), map("hits_per_day_utc"));
    let mut pages: Vec<(String, i64)> = group("page:").into_iter().collect();
    pages.sort_by_key(|(page, n)| (std::cmp::Reverse(*n), page.clone()));
    let top = expected["top_pages_get_200"].as_array().unwrap();
    for (have, want) in pages.iter().zip(top) {
        assert_eq!(
            (have.0.as_str(), have.1),
            (want[0].as_str().unwrap(), want[1].as_i64().unwrap())
        );
    }
    let failures = host.failures();
    assert_eq!(failures.len(), 1, "{failures:#?}");
    assert_eq!(failures[0]["records"], 1);
    let id = failures[0]["id"].as_str().unwrap();
    let shown = host.json(&["failures", "show", id]).to_string();
    let text = std::fs::read_to_string(&log.path).unwrap();
    let broken = text.lines().nth(BROKEN_LINE - 1).unwrap();
    let quoted = serde_json::to_string(broken).unwrap();
    assert!(shown.contains(&quoted), "the line's text is shown: {shown}");
    assert!(
        shown.contains("MalformedRecord"),
        "the reason is shown: {shown}"
    );
}

#[tokio::test]
async fn the_access_log_gives_exactly_the_independent_counts() {
    let Some(log) = log("the_access_log_gives_exactly_the_independent_counts") else {
        return;
    };
    let host = Host::with(&[], Some(&manifest(500)));
    host.active("clicks").await;
    assert!(put(&host, &log).wait().unwrap().success());
    host.drained("clicks").await;
    check(&host, &log);
}

#[tokio::test]
async fn the_counts_hold_when_the_host_is_killed_three_times_on_the_way() {
    let Some(log) = log("the_counts_hold_when_the_host_is_killed_three_times_on_the_way") else {
        return;
    };
    // Small batches and a fixed port: the producer goes on against the restarted host.
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut host = Host::with(&["--listen", &listen], Some(&manifest(20)));
    host.active("clicks").await;
    let mut producer = put(&host, &log);
    for kill in 1..=3 {
        let aim = 2_000 * kill;
        let deadline = std::time::Duration::from_secs(60);
        let reached = async {
            while host
                .counters("clickstream")
                .get("hits")
                .copied()
                .unwrap_or(0)
                < aim
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(deadline, reached)
            .await
            .expect("records are counted between kills");
        host.restart();
    }
    assert!(producer.wait().unwrap().success());
    host.drained("clicks").await;
    check(&host, &log);
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
