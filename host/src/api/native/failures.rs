//! The failure store: entries, their records, and redrives.

use serde_json::{Value, json};

use super::error::Error;
use super::request::Call;
use super::state::data;
use super::{Answer, ok};
use crate::mapping::{FailureEntry, FailureFilter};

/// Records that are shown of an entry unless the caller says otherwise.
const SHOWN_RECORDS: usize = 100;

/// Entries, newest first.
pub(super) fn list(call: &Call<'_>) -> Result<Answer, Error> {
    let filter = FailureFilter {
        mapping: call.parameter("mapping").map(Into::into),
        function: call.parameter("function").map(Into::into),
        redriven: call.parameter("redriven") == Some("true"),
        limit: call.number("limit", 0)?,
    };
    let entries = call.workloads()?.failures.list(&call.scope, &filter)?;
    let views = entries.iter().map(view).collect::<Result<Vec<_>, _>>()?;
    ok(&json!({ "failures": views }))
}

/// One entry with its records.
pub(super) async fn get(call: &Call<'_>, id: &str) -> Result<Answer, Error> {
    let failures = &call.workloads()?.failures;
    let shown = call.number("records", SHOWN_RECORDS)?;
    let mut view = view(&failures.get(&call.scope, id)?)?;
    let batch = failures.payload(&call.scope, id).await?;
    let mut payload: Vec<Value> = Vec::new();
    for record in batch.iter().take(shown) {
        let view = json!({
            "partition_key": record.parts.key,
            "sequence_number": record.sequence_number(),
            "arrival": record.arrival,
        });
        payload.push(data(view, record.parts.data));
    }
    view["payload"] = payload.into();
    ok(&view)
}

/// Runs an entry's records through the function as it is now.
pub(super) async fn redrive(call: &Call<'_>, id: &str) -> Result<Answer, Error> {
    ok(&call.workloads()?.failures.redrive(&call.scope, id).await?)
}

/// The entry, with its cause in words.
fn view(entry: &FailureEntry) -> Result<Value, Error> {
    let mut view = serde_json::to_value(entry).map_err(|e| Error::internal(&e))?;
    view["message"] = entry.cause.as_ref().map(ToString::to_string).into();
    Ok(view)
}
