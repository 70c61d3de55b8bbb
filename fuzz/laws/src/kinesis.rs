//! Bodies of the Kinesis API, through all that reads and runs them.
//! `operation \n body 0xff operation \n body 0xff …`

use serde_json::Value as Json;
use shardmill::fuzzing::{Host, Way};

use crate::input::Input;
use crate::reply;

/// Requests of an input that count.
const MAX_REQUESTS: usize = 8;

/// No body makes the host fail, and a refusal says why. The fast way of reading puts says what the
/// careful one says. What was put is read back.
pub fn check(data: &[u8]) {
    let (host, careful) = (ready(), ready());
    let mut input = Input(data);
    for _ in 0..MAX_REQUESTS {
        if input.is_empty() {
            break;
        }
        let mut request = Input(input.until(0xff));
        let operation = String::from_utf8_lossy(request.until(b'\n')).into_owned();
        let body = request.0;
        let reply = host.kinesis(&operation, body, Way::Any);
        let other = careful.kinesis(&operation, body, Way::Careful);
        let json = reply::of_aws(&reply, body.len());
        assert_eq!(reply.status, other.status, "{operation} {json}");
        if operation.starts_with("PutRecord") {
            let shown = String::from_utf8_lossy(&other.body);
            assert_eq!(reply, other, "{operation}: {json}, carefully {shown}");
            if reply.status == 200 {
                read_back(&host, &operation, body, &json);
            }
        }
    }
}

/// A host with a stream of two shards.
fn ready() -> Host {
    let host = Host::open();
    let made = host.kinesis(
        "CreateStream",
        br#"{"StreamName":"s","ShardCount":2}"#,
        Way::Any,
    );
    assert_eq!(made.status, 200);
    host.wait();
    host
}

/// The records of a put that was taken, at the places that its answer names.
fn read_back(host: &Host, operation: &str, body: &[u8], answer: &Json) {
    let body: Json = serde_json::from_slice(body).expect("a body that was taken is JSON");
    let (given, placed): (Vec<&Json>, Vec<&Json>) = match operation {
        "PutRecord" => (vec![&body], vec![answer]),
        _ => (list(&body["Records"]), list(&answer["Records"])),
    };
    assert_eq!(given.len(), placed.len());
    for (given, placed) in given.iter().zip(&placed) {
        let stream = body["StreamName"].as_str().map(str::to_owned);
        let arn = body["StreamARN"].as_str().map(str::to_owned);
        let mut wanted = serde_json::json!({
            "ShardId": placed["ShardId"],
            "ShardIteratorType": "AT_SEQUENCE_NUMBER",
            "StartingSequenceNumber": placed["SequenceNumber"],
        });
        for (name, value) in [("StreamName", stream), ("StreamARN", arn)] {
            if let Some(value) = value {
                wanted[name] = value.into();
            }
        }
        let iterator = ok(host, "GetShardIterator", &wanted)["ShardIterator"].clone();
        let wanted = serde_json::json!({ "ShardIterator": iterator, "Limit": 1 });
        let record = ok(host, "GetRecords", &wanted)["Records"][0].clone();
        assert_eq!(record["SequenceNumber"], placed["SequenceNumber"]);
        assert_eq!(record["PartitionKey"], given["PartitionKey"]);
        assert_eq!(record["Data"], given["Data"], "{record}");
    }
}

fn ok(host: &Host, operation: &str, input: &Json) -> Json {
    let body = input.to_string();
    let reply = host.kinesis(operation, body.as_bytes(), Way::Any);
    let json = reply::of_aws(&reply, body.len());
    assert_eq!(reply.status, 200, "{operation} {input}: {json}");
    json
}

fn list(json: &Json) -> Vec<&Json> {
    json.as_array()
        .map(|items| items.iter().collect())
        .unwrap_or_default()
}
