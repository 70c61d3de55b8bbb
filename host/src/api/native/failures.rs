//! The failure store: entries, their records, and what can be done with them.

mod replay;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as WordError, StrDeserializer};
use serde_json::{Value, json};
use shardmill_core::UnixMillis;
use shardmill_core::mapping::Reason;

use super::error::Error;
use super::request::Call;
use super::state::data;
use super::{Answer, answer, ok};
use crate::mapping::{FailureEntry, FailureFilter, Failures, Redriven};
use crate::timestamp;

pub(super) use replay::replay;

/// Records that are shown of an entry unless the caller says otherwise.
const SHOWN_RECORDS: usize = 100;
/// Entries of one page unless the caller says otherwise.
const DEFAULT_PAGE: usize = 100;
/// Entries of one page, at most.
const MAX_PAGE: usize = 1000;

/// Entries, newest first, page by page: `before` of the answer is the next call's parameter.
pub(super) fn list(call: &Call<'_>) -> Result<Answer, Error> {
    let failures = &call.workloads()?.failures;
    let limit = call.number("limit", DEFAULT_PAGE)?;
    if !(1..=MAX_PAGE).contains(&limit) {
        let message = format!("limit = {limit}: 1 to {MAX_PAGE} expected");
        return Err(Error::bad_request(message));
    }
    let before = call.parameter("before");
    let page = failures.list(&call.scope, &filter(call)?, before, limit)?;
    let views = page
        .entries
        .iter()
        .map(view)
        .collect::<Result<Vec<_>, _>>()?;
    let (used, allowed) = failures.used(&call.scope);
    ok(&json!({
        "failures": views,
        "before": page.before,
        "used_bytes": used,
        "allowed_bytes": allowed,
    }))
}

fn filter(call: &Call<'_>) -> Result<FailureFilter, Error> {
    let text = |name| call.parameter(name).map(Into::into);
    let redriven = match call.parameter("redriven") {
        None | Some("no" | "false") => Redriven::No,
        Some("also" | "true") => Redriven::Also,
        Some("only") => Redriven::Only,
        Some(other) => {
            let message = format!("redriven = {other:?}: no, also or only expected");
            return Err(Error::bad_request(message));
        }
    };
    Ok(FailureFilter {
        mapping: text("mapping"),
        function: text("function"),
        stream: text("stream"),
        shard: text("shard"),
        reason: call.parameter("reason").map(reason).transpose()?,
        cause: text("cause"),
        since: instant(call, "since")?,
        until: instant(call, "until")?,
        redriven,
        can_redrive: call.flag("can_redrive")?,
    })
}

fn reason(text: &str) -> Result<Reason, Error> {
    let word: StrDeserializer<'_, WordError> = text.into_deserializer();
    Reason::deserialize(word).map_err(|error| Error::bad_request(format!("reason: {error}")))
}

/// An instant: RFC 3339, milliseconds since 1970, or so long ago, as `90s`, `10m`, `2h`, `7d`.
fn instant(call: &Call<'_>, name: &str) -> Result<Option<UnixMillis>, Error> {
    let Some(text) = call.parameter(name) else {
        return Ok(None);
    };
    let now = call.host.clock.now();
    let found = timestamp::parse(text).or_else(|| timestamp::ago(text, now));
    let found = found.or_else(|| text.parse().ok().map(UnixMillis));
    found.map(Some).ok_or_else(|| {
        Error::bad_request(format!(
            "{name} = {text:?}: an instant as 2026-01-31T12:00:00Z, or so long ago as 90s, 10m, 2h or 7d, expected"
        ))
    })
}

/// One entry with its records.
pub(super) async fn get(call: &Call<'_>, id: &str) -> Result<Answer, Error> {
    let failures = &call.workloads()?.failures;
    let id = &failures.resolve(&call.scope, id)?;
    let shown = call.number("records", SHOWN_RECORDS)?;
    let entry = failures.get(&call.scope, id)?;
    let mut view = view(&entry)?;
    add_lines(failures, &entry, &mut view).await?;
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

/// Adds to each frame where it is in the source.
async fn add_lines(
    failures: &Failures,
    entry: &FailureEntry,
    view: &mut Value,
) -> Result<(), Error> {
    let lines = failures.lines(entry).await?;
    let frames = view["cause"]["frames"].as_array_mut();
    for (frame, lines) in frames.into_iter().flatten().zip(lines) {
        frame["lines"] = serde_json::to_value(lines).map_err(|e| Error::internal(&e))?;
    }
    Ok(())
}

/// Removes an entry with its records.
pub(super) async fn delete(call: &Call<'_>, id: &str) -> Result<Answer, Error> {
    let failures = &call.workloads()?.failures;
    let id = failures.resolve(&call.scope, id)?;
    failures.delete(&call.scope, &id).await?;
    ok(&json!({ "deleted": id }))
}

/// Runs an entry's records through the function as it is now, or puts them to their stream again.
pub(super) async fn redrive(call: &Call<'_>, id: &str) -> Result<Answer, Error> {
    let failures = &call.workloads()?.failures;
    let id = &failures.resolve(&call.scope, id)?;
    let outcome = match call.flag("to_stream")? {
        true => failures.to_stream(&call.scope, id).await?,
        false => failures.redrive(&call.scope, id).await?,
    };
    ok(&outcome)
}

/// An entry as a file.
pub(super) async fn export(call: &Call<'_>, id: &str) -> Result<Answer, Error> {
    let failures = &call.workloads()?.failures;
    let id = failures.resolve(&call.scope, id)?;
    let file = failures
        .export(
            &call.scope,
            &id,
            call.flag("module")?,
            call.flag("environment")?,
        )
        .await?;
    Ok(answer(
        hyper::StatusCode::OK,
        "application/octet-stream",
        file,
    ))
}

/// Adds the entry in an exported file.
pub(super) async fn import(call: &Call<'_>) -> Result<Answer, Error> {
    let failures = &call.workloads()?.failures;
    ok(&view(&failures.import(&call.scope, &call.body).await?)?)
}

/// The entry, with its cause in words.
fn view(entry: &FailureEntry) -> Result<Value, Error> {
    let mut view = serde_json::to_value(entry).map_err(|e| Error::internal(&e))?;
    view["message"] = entry.cause.as_ref().map(ToString::to_string).into();
    Ok(view)
}
