//! Poison records against the real sandbox: what is lost, and how many invocations it costs.

use serde_json::json;

use crate::host::{Host, guest};

/// Runs 10,000 records of which number 6,000 is `poison`; returns the invocations.
async fn run(handler: &str, poison: &str) -> u64 {
    let manifest = format!(
        r#"
[[stream]]
name = "in"
shards = 1

[[function]]
name = "f"
wasm = "{}"
fuel = 20_000_000
fuel_per_record = 20_000

[[mapping]]
name = "m"
stream = "in"
function = "f"
batch_size = 10_000
starting_position = "TRIM_HORIZON"
enabled = false
"#,
        guest(handler).display()
    );
    let host = Host::with(&[], Some(&manifest));
    host.active("in").await;
    for call in 0..20 {
        let records: Vec<_> = (0..500)
            .map(|i| {
                let data = if call * 500 + i == 6_000 {
                    poison
                } else {
                    "ok"
                };
                json!({"PartitionKey": "k", "Data": base64_simd::STANDARD.encode_to_string(data)})
            })
            .collect();
        let put = host
            .kinesis(
                "PutRecords",
                json!({"StreamName": "in", "Records": records}),
            )
            .await
            .unwrap();
        assert_eq!(put["FailedRecordCount"], 0);
    }
    let resumed = host.cli(&["mappings", "resume", "m"]).output().unwrap();
    assert!(resumed.status.success(), "{resumed:?}");
    host.drained("m").await;
    assert_eq!(
        host.counters("f").get("done"),
        Some(&9_999),
        "{handler} {poison}: the others are done"
    );
    let failures = host.failures();
    assert_eq!(failures.len(), 1, "{handler} {poison}: {failures:#?}");
    assert_eq!(failures[0]["records"], 1, "{handler} {poison}");
    host.mapping("m")["invocations"].as_u64().unwrap()
}

#[tokio::test]
async fn a_poison_record_costs_its_attempts_and_little_more() {
    for (handler, poison, invocations) in [
        ("poison", "panic", 1 + 2 + 1),
        ("poison", "spin", 1 + 3 + 1),
        ("poison-batch", "panic", 3 + 3),
        ("poison-batch", "spin", 3 + 3),
        ("poison-event", "panic", 13 + 3 + 13),
    ] {
        assert_eq!(
            run(handler, poison).await,
            invocations,
            "{handler}, {poison}"
        );
    }
}
