//! On-failure destinations of a real host: a poison record ends in a queue and in a folder, and a
//! killed host loses neither what was reported nor what was not yet.

use serde_json::{Value, json};

use crate::host::{Host, guest, until};

/// A mapping that gives a record up at its first failure and reports it to `destination`.
fn manifest(destination: &str) -> String {
    format!(
        r#"
[[stream]]
name = "in"
shards = 1

[[function]]
name = "f"
wasm = "{}"

[[queue]]
name = "dead-letters"
visibility_timeout_seconds = 0

[[mapping]]
name = "m"
stream = "in"
function = "f"
maximum_retry_attempts = 0
on_failure = "{destination}"
"#,
        guest("poison").display()
    )
}

async fn put(host: &Host, data: &str) {
    let data = base64_simd::STANDARD.encode_to_string(data);
    let record = json!({"StreamName": "in", "PartitionKey": "k", "Data": data});
    host.kinesis("PutRecord", record).await.unwrap();
}

const QUEUE: &str = "arn:aws:sqs:us-east-1:000000000000:dead-letters";

async fn received(host: &Host) -> Vec<Value> {
    let url = json!({"QueueName": "dead-letters"});
    let url = host.client().sqs("GetQueueUrl", url).await.unwrap();
    let input = json!({
        "QueueUrl": url["QueueUrl"],
        "MaxNumberOfMessages": 10,
        "MessageAttributeNames": ["All"],
    });
    let answer = host.client().sqs("ReceiveMessage", input).await.unwrap();
    answer["Messages"].as_array().cloned().unwrap_or_default()
}

#[tokio::test]
async fn what_is_given_up_is_in_the_queue_once_also_after_a_kill() {
    let mut host = Host::with(&[], Some(&manifest(QUEUE)));
    host.active("in").await;
    put(&host, "ok").await;
    put(&host, "fail").await;
    until("the message is there", async || {
        !received(&host).await.is_empty()
    })
    .await;
    host.kill();
    host.restart();
    let messages = received(&host).await;
    assert_eq!(messages.len(), 1, "{messages:#?}");
    let failures = host.failures();
    assert_eq!(failures.len(), 1, "the failure store has it, too");
    let id = &messages[0]["MessageAttributes"]["x-shardmill-delivery-id"]["StringValue"];
    assert_eq!(id, &failures[0]["id"]);
    let document: Value = serde_json::from_str(messages[0]["Body"].as_str().unwrap()).unwrap();
    assert_eq!(
        document["requestContext"]["condition"],
        "RetryAttemptsExhausted"
    );
    assert_eq!(document["responseContext"]["functionError"], "Unhandled");
    assert_eq!(document["KinesisBatchInfo"]["batchSize"], 1);
    assert_eq!(
        document["KinesisBatchInfo"]["startSequenceNumber"],
        failures[0]["first_sequence_number"]
    );
}

#[tokio::test]
async fn a_destination_that_is_away_holds_up_no_record_and_is_told_after_a_restart() {
    // Nobody listens on port 9.
    let mut host = Host::with(&[], Some(&manifest("http://127.0.0.1:9/hook")));
    host.active("in").await;
    put(&host, "fail").await;
    put(&host, "ok").await;
    host.drained("m").await;
    until("it was tried", async || {
        !host.mapping("m")["delivery_problem"].is_null()
    })
    .await;
    host.kill();
    host.restart();
    let mapping = host.mapping("m");
    assert_eq!(mapping["deliveries_pending"], 1, "{mapping:#}");
    let listed = host.json(&["deliveries"]);
    assert_eq!(listed["deliveries"][0]["state"], "pending", "{listed:#}");
    assert_eq!(listed["deliveries"][0]["id"], host.failures()[0]["id"]);
    // What is given up from now on goes to the folder; what waits keeps its destination.
    let folder = host.folder().join("given-up");
    let destination = format!("file://{}", folder.display());
    let path = host.folder().join("shardmill.toml");
    std::fs::write(path, manifest(&destination)).unwrap();
    until("the mapping has changed", async || {
        host.mapping("m")["on_failure"] == destination
    })
    .await;
    // The poller takes a change of its mapping over a moment later.
    until("the object is there", async || {
        put(&host, "fail").await;
        folder.join("aws/lambda").is_dir()
    })
    .await;
    let id = listed["deliveries"][0]["id"].as_str().unwrap();
    let shown = host.json(&["deliveries", "show", &id[..30]]);
    assert_eq!(shown["document"]["version"], "1.0", "{shown:#}");
    let dead = "http://127.0.0.1:9/hook";
    let retried = host.json(&["deliveries", "retry", "--destination", dead]);
    assert_eq!(retried["retried"][0], id);
    until("it tells what holds it up", async || {
        !host.json(&["deliveries"])["deliveries"][0]["problem"].is_null()
    })
    .await;
    let dropped = host.json(&["deliveries", "drop", "--mapping", "m"]);
    assert_eq!(dropped["dropped"][0], id);
    let left = host.json(&["deliveries"]);
    let left = left["deliveries"].as_array().unwrap();
    assert!(left.iter().all(|delivery| delivery["id"] != id));
}

#[tokio::test]
async fn a_destination_is_changed_and_removed_by_hand_and_a_missing_queue_is_refused() {
    let host = Host::with(&[], Some(&manifest(QUEUE)));
    let put = |destination: &str| {
        let setting = format!("on_failure={destination}");
        let arguments = ["mappings", "update", "m", "--set", &setting];
        host.cli(&arguments).output().unwrap()
    };
    assert_eq!(host.mapping("m")["on_failure"], QUEUE);
    let own_data = format!("file://{}", host.folder().join("data/x").display());
    assert!(put("s3://given-up/m").status.success());
    assert_eq!(host.mapping("m")["on_failure"], "s3://given-up/m");
    assert!(put("").status.success());
    assert!(host.mapping("m")["on_failure"].is_null());
    for (destination, why) in [
        ("arn:aws:sqs:us-east-1:000000000000:none", "make it first"),
        ("arn:aws:sqs:us-east-1:123456789012:q", "000000000000 only"),
        ("arn:aws:sns:us-east-1:000000000000:t", "topics"),
        (own_data.as_str(), "own data"),
    ] {
        let refused = put(destination);
        let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success(), "{destination}");
        assert!(errors.contains(why), "{destination}: {errors}");
    }
}
