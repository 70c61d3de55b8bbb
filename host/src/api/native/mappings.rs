//! Event source mappings: shown with their progress, made and changed with the manifest's words
//! and its defaults.

use serde::Deserialize;
use serde_json::{Value, json};
use shardmill_core::mapping::{Policy, StartingPosition};
use shardmill_core::stream::BadStreamName;

use super::error::Error;
use super::request::Call;
use super::{Answer, ok};
use crate::delivery::Destination;
use crate::manifest::{MappingTable, check_mapping, check_on_failure};
use crate::mapping::{
    CreateMapping, Mapping, MappingError, MappingView, Origin, RewindOptions, RewindTo,
    UpdateMapping,
};
use crate::timestamp;

/// All mappings.
pub(super) async fn list(call: &Call<'_>) -> Result<Answer, Error> {
    let mappings = &call.workloads()?.mappings;
    let mut views = Vec::new();
    for mapping in mappings.list(&call.scope)? {
        views.push(worded(&mappings.view(mapping).await?)?);
    }
    ok(&json!({ "mappings": views }))
}

/// One mapping.
pub(super) async fn get(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let mapping = call.workloads()?.mappings.get(&call.scope, name)?;
    shown(call, mapping).await
}

/// Makes a mapping, or changes what the body names of it; with `create`, only makes one.
pub(super) async fn put(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let table: MappingTable = call.json()?;
    if table.names_itself() {
        return Err(
            Error::bad_request("body: name, account and region are not for here")
                .hint("the path names the mapping, the signature the account and the region"),
        );
    }
    let mapping = match call.workloads()?.mappings.get(&call.scope, name) {
        Ok(before) if call.flag("create")? => {
            return Err(MappingError::Exists(before.name).into());
        }
        Ok(before) => update(call, before, table).await?,
        Err(MappingError::NotFound(_)) => create(call, name, table).await?,
        Err(error) => return Err(error.into()),
    };
    shown(call, mapping).await
}

async fn update(call: &Call<'_>, before: Mapping, table: MappingTable) -> Result<Mapping, Error> {
    let (policy, position) = check_mapping(&table, before.policy.clone(), "body")?;
    let moved = table
        .stream
        .as_ref()
        .is_some_and(|s| s != before.stream.as_str());
    if moved || position.is_some_and(|p| p != before.starting_position) {
        let what = "a mapping's stream and starting position stay as they were made";
        return Err(Error::bad_request(what).hint("delete the mapping, or make another one"));
    }
    let on_failure = on_failure(call, &table)?;
    let policy = (policy != before.policy).then_some(policy);
    let change = UpdateMapping {
        function: table.function,
        policy,
        enabled: table.enabled,
        on_failure,
    };
    Ok(call
        .workloads()?
        .mappings
        .update(&call.scope, &before.name, change)
        .await?)
}

async fn create(call: &Call<'_>, name: &str, table: MappingTable) -> Result<Mapping, Error> {
    let (policy, position) = check_mapping(&table, Policy::manifest(), "body")?;
    let on_failure = on_failure(call, &table)?.flatten();
    let missing = |key| Error::bad_request(format!("body: {key} is missing"));
    let stream = table.stream.ok_or_else(|| missing("stream"))?;
    let request = CreateMapping {
        name: Some(name.to_owned()),
        stream: stream
            .parse()
            .map_err(|e: BadStreamName| Error::bad_request(e))?,
        function: table.function.ok_or_else(|| missing("function"))?,
        starting_position: position.unwrap_or(StartingPosition::TrimHorizon),
        policy,
        enabled: table.enabled.unwrap_or(true),
        origin: Origin::Api,
        on_failure,
    };
    Ok(call
        .workloads()?
        .mappings
        .create(&call.scope, request)
        .await?)
}

/// The destination that a caller names, if callers may.
fn on_failure(call: &Call<'_>, table: &MappingTable) -> Result<Option<Option<Destination>>, Error> {
    let named = check_on_failure(table, "body")?;
    if let Some(Some(destination)) = &named {
        let delivery = call.workloads()?.mappings.delivery();
        delivery.check_caller(destination)?;
    }
    Ok(named)
}

/// Deletes a mapping.
pub(super) async fn delete(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let mapping = call.workloads()?.mappings.delete(&call.scope, name).await?;
    ok(&json!({ "name": mapping.name, "id": mapping.id }))
}

/// Stops a mapping when its running batches have ended.
pub(super) async fn pause(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let mapping = enable(call, name, Some(false)).await?;
    shown(call, mapping).await
}

/// Lets a paused mapping and its paused shards go on.
pub(super) async fn resume(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let mappings = &call.workloads()?.mappings;
    mappings.resume(&call.scope, name).await?;
    let mut mapping = mappings.get(&call.scope, name)?;
    if !mapping.enabled {
        mapping = enable(call, name, Some(true)).await?;
    }
    shown(call, mapping).await
}

/// The parked keys of a mapping.
pub(super) fn parked(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let keys = call.workloads()?.mappings.parked(&call.scope, name)?;
    ok(&json!({ "keys": keys }))
}

/// How a mapping's shadow compares.
pub(super) fn shadow(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    ok(&call.workloads()?.mappings.shadow(&call.scope, name)?)
}

/// Which key is let go on.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unpark {
    /// All of them without one.
    key: Option<String>,
}

