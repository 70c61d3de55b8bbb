//! What functions have used: `GET usage`, and the partition keys of one function. An operator can
//! ask for all accounts.

use serde_json::json;
use shardmill_core::sandbox::Owner;

use super::error::Error;
use super::request::Call;
use super::{Answer, ok};
use crate::usage::{KEPT_DAYS, MAX_KEYS, SHOWN_KEYS, SinceError};

/// The rows of the caller's account and region since `?days=` before today (UTC); with
/// `?all=true` those of all accounts and regions, which is for operators.
pub(super) async fn list(call: &Call<'_>) -> Result<Answer, Error> {
    let days = call.number("days", 0)? as u64;
    if days > KEPT_DAYS {
        return Err(Error::bad_request(format!(
            "days = {days}: 0 to {KEPT_DAYS} expected"
        )));
    }
    let scope = match call.flag("all")? {
        true => {
            call.operators_only()?;
            None
        }
        false => Some(&call.scope),
    };
    let entries = call.workloads()?.usage.since(scope, days).await;
    let entries = entries.map_err(|error| match error {
        SinceError::Read(error) => error.into(),
        SinceError::TooMany => Error::bad_request(error),
    })?;
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            json!({
                "account": entry.scope.tenant,
                "region": entry.scope.region,
                "day": entry.day,
                "function": entry.function,
                "mapping": (!entry.mapping.is_empty()).then_some(&entry.mapping),
                "fuel": entry.row.fuel,
                "invocations": entry.row.invocations,
                "cancelled": entry.row.cancelled,
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
    let count = call.number("top", SHOWN_KEYS)?;
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
