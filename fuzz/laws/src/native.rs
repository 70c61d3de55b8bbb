//! The native API. `METHOD path \n body 0xff METHOD path \n body 0xff …`

use serde_json::Value as Json;
use shardmill::fuzzing::{Host, Reply, Way};

use crate::input::Input;
use crate::reply;

const MAX_REQUESTS: usize = 8;

/// No request makes the host fail, and a refusal says why. A mapping is shown as it was made and
/// with the settings that were given, and what is shown of its settings makes the same mapping again.
pub fn check(data: &[u8]) {
    let host = ready();
    let mut input = Input(data);
    for _ in 0..MAX_REQUESTS {
        if input.is_empty() {
            break;
        }
        let mut request = Input(input.until(0xff));
        let line = String::from_utf8_lossy(request.until(b'\n')).into_owned();
        let (method, path) = line.split_once(' ').unwrap_or((&line, ""));
        let reply = host.native(method, path, request.0);
        let (bare, _) = path.split_once('?').unwrap_or((path, ""));
        // Metrics are text, an exported failure is a file.
        if reply.status == 200 && (bare == "metrics" || bare.ends_with("/export")) {
            assert!(bare != "metrics" || std::str::from_utf8(&reply.body).is_ok());
            continue;
        }
        let json = judged(&reply, line.len() + request.0.len());
        let name = path.strip_prefix("mappings/").filter(|n| plain(n));
        if let (200, "PUT", Some(name)) = (reply.status, method, name) {
            are_as_given(request.0, &json);
            settings_come_back(&host, name, &json);
        }
    }
}

/// A host with a stream and a function.
fn ready() -> Host {
    let host = Host::open();
    let made = host.kinesis(
        "CreateStream",
        br#"{"StreamName":"s","ShardCount":2}"#,
        Way::Any,
    );
    assert_eq!(made.status, 200);
    host.wait();
    let deployed = host.native("PUT", "functions/f", b"\0asm\x01\0\0\0");
    judged(&deployed, 0);
    assert_eq!(deployed.status, 200, "{deployed:?}");
    host
}

fn judged(reply: &Reply, asked: usize) -> Json {
    let json = reply::json(reply, asked);
    if reply.status != 200 {
        let told = json["error"]["message"].as_str().unwrap_or_default();
        let code = json["error"]["code"].as_str().unwrap_or_default();
        assert!(
            !told.is_empty() && !code.is_empty(),
            "{} {json}",
            reply.status
        );
    }
    json
}

fn plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// What a body gives is what is shown.
fn are_as_given(body: &[u8], made: &Json) {
    let Ok(Json::Object(given)) = serde_json::from_slice(body) else {
        return;
    };
    let shown = settings(made);
    for (name, value) in given {
        // An instant has several spellings.
        if name != "starting_position_timestamp" && !value.is_null() && shown[&name] != Json::Null {
            assert_eq!(shown[&name], value, "{name}");
        }
    }
}

fn settings_come_back(host: &Host, name: &str, made: &Json) {
    let path = format!("mappings/{name}");
    let shown = host.native("GET", &path, b"");
    assert_eq!(settings(&judged(&shown, 0)), settings(made));
    let body = settings(made).to_string();
    let again = host.native("PUT", &path, body.as_bytes());
    let json = judged(&again, body.len());
    assert_eq!(again.status, 200, "{body} is refused: {json}");
    assert_eq!(settings(&json), settings(made));
}

/// What of a mapping's view can be given.
fn settings(view: &Json) -> Json {
    let mut out = view["policy"].clone();
    for name in ["stream", "function", "enabled", "starting_position"] {
        if !view[name].is_null() {
            out[name] = view[name].clone();
        }
    }
    if let Some(at) = view.get("starting_position_timestamp") {
        out["starting_position_timestamp"] = at.clone();
    }
    out
}
