//! What every answer of an API keeps to.

use serde_json::Value as Json;
use shardmill::fuzzing::Reply;

/// Bytes that an answer may have beside what it repeats of its request.
const ANSWER_BYTES: usize = 1 << 20;

/// The answer as JSON; `Null` where it is empty. It is no failure of the host, and no larger than
/// some multiple of what was asked.
pub(crate) fn json(reply: &Reply, asked: usize) -> Json {
    let text = String::from_utf8_lossy(&reply.body);
    assert!(reply.status < 500, "{} {text}", reply.status);
    assert!(
        reply.body.len() <= ANSWER_BYTES + 16 * asked,
        "{} bytes for {asked}",
        reply.body.len()
    );
    if reply.body.is_empty() {
        return Json::Null;
    }
    serde_json::from_slice(&reply.body).expect("an answer is JSON")
}

/// A refusal in AWS's form says of which kind it is, and a refusal of values says why.
pub(crate) fn of_aws(reply: &Reply, asked: usize) -> Json {
    let json = json(reply, asked);
    if reply.status != 200 {
        let kind = json["__type"].as_str().unwrap_or_default();
        assert!(!kind.is_empty(), "{json}");
        let silent = ["SerializationException", "UnknownOperationException"];
        let told = json["message"].as_str().unwrap_or_default();
        assert!(!told.is_empty() || silent.contains(&kind), "{json}");
    }
    json
}
