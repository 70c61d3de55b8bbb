//! Counters and keyed state of a function.

use serde_json::{Value, json};
use shardmill_store::{Key, Table};

use super::error::Error;
use super::request::Call;
use super::{Answer, ok};

/// Values of one partition key that are shown.
const MAX_VALUES: usize = 1000;

/// The counters whose names begin with `prefix`, by name.
pub(super) fn counters(call: &Call<'_>, function: &str) -> Result<Answer, Error> {
    let prefix = call.parameter("prefix").unwrap_or_default();
    let mut counters = call.host.store.counters(&call.scope, function)?;
    if counters.is_empty() {
        call.workloads()?
            .functions
            .describe(&call.scope, function)?;
    }
    counters.retain(|(name, _)| name.starts_with(prefix));
    counters.sort();
    let view = |(name, value): &(String, i64)| json!({ "name": name, "value": value });
    ok(&json!({ "counters": counters.iter().map(view).collect::<Vec<_>>() }))
}

/// The values of keyed state that the function keeps for the partition key `key`.
pub(super) fn state(call: &Call<'_>, function: &str) -> Result<Answer, Error> {
    let key = call.parameter("key").ok_or_else(|| {
        Error::bad_request("no partition key").hint("?key= names the partition key")
    })?;
    let prefix = Key::new(Table::State, &call.scope).part(function).part(key);
    let stored = call.host.store.scan(&prefix, None, MAX_VALUES)?;
    if stored.is_empty() {
        call.workloads()?
            .functions
            .describe(&call.scope, function)?;
    }
    let mut values: Vec<Value> = Vec::new();
    for (key, stored) in &stored {
        let parts = key.split().map(|(_, parts)| parts).unwrap_or_default();
        let name = String::from_utf8_lossy(parts.last().copied().unwrap_or_default());
        values.push(data(
            json!({ "name": name, "revision": stored.revision }),
            &stored.value,
        ));
    }
    ok(&json!({ "state": values }))
}

/// Adds data to a view: base64, and text where it is UTF-8.
pub(super) fn data(mut view: Value, data: &[u8]) -> Value {
    view["data"] = base64_simd::STANDARD.encode_to_string(data).into();
    view["text"] = std::str::from_utf8(data).ok().into();
    view
}
