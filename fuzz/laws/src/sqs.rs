//! Bodies of the SQS API. `operation \n body 0xff operation \n body 0xff …`

use md5::{Digest, Md5};
use serde_json::Value as Json;
use shardmill::fuzzing::Host;

use crate::input::Input;
use crate::reply;

const MAX_REQUESTS: usize = 8;

/// No body makes the host fail, and a refusal says why. A message that was sent without delay and
/// taken is received, with its text.
pub fn check(data: &[u8]) {
    let host = Host::open();
    assert_eq!(host.sqs("CreateQueue", br#"{"QueueName":"q"}"#).status, 200);
    let mut input = Input(data);
    for _ in 0..MAX_REQUESTS {
        if input.is_empty() {
            break;
        }
        let mut request = Input(input.until(0xff));
        let operation = String::from_utf8_lossy(request.until(b'\n')).into_owned();
        let body = request.0;
        let reply = host.sqs(&operation, body);
        let json = reply::of_aws(&reply, body.len());
        if operation == "SendMessage" && reply.status == 200 {
            let sent: Json = serde_json::from_slice(body).expect("JSON");
            let text = sent["MessageBody"].as_str().expect("a text");
            let digest = Md5::digest(text);
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(json["MD5OfMessageBody"], digest.as_str());
            if sent["DelaySeconds"].as_i64().unwrap_or(0) == 0 {
                received(&host, &sent["QueueUrl"], &json["MessageId"], text);
            }
        }
    }
}

/// Looks through a queue until the message comes.
fn received(host: &Host, url: &Json, id: &Json, text: &str) {
    let attributes = serde_json::json!({ "QueueUrl": url, "AttributeNames": ["All"] });
    let reply = host.sqs("GetQueueAttributes", attributes.to_string().as_bytes());
    let told = reply::of_aws(&reply, 0);
    if told["Attributes"]["DelaySeconds"] != "0" {
        return;
    }
    for _ in 0..MAX_REQUESTS {
        let wanted = serde_json::json!({
            "QueueUrl": url, "MaxNumberOfMessages": 10, "VisibilityTimeout": 0,
        });
        let reply = host.sqs("ReceiveMessage", wanted.to_string().as_bytes());
        let json = reply::of_aws(&reply, text.len());
        assert_eq!(reply.status, 200, "{json}");
        let messages = json["Messages"].as_array().cloned().unwrap_or_default();
        if let Some(message) = messages.iter().find(|m| m["MessageId"] == *id) {
            assert_eq!(message["Body"], text);
            return;
        }
    }
    panic!("message {id} is not received from {url}");
}
