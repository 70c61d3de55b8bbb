//! What functions have used: `GET usage`, and the partition keys of one function.

use serde_json::json;
use shardmill_core::sandbox::Owner;

use super::error::Error;
use super::request::Call;
use super::{Answer, ok};

/// Days that are shown at the most: what the ledger keeps.
const MAX_DAYS: usize = 35;
/// Partition keys that are shown, unless it is said otherwise, and at the most.
const KEYS: usize = 20;
const MAX_KEYS: usize = 128;

/// The rows of the caller's account and region since `?days=` before today (UTC).
pub(super) fn list(call: &Call<'_>) -> Result<Answer, Error> {
    let days = call.number("days", 0)?;
    if days > MAX_DAYS {
        return Err(Error::bad_request(format!(
            "days = {days}: 0 to {MAX_DAYS} expected"
        )));
    }
    let entries = call
        .workloads()?
        .usage
        .since(Some(&call.scope), days as u64)?;
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            json!({
                "day": entry.day,
                "function": entry.function,
                "mapping": (!entry.mapping.is_empty()).then_some(&entry.mapping),
                "fuel": entry.row.fuel,
                "invocations": entry.row.invocations,
                "errors": entry.row.errors,
                "records": entry.row.records,
                "duration_us": entry.row.duration_us,
                "throttles": entry.row.throttles,
            })
        })
        .collect();
    ok(&json!({ "usage": rows }))
}

/// The partition keys of a function that burnt the most since the host started.
pub(super) fn keys(call: &Call<'_>, function: &str) -> Result<Answer, Error> {
    let count = call.number("top", KEYS)?;
    if !(1..=MAX_KEYS).contains(&count) {
        return Err(Error::bad_request(format!(
            "top = {count}: 1 to {MAX_KEYS} expected"
        )));
    }
    let workloads = call.workloads()?;
    workloads.functions.describe(&call.scope, function)?;
    let owner = Owner {
        scope: call.scope.clone(),
        function: function.into(),
    };
    let keys = workloads.usage.keys(&owner, count);
    let rows: Vec<_> = keys
        .into_iter()
        .map(|(key, fuel, doubt)| json!({ "partition_key": key, "fuel": fuel, "doubt": doubt }))
        .collect();
    ok(&json!({ "keys": rows }))
}
