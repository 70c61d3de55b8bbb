//! The fuel ledger of a host that stops.

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
timeout_seconds = 20

[[mapping]]
name = "m"
stream = "in"
function = "f"
starting_position = "TRIM_HORIZON"
"#,
        guest("poison-event").display()
    )
}

/// Whether a note says that a batch is in flight (`host/src/mapping/in_flight.rs`).
fn is_in_flight(host: &Host) -> bool {
    let folder = host.folder().join("data/in-flight");
    let files = std::fs::read_dir(folder).into_iter().flatten();
    files
        .filter_map(|file| std::fs::read(file.unwrap().path()).ok())
        .any(|note| note.get(16..20).is_some_and(|running| running != [0; 4]))
}

/// What batches used while the host stopped was once lost on every clean stop.
#[tokio::test]
async fn a_clean_stop_writes_what_the_last_batch_used() {
    let mut host = Host::with(&[], Some(&manifest()));
    host.active("in").await;
    let data = base64_simd::STANDARD.encode_to_string("sleep 3000");
    let put = json!({"StreamName": "in", "PartitionKey": "k", "Data": data});
    host.kinesis("PutRecord", put).await.unwrap();
    until("the batch is in flight", async || is_in_flight(&host)).await;
    assert_eq!(host.terminate(), Some(0));
    host.restart();
    let usage = host.json(&["usage", "--days", "1"]);
    let rows = usage["usage"].as_array().unwrap();
    let row = rows.iter().find(|row| row["mapping"] == "m");
    let row = row.unwrap_or_else(|| panic!("no row of the mapping: {usage:#}"));
    let figure = |name: &str| row[name].as_u64().unwrap();
    assert_eq!(
        (figure("invocations"), figure("cancelled")),
        (1, 0),
        "{row:#}"
    );
    assert_eq!(figure("records"), 1, "{row:#}");
    assert!(figure("duration_us") > 2_900_000, "{row:#}");
    assert_eq!(row["account"], Value::from("000000000000"));
}
