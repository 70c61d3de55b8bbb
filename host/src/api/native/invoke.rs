//! One invocation by hand: what the handler answered, wrote and used. Its effects are told, not
//! kept.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use shardmill_core::block::Placement;
use shardmill_core::effects::Effects;
use shardmill_core::limits::MAX_BATCH_SIZE;
use shardmill_core::outcome::Outcome;
use shardmill_core::sandbox::{Input, LogLevel, LogLine, Report};
use shardmill_core::{Batch, Block, Records, ShardId, Slice, UnixMillis};
use uuid::Uuid;

use super::error::Error;
use super::request::Call;
use super::{Answer, ok};
use crate::functions::{FunctionError, FunctionRef};

/// Lambda's event of a Kinesis batch, as far as it matters here.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "Records", default)]
    records: Vec<EventRecord>,
}

#[derive(Deserialize)]
struct EventRecord {
    kinesis: KinesisRecord,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KinesisRecord {
    partition_key: String,
    data: String,
}

/// Runs a function, or one of its versions, on the body: an event, or for a handler of records Lambda's event of them.
pub(super) async fn invoke(call: &Call<'_>, name: &str) -> Result<Answer, Error> {
    let functions = &call.workloads()?.functions;
    let named: FunctionRef = name.parse().map_err(FunctionError::from)?;
    let request_id = Uuid::new_v4().to_string();
    let loaded = functions.choose(&call.scope, &named, &request_id).await?;
    let takes_json = loaded.carrier().takes_json();
    let body = if call.body.is_empty() {
        Bytes::from_static(b"{}")
    } else {
        call.body.clone()
    };
    let input = if takes_json {
        let event: Value = serde_json::from_slice(&body).map_err(|e| Error::json("event", &e))?;
        let count = event["Records"].as_array().map_or(0, Vec::len);
        Input::Event { json: body, count }
    } else {
        Input::Records(batch(&body, call.host.clock.now())?)
    };
    let report = functions.invoke(&loaded, input, request_id.clone()).await;
    let mut shown = view(&report, &request_id);
    shown["version"] = loaded.function.label().into();
    ok(&shown)
}

fn batch(event: &[u8], now: UnixMillis) -> Result<Batch, Error> {
    let explain = |error: Error| {
        error.hint(
            "this handler takes records: \
             {\"Records\": [{\"kinesis\": {\"partitionKey\": \"k\", \"data\": \"BASE64\"}}]}",
        )
    };
    let event: Event =
        serde_json::from_slice(event).map_err(|e| explain(Error::json("event", &e)))?;
    let (count, most) = (event.records.len(), MAX_BATCH_SIZE as usize);
    if count > most {
        let what = format!("event: {count} records: at most {most} expected");
        return Err(Error::bad_request(what));
    }
    let mut records = Records::default();
    for EventRecord { kinesis } in &event.records {
        let data = base64_simd::STANDARD.decode_to_vec(&kinesis.data);
        let data = data.map_err(|_| explain(Error::bad_request("event: data is not base64")))?;
        if kinesis.partition_key.len() > usize::from(u16::MAX) {
            return Err(Error::bad_request(
                "event: a partition key above 65535 bytes",
            ));
        }
        records.push(&kinesis.partition_key, None, &data);
    }
    let count = records.count() as u32;
    let (index, blob) = records.into_parts();
    let placement = Placement {
        shard: ShardId(0),
        created_seconds: now.seconds(),
        first: 1,
        arrival: now,
    };
    let block = Block::new(placement, index.into(), blob.into());
    let block = block.map_err(|error| Error::internal(&error))?;
    Ok(Batch::new([Slice {
        block,
        from: 0,
        to: count,
    }]))
}

/// A report for people and scripts.
pub(super) fn view(report: &Report, request_id: &str) -> Value {
    let usage = &report.usage;
    let (outcome, response) = outcome(&report.outcome);
    let mut view = json!({
        "request_id": request_id,
        "outcome": outcome,
        "response": response,
        "fuel_used": usage.fuel,
        "fuel_allowed": usage.fuel_allowed,
        "memory_bytes": usage.memory_bytes,
        "duration_micros": usage.duration.as_micros() as u64,
        "logs": report.log.iter().map(log).collect::<Vec<_>>(),
        "output_cut_bytes": report.output_cut_bytes,
        "stderr_tail": report.stderr_tail,
        "effects": effects(&report.effects),
    });
    match &report.outcome {
        Outcome::Failed(failure) => {
            view["message"] = failure.cause.to_string().into();
            view["record"] = failure.record.into();
            view["failure"] = serde_json::to_value(&failure.cause).unwrap_or_default();
        }
        Outcome::Throttled { reason } => view["message"] = reason.as_str().into(),
        Outcome::Partial { failed, .. } => view["failed_records"] = failed.as_slice().into(),
        Outcome::Ok { .. } | Outcome::Json { .. } => {}
    }
    view
}

/// A word for the outcome, and the response: JSON where it is JSON, otherwise its text.
fn outcome(outcome: &Outcome) -> (&'static str, Value) {
    let response = |text: &str| {
        serde_json::from_str(text).unwrap_or_else(|_| match text {
            "" => Value::Null,
            text => text.into(),
        })
    };
    match outcome {
        Outcome::Ok { text } | Outcome::Json { text } => ("ok", response(text)),
        Outcome::Partial { text, .. } => ("partial", response(text)),
        Outcome::Failed(_) => ("failed", Value::Null),
        Outcome::Throttled { .. } => ("throttled", Value::Null),
    }
}

fn log(line: &LogLine) -> Value {
    let level = match line.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    json!({ "level": level, "text": line.text })
}

fn effects(effects: &Effects) -> Value {
    let mut counters = BTreeMap::<&str, i64>::new();
    for (_, add) in &effects.counters {
        let sum = counters.entry(&add.name).or_default();
        *sum = sum.wrapping_add(add.amount);
    }
    let (writes, emits) = (effects.state.len(), effects.emits.len());
    json!({ "counters": counters, "state_writes": writes, "emits": emits })
}
