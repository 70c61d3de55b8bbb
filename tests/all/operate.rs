//! Watching mappings and trying changes on them, against the real host.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::host::{Host, guest};

/// A host with a mapping `m` of this many shards that runs the handler `poison`.
async fn host(shards: u32, enabled: bool) -> Host {
    let manifest = format!(
        r#"
[[stream]]
name = "in"
shards = {shards}

[[function]]
name = "f"
wasm = "{}"

[[mapping]]
name = "m"
stream = "in"
function = "f"
batch_size = 20
starting_position = "TRIM_HORIZON"
enabled = {enabled}
"#,
        guest("poison").display()
    );
    let host = Host::with(&[], Some(&manifest));
    host.active("in").await;
    host
}

async fn put(host: &Host, records: impl Iterator<Item = (String, String)>) {
    let records: Vec<Value> = records
        .map(|(key, data)| {
            let data = base64_simd::STANDARD.encode_to_string(data);
            json!({"PartitionKey": key, "Data": data})
        })
        .collect();
    for records in records.chunks(500) {
        let input = json!({"StreamName": "in", "Records": records});
        let put = host.kinesis("PutRecords", input).await.unwrap();
        assert_eq!(put["FailedRecordCount"], 0);
    }
}

/// The text of the metrics.
fn metrics(host: &Host) -> String {
    let address = host.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let request =
        format!("GET /_shardmill/metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

#[tokio::test]
async fn a_dry_run_tells_what_would_be_and_changes_nothing() {
    let host = host(2, false).await;
    let data = |i: usize| match i % 50 {
        7 => "panic".to_owned(),
        9 => "not json".to_owned(),
        n if n % 2 == 0 => "count even".to_owned(),
        _ => "state n".to_owned(),
    };
    put(&host, (0..300).map(|i| (format!("k{}", i % 9), data(i)))).await;
    let trace = |host: &Host| {
        let shards = host.mapping("m")["shards"].clone();
        let lows: Vec<Value> = shards
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["low"].clone())
            .collect();
        (lows, host.counters("f"), host.failures().len())
    };
    let before = trace(&host);

    let pattern = r#"{"partitionKey": ["k1", "k2"]}"#;
    let tried = host.json(&["mappings", "dry-run", "m", "--filter", pattern]);
    assert_eq!(
        (&tried["done"], &tried["records"]),
        (&json!(true), &json!(300))
    );
    assert_eq!(tried["filter"]["matched"], 68, "{tried}");
    assert_eq!(tried["filter"]["not_matched"], 232);
    let field = &tried["filter"]["not_matching"][0]["filters"][0]["mismatches"][0];
    assert_eq!(field["path"], "partitionKey");

    let batch = guest("poison-batch").display().to_string();
    let tried = host.json(&["mappings", "dry-run", "m", "--with", &batch]);
    let (current, new) = (&tried["current"], &tried["new"]);
    assert_ne!(current["digest"], new["digest"]);
    for version in [current, new] {
        // 6 records panic, 6 are no command.
        assert_eq!(
            (&version["records"], &version["failed_records"]),
            (&json!(300), &json!(12))
        );
        assert!(version["fuel"].as_u64().unwrap() > 0);
        assert_eq!(version["causes"].as_array().unwrap().len(), 2, "{version}");
    }
    let differences = &tried["differences"];
    assert_eq!(
        (&differences["fail_now"], &differences["mended"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(differences["counters"], json!([]), "both count the same");
    assert_eq!(differences["state"], 0);

    let shown = host
        .cli(&[
            "mappings", "dry-run", "m", "--with", &batch, "--limit", "40",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(
        text.starts_with("40 records looked at; nothing was moved or kept"),
        "{text}"
    );
    let refused = host
        .cli(&["mappings", "dry-run", "m", "--filter", "{\"data\": 3}"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(trace(&host), before, "nothing was moved or kept");
}

#[tokio::test]
async fn top_prints_the_table_once_at_eighty_columns() {
    let host = host(2, true).await;
    put(&host, (0..100).map(|i| (format!("k{i}"), "ok".to_owned()))).await;
    host.drained("m").await;
    let output = host.cli(&["top", "--once", "--shards"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2 + 1 + 2, "{text}");
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    assert!(lines[2].starts_with("m "), "{text}");
    assert!(lines[2].contains("enabled"), "{text}");
    let refused = host.cli(&["top"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "there is no terminal");
}

#[tokio::test]
async fn a_thousand_shards_do_not_make_a_scrape_slow() {
    let host = host(1000, false).await;
    put(
        &host,
        (0..3_000).map(|i| (format!("k{i}"), "ok".to_owned())),
    )
    .await;
    let first = Instant::now();
    metrics(&host);
    let (first, again) = (first.elapsed(), Instant::now());
    let text = metrics(&host);
    let again = again.elapsed();
    eprintln!(
        "scrape of 1000 shards: {first:?}, then {again:?}, {} bytes",
        text.len()
    );
    // An unoptimised build on a busy machine; a release build takes a small part of it.
    assert!(again < Duration::from_secs(5), "{again:?}");
    let sum = |name: &str| -> u64 {
        let lines = text
            .lines()
            .filter(|l| l.starts_with(&format!("shardmill_{name}{{")));
        let values = lines.map(|l| l.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
        values.sum()
    };
    assert_eq!(
        sum("records_behind"),
        3_000,
        "a mapping that is disabled is behind, too"
    );
    let bytes: usize = (0..3_000).map(|i| format!("k{i}ok").len()).sum();
    assert_eq!(sum("bytes_behind"), bytes as u64);
    let ages = text
        .lines()
        .filter(|l| l.starts_with("shardmill_iterator_age_milliseconds{"));
    assert_eq!(ages.count(), 1000);
}