/// Lets parked keys go on.
pub(super) async fn unpark(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let Unpark { key } = call.json()?;
    let mappings = &call.workloads()?.mappings;
    let keys = mappings.unpark(&call.scope, name, key.as_deref()).await?;
    ok(&json!({ "keys": keys }))
}

/// Where cursors are moved to. Exactly one place.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rewind {
    /// `TRIM_HORIZON` or `LATEST`.
    position: Option<String>,
    /// RFC 3339.
    timestamp: Option<String>,
    sequence_number: Option<String>,
    #[serde(default)]
    reset_state: bool,
    #[serde(default)]
    drop_parked: bool,
}

/// A place in a stream, in one of three ways.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) position: Option<&'a str>,
    pub(super) timestamp: Option<&'a str>,
    pub(super) sequence_number: Option<&'a str>,
}

/// The place that is named in exactly one way.
pub(super) fn place(place: Place<'_>) -> Result<RewindTo, Error> {
    Ok(
        match (place.position, place.timestamp, place.sequence_number) {
            (Some("TRIM_HORIZON"), None, None) => RewindTo::TrimHorizon,
            (Some("LATEST"), None, None) => RewindTo::Latest,
            (Some(other), None, None) => {
                let message = format!("position {other:?}: TRIM_HORIZON or LATEST expected");
                return Err(Error::bad_request(message));
            }
            (None, Some(text), None) => {
                let bad = || format!("timestamp {text:?}: a time as 2026-01-31T12:00:00Z expected");
                let at = timestamp::parse(text);
                RewindTo::Time(at.ok_or_else(|| Error::bad_request(bad()))?)
            }
            (None, None, Some(text)) => {
                let bad = || format!("sequence_number {text:?}: a decimal number expected");
                let number = text.parse().map_err(|_| Error::bad_request(bad()))?;
                RewindTo::Sequence(number)
            }
            _ => {
                let message = "one of position, timestamp and sequence_number expected";
                return Err(Error::bad_request(message));
            }
        },
    )
}

/// Moves the cursors of a mapping.
pub(super) async fn rewind(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let body: Rewind = call.json()?;
    let to = place(Place {
        position: body.position.as_deref(),
        timestamp: body.timestamp.as_deref(),
        sequence_number: body.sequence_number.as_deref(),
    })?;
    let options = RewindOptions {
        reset_state: body.reset_state,
        drop_parked: body.drop_parked,
    };
    let mappings = &call.workloads()?.mappings;
    let shards = mappings.rewind(&call.scope, name, to, options).await?;
    let shards: Vec<String> = shards.iter().map(ToString::to_string).collect();
    ok(&json!({ "name": name, "shards": shards }))
}

async fn enable(call: &Call<'_>, name: &str, enabled: Option<bool>) -> Result<Mapping, Error> {
    let change = UpdateMapping {
        enabled,
        ..UpdateMapping::default()
    };
    Ok(call
        .workloads()?
        .mappings
        .update(&call.scope, name, change)
        .await?)
}

async fn shown(call: &Call<'_>, mapping: Mapping) -> Result<Answer, Error> {
    let view = call.workloads()?.mappings.view(mapping).await?;
    ok(&worded(&view)?)
}

/// The view with its settings in the words in which they are given.
fn worded(view: &MappingView) -> Result<Value, Error> {
    let Mapping {
        policy,
        starting_position,
        ..
    } = &view.mapping;
    let endless = |number: Option<u64>| number.map_or(json!(-1), Into::into);
    let mut value = serde_json::to_value(view).map_err(|e| Error::internal(&e))?;
    value["policy"] = json!({
        "batch_size": policy.batch_size,
        "batching_window_seconds": policy.batching_window.as_secs(),
        "maximum_retry_attempts": endless(policy.maximum_retry_attempts.map(Into::into)),
        "maximum_record_age_seconds": endless(policy.maximum_record_age.map(|age| age.as_secs())),
        "bisect_batch_on_function_error": policy.bisect_batch_on_function_error,
        "report_batch_item_failures": policy.report_batch_item_failures,
        "on_exhausted": policy.on_exhausted,
        "parallelization_factor": policy.parallelization_factor,
        "tumbling_window_seconds": policy.tumbling_window.as_secs(),
        "filters": policy.filter_criteria,
        "deaggregate": policy.deaggregate,
        "circuit_breaker": policy.circuit_breaker,
        "max_parked_keys": policy.max_parked_keys,
        "max_parked_mib": policy.max_parked_bytes >> 20,
        "roll_back_failure_percent": policy.roll_back_failure_percent,
        "roll_back_batches": policy.roll_back_batches,
        "shadow": policy.shadow.as_ref().map(|shadow| &shadow.function),
        "shadow_percent": policy.shadow.as_ref().map(|shadow| shadow.percent),
        "shadow_fuel_per_second": policy.shadow.as_ref().map(|shadow| shadow.fuel_per_second),
    });
    value["function"] = view.mapping.named().to_string().into();
    value["starting_position"] = match starting_position {
        StartingPosition::TrimHorizon => "TRIM_HORIZON",
        StartingPosition::Latest => "LATEST",
        StartingPosition::AtTimestamp(_) => "AT_TIMESTAMP",
    }
    .into();
    if let StartingPosition::AtTimestamp(at) = starting_position {
        value["starting_position_timestamp"] = timestamp::format(*at).into();
    }
    Ok(value)
}
