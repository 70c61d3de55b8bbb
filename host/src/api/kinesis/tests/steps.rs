//! The scenarios about shards of `tests/golden/kinesis/conformance-cases.json`, step by step, as
//! they are written there. The clock is paused, so that UPDATING is seen and waited for.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::{ACCOUNT, Local, at, text};
use crate::services::Settings;

const CASES: &str = include_str!("../../../../../tests/golden/kinesis/conformance-cases.json");

#[tokio::test(start_paused = true)]
async fn shards_are_split_merged_and_counted_as_aws_does_it() {
    let document: Json = serde_json::from_str(CASES).expect("the cases are JSON");
    for id in ["split", "merge", "update-shard-count-2-4-2"] {
        let scenarios = document["scenarios"].as_array().expect("scenarios");
        let scenario = scenarios.iter().find(|scenario| scenario["id"] == id);
        let host = Local::start(Settings::default()).await;
        let mut kept = BTreeMap::new();
        let steps = scenario.expect(id)["steps"].as_array().expect("steps");
        for (number, step) in steps.iter().enumerate() {
            run(&host, step, &mut kept, &format!("{id}, step {number}")).await;
        }
    }
}

async fn run(host: &Local, step: &Json, kept: &mut BTreeMap<String, Json>, name: &str) {
    if let Some(stream) = step["create"].as_str() {
        let shards = step["shards"].as_u64().expect("shards");
        return host.stream(stream, shards as u32).await;
    }
    if step.get("waitActive").is_some() {
        return tokio::time::sleep(host.services.settings.stream_creation_time).await;
    }
    let mut input = step["input"].clone();
    for (_, value) in input.as_object_mut().expect("an input") {
        let captured = value
            .as_str()
            .and_then(|v| v.strip_prefix("${")?.strip_suffix('}'));
        if let Some(captured) = captured.and_then(|captured| kept.get(captured)) {
            *value = captured.clone();
        }
    }
    let want = &step["expect"];
    let told = match host.call(&text(&step["op"]), input).await {
        Ok(told) => {
            assert_eq!(want["status"], 200, "{name}: {told}");
            told
        }
        Err(error) => {
            let told = error.told();
            assert_eq!(want["status"], told.status, "{name}: {error}");
            assert_eq!(want["type"], told.kind, "{name}: {error}");
            if let Some(message) = want["message"].as_str() {
                let message = message.replace("{account}", ACCOUNT);
                assert_eq!(told.message, Some(message), "{name}");
            }
            return;
        }
    };
    if want["rawBody"] == json!("") {
        assert_eq!(told, Json::Null, "{name}");
    }
    for (path, value) in want["paths"].as_object().into_iter().flatten() {
        assert_eq!(at(&told, path), Some(value), "{name}: {path}");
    }
    for (path, length) in want["lengths"].as_object().into_iter().flatten() {
        let found = at(&told, path).and_then(Json::as_array).map(Vec::len);
        assert_eq!(json!(found), *length, "{name}: {path}");
    }
    for path in want["has"].as_array().into_iter().flatten() {
        assert!(at(&told, &text(path)).is_some(), "{name}: {path}");
    }
    for path in want["absentPaths"].as_array().into_iter().flatten() {
        assert_eq!(at(&told, &text(path)), None, "{name}: {path}");
    }
    for (key, path) in want["capture"].as_object().into_iter().flatten() {
        let value = at(&told, &text(path)).expect(name);
        kept.insert(key.clone(), value.clone());
    }
}
