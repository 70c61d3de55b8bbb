//! A version beside a mapping's own, on the real host: from the command line to the report.

use std::fs;

use serde_json::{Value, json};

use crate::host::{Host, until};
use crate::reload::module;

async fn put(host: &Host, count: usize) {
    let data = base64_simd::STANDARD.encode_to_string(b"record");
    let record = |n: usize| json!({"PartitionKey": format!("k{n}"), "Data": data});
    let records: Vec<Value> = (0..count).map(record).collect();
    let input = json!({"StreamName": "in", "Records": records});
    host.kinesis("PutRecords", input).await.unwrap();
}

fn number(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or_else(|| panic!("{key} of {of}"))
}

/// The report, when nothing waits for the shadow any more and some batches were compared.
async fn settled(host: &Host) -> Value {
    host.drained("m").await;
    let report = || host.json(&["mappings", "shadow", "m"]);
    until("all is compared or dropped", async || {
        let report = report();
        let dropped = report["dropped"].as_object().unwrap().values();
        let dropped: u64 = dropped.map(|n| n.as_u64().unwrap()).sum();
        let compared = number(&report, "compared");
        compared > 0 && number(&report, "shown") == compared + dropped
    })
    .await;
    report()
}

fn fails(host: &Host, arguments: &[&str]) -> String {
    let output = host.cli(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_version_is_tried_beside_another_and_leaves_only_its_report() {
    let host = Host::start();
    host.json(&["streams", "create", "in", "--shards", "2"]);
    host.active("in").await;
    // Not on the empty batch that a deploy tries.
    let spins = "(if (i32.load offset=12 (local.get $ptr)) (then (loop $for_ever (br $for_ever))))";
    for (version, body) in [(1, ""), (2, ""), (3, spins)] {
        let file = host.folder().join("f.wasm");
        fs::write(&file, module(version, body)).unwrap();
        host.json(&["functions", "deploy", "f", &file.display().to_string()]);
    }
    host.json(&[
        "mappings",
        "create",
        "m",
        "--stream",
        "in",
        "--function",
        "f:1",
        "--set",
        "shadow=:2",
    ]);
    put(&host, 40).await;
    let report = settled(&host).await;
    let compared = number(&report, "compared");
    assert_eq!(number(&report, "different"), compared, "{report:#}");
    assert_eq!(report["kinds"]["counters"], compared, "{report:#}");
    assert_eq!(report["function"], "f:2");
    assert!(number(&report["shadow"], "fuel") > 0);
    assert_eq!(report["fuel_ratio_p50"], 1.0, "the same but for a name");
    assert_eq!(host.counters("f"), [("v001".to_owned(), 40)].into());

    let shown = host.cli(&["mappings", "shadow", "m"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    for part in [
        "f:2 beside it",
        "different",
        "  counters shardId-",
        "v001 +",
        "→ v001 +0",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let described = host.json(&["mappings", "describe", "m"]);
    assert_eq!(described["policy"]["shadow"], ":2");
    assert_eq!(described["shadow"]["compared"], compared);

    host.json(&["mappings", "update", "m", "--set", "shadow=:3"]);
    put(&host, 40).await;
    let report = settled(&host).await;
    assert_eq!(report["function"], "f:3");
    assert_eq!(
        report["failed_only_in_shadow"], report["compared"],
        "{report:#}"
    );
    assert_eq!(host.counters("f"), [("v001".to_owned(), 80)].into());
    let described = host.json(&["mappings", "describe", "m"]);
    assert_eq!(
        (&described["errors"], &described["retried"]),
        (&json!(0), &json!(0))
    );
    assert!(host.failures().is_empty());

    let wrong = fails(&host, &["mappings", "update", "m", "--set", "shadow=:9"]);
    assert!(wrong.contains("has no version 9"), "{wrong}");
    host.json(&["mappings", "update", "m", "--set", "shadow="]);
    let none = fails(&host, &["mappings", "shadow", "m"]);
    assert!(none.contains("has no shadow"), "{none}");
    let alone = fails(
        &host,
        &["mappings", "update", "m", "--set", "shadow_percent=5"],
    );
    assert!(alone.contains("shadow"), "{alone}");
}
